"""The device-plugin road: what a pod gets is the same as by DRA, and what AWS's scheduler extension adds to it."""

import json
from collections.abc import Iterator

import pod_resources
import pytest
from harness import RELEASE, REPOSITORY, SYSTEM, Cluster, Object, pod, until
from neuron_device_model.catalog import instance_type

CHIPS, CORES = "aws.amazon.com/neuron", "aws.amazon.com/neuroncore"
PLACE = {"instance_id", "bdf", "connected_to", "cpu_affinity", "numa_node"}
"""What neuron-ls says of where a chip sits: the two roads may choose different chips, and nodes."""


def wanting(name: str, node: str, *, scheduler: str = "default-scheduler", **limits: int) -> Object:
    """A plain pod that asks for `chips` or `cores`."""
    made = pod(name, node=node)
    names = {"chips": CHIPS, "cores": CORES}
    made["spec"]["containers"][0]["resources"] = {"limits": {names[key]: str(n) for key, n in limits.items()}}
    made["spec"]["schedulerName"] = scheduler
    return made


def allocatable(cluster: Cluster, node: str) -> tuple[str, str]:
    found = cluster.get("node", node)["status"]["allocatable"]
    return found.get(CHIPS, "0"), found.get(CORES, "0")


def take(cluster: Cluster, road: str) -> None:
    """Let all nodes go this road, and wait until they do."""
    patch = {"spec": {"resources": road}}
    cluster.kubectl("patch", "neuronnodepool", "default", "--type=merge", "-p", json.dumps(patch))
    if road == "DevicePlugin":
        wanted = ("16", "64")
        until(lambda: all(allocatable(cluster, n) == wanted for n in cluster.workers()), what="chips and cores counted")
        until(lambda: not cluster.slices(), what="no slices beside them")
    else:
        until(lambda: all(allocatable(cluster, n) == ("0", "0") for n in cluster.workers()), what="nothing counted")
        cluster.wait_nodes()


@pytest.fixture(scope="module")
def by_plugin(cluster: Cluster) -> Iterator[None]:
    take(cluster, "DevicePlugin")
    try:
        yield
    finally:
        take(cluster, "Auto")


def seen(cluster: Cluster, namespace: str, name: str) -> Object:
    """All that a container knows of its devices."""
    environment = cluster.execute(namespace, name, "env").splitlines()
    return {
        "devices": [
            {key: value for key, value in device.items() if key not in PLACE}
            for device in cluster.neuron_ls(namespace, name)
        ],
        "files": cluster.execute(namespace, name, "sh", "-c", "ls /dev | grep neuron").split(),
        "environment": sorted(line for line in environment if line.startswith("NEURON")),
        "tools": cluster.execute(namespace, name, "ls", "/usr/local/bin").split(),
    }


REQUESTS: dict[str, dict[str, int]] = {"one": {"chips": 1}, "row": {"chips": 4}, "two-cores": {"cores": 2}}


@pytest.fixture(scope="module")
def by_dra(cluster: Cluster) -> dict[str, Object]:
    """What the same pods see on a node of the other road."""
    node = cluster.workers()[0]
    with cluster.namespace() as namespace:
        cluster.apply([wanting(name, node, **limits) for name, limits in REQUESTS.items()], namespace)
        cluster.wait_ready(namespace)
        return {name: seen(cluster, namespace, name) for name in REQUESTS}


def test_pods_see_the_same_on_both_roads(
    cluster: Cluster, by_dra: dict[str, Object], by_plugin: None, namespace: str, node: str
) -> None:
    cluster.apply([wanting(name, node, **limits) for name, limits in REQUESTS.items()], namespace)
    cluster.wait_ready(namespace)
    assert {name: seen(cluster, namespace, name) for name in REQUESTS} == by_dra


def test_what_a_pod_had_is_given_again(cluster: Cluster, by_plugin: None, namespace: str, node: str) -> None:
    """Nobody tells a device plugin of a pod's end: it finds out."""
    for round_ in range(2):
        cluster.apply(wanting(f"all-{round_}", node, chips=16), namespace)
        cluster.wait_ready(namespace, f"all-{round_}")
        assert len(cluster.neuron_ls(namespace, f"all-{round_}")) == 16
        cluster.delete("pod", "-n", namespace, f"all-{round_}", "--timeout=60s")
    until(lambda: not cluster.checkpoint(node), what="nothing held")


def test_pod_resources_shows_the_ids_of_what_the_pod_sees(
    cluster: Cluster, by_plugin: None, namespace: str, node: str
) -> None:
    requests = {"chips": wanting("chips", node, chips=4), "cores": wanting("cores", node, cores=2)}
    for name, wanted in requests.items():  # one by one: the kubelet counts chips and cores independently
        cluster.apply(wanted, namespace)
        cluster.wait_ready(namespace, name)
    slots = instance_type("trn2.48xlarge").devices
    chips, cores = (pod_resources.given(cluster, node, namespace, name) for name in requests)
    assert chips is not None
    assert cores is not None
    seen_chips = [device["bdf"] for device in cluster.neuron_ls(namespace, "chips")]
    expected = {f"neuron-device-{slot.index}" for slot in slots if slot.pci_bdf.endswith(tuple(seen_chips))}
    assert chips.plugin == {CHIPS: expected}
    assert len(expected) == 4
    ((resource, ids),) = cores.plugin.items()
    assert resource == CORES
    assert len(ids) == 2
    assert all(one.startswith("neuron-core-") for one in ids)
    assert not chips.claims
    assert not cores.claims


def test_restarts_of_agent_and_kubelet_disturb_nobody(
    cluster: Cluster, by_plugin: None, namespace: str, node: str
) -> None:
    cluster.apply(wanting("before", node, chips=2), namespace)
    cluster.wait_ready(namespace, "before")
    before = cluster.neuron_ls(namespace, "before")
    cluster.crash_agent(node)
    cluster.restart_kubelet(node)
    # without a plugin the kubelet fails the pod for good, and the node still says what was before
    until(
        lambda: pod_resources.offered(cluster, node).items() >= {CHIPS: 16, CORES: 64}.items(),
        what="chips and cores registered again",
        details=lambda: pod_resources.offered(cluster, node),
    )
    until(lambda: allocatable(cluster, node) == ("16", "64"), what="chips and cores counted again")
    cluster.apply(wanting("after", node, chips=2), namespace)
    cluster.wait_ready(namespace, "after")
    after = cluster.neuron_ls(namespace, "after")
    assert cluster.neuron_ls(namespace, "before") == before
    assert {d["bdf"] for d in before}.isdisjoint(d["bdf"] for d in after)


def test_a_broken_chip_is_not_counted(cluster: Cluster, by_plugin: None, node: str) -> None:
    broken = {
        "apiVersion": "neuron-sim.dev/v1alpha1",
        "kind": "NeuronFault",
        "metadata": {"name": "on-the-plugin-road"},
        "spec": {"target": {"nodeName": node, "chip": 2}, "type": "SRAMUncorrectable"},
    }
    cluster.apply(broken)
    try:
        until(lambda: allocatable(cluster, node) == ("15", "60"), what="one chip and its cores less")
    finally:
        cluster.delete("neuronfault", "on-the-plugin-road")
        until(lambda: allocatable(cluster, node) == ("16", "64"), what="all of them again")


@pytest.fixture(scope="module")
def extension(cluster: Cluster, by_plugin: None) -> Iterator[None]:
    """AWS's second scheduler, with the extension behind it."""

    def upgrade(*values: str) -> None:
        chart = str(REPOSITORY / "charts/neuron-sim")
        sets = [part for value in values for part in ("--set", value)]
        # `by_plugin` has patched the pool, which Helm is to take over
        options = ("--reuse-values", "--force-conflicts", "--wait", "--timeout", "3m")
        cluster.helm("upgrade", RELEASE, chart, "-n", SYSTEM, *options, *sets)

    upgrade("scheduler.enabled=true", "pools.default.resources=DevicePlugin")
    try:
        yield
    finally:
        upgrade("scheduler.enabled=false", "pools.default.resources=Auto")


def annotations(cluster: Cluster, namespace: str, name: str) -> dict[str, str]:
    return dict(cluster.get("pod", "-n", namespace, name)["metadata"].get("annotations") or {})


def test_extension_places_a_row_and_keeps_other_annotations(
    cluster: Cluster, extension: None, namespace: str, node: str
) -> None:
    row = wanting("row", node, scheduler="my-scheduler", chips=4)
    row["metadata"]["annotations"] = {"k8s.ovn.org/pod-networks": "theirs"}
    cluster.apply([wanting("single", node, scheduler="my-scheduler", chips=1), row], namespace)
    cluster.wait_ready(namespace)
    found = annotations(cluster, namespace, "row")
    ids = [int(one) for one in found["AWS_NEURON_IDS"].split(",")]
    assert ids == list(range(ids[0], ids[0] + 4))
    assert ids[0] % 4 == 0, "a row of the torus"
    assert found["NEURON_ALLOC_TIME"].isdigit()
    assert found["k8s.ovn.org/pod-networks"] == "theirs"
    until(
        lambda: annotations(cluster, namespace, "row")["NEURON_ALLOCATED"] == "true",
        what="the plugin says that it gave them",
    )
    assert len(cluster.neuron_ls(namespace, "row")) == 4


def test_extension_says_which_numbers_there_are(cluster: Cluster, extension: None, namespace: str, node: str) -> None:
    cluster.apply(wanting("seven", node, scheduler="my-scheduler", chips=7), namespace)
    message = cluster.event(namespace, "seven", "does not support")
    wanted = "Instance type trn2.48xlarge does not support requests for device: 7. Please request a different number"
    assert wanted in message
