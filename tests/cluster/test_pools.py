"""Pools and nodes: what a wish becomes, who wins a node, and what is refused at kubectl apply."""

from collections.abc import Iterator

import pytest
from harness import CONTROL_PLANE, Cluster, Failed, Object, condition, until


def pool(name: str, instance_type: str, labels: dict[str, str] | None = None, **spec: object) -> Object:
    selector = {"nodeSelector": {"matchLabels": labels}} if labels else {}
    return {
        "apiVersion": "neuron-sim.dev/v1alpha1",
        "kind": "NeuronNodePool",
        "metadata": {"name": name},
        "spec": {"instanceType": instance_type, **selector, **spec},
    }


@pytest.fixture
def no_default_pool(cluster: Cluster) -> Iterator[None]:
    with cluster.without_default_pool():
        try:
            yield
        finally:
            cluster.kubectl("label", "node", *cluster.workers(), "team-", "second-")


def instance_types(cluster: Cluster) -> dict[str, str]:
    return {n["metadata"]["name"]: n["spec"]["instanceType"] for n in cluster.items("neuronnodes")}


def node_labels(cluster: Cluster, node: str) -> dict[str, str]:
    return dict(cluster.get("node", node)["metadata"]["labels"])


def test_default_pool_makes_every_worker_a_trn2(cluster: Cluster) -> None:
    assert instance_types(cluster) == dict.fromkeys(cluster.workers(), "trn2.48xlarge")
    for node in cluster.workers():
        labels = node_labels(cluster, node)
        assert labels["node.kubernetes.io/instance-type"] == "trn2.48xlarge"
        assert labels["topology.k8s.aws/network-node-layer-1"].startswith("nn-")
        assert labels["neuron-sim.dev/simulated"] == "true"
        annotations = cluster.get("node", node)["metadata"]["annotations"]
        assert not [key for key in annotations if "kopf" in key]

    def counted() -> tuple[int, int]:
        status = cluster.get("neuronnodepool", "default")["status"]
        return status["nodes"], status["readyNodes"]

    until(lambda: counted() == (2, 2), what="the pool counts both nodes as ready", details=counted)
    assert "finalizers" not in cluster.get("neuronnodepool", "default")["metadata"]
    columns = cluster.kubectl("get", "neuronnodepools").splitlines()
    assert "trn2.48xlarge" in columns[1]


@pytest.mark.usefixtures("no_default_pool")
def test_nodes_follow_labels_and_pools(cluster: Cluster) -> None:
    """A node joins with its label, changes with its pool, and is itself again when either goes."""
    node = cluster.workers()[0]

    def labelled() -> str:
        return node_labels(cluster, node).get("node.kubernetes.io/instance-type", "")

    until(lambda: not labelled(), what="no label of the default pool", details=labelled)
    cluster.apply(pool("train", "trn1.32xlarge", {"team": "train"}))
    cluster.kubectl("label", "node", node, "team=train")
    until(lambda: instance_types(cluster) == {node: "trn1.32xlarge"}, what="the labelled node a trn1")
    until(lambda: len(cluster.devices(node)) == 16, what="its 16 chips offered")

    cluster.apply(pool("train", "inf2.48xlarge", {"team": "train"}))
    until(lambda: len(cluster.devices(node)) == 12, what="12 chips of the inf2 offered")
    until(lambda: labelled() == "inf2.48xlarge", what="the node's label of an inf2", details=labelled)

    cluster.kubectl("label", "node", node, "team-")
    until(lambda: not instance_types(cluster) and not cluster.slices(), what="nothing offered any more")
    until(lambda: not labelled(), what="the node's labels gone", details=labelled)
    assert "neuron-sim.dev/simulated" not in node_labels(cluster, node)


@pytest.mark.usefixtures("no_default_pool")
def test_older_of_two_pools_wins_and_the_younger_says_so(cluster: Cluster) -> None:
    node = cluster.workers()[0]
    cluster.kubectl("label", "node", node, "team=a", "second=b")
    cluster.apply(pool("older", "trn1.32xlarge", {"team": "a"}))
    until(lambda: instance_types(cluster) == {node: "trn1.32xlarge"}, what="the node in the first pool")
    cluster.apply(pool("younger", "trn2.48xlarge", {"second": "b"}))

    def told() -> str:
        found = cluster.get("neuronnodepool", "younger").get("status", {}).get("conditions", [])
        return next((c["message"] for c in found if node in c["message"] and "older" in c["message"]), "")

    assert until(told, what="the younger pool says which node it did not get, and why")
    assert instance_types(cluster) == {node: "trn1.32xlarge"}
    cluster.delete("neuronnodepool", "older")
    until(lambda: instance_types(cluster) == {node: "trn2.48xlarge"}, what="the younger pool has the node now")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        pytest.param(pool("x", "trn9.huge"), "trn2.48xlarge", id="unknown type"),
        pytest.param(pool("x", "trn1.32xlarge", logicalNeuronCore=2), "logicalNeuronCore", id="LNC the chip lacks"),
        pytest.param(pool("x", "trn2.48xlarge", logicalNeuronCore=3), "logicalNeuronCore", id="LNC that nothing has"),
        pytest.param(pool("x", "trn2.48xlarge", resources="Magic"), "Auto", id="unknown road"),
        pytest.param(pool("x", "trn2.48xlarge", instancetype="a"), "instancetype", id="misspelt field"),
    ],
)
def test_wrong_pool_is_refused_at_apply(cluster: Cluster, wrong: Object, says: str) -> None:
    with pytest.raises(Failed, match=says):
        cluster.apply(wrong)
    assert not cluster.get("neuronnodepool", "x")


def test_a_clouds_own_label_is_never_overwritten(cluster: Cluster) -> None:
    """A label that somebody else wrote stays as it is, also when the operator starts anew."""
    key, node = "node.kubernetes.io/instance-type", cluster.workers()[0]
    before = node_labels(cluster, node)[key]
    cluster.kubectl("label", "node", node, f"{key}=m7i.large", "--overwrite", "--field-manager=cloud")

    def told() -> str:
        conditions = cluster.get("neuronnodepool", "default")["status"]["conditions"]
        (complete,) = [c for c in conditions if c["type"] == "LabelsComplete"]
        return complete["message"] if complete["status"] == "False" else ""

    try:
        assert f"{node}: {key}=m7i.large (not {before})" in until(told, what="the pool says that a label is another's")
        assert condition(cluster.get("neuronnodepool", "default"), "Ready") == "True"
        cluster.kubectl("rollout", "restart", "-n", "neuron-sim-system", "deployment/neuron-sim-operator")
        cluster.kubectl(
            "rollout", "status", "-n", "neuron-sim-system", "deployment/neuron-sim-operator", "--timeout=120s"
        )
        assert node_labels(cluster, node)[key] == "m7i.large"
    finally:
        cluster.kubectl("label", "node", node, f"{key}-", "--field-manager=cloud")
        until(lambda: node_labels(cluster, node).get(key) == before, what="our own label back")
        until(lambda: not told(), what="the pool's labels complete again")


def test_one_operator_leads_and_the_other_takes_over(cluster: Cluster) -> None:
    """When the leader goes, the second replica writes what was wished in between."""

    def leader() -> str:
        return str(
            cluster.get("lease", "-n", "neuron-sim-system", "neuron-sim-operator")
            .get("spec", {})
            .get("holderIdentity", "")
        )

    def leading() -> tuple[str, ...]:
        """The leader, and its pod; neither while the Lease names one that has gone."""
        first = leader()
        pods = cluster.items("pods", "-n", "neuron-sim-system", "-l", "app.kubernetes.io/component=operator")
        return next(((first, p["metadata"]["name"]) for p in pods if p["metadata"]["name"] in first), ())

    first, name = until(leading, what="a leader", details=leader)
    cluster.delete("pod", "-n", "neuron-sim-system", name)
    until(lambda: leader() not in ("", first), what="another leader")
    cluster.delete("neuronnode", cluster.workers()[0])
    cluster.wait_nodes()


def test_real_neuron_in_the_cluster_is_refused_loudly(cluster: Cluster) -> None:
    """A node that has real chips: the pools say so and what to do, and nothing that runs is touched."""
    node = "real-trainium"
    before = instance_types(cluster)
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": node, "labels": {"feature.node.kubernetes.io/aws-neuron": "true"}},
            "spec": {"taints": [{"key": CONTROL_PLANE, "effect": "NoSchedule"}]},
        }
    )

    def accepted() -> Object:
        conditions = cluster.get("neuronnodepool", "default")["status"]["conditions"]
        return next(c for c in conditions if c["type"] == "Accepted")

    try:
        until(lambda: accepted()["reason"] == "RealNeuronFound", what="the pool refused", details=accepted)
        assert accepted()["status"] == "False"
        assert node in accepted()["message"]
        assert instance_types(cluster) == before
        events = cluster.items("events", "-A", "--field-selector=involvedObject.name=default,type=Warning")
        assert any(node in event["message"] for event in events)
    finally:
        cluster.delete("node", node)
        until(lambda: accepted()["status"] == "True", what="the pool accepted again", details=accepted)
