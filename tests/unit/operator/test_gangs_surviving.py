"""Whatever fails and whenever the operator is killed: all of a gang runs in the end, or nothing of it.

At every moment what gangs have and are promised fits on the nodes. At the end there is no reservation without a gang
that is on its way, no gang that runs in part after its time, and nothing more to write.
"""

import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from neuron_operator import kube
from neuron_operator.gangs import names
from neuron_operator.kube import ApiError, Conflict

sys.path.insert(0, str(Path(__file__).parent))
from gangs_lab import Lab, plain_pod

BUSY = ApiError(429, "TooManyRequests", "later")
CONFLICT = Conflict(409, "Conflict", "the object has been modified")
BROKEN = ApiError(500, "InternalError", "etcd")
LATE = {names.ANNOTATION_TIMEOUT: "60s"}


def finish(lab):
    """Time goes by until every attempt is over, with an operator and an API server that work."""
    lab.lives = None
    lab.errors.clear()
    for node in lab.api.of(kube.NODES):
        lab.ready(node)
    for _ in range(5):
        lab.settle()
        lab.wait(62)
    lab.settle()


def check_the_end(lab):
    lab.check_promises()
    reserved = set()
    for key, item in lab.api.of(kube.GANGS).items():
        gang, status = key.partition("/")[2], item["status"]
        assert status["phase"] in ("Pending", "Bound"), status
        assert not status.get("remake")
        bound = len(lab.bound(gang))
        assert bound in (0, item["spec"]["size"]), f"{gang} runs in part: {status}"
        assert (status["phase"] == "Bound") == (bound > 0)
        reserved |= set(status.get("nodes") or ()) if status["phase"] == "Reserved" else set()
    assert lab.taints().keys() == reserved
    for node in lab.api.of(kube.NODES):
        chips = [
            (result["pool"], result["device"])
            for claim in lab.api.of(kube.CLAIMS).values()
            for result in claim["status"]["allocation"]["devices"]["results"]
            if result["pool"] == node
        ]
        assert len(chips) == len(set(chips))


def writes_of(lab, story):
    story(lab)
    finish(lab)
    return len(lab.api.writes)


def placed(lab):
    lab.workload("train", 4)


def bare_and_late(lab):
    lab.bare("train", 4, annotations=LATE)
    lab.deliver()
    if lab.step() is None:
        lab.deliver()
        lab.step()
    lab.schedule(limit=2)
    lab.wait(61)


def dying(lab):
    lab.bare("train", 2, annotations=LATE)
    lab.settle(others=False)
    lab.schedule(limit=1)
    record = lab.api.of(kube.GANGS).get("default/train", {})
    for node in set(record.get("status", {}).get("nodes") or ()) - set(lab.bound("train")):
        lab.not_ready(node)
    lab.settle()


def at_the_barrier(lab):
    lab.workload("train", 2, count=1, barrier=True)
    lab.settle()
    lab.workload("train", 2, barrier=True)


def stopped(lab):
    lab.workload("train", 4, count=2)
    lab.settle()
    lab.stop("train")


@pytest.mark.parametrize("story", [placed, bare_and_late, dying, at_the_barrier, stopped])
def test_killed_after_any_write_it_goes_on_from_there(new_cluster, story):
    whole = Lab(new_cluster())
    total = writes_of(whole, story)
    assert total > 5
    check_the_end(whole)
    for lives in range(total):
        lab = Lab(new_cluster())
        lab.lives = lives
        story(lab)
        finish(lab)
        check_the_end(lab)
        assert len(lab.pods("train")) == len(whole.pods("train")), f"killed after write {lives}"
        assert lab.bound("train") or story is stopped


@pytest.mark.parametrize("error", [BUSY, CONFLICT, BROKEN], ids=lambda error: str(error.status))
def test_any_write_may_be_refused(new_cluster, error):
    for refused in range(20):
        lab = Lab(new_cluster())
        lab.errors = [None] * refused + [error]
        bare_and_late(lab)
        finish(lab)
        check_the_end(lab)
        assert len(lab.bound("train")) == 4


@pytest.mark.parametrize("error", [BUSY, CONFLICT, BROKEN], ids=lambda error: str(error.status))
def test_nothing_is_left_of_a_workload_that_ended_whatever_was_refused(new_cluster, error):
    def ended(lab):
        stopped(lab)
        lab.settle()

    for refused in range(writes_of(Lab(new_cluster()), ended)):
        lab = Lab(new_cluster())
        lab.errors = [None] * refused + [error]
        ended(lab)
        finish(lab)
        assert not lab.api.of(kube.GANGS), f"write {refused} refused"


def test_a_write_that_always_fails_keeps_no_other_gang_waiting(new_cluster):
    lab = Lab(new_cluster(), ultraservers=2)
    lab.workload("first", 4)
    lab.control()
    lab.deliver()
    lab.errors = [BROKEN]
    lab.step()
    lab.workload("second", 4)
    lab.control()
    lab.deliver()
    lab.step()
    assert lab.phase("second") == "Reserved"
    lab.wait(1)
    lab.step()
    assert lab.phase("first") == "Reserved"


def test_what_is_promised_to_pods_that_are_on_their_way_is_promised_once(new_cluster):
    lab = Lab(new_cluster())
    for gang in ("first", "second"):
        lab.workload(gang, 4)
        lab.control()
        lab.settle(others=False)
    assert (lab.phase("first"), lab.phase("second")) == ("Reserved", "Pending")
    assert "gang default/first" in lab.said("second")


def test_a_pod_that_is_seen_bound_before_its_claim_is_seen_has_its_chips(new_cluster):
    lab = Lab(new_cluster())
    lab.workload("first", 4)
    lab.control()
    lab.settle(others=False)
    lab.schedule()
    lab.workload("second", 4)
    lab.control()
    lab.deliver(kube.PODS)
    lab.step()
    assert (lab.phase("first"), lab.phase("second")) == ("Bound", "Pending")
    lab.check_promises()


def test_claims_of_a_gang_that_is_gone_already_take_nothing_from_the_next_one(new_cluster):
    lab = Lab(new_cluster())
    lab.workload("first", 4)
    lab.control()
    lab.settle(others=False)
    lab.schedule()
    lab.deliver(kube.PODS)
    lab.step()
    lab.stop("first")
    lab.retire(claims=False)
    lab.workload("second", 4)
    lab.control()
    lab.deliver(kube.PODS)
    lab.step()
    assert lab.phase("second") == "Reserved"
    lab.deliver()
    lab.step()
    assert lab.phase("second") == "Reserved", lab.said("second")
    lab.settle()
    assert lab.phase("second") == "Bound"
    assert lab.record("second")["status"]["serial"] == 1


def test_claims_of_pods_that_are_through_take_nothing_from_the_next_one(new_cluster):
    lab = Lab(new_cluster())
    lab.bare("first", 4)
    lab.settle(others=False)
    lab.schedule()
    lab.deliver(kube.PODS)
    lab.step()
    for pod in lab.pods("first"):
        lab.api.put(kube.PODS, {**pod, "status": {"phase": "Succeeded"}})
    lab.deliver(kube.PODS)
    lab.workload("second", 4)
    lab.control()
    lab.deliver(kube.PODS)
    lab.step()
    assert lab.phase("second") == "Reserved"
    lab.deliver(kube.CLAIMS)
    lab.step()
    assert lab.phase("second") == "Reserved", lab.said("second")


@pytest.mark.parametrize("instance_type", ["trn2.48xlarge", "trn1.32xlarge"])
def test_a_pool_that_is_edited_under_a_gang_leaves_it_alone(new_cluster, instance_type):
    """It runs on, or goes on as it was promised; nothing is rolled back, and nobody else gets its chips."""
    lab = Lab(new_cluster(), ultraservers=2)
    lab.workload("runs", 4)
    lab.settle()
    nodes = sorted(lab.bound("runs"))
    lab.workload("promised", 4)
    lab.control()
    lab.deliver()
    lab.step()
    assert (lab.phase("runs"), lab.phase("promised")) == ("Bound", "Reserved")
    lab.edit_pool(instance_type)
    lab.settle()
    assert sorted(lab.bound("runs")) == nodes
    assert (lab.phase("runs"), lab.phase("promised")) == ("Bound", "Bound")
    assert {lab.record(gang)["status"]["serial"] for gang in ("runs", "promised")} == {1}
    lab.workload("late", 1, annotations={names.TOPOLOGY: "node"})
    lab.settle()
    assert lab.phase("late") == "Pending"
    lab.stop("runs")
    lab.settle()
    lab.wait(2)  # who was refused asks once a second at most
    lab.settle()
    assert lab.phase("late") == "Bound"
    lab.check_promises()


GANGS = st.sampled_from(["a", "b", "c"])
NODES = st.sampled_from(["n0-0", "n0-1", "n0-3", "n1-0"])
STEPS = st.one_of(
    st.tuples(st.just("workload"), GANGS, st.integers(1, 4), st.sampled_from([0, 4, 16]), st.integers(0, 4)),
    st.tuples(st.just("bare"), GANGS, st.integers(1, 3), st.sampled_from([8, 16])),
    st.tuples(st.just("all come")),
    st.tuples(st.just("stop"), GANGS),
    st.tuples(st.just("delete a pod"), GANGS),
    st.tuples(st.just("plain pod"), st.sampled_from([1, 16])),
    st.tuples(st.just("node dies"), NODES),
    st.tuples(st.just("node lives"), NODES),
    st.tuples(st.just("pool edited"), st.sampled_from(["trn2u.48xlarge", "trn2.48xlarge", "trn1.32xlarge"])),
    st.tuples(st.just("somebody deletes the NeuronGang"), GANGS),
    st.tuples(st.just("controllers")),
    st.tuples(st.just("scheduler"), st.integers(1, 3)),
    st.tuples(st.just("kubelets")),
    st.tuples(st.just("kubelets, claims stay a while")),
    st.tuples(st.just("time"), st.sampled_from([1, 7, 61])),
    st.tuples(st.just("watch"), st.sampled_from([(), (kube.PODS,), (kube.CLAIMS,), (kube.GANGS,), (kube.NODES,)])),
    st.tuples(st.just("operator")),
    st.tuples(st.just("all but the scheduler")),
    st.tuples(st.just("all but the scheduler")),
    st.tuples(st.just("operator killed"), st.integers(0, 9)),
    st.tuples(st.just("errors"), st.lists(st.sampled_from([None, None, BUSY, CONFLICT, BROKEN]), max_size=6)),
)


def take(lab, step, *, barrier=False):
    match step:
        case ("workload", gang, size, chips, count) if not lab.pods(gang) and gang not in lab.workloads:
            lab.workload(gang, size, chips=chips, count=min(size, count), annotations=LATE, barrier=barrier)
        case ("bare", gang, size, chips) if not lab.pods(gang) and gang not in lab.workloads:
            lab.bare(gang, size, chips=chips, annotations=LATE, barrier=barrier)
        case ("all come",):
            for gang, (wanted, pod) in lab.workloads.items():
                size = int(pod["metadata"]["labels"][names.LABEL_SIZE])
                lab.workloads[gang] = ([f"{gang}-{index}" for index in range(max(size, len(wanted)))], pod)
        case ("stop", gang):
            lab.stop(gang)
        case ("delete a pod", gang) if gang in lab.workloads and lab.pods(gang):
            lab.delete_pod(f"default/{lab.pods(gang)[0]['metadata']['name']}")
        case ("plain pod", chips):
            lab.put_pod(f"plain-{lab.sequence}", plain_pod(chips))
        case ("node dies", node):
            lab.not_ready(node)
        case ("node lives", node):
            lab.ready(node)
        case ("pool edited", instance_type):
            lab.edit_pool(instance_type)
        case ("somebody deletes the NeuronGang", gang) if f"default/{gang}" in lab.api.of(kube.GANGS):
            # what is only in it, bare pods on their way back, would go with it
            if not lab.record(gang).get("status", {}).get("remake"):
                lab.api.drop(kube.GANGS, f"default/{gang}")
        case ("controllers",):
            lab.control()
        case ("scheduler", limit):
            lab.schedule(limit=limit)
        case ("kubelets",):
            lab.retire()
        case ("kubelets, claims stay a while",):
            lab.retire(claims=False)
        case ("time", seconds):
            lab.wait(seconds)
        case ("watch", resources):
            lab.deliver(*resources)
        case ("operator",):
            lab.step()
        case ("all but the scheduler",):
            lab.control()
            lab.deliver()
            lab.step()
        case ("operator killed", lives):
            lab.lives = lives
            lab.step()
            lab.lives = None
        case ("errors", errors):
            lab.errors = list(errors)


@settings(deadline=None, max_examples=60)
@given(st.lists(STEPS, max_size=25), st.booleans())
def test_any_history_ends_with_whole_gangs_and_nothing_left_behind(new_cluster, history, barrier):
    lab = Lab(new_cluster(), ultraservers=2)
    for step in history:
        take(lab, step, barrier=barrier)
        if not any(step[0].startswith("somebody") for step in history):
            lab.check_promises()
    # who was told of too few pods makes them all, or none
    for gang in list(lab.workloads):
        take(lab, ("all come",))
        assert gang in lab.workloads
    finish(lab)
    check_the_end(lab)
    quiet = len(lab.api.writes)
    lab.settle()
    assert len(lab.api.writes) == quiet
