"""Pools and nodes in, NeuronNodes, labels and statuses out, on a cluster in memory."""

import pytest
from neuron_operator import kube, names

CONTROL_PLANE = [{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}]


def condition(cluster, pool, kind):
    return next(c for c in cluster.of(kube.POOLS)[pool]["status"]["conditions"] if c["type"] == kind)


def members(cluster):
    return {name: item["spec"]["pool"] for name, item in cluster.of(kube.NEURON_NODES).items()}


def labels(cluster, node):
    return cluster.of(kube.NODES)[node]["metadata"]["labels"]


def serve(cluster, name, devices=16):
    """What the agent does."""
    item = cluster.of(kube.NEURON_NODES)[name]
    ready = {"type": "Ready", "status": "True", "reason": "Serving"}
    seen = {"observedGeneration": item["metadata"].get("generation", 0)}
    cluster.put(kube.NEURON_NODES, {**item, "status": {"devices": devices, "conditions": [ready], **seen}})


async def test_a_pool_without_selector_takes_every_node_but_the_tainted_control_plane(cluster, node, pool, settle):
    cluster.put(kube.NODES, node("control-plane", taints=CONTROL_PLANE))
    cluster.put(kube.NODES, node("worker"))
    cluster.put(kube.POOLS, pool())
    await settle(cluster)
    assert members(cluster) == {"worker": "default"}


async def test_the_only_node_of_a_cluster_is_taken_because_it_has_no_taint(cluster, node, pool, settle):
    cluster.put(kube.NODES, node("kind-control-plane", labels={names.TAINT_CONTROL_PLANE: ""}))
    cluster.put(kube.POOLS, pool())
    await settle(cluster)
    assert members(cluster) == {"kind-control-plane": "default"}


async def test_a_neuron_node_says_all_that_the_agent_needs(cluster, node, pool, settle):
    worker = cluster.put(kube.NODES, node("worker"))
    cluster.put(kube.POOLS, pool())
    await settle(cluster)
    item = cluster.of(kube.NEURON_NODES)["worker"]
    spec = item["spec"]
    assert (spec["instanceType"], spec["logicalNeuronCore"], spec["sdkVersion"]) == ("trn2.48xlarge", 2, "2.32.0")
    assert (spec["driverVersion"], spec["resources"], spec["partitions"]) == ("2.30.2.0", "DRA", "logical")
    assert spec["devices"] == "chips"
    assert "faults" not in spec
    assert spec["instanceID"].startswith("i-")
    assert len(spec["networkNodes"]) == 3
    assert item["metadata"]["labels"] == {names.LABEL_POOL: "default", names.LABEL_SIMULATED: "true"}
    (owner,) = item["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("Node", "worker", worker["metadata"]["uid"])


async def test_what_the_pool_says_goes_before_the_defaults(cluster, node, pool, settle):
    cluster.put(kube.NODES, node("worker"))
    cluster.put(
        kube.POOLS,
        pool(
            instanceType="trn2u.48xlarge",
            logicalNeuronCore=1,
            sdkVersion="2.31.0",
            driverVersion="2.99.1.0",
            partitions="physical",
            devices="node",
        ),
    )
    await settle(cluster)
    spec = cluster.of(kube.NEURON_NODES)["worker"]["spec"]
    assert (spec["logicalNeuronCore"], spec["sdkVersion"], spec["driverVersion"]) == (1, "2.31.0", "2.99.1.0")
    assert (spec["partitions"], spec["devices"]) == ("physical", "node")


async def test_an_ultraserver_type_offers_chips_and_the_node(cluster, node, pool, settle):
    cluster.put(kube.NODES, node("worker"))
    cluster.put(kube.POOLS, pool(instanceType="trn2u.48xlarge"))
    await settle(cluster)
    assert cluster.of(kube.NEURON_NODES)["worker"]["spec"]["devices"] == "both"


async def test_an_edited_pool_changes_its_nodes_in_place(cluster, node, pool, settle):
    cluster.put(kube.NODES, node("worker"))
    cluster.put(kube.POOLS, pool())
    await settle(cluster)
    uid = cluster.of(kube.NEURON_NODES)["worker"]["metadata"]["uid"]
    edited = cluster.of(kube.POOLS)["default"]
    edited["spec"] = {"instanceType": "trn1.32xlarge"}
    cluster.put(kube.POOLS, edited)
    await settle(cluster)
    item = cluster.of(kube.NEURON_NODES)["worker"]
    assert (item["spec"]["instanceType"], item["metadata"]["uid"]) == ("trn1.32xlarge", uid)
    assert labels(cluster, "worker")[names.LABEL_INSTANCE_TYPE] == "trn1.32xlarge"


async def test_a_deleted_pool_leaves_nothing_behind(cluster, node, pool, settle):
    cluster.put(kube.NODES, node("worker", labels={"mine": "stays"}))
    cluster.put(kube.POOLS, pool())
    await settle(cluster)
    cluster.drop(kube.POOLS, "default")
    await settle(cluster)
    assert members(cluster) == {}
    assert labels(cluster, "worker") == {"mine": "stays"}
    assert [e["manager"] for e in cluster.of(kube.NODES)["worker"]["metadata"]["managedFields"]] == ["kubelet"]


async def test_a_relabelled_node_leaves_one_pool_and_joins_another(cluster, node, pool, settle):
    cluster.put(kube.NODES, node("worker", labels={"zone": "a"}))
    cluster.put(kube.POOLS, pool("a", nodeSelector={"matchLabels": {"zone": "a"}}))
    cluster.put(kube.POOLS, pool("b", nodeSelector={"matchLabels": {"zone": "b"}}, instanceType="inf2.xlarge"))
    await settle(cluster)
    moved = cluster.of(kube.NODES)["worker"]
    moved["metadata"]["labels"]["zone"] = "b"
    cluster.put(kube.NODES, moved)
    await settle(cluster)
    assert members(cluster) == {"worker": "b"}
    assert labels(cluster, "worker")[names.LABEL_POOL] == "b"
    assert condition(cluster, "a", "Ready")["reason"] == "NoNodes"


async def test_a_node_replaced_under_the_same_name_gets_a_new_neuron_node(cluster, node, pool, settle):
    cluster.put(kube.NODES, node("worker"))
    cluster.put(kube.POOLS, pool())
    await settle(cluster)
    before = cluster.of(kube.NEURON_NODES)["worker"]
    serve(cluster, "worker")
    cluster.drop(kube.NODES, "worker")
    cluster.put(kube.NODES, node("worker"))
    first = await settle(cluster)
    assert ([item.name for item in first.deletions], first.neuron_nodes) == (["worker"], ())
    after = cluster.of(kube.NEURON_NODES)["worker"]
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    assert after["spec"]["instanceID"] != before["spec"]["instanceID"]
    assert "status" not in after


async def test_a_neuron_node_edited_by_hand_is_put_right(cluster, node, pool, settle):
    cluster.put(kube.NODES, node("worker"))
    cluster.put(kube.POOLS, pool())
    await settle(cluster)
    edited = cluster.of(kube.NEURON_NODES)["worker"]
    cluster.put(kube.NEURON_NODES, {**edited, "spec": {**edited["spec"], "instanceType": "inf1.xlarge"}})
    await settle(cluster)
    assert cluster.of(kube.NEURON_NODES)["worker"]["spec"]["instanceType"] == "trn2.48xlarge"


async def test_a_neuron_node_that_somebody_else_made_is_left_alone(cluster, settle):
    cluster.put(kube.NEURON_NODES, {"metadata": {"name": "theirs"}, "spec": {"pool": "elsewhere"}})
    await settle(cluster)
    assert "theirs" in cluster.of(kube.NEURON_NODES)


async def test_status_counts_what_the_agents_serve(cluster, node, pool, settle):
    for name in ("a", "b"):
        cluster.put(kube.NODES, node(name))
    cluster.put(kube.POOLS, pool())
    await settle(cluster)
    serve(cluster, "a")
    await settle(cluster)
    status = cluster.of(kube.POOLS)["default"]["status"]
    assert {key: status[key] for key in ("nodes", "readyNodes", "devices", "resources", "observedGeneration")} == {
        "nodes": 2, "readyNodes": 1, "devices": 16, "resources": "DRA", "observedGeneration": 1
    }  # fmt: skip
    assert "b" in condition(cluster, "default", "Ready")["message"]
    serve(cluster, "b")
    await settle(cluster)
    assert condition(cluster, "default", "Ready")["status"] == "True"


async def test_a_report_of_what_was_before_an_edit_is_not_ready(cluster, node, pool, settle):
    cluster.put(kube.NODES, node("a"))
    cluster.put(kube.POOLS, pool())
    await settle(cluster)
    serve(cluster, "a")
    await settle(cluster)
    assert condition(cluster, "default", "Ready")["status"] == "True"
    cluster.put(kube.POOLS, {**cluster.of(kube.POOLS)["default"], "spec": {"instanceType": "trn1.32xlarge"}})
    first = await settle(cluster)
    # already in the write that says that the edit was seen
    assert [found.status["readyNodes"] for found in first.statuses] == [0]
    edited = cluster.of(kube.NEURON_NODES)["a"]
    cluster.put(kube.NEURON_NODES, {**edited, "metadata": {**edited["metadata"], "generation": 2}})
    await settle(cluster)
    assert condition(cluster, "default", "Ready")["status"] == "False"
    serve(cluster, "a")
    await settle(cluster)
    assert condition(cluster, "default", "Ready")["status"] == "True"


@pytest.mark.parametrize(
    ("spec", "reason", "says"),
    [
        ({"instanceType": "trn9.48xlarge"}, "UnknownInstanceType", "trn2.48xlarge"),
        ({"sdkVersion": "9.9.9"}, "UnknownSdkVersion", "2.32.0"),
        ({"instanceType": "trn1.32xlarge", "logicalNeuronCore": 2}, "UnsupportedLogicalNeuronCore", "leave it out"),
        ({"resources": "Sideways"}, "InvalidSpec", "spec.resources"),
        ({"devices": "node"}, "UnsupportedDevices", "no UltraServer type"),
    ],
)
async def test_what_another_crd_let_through_becomes_a_condition(cluster, node, pool, settle, spec, reason, says):
    cluster.put(kube.NODES, node("worker"))
    cluster.put(kube.POOLS, pool(**spec))
    await settle(cluster)
    accepted = condition(cluster, "default", "Accepted")
    assert (accepted["status"], accepted["reason"]) == ("False", reason)
    assert says in accepted["message"]
    assert members(cluster) == {}


async def test_a_pool_made_wrong_by_an_edit_keeps_its_nodes_as_they_are(cluster, node, pool, settle):
    cluster.put(kube.NODES, node("worker"))
    cluster.put(kube.POOLS, pool())
    await settle(cluster)
    before = cluster.of(kube.NEURON_NODES)["worker"]
    edited = cluster.of(kube.POOLS)["default"]
    edited["spec"]["instanceType"] = "trn9.48xlarge"
    cluster.put(kube.POOLS, edited)
    await settle(cluster)
    assert cluster.of(kube.NEURON_NODES)["worker"] == before
    assert labels(cluster, "worker")[names.LABEL_INSTANCE_TYPE] == "trn2.48xlarge"


async def test_the_older_of_two_pools_wins_and_the_younger_says_so(cluster, node, pool, settle):
    cluster.put(kube.NODES, node("worker"))
    cluster.put(kube.NODES, node("spare", labels={"spare": "yes"}))
    cluster.put(kube.POOLS, pool("a-young", created="2026-02-01T00:00:00Z"))
    older = {"matchExpressions": [{"key": "spare", "operator": "DoesNotExist"}]}
    cluster.put(kube.POOLS, pool("z-old", nodeSelector=older))
    await settle(cluster)
    assert members(cluster) == {"worker": "z-old", "spare": "a-young"}
    overlap = condition(cluster, "a-young", "Overlapping")
    assert (overlap["status"], overlap["reason"]) == ("True", "OlderPoolWins")
    assert "worker (pool z-old)" in overlap["message"]
    (event,) = [e for e in cluster.of(kube.EVENTS).values() if e["reason"] == "OlderPoolWins"]
    assert (event["type"], event["regarding"]["name"]) == ("Warning", "a-young")
    assert "worker (pool z-old)" in event["note"]


async def test_when_the_older_pool_goes_the_younger_inherits(cluster, node, pool, settle):
    cluster.put(kube.NODES, node("worker"))
    cluster.put(kube.POOLS, pool("old"))
    cluster.put(kube.POOLS, pool("young", created="2026-02-01T00:00:00Z"))
    await settle(cluster)
    cluster.drop(kube.POOLS, "old")
    await settle(cluster)
    assert members(cluster) == {"worker": "young"}
    assert condition(cluster, "young", "Overlapping")["status"] == "False"


async def test_many_nodes_with_partitions_are_told_what_that_costs(cluster, node, pool, settle):
    for number in range(51):
        cluster.put(kube.NODES, node(f"n{number}", labels={"part": "yes" if number else "no"}))
    cluster.put(kube.POOLS, pool(nodeSelector={"matchLabels": {"part": "yes"}}))
    cluster.put(kube.POOLS, pool("whole", partitions="none", created="2026-02-01T00:00:00Z"))
    await settle(cluster)
    assert condition(cluster, "default", "PartitionsAffordable")["status"] == "True"
    moved = cluster.of(kube.NODES)["n0"]
    moved["metadata"]["labels"]["part"] = "yes"
    cluster.put(kube.NODES, moved)
    await settle(cluster)
    told = condition(cluster, "default", "PartitionsAffordable")
    assert (told["status"], told["reason"]) == ("False", "TooManyNodesWithPartitions")
    assert "51 nodes" in told["message"]
    assert condition(cluster, "whole", "PartitionsAffordable")["status"] == "True"


async def test_a_selector_does_not_see_the_labels_that_we_wrote(cluster, node, pool, settle):
    """Else the pool would take the node, label it, lose it, and so on for ever."""
    unlabelled = {"matchExpressions": [{"key": names.LABEL_SIMULATED, "operator": "DoesNotExist"}]}
    cluster.put(kube.NODES, node("worker"))
    cluster.put(kube.POOLS, pool(nodeSelector=unlabelled))
    await settle(cluster)
    assert members(cluster) == {"worker": "default"}


async def test_one_event_per_change_and_none_for_what_is_as_it_should_be(cluster, node, pool, device_class, settle):
    cluster.put(kube.DEVICE_CLASSES, device_class())
    cluster.put(kube.NODES, node("worker"))
    cluster.put(kube.POOLS, pool())
    await settle(cluster)
    serve(cluster, "worker")
    await settle(cluster)
    await settle(cluster)
    told = sorted((e["type"], e["reason"]) for e in cluster.of(kube.EVENTS).values())
    assert told == [("Normal", "Accepted"), ("Normal", "Ready")]


async def test_a_pool_that_is_being_deleted_has_let_go_of_its_nodes(cluster, node, pool, settle):
    cluster.put(kube.NODES, node("worker"))
    going = pool("going")
    going["metadata"] |= {"deletionTimestamp": "2026-03-01T00:00:00Z", "finalizers": ["somebody/else"]}
    cluster.put(kube.POOLS, going)
    cluster.put(kube.POOLS, pool("next", created="2026-02-01T00:00:00Z"))
    await settle(cluster)
    assert members(cluster) == {"worker": "next"}


async def test_a_neuron_node_that_is_being_deleted_is_not_deleted_again(cluster, node, pool, settle):
    cluster.put(kube.NODES, node("worker"))
    cluster.put(kube.POOLS, pool())
    await settle(cluster)
    going = cluster.of(kube.NEURON_NODES)["worker"]
    going["metadata"] |= {"deletionTimestamp": "2026-03-01T00:00:00Z", "finalizers": ["somebody/else"]}
    cluster.put(kube.NEURON_NODES, going)
    cluster.drop(kube.POOLS, "default")
    await settle(cluster)
    assert "delete neuronnodes/worker" not in cluster.writes
