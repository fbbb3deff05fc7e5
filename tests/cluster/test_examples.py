"""Every example is applied as its README says, and shows what it promises.

The table says how many devices each container sees. An example that the table does not know fails, so that none
is added without being run.
"""

import json
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
    "logical-neuron-core/lnc-setting-trn2.yaml": {("all-neurons-lnc-1", "ctr0"): 16},
    "whole-node/training.yaml": {("training", "worker"): 16},
    "cores-share-a-chip/pods.yaml": {("half-a-chip-0", "ctr0"): 1, ("half-a-chip-1", "ctr0"): 1},
    "cores-of-two-chips/pod.yaml": {("cores-of-two-chips", "ctr0"): 2},
    "logical-neuron-core/one-chip.yaml": {("one-neuron-lnc-1", "ctr0"): 1},
    "plain-cores/pod.yaml": {("plain-cores", "ctr0"): 1},
    "activity/pod.yaml": {("activity", "ctr0"): 2},
    "collectives/pod.yaml": {("collectives-pod", "ctr0"): 2},
    "simulation-config/pod.yaml": {("simulation-config", "ctr0"): 1},
}

CORES = {
    "half-a-chip-0": [2],
    "half-a-chip-1": [2],
    "cores-of-two-chips": [2, 2],
    "one-neuron-lnc-1": [8],
    "plain-cores": [2],
    "activity": [4, 4],
    "collectives-pod": [4, 4],
    "simulation-config": [1],
    "all-neurons-lnc-1": [8] * 16,
    "training": [4] * 16,
}
"""What pods that ask for cores, or for an LNC, see of each device."""

WHOLE_NODE = [example for example, sees in SEES.items() if 16 in sees.values()]
BY_CORES = [
    example for example, sees in SEES.items() if example not in WHOLE_NODE and {p for p, _ in sees} & set(CORES)
]
TOGETHER = [example for example in SEES if example not in (*WHOLE_NODE, *BY_CORES)]


def assert_sees(cluster: Cluster, namespace: str, example: str) -> None:
    for (pod, container), count in SEES[example].items():
        devices = cluster.neuron_ls(namespace, pod, container)
        assert [d["neuron_device"] for d in devices] == list(range(count))
        assert len({d["bdf"] for d in devices}) == count, "each one another chip"
        if pod in CORES:
            assert [d["nc_count"] for d in devices] == CORES[pod]


@pytest.mark.parametrize("example", WHOLE_NODE)
def test_example_that_wants_a_whole_node(cluster: Cluster, namespace: str, example: str) -> None:
    cluster.apply((EXAMPLES / example).read_text(), namespace)
    cluster.wait_ready(namespace)
    assert_sees(cluster, namespace, example)


def test_examples_that_want_cores(cluster: Cluster, namespace: str) -> None:
    for example in BY_CORES:
        cluster.apply((EXAMPLES / example).read_text(), namespace)
    cluster.wait_ready(namespace)
    for example in BY_CORES:
        assert_sees(cluster, namespace, example)
    first, second = (cluster.neuron_ls(namespace, f"half-a-chip-{i}")[0]["bdf"] for i in (0, 1))
    assert first == second, "two pods share a chip"
    configured = cluster.execute(namespace, "simulation-config", "sh", "-c", "echo $NEURON_RT_LOG_LEVEL")
    assert configured.strip() == "INFO"


@pytest.fixture
def no_cores(cluster: Cluster) -> Iterator[None]:
    """Whole chips only: the scheduler gives no admin access to a device whose counters are in use."""

    def cut(partitions: str, devices: int) -> None:
        patch = json.dumps({"spec": {"partitions": partitions}})
        cluster.kubectl("patch", "neuronnodepool", "default", "--type=merge", "-p", patch)
        until(
            lambda: sum(len(s["spec"].get("devices", [])) for s in cluster.slices()) == 2 * devices,
            what=f"{devices} devices a node",
        )
        cluster.wait_nodes()

    cut("none", 16)
    try:
        yield
    finally:
        cut("logical", 80)


@pytest.fixture
def admin_namespace(cluster: Cluster, no_cores: None) -> Iterator[str]:
    yield "neuron-admin"
    cluster.delete("namespace", "neuron-admin", "--ignore-not-found", "--timeout=120s")
    until(lambda: not cluster.leftovers(), what="nothing left over", details=cluster.leftovers)


def test_admin_access_sees_devices_that_others_hold(cluster: Cluster, admin_namespace: str) -> None:
    cluster.apply((EXAMPLES / "admin-access/admin-access.yaml").read_text())
    cluster.wait_ready(admin_namespace, "workload")
    cluster.wait_ready(admin_namespace, "monitor")
    assert len(cluster.neuron_ls(admin_namespace, "workload")) == 4
    assert len(cluster.neuron_ls(admin_namespace, "monitor")) == 16


@pytest.fixture(scope="module")
def together(cluster: Cluster) -> Iterator[str]:
    """A namespace in which all others run side by side, to the end of this file.

    They take 25 of 32 chips and fit in any order; tests that need chips beside them come before the first one here.
    """
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


@pytest.fixture
def minimal_driver(cluster: Cluster) -> Iterator[None]:
    """The driver of under 100 lines on the library alone."""
    folder = str(EXAMPLES / "minimal-dra-driver")
    cluster.kubectl("apply", "-k", folder)
    try:
        rollout = ("rollout", "status", "-n", "minimal-dra-driver", "daemonset/minimal-dra-driver", "--timeout=90s")
        cluster.kubectl(*rollout)
        yield
    finally:
        cluster.kubectl("delete", "-k", folder, "--timeout=120s")


@pytest.mark.usefixtures("minimal_driver")
def test_driver_on_the_library_alone(cluster: Cluster, namespace: str) -> None:
    """Devices, and their health in the pod's status, by a program that knows the library and nothing else of ours."""
    cluster.apply((EXAMPLES / "minimal-dra-driver/pod.yaml").read_text(), namespace)
    cluster.wait_ready(namespace)
    granted = [line for line in cluster.execute(namespace, "fake", "env").splitlines() if line.startswith("FAKE_")]
    assert len(granted) == 2
    number = granted[0].removeprefix("FAKE_").removesuffix("=granted")
    node = cluster.get("pod", "-n", namespace, "fake")["spec"]["nodeName"]
    drivers = cluster.items("pods", "-n", "minimal-dra-driver", f"--field-selector=spec.nodeName={node}")
    broken = ("python", "-c", f"open('/tmp/broken-fake-{number}', 'w')")
    cluster.execute("minimal-dra-driver", drivers[0]["metadata"]["name"], *broken)
    until(
        lambda: health(cluster, namespace, "fake") == ["Healthy", "Unhealthy"],
        what="one of the pod's two devices unhealthy",
        details=lambda: health(cluster, namespace, "fake"),
    )


@pytest.fixture
def minimal_plugin(cluster: Cluster) -> Iterator[None]:
    folder = str(EXAMPLES / "minimal-device-plugin")
    cluster.kubectl("apply", "-k", folder)
    try:
        yield
    finally:
        cluster.kubectl("delete", "-k", folder, "--timeout=120s")


@pytest.mark.usefixtures("minimal_plugin")
def test_device_plugin_on_the_library_alone(cluster: Cluster, namespace: str) -> None:
    def toys() -> list[str]:
        nodes = [cluster.get("node", name) for name in cluster.workers()]
        return [node["status"]["allocatable"].get("fake.example.com/toy", "0") for node in nodes]

    until(lambda: toys() == ["4", "4"], what="four toys on each worker", details=toys)
    cluster.apply((EXAMPLES / "minimal-device-plugin/pod.yaml").read_text(), namespace)
    cluster.wait_ready(namespace)
    assert "TOYS=toy-" in cluster.execute(namespace, "toys", "env")


def health(cluster: Cluster, namespace: str, name: str) -> list[str]:
    """What the kubelet reports of a pod's devices, in alphabetical order."""
    statuses = cluster.get("pod", "-n", namespace, name)["status"]["containerStatuses"]
    found = [one for status in statuses for one in status.get("allocatedResourcesStatus", [])]
    return sorted(resource["health"] for one in found for resource in one["resources"])


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
    others = (
        "admin-access/admin-access.yaml",
        "standalone-agent/agent.yaml",
        "standalone-agent/pod.yaml",
        "whole-node/ultraserver-node.yaml",
        *(f"ultraserver-workload/{name}.yaml" for name in ("workload", "pods")),  # test_ultraservers
        *(f"efa/{name}.yaml" for name in ("chip-with-its-card", "row-with-its-cards", "all-cards")),  # test_efa
        *(f"ultraserver-pool/{name}.yaml" for name in ("pool", "pair")),  # test_ultraserver_pool
        "shared-ultraserver/pods.yaml",  # test_ultraserver_pool
        *(f"device-plugin/{name}.yaml" for name in ("pool", "chips", "cores")),
        *(f"gangs/{name}.yaml" for name in ("pool", "pods", "statefulset", "job", "barrier")),
        *(f"virtual-nodes/{name}.yaml" for name in ("pool", "pod", "gang")),  # test_virtual_nodes
        *(f"{kind}/{kind}.yaml" for kind in ("jobset", "leaderworkerset")),  # test_gangs
        "collectives/job.yaml",  # test_nccom
        *(f"{name}/pod.yaml" for name in ("inf1-serving", "inf2-serving", "trn1-training", "trn2-training")),
        *(f"trn3-switch/{name}.yaml" for name in ("pool", "statefulset")),  # test_steps, as those above
        "mpijob/mpijob.yaml",  # test_mpijob
        *(f"faults/{name}.yaml" for name in ("broken-chip", "flaky-link", "corrected-errors")),  # test_fault_surfaces
        *(f"minimal-dra-driver/{name}.yaml" for name in ("driver", "kustomization", "pod")),
        *(f"minimal-device-plugin/{name}.yaml" for name in ("plugin", "kustomization", "pod")),
    )
    known = {EXAMPLES / name for name in (*SEES, *others)}
    assert {path for path in EXAMPLES.rglob("*.yaml") if path.parent.name != "pools"} == known
    assert all((path.parent / "README.md").exists() for path in EXAMPLES.rglob("*.yaml"))
