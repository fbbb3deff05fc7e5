"""The topology of a fleet, from pools and nodes to NeuronNodes, labels and conditions, on a cluster in memory."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from neuron_device_model import catalog, identity
from neuron_operator import applying, kube, names, survey
from neuron_operator.fleet import Fleet
from neuron_operator.kube import ApiError
from neuron_operator.planning import plan
from neuron_operator.topology import domains, ultraservers

TRN2U = "trn2u.48xlarge"
GEN2 = next(kind.name for kind in catalog.instance_types() if kind.ultraserver == "trn3-gen2")


def specs(cluster):
    return {name: item["spec"] for name, item in cluster.of(kube.NEURON_NODES).items()}


def seats(cluster):
    return {name: (spec["ultraServer"]["id"], spec["ultraServer"]["node"]) for name, spec in specs(cluster).items()}


def labels(cluster, node):
    return cluster.of(kube.NODES)[node]["metadata"]["labels"]


def condition(cluster, kind="UltraServersComplete", pool="default"):
    found = cluster.of(kube.POOLS)[pool]["status"]["conditions"]
    return next((entry for entry in found if entry["type"] == kind), None)


def serve(cluster, *nodes):
    for name in nodes:
        item = cluster.of(kube.NEURON_NODES)[name]
        ready = {"type": "Ready", "status": "True", "reason": "Serving"}
        cluster.put(kube.NEURON_NODES, {**item, "status": {"devices": 17, "conditions": [ready]}})


def leave(cluster, name):
    cluster.drop(kube.NODES, name)
    cluster.drop(kube.NEURON_NODES, name)  # the garbage collector


@pytest.fixture
async def eight(cluster, node, pool, settle):
    """Eight nodes that are two UltraServers."""
    for number in range(8):
        cluster.put(kube.NODES, node(f"worker{number}"))
    cluster.put(kube.POOLS, pool(instanceType=TRN2U))
    await settle(cluster)
    return cluster


async def test_four_nodes_form_a_trn2_ultraserver(eight):
    found = ultraservers(eight.of(kube.NEURON_NODES).values())
    members = sorted(tuple(ultraserver.members.values()) for ultraserver in found)
    assert members == [tuple(f"worker{n}" for n in range(4)), tuple(f"worker{n}" for n in range(4, 8))]
    for name, spec in specs(eight).items():
        ultraserver = spec["ultraServer"]
        assert ultraserver["size"] == 4
        assert spec["capacityBlockID"] == identity.capacity_block(ultraserver["id"])
        assert spec["networkNodes"] == specs(eight)["worker0"]["networkNodes"], name


async def test_members_carry_the_labels_of_real_ones(eight):
    seat = specs(eight)["worker6"]["ultraServer"]
    have = labels(eight, "worker6")
    assert have["neuron.amazonaws.com/ultraserver-mode"] == "1_2_4"
    assert have["neuron.amazonaws.com/ultraserver-server-id-4"] == seat["id"]
    assert have["neuron.amazonaws.com/ultraserver-node-id-4"] == "2"
    assert have["neuron.amazonaws.com/ultraserver-node-id-2"] == "0"
    pairs = [labels(eight, f"worker{n}")["neuron.amazonaws.com/ultraserver-server-id-2"] for n in range(8)]
    assert pairs[0::2] == pairs[1::2]
    assert len(set(pairs)) == 4
    assert "topology.k8s.aws/ultraserver-id" not in have
    assert have["neuron-sim.dev/ultraserver-id"] == seat["id"]


async def test_the_sets_of_a_larger_ultraserver_are_named_apart(cluster, node, pool, settle):
    for number in range(8):
        cluster.put(kube.NODES, node(f"worker{number}"))
    cluster.put(kube.POOLS, pool(instanceType=GEN2))
    await settle(cluster)
    assert len({found for found, _ in seats(cluster).values()}) == 1
    assert specs(cluster)["worker7"]["ultraServer"]["size"] == 36
    fours = [labels(cluster, f"worker{n}")["neuron.amazonaws.com/ultraserver-server-id-4"] for n in range(8)]
    assert len(set(fours[:4])) == len(set(fours[4:])) == 1
    assert fours[0] != fours[4]
    assert labels(cluster, "worker6")["neuron.amazonaws.com/ultraserver-node-id-4"] == "2"


async def test_other_types_are_in_no_ultraserver_and_have_no_such_condition(cluster, node, pool, settle):
    cluster.put(kube.NODES, node("worker"))
    cluster.put(kube.POOLS, pool())
    await settle(cluster)
    assert not {"ultraServer", "capacityBlockID"} & specs(cluster)["worker"].keys()
    assert not [label for label in labels(cluster, "worker") if "ultraserver" in label]
    assert condition(cluster) is None
    assert domains(cluster.of(kube.NEURON_NODES)["worker"]).keys() == {"node", "network-1", "network-2", "network-3"}


async def test_everybody_reads_the_same_domains(eight):
    nodes = eight.of(kube.NEURON_NODES)
    found = {name: domains(item) for name, item in nodes.items()}
    for name, item in nodes.items():
        assert found[name]["node"] == name
        assert found[name]["ultraserver"] == item["spec"]["ultraServer"]["id"]
        assert found[name]["ultraserver-2"] == labels(eight, name)["neuron.amazonaws.com/ultraserver-server-id-2"]
        assert [found[name][f"network-{layer}"] for layer in (1, 2, 3)] == item["spec"]["networkNodes"]


async def test_nodes_that_come_and_go_leave_the_others_where_they_are(eight, node, settle):
    before = seats(eight)
    leave(eight, "worker1")
    leave(eight, "worker6")
    await settle(eight)
    eight.put(kube.NODES, node("another"))
    eight.put(kube.NODES, node("third"))
    await settle(eight)
    after = seats(eight)
    assert {name: after[name] for name in before if name in after} == {
        name: seat for name, seat in before.items() if name in after
    }
    assert {after["another"], after["third"]} == {before["worker1"], before["worker6"]}


async def test_neuron_nodes_that_somebody_deleted_are_made_again_where_they_were(eight, settle):
    leave(eight, "worker0")
    await settle(eight)
    before = specs(eight)
    for name in before:
        eight.drop(kube.NEURON_NODES, name)
    await settle(eight)
    assert specs(eight) == before


async def test_an_edited_pool_moves_nobody(eight, settle):
    before = specs(eight)
    pool = eight.of(kube.POOLS)["default"]
    pool["spec"] |= {"topology": {"nodesPerLayer3": 4, "nodesPerLayer2": 8}, "partitions": "none"}
    eight.put(kube.POOLS, pool)
    await settle(eight)
    assert {name: spec | {"partitions": "logical"} for name, spec in specs(eight).items()} == before


async def test_nodes_of_an_earlier_operator_are_joined_and_share_their_network_nodes(eight, settle):
    for name, item in list(eight.of(kube.NEURON_NODES).items()):
        spec = {key: value for key, value in item["spec"].items() if key not in ("ultraServer", "capacityBlockID")}
        eight.put(kube.NEURON_NODES, {**item, "spec": spec | {"networkNodes": ["nn-1", "nn-2", f"nn-of-{name}"]}})
    await settle(eight)
    for first in (0, 4):
        members = [specs(eight)[f"worker{n}"] for n in range(first, first + 4)]
        assert len({spec["ultraServer"]["id"] for spec in members}) == 1
        assert {tuple(spec["networkNodes"]) for spec in members} == {("nn-1", "nn-2", f"nn-of-worker{first}")}


async def test_a_pool_of_another_type_has_ultraservers_of_its_own(eight, settle):
    before = {found for found, _ in seats(eight).values()}
    pool = eight.of(kube.POOLS)["default"]
    pool["spec"]["instanceType"] = GEN2
    eight.put(kube.POOLS, pool)
    await settle(eight)
    assert not before & {found for found, _ in seats(eight).values()}
    pool = eight.of(kube.POOLS)["default"]
    pool["spec"]["instanceType"] = "trn2.48xlarge"
    eight.put(kube.POOLS, pool)
    await settle(eight)
    assert all("ultraServer" not in spec for spec in specs(eight).values())
    assert condition(eight) is None
    assert not [label for label in labels(eight, "worker0") if "ultraserver" in label]


async def test_labels_of_the_hardware_go_before_the_shape(cluster, node, pool, settle):
    for number in range(4):
        told = {
            "neuron.amazonaws.com/ultraserver-server-id-4": "u5wy80u0o2saugxy",
            "neuron.amazonaws.com/ultraserver-node-id-4": str(3 - number),
            "topology.k8s.aws/network-node-layer-3": "nn-67ec43a6722b34afb",
        }
        cluster.put(kube.NODES, node(f"worker{number}", labels=told))
    cluster.put(kube.NODES, node("worker4"))
    alone = {"neuron.amazonaws.com/ultraserver-server-id-4": "0" * 16}
    cluster.put(kube.NODES, node("worker5", labels=alone))
    group = {"topology.k8s.aws/ultraserver-id": "us-1-of-Hyperpod"}
    for name in ("worker6", "worker7"):
        cluster.put(kube.NODES, node(name, labels=group))
    cluster.put(kube.POOLS, pool(instanceType=TRN2U))
    await settle(cluster)
    assert "ultraServer" not in specs(cluster)["worker5"]
    found = {name: spec.get("ultraServer") for name, spec in specs(cluster).items()}
    assert [found[f"worker{n}"]["node"] for n in range(4)] == [3, 2, 1, 0]
    assert {found[f"worker{n}"]["id"] for n in range(4)} == {"u5wy80u0o2saugxy"}
    assert {specs(cluster)[f"worker{n}"]["networkNodes"][2] for n in range(4)} == {"nn-67ec43a6722b34afb"}
    assert (found["worker6"]["id"], found["worker6"]["node"]) == (found["worker7"]["id"], 0)
    assert len({seat["id"] for seat in found.values() if seat}) == 3
    assert condition(cluster, "LabelsComplete")["status"] == "True"


async def test_a_pair_is_an_ultraserver_of_two(cluster, node, pool, settle):
    told = {
        "neuron.amazonaws.com/ultraserver-server-id-2": "u5wy80u0o2saugxy",
        "neuron.amazonaws.com/ultraserver-node-id-2": "1",
    }
    cluster.put(kube.NODES, node("worker", labels=told))
    cluster.put(kube.POOLS, pool(instanceType=TRN2U))
    await settle(cluster)
    assert specs(cluster)["worker"]["ultraServer"] == {"id": "u5wy80u0o2saugxy", "size": 2, "node": 1}
    have = labels(cluster, "worker")
    assert have["neuron.amazonaws.com/ultraserver-mode"] == "2_4"
    assert "neuron.amazonaws.com/ultraserver-server-id-4" not in have


async def test_the_pool_says_which_ultraservers_are_complete(eight, fault, settle):
    told = condition(eight)
    assert (told["status"], told["reason"]) == ("False", "ServersNotReady")
    serve(eight, *(f"worker{n}" for n in range(8)))
    await settle(eight)
    assert condition(eight)["reason"] == "AllComplete"
    status = eight.of(kube.POOLS)["default"]["status"]
    assert (status["ultraServers"], status["readyUltraServers"]) == (2, 2)

    first = specs(eight)["worker0"]["ultraServer"]["id"]
    leave(eight, "worker3")
    await settle(eight)
    told = condition(eight)
    assert (told["status"], told["reason"]) == ("False", "ServersMissing")
    assert f"1 of 2 UltraServers are degraded: {first}: server 3 is missing" in told["message"]
    assert eight.of(kube.POOLS)["default"]["status"]["readyUltraServers"] == 1

    eight.put(kube.FAULTS, fault("chip", "worker5", chip=3))
    await settle(eight)
    assert eight.of(kube.POOLS)["default"]["status"]["readyUltraServers"] == 1
    eight.put(kube.FAULTS, fault("all", "worker5"))
    await settle(eight)
    told = condition(eight)
    assert told["reason"] == "ServersBroken"
    assert "server 1 (worker5) is broken" in told["message"]
    assert [e["type"] for e in eight.of(kube.EVENTS).values() if e["reason"] == "ServersBroken"] == ["Warning"]


async def test_a_node_whose_kubelet_went_silent_degrades_its_ultraserver(eight, settle):
    serve(eight, *(f"worker{n}" for n in range(8)))
    item = eight.of(kube.NODES)["worker4"]
    item["status"]["conditions"] = [
        {"type": "Ready", "status": "Unknown", "lastTransitionTime": "2026-11-21T00:00:00Z"}
    ]
    eight.put(kube.NODES, item)
    await settle(eight)
    told = condition(eight)
    assert (told["reason"], "server 0 (worker4) is not ready" in told["message"]) == ("ServersNotReady", True)


@pytest.mark.parametrize(
    ("instance_type", "topology", "sentence"),
    [
        (TRN2U, {"nodesPerLayer3": 6}, "a multiple of the 4 servers of an UltraServer, not 6"),
        ("trn2.48xlarge", {"nodesPerLayer3": 4, "nodesPerLayer2": 6}, "a multiple of nodesPerLayer3, not 6"),
        ("trn2.48xlarge", {"nodesPerLayer1": 6}, "a multiple of nodesPerLayer2, which must be given too"),
    ],
)
async def test_a_shape_that_cannot_be_is_told(cluster, node, pool, settle, instance_type, topology, sentence):
    cluster.put(kube.NODES, node("worker"))
    cluster.put(kube.POOLS, pool(instanceType=instance_type, topology=topology))
    await settle(cluster)
    told = condition(cluster, "Accepted")
    assert told["reason"] == "UnsupportedTopology"
    assert sentence in told["message"]
    assert not specs(cluster)


STEPS = st.one_of(
    st.tuples(st.just("come"), st.integers(0, 9)),
    st.tuples(st.just("go"), st.integers(0, 9)),
    st.tuples(st.just("type"), st.sampled_from([TRN2U, "trn3.48xlarge"])),
    st.tuples(st.just("killed after"), st.integers(0, 6)),
    st.tuples(st.just("settle"), st.none()),
)


@settings(max_examples=30)
@given(steps=st.lists(STEPS, max_size=14))
async def test_killed_between_any_two_writes_nobody_moves_and_nobody_shares_a_seat(
    new_cluster, node, pool, settle, steps
):
    cluster = new_cluster()
    cluster.put(kube.POOLS, pool(instanceType=TRN2U))
    for what, value in [*steps, ("settle", None)]:
        before = specs(cluster)
        match what:
            case "come" if f"n{value}" not in cluster.of(kube.NODES):
                cluster.put(kube.NODES, node(f"n{value}"))
            case "go" if f"n{value}" in cluster.of(kube.NODES):
                cluster.drop(kube.NODES, f"n{value}")
                if f"n{value}" in before:
                    cluster.drop(kube.NEURON_NODES, f"n{value}")
            case "type":
                item = cluster.of(kube.POOLS)["default"]
                item["spec"]["instanceType"] = value
                cluster.put(kube.POOLS, item)
            case "killed after":
                fleet = Fleet(driver_name=names.AWS_DRIVER_NAME)
                await survey.list_objects(fleet, cluster)
                await survey.look_around(fleet, cluster, driver_name=names.AWS_DRIVER_NAME)
                planned = plan(fleet.snapshot(), now="2026-11-21T00:00:00Z")
                # every write after the first few fails, as if nobody were there to make it
                limit = len(cluster.writes) + value
                cluster.faults = Failing(cluster, limit)
                await applying.apply(planned, api=cluster, fleet=fleet)
                cluster.faults = []
            case "settle":
                await settle(cluster)
        now = specs(cluster)
        taken = [(spec["ultraServer"]["id"], spec["ultraServer"]["node"]) for spec in now.values()]
        assert len(set(taken)) == len(taken)
        for name, spec in now.items():
            if name in before and before[name]["instanceType"] == spec["instanceType"]:
                assert spec["ultraServer"] == before[name]["ultraServer"]
                assert spec["networkNodes"] == before[name]["networkNodes"]


class Failing:
    """Errors of an API server that is gone after some writes."""

    def __init__(self, cluster, limit):
        self.cluster, self.limit = cluster, limit

    def __bool__(self):
        return len(self.cluster.writes) >= self.limit

    def pop(self, index):
        return ApiError(503, "ServiceUnavailable", "gone")
