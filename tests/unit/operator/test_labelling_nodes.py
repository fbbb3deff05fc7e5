"""Labels come and go without hurting those that somebody else wrote."""

from neuron_operator import kube, names


def labels(cluster, node):
    return cluster.of(kube.NODES)[node]["metadata"]["labels"]


def condition(cluster, kind):
    conditions = cluster.of(kube.POOLS)["default"]["status"]["conditions"]
    return next(c for c in conditions if c["type"] == kind)


async def test_nodes_carry_what_real_nodes_carry(cluster, node, pool, settle):
    cluster.put(kube.NODES, node("worker", labels={"kubernetes.io/hostname": "worker"}))
    cluster.put(kube.POOLS, pool())
    await settle(cluster)
    have = labels(cluster, "worker")
    spec = cluster.of(kube.NEURON_NODES)["worker"]["spec"]
    assert have == {
        "kubernetes.io/hostname": "worker",
        "node.kubernetes.io/instance-type": "trn2.48xlarge",
        "topology.k8s.aws/network-node-layer-1": spec["networkNodes"][0],
        "topology.k8s.aws/network-node-layer-2": spec["networkNodes"][1],
        "topology.k8s.aws/network-node-layer-3": spec["networkNodes"][2],
        "neuron.amazonaws.com/present": "true",
        "neuron-sim.dev/pool": "default",
        "neuron-sim.dev/simulated": "true",
    }


async def test_a_clouds_own_instance_type_stays_and_the_pool_says_so(cluster, node, pool, settle):
    cluster.put(kube.NODES, node("worker", labels={names.LABEL_INSTANCE_TYPE: "m5.large"}))
    cluster.put(kube.POOLS, pool())
    await settle(cluster)
    assert labels(cluster, "worker")[names.LABEL_INSTANCE_TYPE] == "m5.large"
    assert labels(cluster, "worker")[names.LABEL_PRESENT] == "true"
    told = condition(cluster, "LabelsComplete")
    assert (told["status"], told["reason"]) == ("False", "ForeignLabelsKept")
    assert "worker: node.kubernetes.io/instance-type=m5.large (not trn2.48xlarge)" in told["message"]
    assert [e["type"] for e in cluster.of(kube.EVENTS).values() if e["reason"] == "ForeignLabelsKept"] == ["Warning"]


async def test_a_label_that_has_the_wished_value_anyway_outlives_us(cluster, node, pool, settle):
    cluster.put(kube.NODES, node("worker", labels={names.LABEL_INSTANCE_TYPE: "trn2.48xlarge"}))
    cluster.put(kube.POOLS, pool())
    await settle(cluster)
    assert condition(cluster, "LabelsComplete")["status"] == "True"
    cluster.drop(kube.POOLS, "default")
    await settle(cluster)
    assert labels(cluster, "worker") == {names.LABEL_INSTANCE_TYPE: "trn2.48xlarge"}


async def test_a_shared_label_is_let_go_when_we_wish_another_value(cluster, node, pool, settle):
    cluster.put(kube.NODES, node("worker", labels={names.LABEL_INSTANCE_TYPE: "trn2.48xlarge"}))
    cluster.put(kube.POOLS, pool())
    await settle(cluster)
    edited = cluster.of(kube.POOLS)["default"]
    edited["spec"]["instanceType"] = "trn1.32xlarge"
    cluster.put(kube.POOLS, edited)
    await settle(cluster)
    assert labels(cluster, "worker")[names.LABEL_INSTANCE_TYPE] == "trn2.48xlarge"
    assert condition(cluster, "LabelsComplete")["status"] == "False"


async def test_a_label_that_somebody_removed_comes_back(cluster, node, pool, settle):
    cluster.put(kube.NODES, node("worker"))
    cluster.put(kube.POOLS, pool())
    await settle(cluster)
    robbed = cluster.of(kube.NODES)["worker"]
    del robbed["metadata"]["labels"][names.LABEL_PRESENT]
    robbed["metadata"]["managedFields"] = [
        {**entry, "fieldsV1": {"f:metadata": {"f:labels": {
            key: {} for key in entry["fieldsV1"]["f:metadata"]["f:labels"] if key != f"f:{names.LABEL_PRESENT}"
        }}}}
        for entry in robbed["metadata"]["managedFields"]
    ]  # fmt: skip
    cluster.put(kube.NODES, robbed)
    await settle(cluster)
    assert labels(cluster, "worker")[names.LABEL_PRESENT] == "true"


async def test_nodes_outside_of_all_pools_are_never_written(cluster, node, pool, settle):
    cluster.put(kube.NODES, node("worker"))
    cluster.put(kube.POOLS, pool(nodeSelector={"matchLabels": {"accelerated": "yes"}}))
    await settle(cluster)
    assert not [write for write in cluster.writes if write.startswith("apply nodes/")]
