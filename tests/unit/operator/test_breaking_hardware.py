"""NeuronFaults: checked, merged into the NeuronNode of their node, and gone with the object."""

import pytest
from neuron_operator import kube
from neuron_operator.faults import judging


def active(cluster, name):
    (condition,) = cluster.of(kube.FAULTS)[name]["status"]["conditions"]
    assert condition["type"] == "Active"
    return condition


def broken(cluster, node="worker"):
    return cluster.of(kube.NEURON_NODES)[node]["spec"].get("faults", [])


@pytest.fixture
async def worker(cluster, node, pool, settle):
    cluster.put(kube.NODES, node("worker"))
    cluster.put(kube.POOLS, pool())
    await settle(cluster)


@pytest.mark.usefixtures("worker")
async def test_a_fault_reaches_the_node_with_all_that_the_agent_needs(cluster, fault, settle):
    hot = fault(
        "hot", "worker", chip=3, core=7, effect="NoExecute", message="it is hot", created="2026-02-03T04:05:06Z"
    )
    cluster.put(kube.FAULTS, hot)
    await settle(cluster)
    assert broken(cluster) == [
        {
            "name": "hot",
            "type": "HBMUncorrectable",
            "chip": 3,
            "core": 7,
            "effect": "NoExecute",
            "message": "it is hot",
            "since": "2026-02-03T04:05:06Z",
        }
    ]
    assert (active(cluster, "hot")["status"], active(cluster, "hot")["reason"]) == ("True", "FaultActive")
    assert "physical core 7 of chip 3 of node worker" in active(cluster, "hot")["message"]
    (event,) = [e for e in cluster.of(kube.EVENTS).values() if e["regarding"]["kind"] == "NeuronFault"]
    assert (event["type"], event["reason"], event["regarding"]["name"]) == ("Normal", "FaultActive", "hot")


@pytest.mark.usefixtures("worker")
async def test_without_a_message_it_says_what_and_where(cluster, fault, settle):
    cluster.put(kube.FAULTS, fault("hot", "worker", chip=3, type="DeviceLost"))
    await settle(cluster)
    assert broken(cluster)[0]["message"] == "DeviceLost on chip 3 of node worker (NeuronFault hot)"


@pytest.mark.usefixtures("worker")
async def test_a_fault_without_a_chip_is_the_whole_node(cluster, fault, settle):
    cluster.put(kube.FAULTS, fault("hot", "worker"))
    await settle(cluster)
    assert not broken(cluster)[0].keys() & {"chip", "core"}
    assert "every device" in active(cluster, "hot")["message"].lower()


@pytest.mark.usefixtures("worker")
async def test_several_faults_stand_in_the_order_of_their_names(cluster, fault, settle):
    cluster.put(kube.FAULTS, fault("z", "worker", chip=0))
    cluster.put(kube.FAULTS, fault("a", "worker", chip=1, created="2026-05-01T00:00:00Z"))
    await settle(cluster)
    assert [each["name"] for each in broken(cluster)] == ["a", "z"]


@pytest.mark.usefixtures("worker")
async def test_deleting_the_fault_heals_and_leaves_the_node_as_it_was(cluster, fault, settle):
    before = cluster.of(kube.NEURON_NODES)["worker"]["spec"]
    cluster.put(kube.FAULTS, fault("hot", "worker"))
    await settle(cluster)
    cluster.drop(kube.FAULTS, "hot")
    await settle(cluster)
    assert cluster.of(kube.NEURON_NODES)["worker"]["spec"] == before


@pytest.mark.usefixtures("worker")
async def test_a_fault_that_is_being_deleted_is_healed(cluster, fault, settle):
    going = fault("hot", "worker")
    going["metadata"] |= {"deletionTimestamp": "2026-03-01T00:00:00Z", "finalizers": ["somebody/else"]}
    cluster.put(kube.FAULTS, going)
    await settle(cluster)
    assert broken(cluster) == []


@pytest.mark.parametrize(
    ("target", "reason", "says"),
    [
        ({"node": "nowhere"}, "UnknownNode", "no node nowhere"),
        ({"node": "spare"}, "NotANeuronNode", "in no NeuronNodePool"),
        ({"node": "worker", "chip": 16}, "UnknownChip", "chips 0 to 15"),
        ({"node": "worker", "chip": 0, "core": 8}, "UnknownCore", "cores 0 to 7"),
        ({"node": "worker", "core": 1}, "InvalidSpec", "add spec.target.chip"),
        ({"node": "worker", "type": "Rust"}, "InvalidSpec", "spec.type"),
    ],
)
async def test_a_fault_that_hits_nothing_says_why(cluster, node, pool, fault, settle, target, reason, says):
    cluster.put(kube.NODES, node("worker", labels={"neuron": "yes"}))
    cluster.put(kube.NODES, node("spare"))
    cluster.put(kube.POOLS, pool(nodeSelector={"matchLabels": {"neuron": "yes"}}))
    cluster.put(kube.FAULTS, fault("hot", **target))
    await settle(cluster)
    assert broken(cluster) == []
    told = active(cluster, "hot")
    assert (told["status"], told["reason"]) == ("False", reason)
    assert says in told["message"]
    (event,) = [e for e in cluster.of(kube.EVENTS).values() if e["regarding"]["kind"] == "NeuronFault"]
    assert (event["type"], event["reason"]) == ("Warning", reason)


async def test_a_fault_comes_true_when_its_node_joins_a_pool_and_is_judged_anew_by_its_type(
    cluster, node, pool, fault, settle
):
    cluster.put(kube.NODES, node("worker"))
    cluster.put(kube.FAULTS, fault("hot", "worker", chip=5))
    await settle(cluster)
    assert active(cluster, "hot")["reason"] == "NotANeuronNode"
    cluster.put(kube.POOLS, pool())
    await settle(cluster)
    assert active(cluster, "hot")["status"] == "True"
    edited = cluster.of(kube.POOLS)["default"]
    edited["spec"]["instanceType"] = "trn2.3xlarge"
    cluster.put(kube.POOLS, edited)
    await settle(cluster)
    assert (active(cluster, "hot")["reason"], broken(cluster)) == ("UnknownChip", [])
    assert "with chip 0 only" in active(cluster, "hot")["message"]


@pytest.mark.usefixtures("worker")
async def test_the_nodes_of_a_frozen_pool_break_and_heal_too_and_change_in_nothing_else(cluster, fault, settle):
    edited = cluster.of(kube.POOLS)["default"]
    edited["spec"]["instanceType"] = "trn9.48xlarge"
    cluster.put(kube.POOLS, edited)
    before = cluster.of(kube.NEURON_NODES)["worker"]["spec"]
    cluster.put(kube.FAULTS, fault("hot", "worker", chip=1))
    await settle(cluster)
    after = cluster.of(kube.NEURON_NODES)["worker"]["spec"]
    assert after == {**before, "faults": broken(cluster)}
    assert len(broken(cluster)) == 1
    cluster.drop(kube.FAULTS, "hot")
    await settle(cluster)
    assert cluster.of(kube.NEURON_NODES)["worker"]["spec"] == before


@pytest.mark.usefixtures("worker")
async def test_more_faults_than_a_node_can_show_are_told_youngest_first(cluster, fault, settle, monkeypatch):
    monkeypatch.setattr(judging, "PER_NODE", 1)
    cluster.put(kube.FAULTS, fault("a-young", "worker", created="2026-02-01T00:00:00Z"))
    cluster.put(kube.FAULTS, fault("z-old", "worker"))
    await settle(cluster)
    assert [each["name"] for each in broken(cluster)] == ["z-old"]
    assert active(cluster, "a-young")["reason"] == "TooManyFaults"


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(
    ("kind", "target", "reason", "words"),
    [
        ("LinkDown", {"chip": 0, "peer": 1}, "FaultActive", "the link of chips 0 and 1 of node worker"),
        ("LinkDown", {"chip": 0, "peer": 10}, "UnknownLink", "Chip 0 of a trn2.48xlarge is linked to chips"),
        ("LinkDown", {"chip": 0}, "InvalidSpec", "LinkDown is of one of link, not of a chip"),
        ("LinkDown", {"peer": 1}, "InvalidSpec", "add spec.target.chip"),
        ("Hang", {"chip": 0, "peer": 1}, "InvalidSpec", "not of a link"),
        ("EFADown", {"efa": 0}, "FaultActive", "EFA card 0 of node worker"),
        ("EFADown", {}, "FaultActive", "an EFA card of node worker"),
        ("EFADown", {"efa": 63}, "UnknownCard", "change spec.target.efa"),
        ("EFADown", {"chip": 0}, "InvalidSpec", "not of a chip"),
        ("DriverFailed", {"chip": 0}, "InvalidSpec", "not of a chip"),
        ("HBMCorrectable", {"chip": 0}, "FaultActive", "healthy, but works worse, and shown by a taint of effect None"),
    ],
)
async def test_each_type_is_of_its_own_hardware(cluster, fault, settle, kind, target, reason, words):
    made = fault("hot", "worker", type=kind)
    made["spec"]["target"] |= target
    del made["spec"]["effect"]
    cluster.put(kube.FAULTS, made)
    await settle(cluster)
    found = active(cluster, "hot")
    assert (found["reason"], words in found["message"]) == (reason, True), found["message"]
    assert len(broken(cluster)) == (reason == "FaultActive")
    for entry in broken(cluster):
        assert entry["effect"] == ("None" if kind == "HBMCorrectable" else "NoSchedule")
        assert {key: entry[key] for key in target} == target
