"""Virtual nodes beside the workers: kube-scheduler allocates, KWOK plays the pods, gangs find their UltraServer."""

from collections.abc import Iterator

import pytest
from harness import RELEASE, REPOSITORY, SYSTEM, Cluster, Object, until

EXAMPLES = REPOSITORY / "manifests/examples/virtual-nodes"
CHART = str(REPOSITORY / "charts/neuron-sim")


@pytest.fixture(scope="module", autouse=True)
def pool(cluster: Cluster) -> Iterator[None]:
    """The release with virtual nodes, and the example's pool."""
    cluster.show([str(REPOSITORY / "hack/cluster"), "kwok", "--name", cluster.name])
    cluster.helm(
        *("upgrade", RELEASE, CHART, "--namespace", SYSTEM, "--reuse-values", "--wait", "--timeout", "3m"),
        *("--set", "virtualNodes.enabled=true"),
    )
    try:
        cluster.apply((EXAMPLES / "pool.yaml").read_text())
        cluster.wait_nodes(2 + 8)
        yield
        cluster.kubectl("delete", "neuronnodepool", "rainier", "--ignore-not-found")
        until(lambda: not left(cluster), what="no virtual node left", details=lambda: left(cluster))
    finally:
        cluster.install()


def left(cluster: Cluster) -> list[str]:
    virtual = ("-l", "neuron-sim.dev/virtual=true")
    return [
        f"{kind}/{item['metadata']['name']}"
        for kind in ("nodes", "neuronnodes", "resourceslices")
        for item in cluster.items(kind, *virtual)
    ]


def pods_of_the_gang(cluster: Cluster, namespace: str) -> list[Object]:
    return cluster.items("pods", "-n", namespace, "-l", "neuron-sim.dev/gang=training")


def test_pods_and_gangs_run_and_end_on_virtual_nodes(cluster: Cluster, namespace: str) -> None:
    cluster.apply((EXAMPLES / "pod.yaml").read_text(), namespace)
    cluster.apply((EXAMPLES / "gang.yaml").read_text(), namespace)
    cluster.wait_ready(namespace, "four-chips")
    node = cluster.get("pod", "-n", namespace, "four-chips")["spec"]["nodeName"]
    (claim,) = (
        claim
        for claim in cluster.items("resourceclaims", "-n", namespace)
        if claim["metadata"]["name"].startswith("four-chips-")
    )
    assert {result["pool"] for result in claim["status"]["allocation"]["devices"]["results"]} == {node}

    cluster.kubectl("wait", "-n", namespace, "--for=condition=Complete", "job/training", "--timeout=90s")
    nodes = {item["metadata"]["name"]: item["metadata"]["labels"] for item in cluster.items("nodes")}
    used = [pod["spec"]["nodeName"] for pod in pods_of_the_gang(cluster, namespace)]
    assert len(set(used)) == 4
    assert len({nodes[name]["neuron-sim.dev/ultraserver-id"] for name in used}) == 1


def test_a_chip_breaks_by_one_write_and_the_pool_shrinks(cluster: Cluster) -> None:
    def generation() -> int:
        return int(cluster.get("resourceslice", "rainier-1-neuron.aws.com")["metadata"]["generation"])

    before = generation()
    cluster.apply(
        {
            "apiVersion": "neuron-sim.dev/v1alpha1",
            "kind": "NeuronFault",
            "metadata": {"name": "virtual-chip"},
            "spec": {"target": {"nodeName": "rainier-1", "chip": 3}, "type": "HBMUncorrectable"},
        }
    )
    try:
        until(
            lambda: [d["name"] for d in cluster.devices("rainier-1") if d.get("taints")] == ["neuron-device-3"],
            what="the taint in the slice",
        )
        assert generation() == before + 1
    finally:
        cluster.kubectl("delete", "neuronfault", "virtual-chip")
    cluster.kubectl("scale", "neuronnodepool/rainier", "--replicas=4")
    until(lambda: len(left(cluster)) == 3 * 4, what="four virtual nodes left", details=lambda: left(cluster))
    assert "nodes/rainier-3" in left(cluster)
