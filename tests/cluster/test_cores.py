"""Cores: given in parts, never twice, packed from one end, and owned by one process at a time."""

import pod_resources
import pytest
from harness import DRIVER, Cluster, Object, claim, pod, until

CORES = "neuroncore.neuron-sim.dev"
CHIPS = "neuron-device.neuron-sim.dev"


def config(kind: str = "NeuronConfig", **fields: object) -> list[Object]:
    parameters = {"apiVersion": "neuron.aws.com/v1", "kind": kind, **fields}
    return [{"opaque": {"driver": DRIVER, "parameters": parameters}}]


def configured(name: str, count: int, *, device_class: str = CORES, **fields: object) -> Object:
    """A claim with a NeuronConfig."""
    made = claim(name, count, deviceClassName=device_class)
    made["spec"]["devices"]["config"] = config(**fields)
    return made


def plain_cores(name: str, count: int, node: str) -> Object:
    made = pod(name, node=node)
    made["spec"]["containers"][0]["resources"] = {"limits": {"aws.amazon.com/neuroncore": str(count)}}
    return made


def given(cluster: Cluster, namespace: str, claim_name: str) -> list[str]:
    found = cluster.get("resourceclaim", "-n", namespace, claim_name)
    return [result["device"] for result in found["status"]["allocation"]["devices"]["results"]]


def environment(cluster: Cluster, namespace: str, name: str) -> dict[str, str]:
    lines = cluster.execute(namespace, name, "env").splitlines()
    return dict(line.split("=", 1) for line in lines if line.startswith("NEURON"))


def test_plain_pod_gets_two_cores_and_sees_no_more(cluster: Cluster, namespace: str, node: str) -> None:
    cluster.apply(plain_cores("p", 2, node), namespace)
    cluster.wait_ready(namespace, "p")
    (device,) = cluster.neuron_ls(namespace, "p")
    assert device["nc_count"] == 2
    assert device["memory_size"] == 2 * 24 * 2**30, "a Trainium2's 96 GiB are four logical cores'"
    assert environment(cluster, namespace, "p")["NEURON_RT_VISIBLE_CORES"] == "0-1"
    assert cluster.execute(namespace, "p", "sh", "-c", "ls /dev | grep neuron").split() == ["neuron0"]


def test_a_chip_and_its_cores_exclude_one_another(cluster: Cluster, namespace: str, node: str) -> None:
    """While one core is held, the node has 15 chips to give; the 16th comes with the core's release."""
    cluster.apply([claim("core", deviceClassName=CORES), pod("has-a-core", claim="core", node=node)], namespace)
    cluster.wait_ready(namespace, "has-a-core")
    cluster.apply(pod("wants-all", chips=16, node=node), namespace)
    waits = ("wait", "-n", namespace, "pod/wants-all", "--for=condition=PodScheduled=False", "--timeout=60s")
    cluster.kubectl(*waits)
    cluster.apply(pod("wants-the-rest", chips=15, node=node), namespace)
    cluster.wait_ready(namespace, "wants-the-rest")
    cluster.delete("pod", "-n", namespace, "wants-the-rest", "has-a-core", "--timeout=60s")
    cluster.delete("resourceclaim", "-n", namespace, "core")
    cluster.wait_ready(namespace, "wants-all")


def test_cores_and_chips_fill_a_node_from_opposite_ends(cluster: Cluster, namespace: str, node: str) -> None:
    claims = [claim("cores", 2, deviceClassName=CORES), claim("chips", 2, deviceClassName=CHIPS)]
    cluster.apply([*claims, *(pod(name, claim=name, node=node) for name in ("cores", "chips"))], namespace)
    cluster.wait_ready(namespace)
    assert given(cluster, namespace, "cores") == ["neuron-core-0", "neuron-core-1"]
    assert given(cluster, namespace, "chips") == ["neuron-device-15", "neuron-device-14"]


def test_pod_resources_shows_what_was_given(cluster: Cluster, namespace: str, node: str) -> None:
    """By claims of its own, and by the claim that the scheduler makes for a plain number."""
    claims = [claim("cores", 3, deviceClassName=CORES), claim("chips", 2, deviceClassName=CHIPS)]
    pods = [
        pod("cores", claim="cores", node=node),
        pod("chips", claim="chips", node=node),
        plain_cores("plain", 2, node),
    ]
    cluster.apply([*claims, *pods], namespace)
    cluster.wait_ready(namespace)
    made = cluster.get("pod", "-n", namespace, "plain")["status"]["extendedResourceClaimStatus"]["resourceClaimName"]
    for name, claim_name in {"cores": "cores", "chips": "chips", "plain": made}.items():
        found = pod_resources.given(cluster, node, namespace, name)
        assert found is not None
        assert sorted(one.device for one in found.claims) == sorted(given(cluster, namespace, claim_name))
        described = {(one.namespace, one.claim, one.driver, one.pool) for one in found.claims}
        assert described == {(namespace, claim_name, DRIVER, node)}
        assert all(cdi.startswith(f"{DRIVER}/claim=") for one in found.claims for cdi in one.cdi)
        assert all(one.cdi for one in found.claims)
        assert not found.plugin
    cluster.delete("pod", "-n", namespace, "cores", "--timeout=60s")
    until(lambda: pod_resources.given(cluster, node, namespace, "cores") is None, what="the kubelet forgets the pod")


def test_core_has_one_owner_at_a_time(cluster: Cluster, namespace: str, node: str) -> None:
    """Also across the pods that share a claim; and SIGKILL sets it free."""
    shared = claim("shared", 2, deviceClassName=CORES)
    cluster.apply([shared, pod("a", claim="shared", node=node), pod("b", claim="shared", node=node)], namespace)
    cluster.wait_ready(namespace)
    owner = "neuron-sim-exec --cores 2 -- sleep 100000 > /dev/null 2>&1 & echo $!"
    process = int(cluster.execute(namespace, "a", "sh", "-c", owner))

    def shown() -> list[Object]:
        return list(cluster.neuron_ls(namespace, "a")[0]["neuron_processes"])

    # the process owns the cores a moment before it becomes the command
    expected = [(process, "sleep 100000")]
    until(
        lambda: [(one["pid"], one["command"]) for one in shown()] == expected,
        what="neuron-ls shows the owner",
        details=shown,
    )
    refused = cluster.kubectl(
        "exec", "-n", namespace, "b", "--", "neuron-sim-exec", "--cores", "1", "--", "true", check=False
    )
    assert "NRT:nrt_allocate_neuron_cores" in refused
    assert "NeuronCore(s) not available - Requested:1 Available:0" in refused
    assert "exit code 1" in refused
    cluster.execute(namespace, "a", "kill", "-9", str(process))
    until(lambda: not shown(), what="neuron-ls shows nobody")
    cluster.execute(namespace, "b", "neuron-sim-exec", "--cores", "2", "--", "true")


def test_a_claim_sets_the_lnc_of_its_chip(cluster: Cluster, namespace: str, node: str) -> None:
    wanted = configured("lnc1", 1, device_class=CHIPS, logicalNeuronCore=1)
    cluster.apply([wanted, pod("p", claim="lnc1", node=node)], namespace)
    cluster.wait_ready(namespace, "p")
    (device,) = cluster.neuron_ls(namespace, "p")
    assert (device["nc_count"], device["logical_neuroncore_config"]) == (8, 1)
    assert environment(cluster, namespace, "p")["NEURON_LOGICAL_NC_CONFIG"] == "1"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        pytest.param({"logicalNeuronCoreCount": 1}, "strict decoding error: unknown field", id="unknown field"),
        pytest.param({"logicalNeuronCore": 3}, "logicalNeuronCore", id="LNC that the chip lacks"),
        pytest.param({"kind": "NeuronConfigs", "logicalNeuronCore": 1}, "NeuronConfigs", id="unknown kind"),
    ],
)
def test_wrong_configuration_is_told_in_the_pods_event(
    cluster: Cluster, namespace: str, node: str, fields: dict[str, object], says: str
) -> None:
    cluster.apply([configured("wrong", 1, **fields), pod("p", claim="wrong", node=node)], namespace)
    assert "spec.devices.config[0]" in cluster.event(namespace, "p", says)
    assert not cluster.checkpoint(node)


def test_claims_on_one_chip_must_agree_on_its_lnc(cluster: Cluster, namespace: str, node: str) -> None:
    first, second = configured("first", 1, logicalNeuronCore=2), configured("second", 1, logicalNeuronCore=1)
    cluster.apply([first, pod("p1", claim="first", node=node)], namespace)
    cluster.wait_ready(namespace, "p1")
    cluster.apply([second, pod("p2", claim="second", node=node)], namespace)
    message = cluster.event(namespace, "p2", f"{namespace}/first")
    assert "logicalNeuronCore" in message
    # what the sentence advises
    cluster.delete("pod", "-n", namespace, "p1", "--timeout=60s")
    cluster.wait_ready_after_fault(namespace, "p2")
    assert cluster.neuron_ls(namespace, "p2")[0]["nc_count"] == 2


def test_more_cores_than_a_claim_can_hold_are_explained(cluster: Cluster, namespace: str, node: str) -> None:
    cluster.apply(plain_cores("too-many", 64, node), namespace)
    assert "32" in cluster.event(namespace, "too-many", "DevicePlugin")
