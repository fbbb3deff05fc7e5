"""Virtual nodes beside the workers: kube-scheduler allocates, KWOK plays nodes and pods, gangs find UltraServers."""

import re
from collections import Counter
from collections.abc import Iterator

import pytest
from harness import REPOSITORY, SYSTEM, Cluster, Failed, Object, condition, until

EXAMPLES = REPOSITORY / "manifests/examples/virtual-nodes"
AGENT = "app.kubernetes.io/component=virtual-agent"
VIRTUAL = ("-l", "neuron-sim.dev/virtual=true")


@pytest.fixture(scope="module", autouse=True)
def pool(cluster: Cluster) -> Iterator[None]:
    """The example's pool of eight."""
    try:
        cluster.apply((EXAMPLES / "pool.yaml").read_text())
        cluster.wait_nodes(2 + 8)
        yield
    finally:
        cluster.delete("neuronnodepool", "rainier", "--ignore-not-found")
        until(lambda: not left(cluster), what="no virtual node left", details=lambda: left(cluster))


def left(cluster: Cluster) -> list[str]:
    """What there is of virtual nodes."""
    found = [
        f"{kind}/{item['metadata']['name']}"
        for kind in ("nodes", "neuronnodes", "resourceslices")
        for item in cluster.items(kind, *VIRTUAL)
    ]
    leases = cluster.items("leases", "-n", "kube-node-lease")
    return found + [f"leases/{name}" for name in names(leases) if name.startswith("rainier-")]


def names(items: list[Object]) -> list[str]:
    return sorted(item["metadata"]["name"] for item in items)


def metrics(cluster: Cluster) -> list[str]:
    """The lines of the page of the agent of virtual nodes; none while no agent is ready."""
    ready = [pod for pod in cluster.items("pods", "-n", SYSTEM, "-l", AGENT) if condition(pod, "Ready") == "True"]
    if not ready:
        return []
    try:
        return cluster.kubectl(
            "get", "--raw", f"/api/v1/namespaces/{SYSTEM}/pods/{ready[-1]['metadata']['name']}:8000/proxy/metrics"
        ).splitlines()
    except Failed:  # it is ending
        return []


def pods_of_the_gang(cluster: Cluster, namespace: str) -> list[Object]:
    return cluster.items("pods", "-n", namespace, "-l", "neuron-sim.dev/gang=training")


def test_virtual_nodes_are_as_nodes_with_a_machine(cluster: Cluster) -> None:
    nodes = cluster.items("nodes", *VIRTUAL)
    assert names(nodes) == [f"rainier-{number}" for number in range(8)]
    assert {condition(node, "Ready") for node in nodes} == {"True"}
    until(lambda: sum(name.startswith("leases/") for name in left(cluster)) == 8, what="KWOK's leases")
    labels = [node["metadata"]["labels"] for node in nodes]
    assert {found["node.kubernetes.io/instance-type"] for found in labels} == {"trn2u.48xlarge"}
    assert Counter(Counter(found["neuron-sim.dev/ultraserver-id"] for found in labels).values()) == {4: 2}
    assert [len(cluster.devices(name)) for name in names(nodes)] == 8 * [16]

    found = metrics(cluster)
    assert "neuron_sim_virtual_agent_nodes 8" in found
    counters = [line for line in found if line.startswith("hardware_ecc_events_total{")]
    assert Counter(re.findall(r'node="([^"]*)"', "".join(counters))) == dict.fromkeys(names(nodes), 16 * 4)


def test_pods_and_gangs_run_and_end_on_virtual_nodes(cluster: Cluster, namespace: str) -> None:
    cluster.apply((EXAMPLES / "pod.yaml").read_text(), namespace)
    cluster.wait_ready(namespace, "four-chips")
    # not at once with the pod: where the scheduler gives it a node that the gang is promised in that moment, the gang
    # may be rolled back, and a Job takes its time to make pods anew. Once this took 84 s; that it was this is our guess
    cluster.apply((EXAMPLES / "gang.yaml").read_text(), namespace)
    node = cluster.get("pod", "-n", namespace, "four-chips")["spec"]["nodeName"]
    (claim,) = (
        claim
        for claim in cluster.items("resourceclaims", "-n", namespace)
        if claim["metadata"]["name"].startswith("four-chips-")
    )
    assert {result["pool"] for result in claim["status"]["allocation"]["devices"]["results"]} == {node}
    cores = f'neuroncore_utilization_ratio{{node="{node}",'
    until(
        lambda: sum(line.startswith(cores) and 'pod="four-chips"' in line for line in metrics(cluster)) == 4 * 4,
        what="the cores of the pod in the metrics of its node",
    )

    cluster.kubectl("wait", "-n", namespace, "--for=condition=Complete", "job/training", "--timeout=90s")
    nodes = {item["metadata"]["name"]: item["metadata"]["labels"] for item in cluster.items("nodes")}
    used = [pod["spec"]["nodeName"] for pod in pods_of_the_gang(cluster, namespace)]
    assert len(set(used)) == 4
    assert len({nodes[name]["neuron-sim.dev/ultraserver-id"] for name in used}) == 1


def test_a_chip_breaks_by_one_write_and_heals(cluster: Cluster) -> None:
    def generation() -> int:
        return int(cluster.get("resourceslice", "rainier-1-neuron.aws.com")["metadata"]["generation"])

    def tainted() -> list[str]:
        return [device["name"] for device in cluster.devices("rainier-1") if device.get("taints")]

    def counted() -> set[str]:
        event = (
            r'hardware_ecc_events_total\{node="rainier-1",.*event_type="mem_ecc_uncorrected",neuron_device_index="3"\} '
        )
        return {line.rpartition(" ")[2] for line in metrics(cluster) if re.match(event, line)}

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
        until(lambda: tainted() == ["neuron-device-3"], what="the taint in the slice", details=tainted)
        assert generation() == before + 1
        until(lambda: counted() == {"1"}, what="its ECC event in the metrics", details=counted)
    finally:
        cluster.delete("neuronfault", "virtual-chip")
    until(lambda: not tainted(), what="no taint any more", details=tainted)
    assert generation() == before + 2
    until(
        lambda: '"active":{}' in cluster.get("neuronnode", "rainier-1")["status"].get("hardwareRecord", ""),
        what="a record of what was broken, and is not any more",
    )
    agent = cluster.items("pods", "-n", SYSTEM, "-l", AGENT)[0]["metadata"]["name"]
    cluster.delete("pod", "-n", SYSTEM, agent)
    until(lambda: counted() == {"1"}, what="it is still counted by the next agent", details=counted)


def test_the_pool_grows_and_shrinks_and_leaves_nothing(cluster: Cluster) -> None:
    def nodes() -> list[str]:
        return names(cluster.items("nodes", *VIRTUAL))

    for count in (12, 4):
        cluster.kubectl("scale", "neuronnodepool/rainier", f"--replicas={count}")
        until(lambda count=count: len(nodes()) == count, what=f"{count} virtual nodes", details=nodes)
        cluster.wait_nodes(2 + count)
    assert nodes() == [f"rainier-{number}" for number in range(4)]
    cluster.delete("neuronnodepool", "rainier")
    until(lambda: not left(cluster), what="no virtual node left", details=lambda: left(cluster))
