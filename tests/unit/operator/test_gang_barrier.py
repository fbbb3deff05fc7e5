"""The commit barrier: no pod of a gang is bound before all of them have their devices, and nobody else waits."""

import sys
from pathlib import Path

import pytest
from neuron_operator import kube, names
from neuron_operator.gangs import names as gang_names
from neuron_operator.kube import ApiError, Conflict

sys.path.insert(0, str(Path(__file__).parent))
from gangs_lab import Lab, barrier_result, plain_pod

COMPLETE, GIVEN_UP = {names.CONDITION_COMPLETE}, {names.CONDITION_GIVEN_UP}
SOON = {gang_names.ANNOTATION_TIMEOUT: "60s"}


@pytest.fixture
def lab(new_cluster):
    return Lab(new_cluster())


def claims(lab):
    return {key.partition("/")[2] for key in lab.api.of(kube.CLAIMS)}


def put_claim(lab, name, pods, **status):
    """A claim for the barrier alone, which pods share."""
    users = [{"resource": "pods", "name": each, "uid": uid} for each, uid in pods.items()]
    allocation = {"devices": {"results": [barrier_result()]}}
    body = {"status": {"allocation": allocation, "reservedFor": users, **status}, "spec": {}}
    lab.api.put(kube.CLAIMS, {"metadata": {"name": name, "namespace": "default"}, **body})


def uids(lab, gang):
    return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in lab.pods(gang)}


def test_nobody_is_bound_before_the_last_one_has_its_chips(lab):
    lab.workload("train", 4, count=3, barrier=True)
    lab.settle()
    assert len(claims(lab)) == 3, "the chips are theirs already"
    assert not lab.bound("train")
    assert not any(lab.answers(name) for name in claims(lab))
    lab.workload("train", 4, barrier=True)
    lab.settle()
    assert len(lab.bound("train")) == 4
    assert lab.phase("train") == "Bound"
    assert all(lab.answers(name) == COMPLETE for name in claims(lab))


def test_a_gang_that_is_rolled_back_is_given_up_at_the_barrier(lab):
    lab.workload("train", 4, count=3, barrier=True, annotations=SOON)
    lab.settle()
    waiting = claims(lab)
    lab.wait(61)
    lab.step()
    assert {frozenset(lab.answers(name)) for name in waiting} == {frozenset(GIVEN_UP)}
    lab.settle()
    assert not lab.bound("train")
    assert lab.phase("train") == "Pending"
    assert not lab.taints()


def test_who_is_in_no_gang_waits_for_nobody(lab):
    pod = plain_pod(1)
    pod["spec"]["containers"][0]["resources"]["requests"][names.GROUP + "/gang-barrier"] = "1"
    lab.put_pod("alone", pod)
    lab.schedule()
    lab.settle()
    assert lab.answers("alone-claim") == COMPLETE
    assert lab.api.of(kube.PODS)["default/alone"]["spec"]["nodeName"]


def test_a_pod_that_comes_again_waits_only_until_it_has_its_own_chips(lab):
    lab.workload("train", 4, barrier=True)
    lab.settle()
    lab.delete_pod("default/train-2")
    lab.settle()
    assert len(lab.bound("train")) == 4
    assert lab.phase("train") == "Bound"


def test_of_a_claim_that_several_share_the_slowest_decides(lab):
    lab.workload("train", 2, count=1, barrier=False)
    lab.settle()
    (first,) = uids(lab, "train").items()
    put_claim(lab, "shared", dict([first]))
    lab.settle()
    assert not lab.answers("shared")
    lab.workload("train", 2, barrier=False)
    lab.deliver()
    lab.control()
    lab.settle(others=False)
    put_claim(lab, "shared", uids(lab, "train"))
    lab.settle(others=False)
    assert not lab.answers("shared"), "the second one has no chips yet"
    lab.schedule()
    lab.settle(others=False)
    assert lab.answers("shared") == COMPLETE


def test_what_others_say_of_devices_of_the_claim_stays(lab):
    theirs = {
        "driver": names.AWS_DRIVER_NAME, "pool": "n0-0", "device": "neuron-device-0",
        "conditions": [{"type": "Ready", "status": "True"}],
    }  # fmt: skip
    put_claim(lab, "alone", {"alone": "uid-alone"}, devices=[theirs])
    lab.settle(others=False)
    entries = lab.api.of(kube.CLAIMS)["default/alone"]["status"]["devices"]
    assert entries[0] == theirs
    assert entries[1]["shareID"] == barrier_result()["shareID"]
    assert lab.answers("alone") == COMPLETE


def test_a_claim_of_pods_that_are_gone_is_left_alone(lab):
    lab.workload("train", 4, count=3, barrier=True)
    lab.settle()
    gone = {"train-9": uids(lab, "train")["train-1"]}
    lab.stop("train")
    lab.deliver()
    put_claim(lab, "left", gone)
    lab.settle(others=False)
    assert not lab.answers("left")


def test_turned_off_nobody_is_answered(lab):
    lab.barrier = False
    lab.start()
    put_claim(lab, "alone", {"alone": "uid-alone"})
    lab.settle(others=False)
    assert not lab.answers("alone")


@pytest.mark.parametrize("error", [Conflict(409, "Conflict", "modified"), ApiError(500, "InternalError", "etcd")])
def test_an_answer_that_fails_is_given_again(lab, error):
    put_claim(lab, "alone", {"alone": "uid-alone"})
    lab.errors = [error]
    lab.deliver()
    lab.step()
    assert not lab.answers("alone")
    lab.wait(1)
    lab.step()
    assert lab.answers("alone") == COMPLETE
