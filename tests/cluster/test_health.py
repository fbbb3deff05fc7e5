"""One NeuronFault, and every surface of Kubernetes tells of it: taints, pods, claims, Events."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from harness import Cluster, Failed, Object, claim, condition, pod, until

CHIPS = "neuron-device.neuron-sim.dev"


@contextmanager
def fault(
    cluster: Cluster, node: str, kind: str = "HBMUncorrectable", effect: str = "NoSchedule", **target: int
) -> Iterator[str]:
    """Something is broken for a while."""
    name = f"broken-{node}"
    broken = {
        "apiVersion": "neuron-sim.dev/v1alpha1",
        "kind": "NeuronFault",
        "metadata": {"name": name},
        "spec": {"target": {"nodeName": node, **target}, "type": kind, "effect": effect},
    }
    cluster.apply(broken)
    try:
        until(lambda: condition(cluster.get("neuronfault", name), "Active") == "True", what="the fault active")
        yield name
    finally:
        cluster.delete("neuronfault", name)
        until(lambda: "faults" not in cluster.get("neuronnode", node)["spec"], what="the NeuronNode without the fault")
        cluster.wait_nodes()  # taints may be on their way until the agent has seen that
        until(lambda: not tainted(cluster, node), what="all devices healed")


def tainted(cluster: Cluster, node: str) -> dict[str, str]:
    """The effects of our taints by device."""
    every = [device for one in cluster.slices() if one["spec"]["nodeName"] == node for device in offered(one)]
    return {d["name"]: d["taints"][0]["effect"] for d in every if d.get("taints")}


def offered(one: Object) -> list[Object]:
    return list(one["spec"].get("devices") or [])


def reported(cluster: Cluster, namespace: str, name: str) -> dict[str, str]:
    """Health by resource, as the kubelet puts it into the pod's status."""
    statuses = cluster.get("pod", "-n", namespace, name)["status"]["containerStatuses"]
    found = [one for status in statuses for one in status.get("allocatedResourcesStatus", [])]
    return {r["resourceID"].rpartition("_")[2]: r["health"] for one in found for r in one["resources"]}


def claim_condition(cluster: Cluster, namespace: str, name: str, device: str) -> str | None:
    found = cluster.get("resourceclaim", "-n", namespace, name).get("status", {}).get("devices", [])
    (one,) = [d for d in found if d["device"] == device] or [{}]
    return condition({"status": one}, "Healthy")


def test_a_broken_chip_shows_everywhere_and_heals(cluster: Cluster, namespace: str, node: str) -> None:
    cluster.apply([claim("two", 2, deviceClassName=CHIPS), pod("p", claim="two", node=node)], namespace)
    cluster.wait_ready(namespace, "p")
    both = {"neuron-device-15": "Healthy", "neuron-device-14": "Healthy"}
    until(lambda: reported(cluster, namespace, "p") == both, what="both chips healthy in the pod's status")
    until(
        lambda: all(claim_condition(cluster, namespace, "two", device) == "True" for device in both),
        what="both healthy in the claim's status",
    )
    with fault(cluster, node, chip=15):
        until(
            lambda: reported(cluster, namespace, "p") == both | {"neuron-device-15": "Unhealthy"},
            what="one chip unhealthy in the pod's status",
            details=lambda: reported(cluster, namespace, "p"),
        )
        until(
            lambda: claim_condition(cluster, namespace, "two", "neuron-device-15") == "False",
            what="one chip unhealthy in the claim's status",
        )
        assert claim_condition(cluster, namespace, "two", "neuron-device-14") == "True"
        expected = dict.fromkeys(["neuron-device-15", *(f"neuron-core-{n}" for n in range(60, 64))], "NoSchedule")
        until(
            lambda: tainted(cluster, node) == expected,
            what="the chip and its cores tainted",
            details=lambda: tainted(cluster, node),
        )
        # the chip is not given anew, and its pod is left alone
        cluster.apply(pod("wants-14", chips=14, node=node), namespace)
        cluster.wait_ready(namespace, "wants-14")
        cluster.delete("pod", "-n", namespace, "wants-14", "--timeout=60s")
        assert len(cluster.neuron_ls(namespace, "p")) == 2
    until(lambda: reported(cluster, namespace, "p") == both, what="both healthy again")


def test_plain_pod_is_told_by_an_event(cluster: Cluster, namespace: str, node: str) -> None:
    cluster.apply(pod("plain", chips=1, node=node), namespace)
    cluster.wait_ready(namespace, "plain")
    with fault(cluster, node, kind="DMAError", chip=15) as name:

        def told() -> str:
            events = cluster.items("events", "-n", namespace, "--field-selector=involvedObject.name=plain,type=Warning")
            return next((e["message"] for e in events if name in e["message"]), "")

        assert "DMA_ERROR" in until(told, what="a Warning on the pod")


def test_no_execute_evicts_and_a_core_spares_the_rest(cluster: Cluster, namespace: str, node: str) -> None:
    """One broken core takes its logical core and its chip, not the other cores of the chip."""
    cores = [claim(f"core-{n}", deviceClassName="neuroncore.neuron-sim.dev") for n in range(2)]
    for number, core in enumerate(cores):
        cluster.apply([core, pod(f"p{number}", claim=f"core-{number}", node=node)], namespace)
        cluster.wait_ready(namespace, f"p{number}")
    with fault(cluster, node, kind="NCUncorrectable", effect="NoExecute", chip=0, core=0):
        until(
            lambda: tainted(cluster, node) == {"neuron-core-0": "NoExecute", "neuron-device-0": "NoExecute"},
            what="the core and its chip tainted, and nothing else",
            details=lambda: tainted(cluster, node),
        )
        cluster.kubectl("wait", "-n", namespace, "--for=delete", "pod/p0", "--timeout=90s")
        assert condition(cluster.get("pod", "-n", namespace, "p1"), "Ready") == "True"


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        pytest.param({"nodeName": "no-such-node"}, "UnknownNode", id="node"),
        pytest.param({"chip": 16}, "UnknownChip", id="chip"),
    ],
)
def test_a_fault_of_what_is_not_there_says_so(
    cluster: Cluster, node: str, target: dict[str, object], reason: str
) -> None:
    name = f"nowhere-{reason.lower()}"
    spec = {"target": {"nodeName": node, **target}, "type": "Hang"}
    made = {"apiVersion": "neuron-sim.dev/v1alpha1", "kind": "NeuronFault", "metadata": {"name": name}, "spec": spec}
    cluster.apply(made)
    try:

        def said() -> str:
            conditions = cluster.get("neuronfault", name).get("status", {}).get("conditions", [])
            return next((str(c["reason"]) for c in conditions if c["type"] == "Active"), "")

        assert until(said, what="a condition") == reason
        assert not tainted(cluster, node)
    finally:
        cluster.delete("neuronfault", name)


def test_a_misspelt_fault_is_refused_at_apply(cluster: Cluster, node: str) -> None:
    spec = {"target": {"nodeName": node}, "type": "Gremlins"}
    made = {"apiVersion": "neuron-sim.dev/v1alpha1", "kind": "NeuronFault", "metadata": {"name": "x"}, "spec": spec}
    with pytest.raises(Failed, match="HBMUncorrectable"):
        cluster.apply(made)
