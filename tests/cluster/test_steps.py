"""An example of each family: what a step takes on its chips and links, what a broken chip does, what a move costs.

The two workers are nodes of other types for the time of this file, one pool for each or one for both.
"""

from collections.abc import Iterator

import pytest
from harness import REPOSITORY, SYSTEM, Cluster, Object, until

EXAMPLES = REPOSITORY / "manifests/examples"
BROKEN = """
apiVersion: neuron-sim.dev/v1alpha1
kind: NeuronFault
metadata: {{name: {name}}}
spec: {{target: {{nodeName: {node}, chip: 3}}, type: {kind}, percent: 50}}
"""


@pytest.fixture(scope="module", autouse=True)
def no_default_pool(cluster: Cluster) -> Iterator[None]:
    with cluster.without_default_pool():
        yield


def pools(cluster: Cluster, *types: str) -> None:
    """A pool of each of these types for a worker, or one of both."""
    workers = cluster.workers()
    made = []
    for number, kind in enumerate(types):
        spec: Object = {"instanceType": kind, "partitions": "none"}
        if kind.startswith("trn3"):
            spec["devices"] = "node"
        if len(types) == len(workers):
            spec["nodeSelector"] = {"matchLabels": {"kubernetes.io/hostname": workers[number]}}
        name = f"steps-{len(types)}-{number}"
        made.append(
            {
                "apiVersion": "neuron-sim.dev/v1alpha1",
                "kind": "NeuronNodePool",
                "metadata": {"name": name},
                "spec": spec,
            }
        )
    others = [one["metadata"]["name"] for one in cluster.items("neuronnodepools")]
    for name in set(others) - {one["metadata"]["name"] for one in made}:
        cluster.delete("neuronnodepool", name)
    cluster.apply(made)
    cluster.wait_nodes()


def lines(cluster: Cluster, namespace: str, pod: str, *last: str) -> list[str]:
    """What a pod has said, once its last line has these words."""

    def said() -> list[str]:
        found = cluster.kubectl("logs", "-n", namespace, pod, check=False).splitlines()
        return found if len(found) > 1 and all(words in found[-1] for words in last) else []

    return until(said, what=f"{pod} says {last}", timeout=90, details=lambda: cluster.brief())


def milliseconds(line: str) -> float:
    number, unit = line.split("  ")[1].split()
    return float(number) * (1000 if unit == "s" else 1)


def test_inf1_and_inf2_serve(cluster: Cluster, namespace: str) -> None:
    pools(cluster, "inf1.24xlarge", "inf2.48xlarge")
    for name in ("inf1-serving", "inf2-serving"):
        cluster.apply((EXAMPLES / name / "pod.yaml").read_text(), namespace)
    first, *_ = lines(cluster, namespace, "inf1-serving", "tokens/s", "tensor 0.00 ms")
    assert first == "16 ranks on 1 × inf1.24xlarge: tensor 1, data 16, pipeline 1"
    first, *_ = lines(cluster, namespace, "inf2-serving", "tokens/s", "first token")
    assert first == "24 ranks on 1 × inf2.48xlarge: tensor 8, data 3, pipeline 1"


def test_trn1_and_trn2_train_and_faults_slow_and_end_it(cluster: Cluster, namespace: str) -> None:
    pools(cluster, "trn1.32xlarge", "trn2.48xlarge")
    for name in ("trn1-training", "trn2-training"):
        cluster.apply((EXAMPLES / name / "pod.yaml").read_text(), namespace)
    first, *_ = lines(cluster, namespace, "trn1-training", "step ", "hidden")
    assert first == "32 ranks on 1 × trn1.32xlarge: tensor 8, data 4, pipeline 1"
    first, *_, whole = lines(cluster, namespace, "trn2-training", "step ", "bubble")
    assert first == "64 ranks on 1 × trn2.48xlarge: tensor 4, data 4, pipeline 4"
    node = cluster.workers()[1]
    until(lambda: busy_cores(cluster, node, "trn2-training") == 64, what="64 busy cores on the node's page")
    try:
        cluster.apply(BROKEN.format(name="hot", node=node, kind="ThermalThrottle"))
        slower = lines(cluster, namespace, "trn2-training", "at 50% of the cores' speed")[-1]
        assert milliseconds(slower) > 1.5 * milliseconds(whole)
        cluster.apply(BROKEN.format(name="dead", node=node, kind="HBMUncorrectable").replace(", percent: 50", ""))
        ended = until(lambda: terminated(cluster, namespace, "trn2-training"), what="the program has ended")
        assert ended["exitCode"] == 255
    finally:
        cluster.delete("neuronfaults", "--all")


def test_a_move_to_another_ultraserver_makes_steps_longer(cluster: Cluster, namespace: str) -> None:
    manifest = (EXAMPLES / "trn3-switch/statefulset.yaml").read_text()
    times = []
    try:
        for fleet in (("trn3.48xlarge", "trn3.48xlarge"), ("trn3.48xlarge",)):
            pools(cluster, *fleet)
            cluster.apply(manifest, namespace)
            first, *_, last = lines(cluster, namespace, "trn3-switch-0", "step ", "pipeline")
            assert first.startswith("128 ranks on 2 × trn3.48xlarge, UltraServer ")
            assert first.count(", ") == 2 + len(fleet), "as many UltraServers"
            times.append(milliseconds(last))
            cluster.delete("statefulset", "trn3-switch", "-n", namespace, "--timeout=60s")
            until(lambda: not cluster.items("pods", "-n", namespace), what="no pod")
            until(lambda: not cluster.leftovers(), what="nothing left over", details=cluster.leftovers)
    finally:
        cluster.delete("statefulset", "trn3-switch", "-n", namespace, "--ignore-not-found", "--timeout=60s")
    apart, together = times
    assert apart > 1.15 * together


def busy_cores(cluster: Cluster, node: str, pod: str) -> int:
    """How many cores of a pod the node's page for Prometheus shows at work."""
    agent = cluster.agent(node)["metadata"]["name"]
    page = cluster.kubectl("get", "--raw", f"/api/v1/namespaces/{SYSTEM}/pods/{agent}:8000/proxy/metrics")
    utilization = [line for line in page.splitlines() if line.startswith("neuroncore_utilization_ratio{")]
    return sum(f'pod="{pod}"' in line and float(line.rpartition(" ")[2]) > 0 for line in utilization)


def terminated(cluster: Cluster, namespace: str, name: str) -> Object:
    """How a container ended, once it did."""
    (status,) = cluster.get("pod", "-n", namespace, name)["status"]["containerStatuses"]
    found = status["state"].get("terminated") or status.get("lastState", {}).get("terminated") or {}
    return dict(found)
