"""A gang runs as a whole near together, or not at all: the course of things, in a cluster in memory."""

import copy
import sys
from pathlib import Path

import pytest
from neuron_operator import kube
from neuron_operator.gangs import names
from neuron_operator.node_affinity import required, selects

sys.path.insert(0, str(Path(__file__).parent))
from gangs_lab import Lab, make_pod, plain_pod


@pytest.fixture
def lab(new_cluster):
    return Lab(new_cluster())


@pytest.fixture
def two(new_cluster):
    """Two UltraServers."""
    return Lab(new_cluster(), ultraservers=2)


def test_four_pods_get_the_four_nodes_of_one_ultraserver(two):
    two.workload("train", 4)
    two.settle()
    assert two.phase("train") == "Bound"
    assert sorted(two.bound("train")) in (["n0-0", "n0-1", "n0-2", "n0-3"], ["n1-0", "n1-1", "n1-2", "n1-3"])
    assert not two.taints()


def test_a_pod_is_let_go_with_everything_in_one_patch(lab):
    lab.workload("train", 4)
    lab.control()
    lab.settle(others=False)
    writes = [write for write in lab.api.writes if write.startswith("merge pods/")]
    assert len(writes) == len(set(writes)) == 4
    for pod in lab.pods("train"):
        assert "schedulingGates" not in pod["spec"]
        (node,) = [name for name in lab.taints() if selects(required(pod["spec"]), name=name, labels={})]
        assert pod["metadata"]["annotations"][names.ANNOTATION_PLACE] == node
        assert {"key": names.TAINT, "operator": "Exists", "effect": "NoSchedule"} in pod["spec"]["tolerations"]


def test_nodes_are_reserved_before_a_pod_is_let_go(lab):
    lab.workload("train", 4)
    lab.control()
    lab.settle(others=False)
    order = [write.split("/")[0] for write in lab.api.writes if "node" in write or "merge pods" in write]
    assert order == ["merge nodes"] * 4 + ["merge pods"] * 4
    assert len(set(lab.taints().values())) == 1


def test_pods_that_come_one_after_another_are_reserved_for_at_the_first_one(lab):
    lab.workload("train", 4, count=1)
    lab.settle()
    assert lab.phase("train") == "Reserved"
    assert len(lab.taints()) == 3, "the node that has its pod needs no reservation any more"
    lab.put_pod("other", plain_pod(1))
    for count in (2, 3, 4):
        lab.workload("train", 4, count=count)
        lab.settle()
        assert len(lab.bound("train")) == count
    assert lab.phase("train") == "Bound"
    assert not lab.api.of(kube.PODS)["default/other"]["spec"].get("nodeName")


def test_pods_get_the_places_of_their_numbers(lab):
    for index in (2, 0, 3, 1):
        labels = {"apps.kubernetes.io/pod-index": str(index)}
        lab.put_pod(f"train-{index}", make_pod("train", 4, labels=labels))
    lab.settle()
    promised = lab.record("train")["status"]["nodes"]
    assert [pod["spec"]["nodeName"] for pod in lab.pods("train")] == promised


def test_a_gang_that_does_not_fit_says_what_is_lacking_once_and_is_placed_when_it_does(lab):
    lab.claim("theirs", "n0-2", [3], {"metadata": {"name": "theirs", "uid": "theirs"}})
    lab.put_pod("theirs", {**plain_pod(0), "spec": {"nodeName": "n0-2", "containers": [{}]}})
    lab.api.of(kube.PODS)["default/theirs"]["metadata"]["uid"] = "theirs"
    lab.workload("train", 4)
    lab.settle()
    assert lab.phase("train") == "Pending"
    assert "n0-2" in lab.said("train")
    assert not lab.taints()
    for _ in range(3):
        lab.wait(2)
        lab.node("n0-0", lambda item: item["metadata"]["labels"].update(changed=str(lab.now)))
        lab.settle()
    assert len(lab.events("DoesNotFit")) == 4, "once for each pod"
    lab.delete_pod("default/theirs")
    lab.settle()
    lab.wait(2)
    lab.settle()
    assert lab.phase("train") == "Bound"


def test_of_two_gangs_that_race_for_the_last_ultraserver_one_gets_it_and_the_other_nothing(lab):
    lab.workload("first", 4)
    lab.workload("second", 4)
    lab.settle()
    running = [gang for gang in ("first", "second") if lab.bound(gang)]
    (waiting,) = {"first", "second"} - set(running)
    assert len(lab.bound(running[0])) == 4
    assert lab.phase(waiting) == "Pending"
    lab.stop(running[0])
    lab.settle()
    lab.wait(2)
    lab.settle()
    assert len(lab.bound(waiting)) == 4
    assert f"default/{running[0]}" not in lab.api.of(kube.GANGS)


def test_gangs_share_a_node_where_their_chips_fit(lab):
    for gang in ("a", "b", "c", "d"):
        lab.workload(gang, 2, chips=2, annotations={names.TOPOLOGY: "node"})
    lab.settle()
    assert len({node for gang in ("a", "b", "c", "d") for node in lab.bound(gang)}) == 1


def test_a_gang_that_is_not_bound_in_time_is_rolled_back_as_a_whole_and_says_why(lab):
    lab.workload("train", 4, count=2, annotations={names.ANNOTATION_TIMEOUT: "90s"})
    lab.settle()
    first = {pod["metadata"]["uid"] for pod in lab.pods("train")}
    assert len(lab.bound("train")) == 2
    lab.wait(91)
    lab.settle()
    assert lab.phase("train") == "Pending"
    assert "2 of 4 pods were bound within 90 s: only 2 exist" in lab.said("train")
    assert not lab.bound("train")
    assert not lab.taints()
    assert not first & {pod["metadata"]["uid"] for pod in lab.pods("train")}, "made anew by their controller"
    assert len(lab.events("GangTimedOut")) == 2
    lab.workload("train", 4)
    lab.settle()
    assert lab.phase("train") == "Pending", "not before a pause"
    lab.wait(6)
    lab.settle()
    assert lab.phase("train") == "Bound"


def test_pauses_between_attempts_grow(lab):
    lab.workload("train", 4, count=1)
    pauses = []
    for _ in range(8):
        lab.settle()
        lab.wait(301)
        lab.settle()
        record = lab.record("train")["status"]
        pauses.append(int(record["conditions"][0]["message"].rpartition("tried again in ")[2].removesuffix(" s")))
        lab.wait(pauses[-1] + 1)
    assert pauses == [5, 10, 20, 40, 80, 160, 300, 300]


def test_what_the_scheduler_says_is_in_the_reason(lab):
    lab.workload("train", 2)
    lab.control()
    lab.settle(others=False)
    for pod in lab.pods("train"):
        pod["status"]["conditions"] = [{"type": "PodScheduled", "status": "False", "message": "Insufficient cpu."}]
        lab.api.put(kube.PODS, pod)
    lab.wait(301)
    lab.deliver()
    lab.step()
    assert "Insufficient cpu" in lab.events("GangTimedOut")[0]["note"]


def test_a_bare_pod_is_made_anew_as_it_was_and_told(lab):
    lab.bare("train", 4, spec={"nodeSelector": {"zone": "a"}})
    for node in range(3):
        lab.node(f"n0-{node}", lambda item: item["metadata"]["labels"].update(zone="a"))
    lab.node("n0-3", lambda item: item["metadata"]["labels"].update(zone="a"))
    lab.settle(others=False)
    lab.schedule(limit=3)
    uids = {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in lab.pods("train")}
    lab.not_ready("n0-3")
    lab.settle()
    again = lab.pods("train")
    assert [pod["metadata"]["name"] for pod in again] == list(uids)
    for pod in again:
        assert pod["metadata"]["uid"] != uids[pod["metadata"]["name"]]
        assert pod["spec"]["nodeSelector"] == {"zone": "a"}
        assert pod["spec"]["schedulingGates"] == [{"name": names.GATE}]
        assert names.ANNOTATION_RESERVATION not in pod["metadata"].get("annotations", {})
    notes = [event["note"] for event in lab.events("GangPodMadeAnew")]
    assert len(notes) == 4
    assert all(uid in " ".join(notes) for uid in uids.values())
    assert not lab.record("train")["status"].get("remake")
    lab.ready("n0-3")
    lab.wait(6)
    lab.settle()
    assert lab.phase("train") == "Bound"


def test_a_node_that_dies_in_the_middle_leads_to_another_placement_at_once(two):
    two.workload("train", 4)
    two.control()
    two.settle(others=False)
    two.schedule(limit=2)
    dead = next(iter(set(two.record("train")["status"]["nodes"]) - set(two.bound("train"))))
    two.not_ready(dead)
    two.settle()
    assert f"Node {dead} is not ready" in two.events("GangRolledBack")[0]["note"]
    assert two.phase("train") == "Bound"
    assert {node[:2] for node in two.bound("train")} == {"n1" if dead.startswith("n0") else "n0"}


def test_chips_that_were_taken_before_the_reservation_held_are_noticed(lab):
    lab.workload("train", 4)
    lab.control()
    lab.claim("theirs", "n0-1", [0], {"metadata": {"name": "theirs", "uid": "theirs"}})
    lab.deliver(kube.PODS)
    lab.step()
    assert lab.phase("train") == "Reserved"
    lab.deliver()
    lab.step()
    assert lab.phase("train") in ("RollingBack", "Pending")
    assert "Node n0-1 has 15 of the 16 chips left" in lab.events("GangRolledBack")[0]["note"]


def test_a_gang_whose_chips_were_taken_moves_at_once_and_pauses_when_that_happens_again(two):
    two.workload("train", 4)
    for number in range(2):
        two.control()
        two.settle(others=False)
        assert two.phase("train") == "Reserved", "without a pause"
        node = two.record("train")["status"]["nodes"][0]
        two.claim(f"theirs-{number}", node, [0], {"metadata": {"name": "theirs", "uid": f"theirs-{number}"}})
        two.settle(others=False)
    assert two.said("train").endswith("Rolled back 2 times, tried again in 10 s")
    assert not two.taints()


def test_a_pod_of_a_running_gang_that_comes_again_goes_where_the_others_are(two):
    two.workload("train", 4)
    two.settle()
    before = sorted(two.bound("train"))
    two.delete_pod("default/train-1")
    two.settle()
    assert two.phase("train") == "Bound"
    assert sorted(two.bound("train")) == before


def test_a_running_gang_whose_node_died_stays_in_its_ultraserver_or_waits(two):
    two.workload("train", 2)
    two.settle()
    home = two.bound("train")[0][:2]
    (pod,) = [pod for pod in two.pods("train") if pod["spec"]["nodeName"] == two.bound("train")[1]]
    two.not_ready(pod["spec"]["nodeName"])
    two.delete_pod(f"default/{pod['metadata']['name']}")
    two.settle()
    assert two.phase("train") == "Bound"
    assert {node[:2] for node in two.bound("train")} == {home}
    assert pod["spec"]["nodeName"] not in two.bound("train")


def cards_down(lab, name):
    down = {"name": "cut", "type": "EFADown", "effect": "NoSchedule", "message": "", "since": "2026-11-21T12:00:00Z"}
    item = copy.deepcopy(lab.api.of(kube.NEURON_NODES)[name])
    item["spec"]["faults"] = [down]
    lab.api.put(kube.NEURON_NODES, item)


def test_a_gang_over_two_ultraservers_waits_for_the_cards_of_a_node(two):
    cards_down(two, "n0-1")
    two.workload("wide", 8, labels={names.TOPOLOGY: "network-3"})
    two.workload("close", 4)
    two.settle()
    assert two.phase("wide") == "Pending"
    assert "node n0-1 has no EFA card that works" in two.said("wide")
    assert sorted(two.bound("close")) == ["n0-0", "n0-1", "n0-2", "n0-3"], "inside an UltraServer nobody needs them"


def test_a_pod_that_comes_again_is_not_cut_off_from_the_others(two):
    two.workload("wide", 5, labels={names.TOPOLOGY: "network-3"})
    two.settle()
    assert two.phase("wide") == "Bound"
    (alone,) = [node for node in two.bound("wide") if sum(node[:2] == each[:2] for each in two.bound("wide")) == 1]
    (pod,) = [pod for pod in two.pods("wide") if pod["spec"]["nodeName"] == alone]
    cards_down(two, alone)
    two.delete_pod(f"default/{pod['metadata']['name']}")
    two.settle()
    assert two.phase("wide") == "Bound"
    assert alone not in two.bound("wide")


def test_a_pod_too_many_waits_and_is_told(lab):
    lab.workload("train", 2)
    lab.settle()
    lab.put_pod("train-2", make_pod("train", 2))
    lab.settle()
    assert lab.phase("train") == "Bound"
    assert len(lab.bound("train")) == 2
    assert "All 2 pods that the gang is to have run already" in lab.events("DoesNotFit")[0]["note"]


def test_a_neurongang_that_somebody_deleted_is_found_again_in_its_pods(lab):
    lab.workload("train", 4)
    lab.settle()
    uids = {pod["metadata"]["uid"] for pod in lab.pods("train")}
    lab.api.drop(kube.GANGS, "default/train")
    lab.settle()
    assert lab.phase("train") == "Bound"
    assert {pod["metadata"]["uid"] for pod in lab.pods("train")} == uids


def test_a_gang_whose_pods_are_through_holds_nothing(lab):
    lab.workload("train", 2)
    lab.settle()
    lab.workloads.clear()
    for pod in lab.pods("train"):
        pod["status"]["phase"] = "Succeeded"
        lab.api.put(kube.PODS, pod)
    lab.settle()
    assert not lab.api.of(kube.GANGS)
    assert not lab.taints()


def test_the_gates_of_others_come_first(lab):
    lab.workload("train", 2)
    lab.control()
    for pod in lab.pods("train"):
        pod["spec"]["schedulingGates"].append({"name": "kueue.x-k8s.io/admission"})
        lab.api.put(kube.PODS, pod)
    lab.settle()
    assert not lab.api.of(kube.GANGS)
    for pod in lab.pods("train"):
        pod["spec"]["schedulingGates"] = [{"name": names.GATE}]
        lab.api.put(kube.PODS, pod)
    lab.settle()
    assert len(lab.bound("train")) == 2


def test_a_pod_without_the_gate_is_told_that_it_is_alone(lab):
    lab.bare("train", 1, gated=False)
    lab.settle()
    assert "add the gate to spec.schedulingGates" in lab.events("GangWithoutGate")[0]["note"]
    assert not lab.api.of(kube.GANGS)


def test_a_label_that_cannot_be_understood_is_told(lab):
    pod = make_pod("train", 4)
    pod["metadata"]["labels"][names.LABEL_SIZE] = "four"
    lab.put_pod("train-0", pod)
    lab.settle()
    assert "give a whole number" in lab.events("InvalidGang")[0]["note"]


def test_a_missing_claim_template_is_told_and_looked_for_again(lab):
    wish = {"resourceClaims": [{"name": "neurons", "resourceClaimTemplateName": "whole"}]}
    lab.workload("train", 2, chips=0, spec=wish)
    lab.settle()
    assert "ResourceClaimTemplate whole, which does not exist" in lab.events("GangNotUnderstood")[0]["note"]
    request = {"name": "r", "exactly": {"deviceClassName": "neuron.aws.com", "allocationMode": "All"}}
    template = {
        "metadata": {"name": "whole", "namespace": "default"},
        "spec": {"spec": {"devices": {"requests": [request]}}},
    }
    lab.api.put(kube.CLAIM_TEMPLATES, template)
    lab.gangs.state.look_again()
    lab.settle()
    assert lab.record("train")["spec"]["wholeNodes"]
    assert len(set(lab.record("train")["status"]["nodes"])) == 2


def test_a_gang_waits_for_a_node_that_a_neuron_ultraserver_workload_has(lab):
    item = lab.api.of(kube.NEURON_NODES)["n0-0"]
    item["spec"]["workloadID"] = "w-1"
    lab.api.put(kube.NEURON_NODES, item)
    lab.workload("train", 4)
    lab.settle()
    assert "allocated to the NeuronUltraServerWorkload with the id w-1" in lab.said("train")


def test_a_thousand_pods_at_once(new_cluster):
    lab = Lab(new_cluster(), ultraservers=63)
    for number in range(250):
        lab.workload(f"g{number}", 4, chips=16)
    lab.settle()
    bound = [gang for gang in lab.workloads if lab.bound(gang)]
    assert len(bound) == 63
    assert all(len(lab.bound(gang)) == 4 for gang in bound)
    assert all(len({node.partition("-")[0] for node in lab.bound(gang)}) == 1 for gang in bound)
    lab.check_promises()
