"""Whatever speaks of real Neuron stops the pools, loudly, and nothing that runs is torn down."""

import pytest
from neuron_operator import foreign, kube, names
from neuron_operator.fleet import Fleet
from neuron_operator.nodes import node_facts
from neuron_operator.reconciler import RealNeuronFound, Reconciler


def condition(cluster, kind, pool="default"):
    return next(c for c in cluster.of(kube.POOLS)[pool]["status"]["conditions"] if c["type"] == kind)


def daemon_set(image, *, labels=None):
    pod = {"containers": [{"name": "c", "image": image}]}
    metadata = {"name": "ds", "namespace": "kube-system", "labels": labels or {}}
    return {"metadata": metadata, "spec": {"template": {"spec": pod}}}


def resource_slice(driver, *, labels=None):
    return {"metadata": {"name": f"node-{driver}-x", "labels": labels or {}}, "spec": {"driver": driver}}


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"capacity": {"aws.amazon.com/neuron": "16"}}, "capacity"),
        ({"capacity": {"aws.amazon.com/neuroncore": "32"}}, "capacity"),
        (
            {"labels": {names.LABEL_INSTANCE_TYPE: "inf2.xlarge"}, "spec": {"providerID": "aws:///usw2-az1/i-1"}},
            "EC2 instance of type inf2.xlarge",
        ),
        ({"labels": {names.LABEL_NFD: "true"}}, "PCI"),
        ({"labels": {names.LABEL_PRESENT: "true"}}, "did not write"),
    ],
)
def test_a_real_node_is_known(node, more, says):
    item = node("worker", **more)
    item["metadata"]["uid"] = "u"
    finding = foreign.on_node(node_facts(item))
    assert finding is not None
    assert finding.node == "worker"
    assert says in finding.what
    assert "another driver name" in finding.remedy


@pytest.mark.parametrize(
    "more",
    [
        {"capacity": {"aws.amazon.com/neuron": "0"}},
        {"labels": {names.LABEL_INSTANCE_TYPE: "m5.large"}, "spec": {"providerID": "aws:///usw2-az1/i-1"}},
        {"labels": {names.LABEL_INSTANCE_TYPE: "trn2.48xlarge"}, "spec": {"providerID": "kind://docker/x/y"}},
    ],
)
def test_an_ordinary_node_is_not_mistaken(node, more):
    item = node("worker", **more)
    item["metadata"]["uid"] = "u"
    assert foreign.on_node(node_facts(item)) is None


async def test_a_node_is_not_mistaken_for_the_labels_that_we_wrote(cluster, node, pool, settle):
    cluster.put(kube.NODES, node("worker", spec={"providerID": "aws:///usw2-az1/i-1"}))
    cluster.put(kube.POOLS, pool())
    await settle(cluster)
    assert condition(cluster, "Accepted")["status"] == "True"


@pytest.mark.parametrize(
    "image",
    [
        "public.ecr.aws/neuron/neuron-device-plugin:2.32.0.0",
        "registry.local:5000/mirror/neuron-dra-driver@sha256:00",
        "neuron-dra-driver",
    ],
)
def test_a_daemon_set_of_aws_is_known(image):
    (finding,) = foreign.in_daemon_sets([daemon_set(image)])
    assert "kube-system/ds" in finding.what


@pytest.mark.parametrize("image", ["neuron-sim/neuron-sim:0.1.0", "example.com/neuron-dra-driver/docs:1"])
def test_other_daemon_sets_are_not_mistaken(image):
    assert foreign.in_daemon_sets([daemon_set(image)]) == []


def test_slices_of_another_driver_under_our_name_are_known():
    ours = resource_slice(names.AWS_DRIVER_NAME, labels={names.LABEL_SIMULATED: "true"})
    theirs = resource_slice(names.AWS_DRIVER_NAME)
    other = resource_slice("gpu.example.com")
    (finding,) = foreign.in_slices([ours, theirs, other], driver_name=names.AWS_DRIVER_NAME)
    assert theirs["metadata"]["name"] in finding.what
    assert foreign.in_slices([ours, theirs, other], driver_name="sim.example.com") == []


async def test_pools_do_not_grow_and_say_why(cluster, node, pool, settle):
    cluster.put(kube.NODES, node("worker"))
    cluster.put(kube.POOLS, pool())
    cluster.put(kube.DAEMON_SETS, daemon_set("public.ecr.aws/neuron/neuron-device-plugin:2.32.0.0"))
    planned = await settle(cluster)
    assert planned.refusal
    assert cluster.of(kube.NEURON_NODES) == {}
    accepted = condition(cluster, "Accepted")
    assert (accepted["status"], accepted["reason"]) == ("False", "RealNeuronFound")
    assert "neuron-device-plugin" in accepted["message"]
    assert [e["type"] for e in cluster.of(kube.EVENTS).values() if e["reason"] == "RealNeuronFound"] == ["Warning"]


async def test_what_runs_when_real_neuron_appears_stays_and_still_goes_with_its_pool(cluster, node, pool, settle):
    cluster.put(kube.NODES, node("worker"))
    cluster.put(kube.POOLS, pool())
    await settle(cluster)
    before = cluster.of(kube.NEURON_NODES)["worker"]
    cluster.put(kube.NODES, node("real", capacity={"aws.amazon.com/neuron": "16"}))
    cluster.put(kube.NODES, node("late"))
    await settle(cluster)
    assert cluster.of(kube.NEURON_NODES) == {"worker": before}
    assert names.LABEL_POOL in cluster.of(kube.NODES)["worker"]["metadata"]["labels"]
    cluster.drop(kube.POOLS, "default")
    await settle(cluster)
    assert cluster.of(kube.NEURON_NODES) == {}


async def test_when_real_neuron_is_gone_pools_grow_again(cluster, node, pool, settle):
    cluster.put(kube.NODES, node("worker"))
    cluster.put(kube.POOLS, pool())
    cluster.put(kube.DAEMON_SETS, daemon_set("neuron-device-plugin:1"))
    await settle(cluster)
    cluster.drop(kube.DAEMON_SETS, "kube-system/ds")
    await settle(cluster)
    assert list(cluster.of(kube.NEURON_NODES)) == ["worker"]
    assert condition(cluster, "Accepted")["status"] == "True"


async def test_under_another_driver_name_real_nodes_are_only_left_alone(cluster, node, pool, settle):
    cluster.put(kube.NODES, node("worker"))
    cluster.put(kube.NODES, node("real", capacity={"aws.amazon.com/neuron": "16"}))
    cluster.put(kube.POOLS, pool())
    cluster.put(kube.SLICES, resource_slice(names.AWS_DRIVER_NAME))
    planned = await settle(cluster, driver_name="sim.example.com")
    assert not planned.refusal
    assert list(cluster.of(kube.NEURON_NODES)) == ["worker"]
    assert condition(cluster, "Ready")["reason"] == "RealNodesSelected"


async def test_at_the_start_the_operator_tells_the_pools_and_ends(cluster, node, pool):
    cluster.put(kube.NODES, node("real", capacity={"aws.amazon.com/neuron": "16"}))
    cluster.put(kube.POOLS, pool())
    fleet = Fleet(driver_name=names.AWS_DRIVER_NAME)
    with pytest.raises(RealNeuronFound, match="node real has aws"):
        await Reconciler(api=cluster, fleet=fleet, driver_name=names.AWS_DRIVER_NAME).run()
    assert condition(cluster, "Accepted")["reason"] == "RealNeuronFound"
