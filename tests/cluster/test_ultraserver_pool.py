"""Examples on a pool of UltraServers: places, labels, attributes, pods on a pair of servers or in one UltraServer."""

from collections.abc import Iterator

import pytest
from harness import REPOSITORY, Cluster, Failed, Object, condition, until

EXAMPLE = REPOSITORY / "manifests/examples/ultraserver-pool"
SHARED = REPOSITORY / "manifests/examples/shared-ultraserver/pods.yaml"
DRIVER = "ultraserver.neuron-sim.dev"

ALONE = f"""
apiVersion: resource.k8s.io/v1
kind: ResourceClaim
metadata: {{name: another-ultraserver}}
spec: {{devices: {{requests: [{{name: ultraserver, exactly: {{deviceClassName: {DRIVER}}}}}]}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: alone}}
spec:
  containers: [{{name: c, image: busybox, command: [sleep, inf], resources: {{claims: [{{name: us}}]}}}}]
  resourceClaims: [{{name: us, resourceClaimName: another-ultraserver}}]
"""
BROKEN = """
apiVersion: neuron-sim.dev/v1alpha1
kind: NeuronFault
metadata: {{name: broken-server}}
spec: {{target: {{nodeName: {node}}}, type: DeviceLost, effect: NoSchedule}}
"""


@pytest.fixture(scope="module")
def ultraserver(cluster: Cluster) -> Iterator[dict[str, Object]]:
    """The example's pool with both workers in it, instead of the chart's; NeuronNodes by name."""
    with cluster.without_default_pool():
        cluster.kubectl("label", "node", *cluster.workers(), "fleet=ultraserver")
        try:
            cluster.apply((EXAMPLE / "pool.yaml").read_text())
            cluster.wait_nodes()
            yield {item["metadata"]["name"]: item for item in cluster.items("neuronnodes")}
        finally:
            cluster.kubectl("label", "node", *cluster.workers(), "fleet-")


def test_the_workers_are_the_first_two_servers_of_one_ultraserver(
    cluster: Cluster, ultraserver: dict[str, Object]
) -> None:
    seats = [ultraserver[node]["spec"]["ultraServer"] for node in cluster.workers()]
    assert [(seat["size"], seat["node"]) for seat in seats] == [(4, 0), (4, 1)]
    assert seats[0]["id"] == seats[1]["id"]
    assert (
        ultraserver[cluster.workers()[0]]["spec"]["networkNodes"]
        == (ultraserver[cluster.workers()[1]]["spec"]["networkNodes"])
    )
    for number, node in enumerate(cluster.workers()):
        labels = cluster.get("node", node)["metadata"]["labels"]
        assert labels["neuron.amazonaws.com/ultraserver-server-id-4"] == seats[0]["id"]
        assert labels["neuron.amazonaws.com/ultraserver-node-id-4"] == str(number)
        attributes = cluster.devices(node, "neuron_node")[0]["attributes"]
        capacity_block = ultraserver[node]["spec"]["capacityBlockID"]
        assert attributes["capacityBlockId"] == attributes["ultraserverId"] == {"string": capacity_block}


def test_the_pool_says_what_the_ultraserver_lacks(cluster: Cluster, ultraserver: dict[str, Object]) -> None:
    def lacks() -> str:
        conditions = cluster.get("neuronnodepool", "ultraserver")["status"]["conditions"]
        return next(str(found["message"]) for found in conditions if found["type"] == "UltraServersComplete")

    until(lambda: "server 2 is missing, server 3 is missing" in lacks(), what="two servers missing", details=lacks)
    pool = cluster.get("neuronnodepool", "ultraserver")
    assert condition(pool, "UltraServersComplete") == "False"
    assert (pool["status"]["ultraServers"], pool["status"]["readyUltraServers"]) == (1, 0)


def test_two_pods_on_a_pair(cluster: Cluster, ultraserver: dict[str, Object], namespace: str) -> None:
    cluster.apply((EXAMPLE / "pair.yaml").read_text(), namespace)
    try:
        until(lambda: len(cluster.items("pods", "-n", namespace)) == 2, what="both pods", timeout=120)
        cluster.wait_ready(namespace, "pair-0", "pair-1")
        assert_pair(cluster, namespace)
    finally:  # or its pods come again while the namespace is emptied
        cluster.kubectl("delete", "statefulset", "pair", "-n", namespace, "--timeout=60s")


def assert_pair(cluster: Cluster, namespace: str) -> None:
    found = {}
    for pod in ("pair-0", "pair-1"):
        environment = dict(
            line.split("=", 1) for line in cluster.execute(namespace, pod, "env").splitlines() if "=" in line
        )
        node = cluster.get("pod", "-n", namespace, pod)["spec"]["nodeName"]
        labels = cluster.get("node", node)["metadata"]["labels"]
        assert environment["NEURON_RT_ULTRASERVER_MODE"] == "2"
        assert environment["NEURON_RT_ULTRASERVER_SERVER_ID"] == labels["neuron.amazonaws.com/ultraserver-server-id-2"]
        assert environment["NEURON_RT_ULTRASERVER_NODE_ID"] == labels["neuron.amazonaws.com/ultraserver-node-id-2"]
        found[environment["NEURON_RT_ULTRASERVER_NODE_ID"]] = environment["NEURON_RT_ULTRASERVER_SERVER_ID"]
    assert found.keys() == {"0", "1"}
    assert found["0"] == found["1"]


def test_pods_share_an_ultraserver_as_a_device(
    cluster: Cluster, ultraserver: dict[str, Object], namespace: str
) -> None:
    """Its claim pins both to the UltraServer, another claim has to wait, and a broken node closes it to new claims."""
    seats = {node: item["spec"]["ultraServer"] for node, item in ultraserver.items()}
    (ultraserver_id,) = {seat["id"] for seat in seats.values()}
    text = SHARED.read_text()
    cluster.apply(text, namespace)
    until(lambda: len(cluster.items("pods", "-n", namespace)) == 2, what="both pods", timeout=120)
    cluster.wait_ready(namespace, "together-0", "together-1")
    allocation = cluster.get("resourceclaim", "-n", namespace, "one-ultraserver")["status"]["allocation"]
    (result,) = allocation["devices"]["results"]
    assert (result["driver"], result["pool"]) == (DRIVER, ultraserver_id)
    (term,) = allocation["nodeSelector"]["nodeSelectorTerms"]
    assert term == {
        "matchExpressions": [{"key": "neuron-sim.dev/ultraserver-id", "operator": "In", "values": [ultraserver_id]}]
    }
    for pod in ("together-0", "together-1"):
        lines = cluster.execute(namespace, pod, "env").splitlines()
        node = cluster.get("pod", "-n", namespace, pod)["spec"]["nodeName"]
        assert f"NEURON_RT_ULTRASERVER_SERVER_ID={ultraserver_id}" in lines
        assert f"NEURON_RT_ULTRASERVER_NODE_ID={seats[node]['node']}" in lines
    cluster.apply(ALONE, namespace)

    def waits() -> str:
        conditions = cluster.get("pod", "-n", namespace, "alone")["status"].get("conditions", [])
        return next((str(found.get("message")) for found in conditions if found["type"] == "PodScheduled"), "")

    until(lambda: "cannot allocate all claims" in waits(), what="a second claim that waits", details=waits)

    def device() -> Object:
        (found,) = cluster.items("resourceslices", f"--field-selector=spec.driver={DRIVER}")
        return dict(found["spec"]["devices"][0])

    cluster.apply(BROKEN.format(node=cluster.workers()[0]))
    try:
        until(lambda: "taints" in device(), what="a taint", details=device)
    finally:
        cluster.kubectl("delete", "neuronfault", "broken-server")
    until(lambda: "taints" not in device(), what="no taint", details=device)


def test_an_edited_shape_moves_nobody(cluster: Cluster, ultraserver: dict[str, Object]) -> None:
    patch = '{"spec": {"topology": {"nodesPerLayer3": 4}, "partitions": "logical"}}'
    cluster.kubectl("patch", "neuronnodepool", "ultraserver", "--type=merge", "-p", patch)

    def specs() -> dict[str, Object]:
        return {item["metadata"]["name"]: item["spec"] for item in cluster.items("neuronnodes")}

    until(lambda: all(spec["partitions"] == "logical" for spec in specs().values()), what="the edit on every node")
    for node, spec in specs().items():
        assert spec["ultraServer"] == ultraserver[node]["spec"]["ultraServer"]
        assert spec["networkNodes"] == ultraserver[node]["spec"]["networkNodes"]


def test_a_shape_that_cuts_ultraservers_apart_is_refused(cluster: Cluster) -> None:
    wrong = (EXAMPLE / "pool.yaml").read_text().replace("nodesPerLayer3: 8", "nodesPerLayer3: 6")
    with pytest.raises(Failed, match="multiple of 4 on this instance type"):
        cluster.apply(wrong.replace("name: ultraserver", "name: wrong"))
