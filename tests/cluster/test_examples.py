"""Every example is applied as its README says, and shows what it promises.

The table says how many devices each container sees. An example that the table does not know fails, so that none
is added without being run.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import REPOSITORY, Cluster, until

EXAMPLES = REPOSITORY / "manifests/examples"

SEES: dict[str, dict[tuple[str, str], int]] = {
    "first-light/pod.yaml": {("neuron-inference", "inference"): 1},
    "count/pod.yaml": {("count", "ctr0"): 4},
    "cel-selector/pod.yaml": {("cel-selector", "ctr0"): 1},
    "connected-devices/by-device-group.yaml": {("by-device-group", "ctr0"): 4},
    "connected-devices/by-row.yaml": {("by-row", "ctr0"): 4},
    "all-devices/all-devices.yaml": {("all-devices", "ctr0"): 16},
    "first-available/pod.yaml": {("first-available", "ctr0"): 2},
    "shared-claim/containers.yaml": {("containers-share", "ctr0"): 2, ("containers-share", "ctr1"): 2},
    "shared-claim/pods.yaml": {("pod-shares-0", "ctr0"): 2, ("pod-shares-1", "ctr0"): 2},
    "two-claims/pod.yaml": {("two-claims", "ctr0"): 3},
    "per-container/pod.yaml": {("per-container", "ctr0"): 1, ("per-container", "ctr1"): 1},
}


WHOLE_NODE = "all-devices/all-devices.yaml"
TOGETHER = [example for example in SEES if example != WHOLE_NODE]


def assert_sees(cluster: Cluster, namespace: str, example: str) -> None:
    for (pod, container), count in SEES[example].items():
        devices = cluster.neuron_ls(namespace, pod, container)
        assert [d["neuron_device"] for d in devices] == list(range(count))
        assert len({d["bdf"] for d in devices}) == count, "each one another chip"


def test_example_that_wants_a_whole_node(cluster: Cluster, namespace: str) -> None:
    cluster.apply((EXAMPLES / WHOLE_NODE).read_text(), namespace)
    cluster.wait_ready(namespace)
    assert_sees(cluster, namespace, WHOLE_NODE)


@pytest.fixture(scope="module")
def together(cluster: Cluster) -> Iterator[str]:
    """A namespace in which all others run side by side; they fit on two nodes in any order."""
    with cluster.namespace() as name:
        for example in TOGETHER:
            cluster.apply((EXAMPLES / example).read_text(), name)
        cluster.wait_ready(name)
        yield name


@pytest.mark.parametrize("example", TOGETHER)
def test_example_shows_its_devices(cluster: Cluster, together: str, example: str) -> None:
    assert_sees(cluster, together, example)


@pytest.mark.parametrize("pod", ["by-device-group", "by-row"])
def test_row_of_four_is_a_row(cluster: Cluster, together: str, pod: str) -> None:
    """What matchAttribute promises."""
    (claim,) = [
        claim
        for claim in cluster.items("resourceclaims", "-n", together)
        if pod in [reserved["name"] for reserved in claim["status"]["reservedFor"]]
    ]
    ids = sorted(int(r["device"].rpartition("-")[2]) for r in claim["status"]["allocation"]["devices"]["results"])
    assert ids == list(range(ids[0], ids[0] + 4))
    assert ids[0] % 4 == 0


def test_containers_of_a_pod_get_different_chips(cluster: Cluster, together: str) -> None:
    seen = [cluster.neuron_ls(together, "per-container", name)[0]["bdf"] for name in ("ctr0", "ctr1")]
    assert len(set(seen)) == 2


def test_sharing_pods_see_the_same_chips(cluster: Cluster, together: str) -> None:
    first, second = ([d["bdf"] for d in cluster.neuron_ls(together, f"pod-shares-{i}")] for i in (0, 1))
    assert first == second


@pytest.fixture
def admin_namespace(cluster: Cluster) -> Iterator[str]:
    yield "neuron-admin"
    cluster.kubectl("delete", "namespace", "neuron-admin", "--ignore-not-found", "--timeout=120s")
    until(lambda: not cluster.leftovers(), what="nothing left over", details=cluster.leftovers)


def test_admin_access_sees_devices_that_others_hold(cluster: Cluster, admin_namespace: str) -> None:
    cluster.apply((EXAMPLES / "admin-access/admin-access.yaml").read_text())
    cluster.wait_ready(admin_namespace, "workload", "monitor")
    assert len(cluster.neuron_ls(admin_namespace, "workload")) == 4
    assert len(cluster.neuron_ls(admin_namespace, "monitor")) == 16


@pytest.fixture
def standalone_agent(cluster: Cluster) -> Iterator[None]:
    """An agent of another driver name beside the chart's. Pods that hold its devices have to go before it."""
    manifest = str(EXAMPLES / "standalone-agent/agent.yaml")
    cluster.kubectl("apply", "-f", manifest)
    try:
        cluster.kubectl("rollout", "status", "-n", "neuron-standalone", "daemonset/agent", "--timeout=90s")
        yield
    finally:
        cluster.kubectl("delete", "-f", manifest, "--timeout=120s")


@pytest.mark.usefixtures("standalone_agent")
def test_agent_alone_serves_its_devices(cluster: Cluster, namespace: str) -> None:
    cluster.apply((EXAMPLES / "standalone-agent/pod.yaml").read_text(), namespace)
    cluster.wait_ready(namespace)
    assert [d["neuron_device"] for d in cluster.neuron_ls(namespace, "standalone")] == [0, 1]
    assert "instance-type: inf2.48xlarge" in cluster.execute(namespace, "standalone", "neuron-ls")


@pytest.mark.parametrize("example", sorted((EXAMPLES / "pools").glob("*.yaml")), ids=lambda path: path.stem)
def test_pool_examples_are_accepted(cluster: Cluster, example: Path) -> None:
    """Their labels match no node here; the API server and the operator accept them."""
    cluster.apply(example.read_text())
    try:
        until(
            lambda: cluster.get("neuronnodepool", example.stem).get("status", {}).get("conditions"),
            what="a status",
        )
        (accepted,) = [
            c for c in cluster.get("neuronnodepool", example.stem)["status"]["conditions"] if c["type"] == "Accepted"
        ]
        assert accepted["status"] == "True", accepted["message"]
    finally:
        cluster.kubectl("delete", "-f", str(example))


def test_no_example_is_left_untried() -> None:
    others = ("admin-access/admin-access.yaml", "standalone-agent/agent.yaml", "standalone-agent/pod.yaml")
    known = {EXAMPLES / name for name in (*SEES, *others)}
    assert {path for path in EXAMPLES.rglob("*.yaml") if path.parent.name != "pools"} == known
    assert all((path.parent / "README.md").exists() for path in EXAMPLES.rglob("*.yaml"))
