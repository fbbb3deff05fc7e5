"""What doctor concludes from what a cluster answers."""

from dataclasses import replace
from typing import Any

import pytest
from neuron_cli.doctor import Finding, Verdict, diagnose
from neuron_cli.facts import CLASS_PROBE, Facts, Unanswered, slice_probe

OURS = {"neuron-sim.dev/simulated": "true"}
EC2_LABELS = {"node.kubernetes.io/instance-type": "trn2.48xlarge"}
REFUSED = Unanswered("not allowed: User jane cannot list nodes")


def node(name: str = "worker", **changes: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "uid": name, "labels": changes.pop("labels", {})},
        "spec": {"providerID": changes.pop("provider", "")},
        "status": {
            "allocatable": {"cpu": "2"},
            "capacity": {"cpu": "2", **changes.pop("capacity", {})},
            "nodeInfo": {
                "kubeletVersion": changes.pop("kubelet", "v1.36.3"),
                "containerRuntimeVersion": changes.pop("runtime", "containerd://2.2.1"),
            },
        },
    }


def daemon_set(
    name: str,
    image: str,
    *,
    ready: int = 1,
    wanted: int = 1,
    labels: dict[str, str] | None = None,
    args: list[str] | None = None,
) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "default", "labels": labels or {}},
        "spec": {"template": {"spec": {"containers": [{"image": image, "args": args or []}]}}},
        "status": {"numberReady": ready, "desiredNumberScheduled": wanted},
    }


def agent(*, ready: int = 1, wanted: int = 1, driver: str = "neuron.aws.com") -> dict[str, Any]:
    return daemon_set(
        "neuron-sim-agent",
        "neuron-sim/neuron-sim:0.1.0",
        ready=ready,
        wanted=wanted,
        labels=OURS,
        args=[f"--driver-name={driver}"],
    )


def operator(*, ready: int = 2) -> dict[str, Any]:
    return {
        "metadata": {"name": "neuron-sim-operator", "namespace": "default", "labels": OURS},
        "spec": {"replicas": 2},
        "status": {"readyReplicas": ready},
    }


def conditions(**statuses: str) -> list[dict[str, str]]:
    return [
        {"type": kind, "status": status, "reason": f"{kind}Is{status}", "message": f"why {kind} is {status}"}
        for kind, status in statuses.items()
    ]


def pool(name: str = "default", *, nodes: int = 1, **statuses: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "spec": {"instanceType": "trn2.48xlarge"},
        "status": {"nodes": nodes, "conditions": conditions(**{"Accepted": "True", "Ready": "True", **statuses})},
    }


def neuron_node(name: str, ready: str = "True", **spec: Any) -> dict[str, Any]:
    spec = {"resources": "DRA", **spec}
    return {"metadata": {"name": name}, "spec": spec, "status": {"conditions": conditions(Ready=ready)}}


def agent_pod(node: str, ready: str = "True") -> dict[str, Any]:
    return {
        "metadata": {"name": "agent"},
        "spec": {"nodeName": node},
        "status": {"conditions": conditions(Ready=ready)},
    }


def device_class(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": OURS}, "spec": spec}


def waiting(cores: int) -> dict[str, Any]:
    limits = {"aws.amazon.com/neuroncore": str(cores)}
    metadata = {"name": "train", "namespace": "team", "uid": "u"}
    return {"metadata": metadata, "spec": {"containers": [{"resources": {"limits": limits}}]}}


def fault(active: str) -> dict[str, Any]:
    return {"metadata": {"name": "hot"}, "spec": {}, "status": {"conditions": conditions(Active=active)}}


NO_NODES = pool(nodes=0, Ready="False")
NO_NODES["status"]["conditions"][1] |= {"reason": "NoNodes", "message": "No node matches"}

HEALTHY = Facts(
    version="v1.36.3",
    resource_api={"versions": [{"version": "v1"}]},
    class_echo=CLASS_PROBE,
    devices_echo=slice_probe(devices=True),
    counters_echo=slice_probe(devices=False),
    nodes=[node()],
    daemon_sets=[agent(), daemon_set("kindnet", "kindnetd:1")],
    deployments=[operator()],
    unmarked_slices=[],
    device_classes=[
        device_class("neuron.aws.com"),
        device_class("neuron-device.neuron-sim.dev", extendedResourceName="aws.amazon.com/neuron"),
        device_class("neuroncore.neuron-sim.dev", extendedResourceName="aws.amazon.com/neuroncore"),
        device_class("physical-neuroncore.neuron-sim.dev"),
    ],
    our_api={"resources": [{"name": name} for name in ("neuronnodepools", "neuronnodes", "neuronfaults")]},
    pools=[pool()],
    neuron_nodes=[neuron_node("worker")],
    faults=[fault("True")],
    gates={"ResourceHealthStatus": True, "DRAResourceClaimDeviceStatus": True},
    agent_pods=[agent_pod("worker")],
    waiting_pods=[waiting(32)],
)


def found(facts: Facts, check: str) -> Finding:
    (finding,) = [finding for finding in diagnose(facts) if finding.check == check]
    return finding


def test_healthy_cluster_has_nothing_but_good_findings() -> None:
    assert {finding.verdict for finding in diagnose(HEALTHY)} == {Verdict.OK}


@pytest.mark.parametrize(
    ("version", "verdict"),
    [
        ("v1.33.9", Verdict.FAILED),
        ("v1.34.4", Verdict.WARNING),
        ("v1.35.4-gke.100", Verdict.WARNING),
        ("v1.36.3+k3s1", Verdict.OK),
        ("v1.37.1", Verdict.WARNING),
        ("", Verdict.FAILED),
    ],
)
def test_server_version(version: str, verdict: Verdict) -> None:
    assert found(replace(HEALTHY, version=version), "API server").verdict is verdict


CASES: dict[str, tuple[Facts, str, Verdict, str]] = {
    "v1 not served": (
        replace(HEALTHY, resource_api={"versions": [{"version": "v1beta1"}]}),
        "resource.k8s.io/v1",
        Verdict.FAILED,
        "v1beta1",
    ),
    "extendedResourceName dropped": (
        replace(HEALTHY, class_echo={"spec": {"selectors": []}}),
        "extended resources",
        Verdict.WARNING,
        "stay Pending",
    ),
    "taints dropped": (
        replace(HEALTHY, devices_echo={"spec": {"devices": [{"name": "probe", "bindingConditions": ["x"]}]}}),
        "device taints",
        Verdict.WARNING,
        "taints (DRADeviceTaints): a NeuronFault makes devices unhealthy, but",
    ),
    "counters dropped": (
        replace(HEALTHY, counters_echo={"spec": {}}),
        "partitions",
        Verdict.WARNING,
        "sharedCounters (DRAPartitionableDevices): NeuronCores",
    ),
    "binding conditions dropped": (
        replace(HEALTHY, devices_echo={"spec": {"devices": [{"name": "probe", "taints": []}]}}),
        "binding conditions",
        Verdict.WARNING,
        "(DRADeviceBindingConditions)",
    ),
    "health gate off": (
        replace(HEALTHY, gates={"ResourceHealthStatus": False}),
        "device health",
        Verdict.WARNING,
        "ResourceHealthStatus is off: pods do not show",
    ),
    "health gate off by default": (
        replace(HEALTHY, version="v1.35.4", gates=REFUSED),
        "device health",
        Verdict.WARNING,
        "is off by default",
    ),
    "claim status gate off": (
        replace(HEALTHY, gates={"DRAResourceClaimDeviceStatus": False}),
        "claim status",
        Verdict.WARNING,
        "status.devices",
    ),
    "old kubelet": (
        replace(HEALTHY, nodes=[node("new"), node("old", kubelet="v1.33.1")]),
        "kubelets",
        Verdict.FAILED,
        "older than 1.34: old",
    ),
    "no node": (replace(HEALTHY, nodes=[]), "kubelets", Verdict.FAILED, "no node"),
    "old containerd": (
        replace(HEALTHY, nodes=[node("old", runtime="containerd://1.7.28"), node("crio", runtime="cri-o://1.34.0")]),
        "container runtimes",
        Verdict.WARNING,
        "off by default: old",
    ),
    "real EC2 node": (
        replace(
            HEALTHY,
            nodes=[node("ec2", provider="aws:///us-west-2a/i-0", labels=EC2_LABELS)],
        ),
        "real Neuron",
        Verdict.FAILED,
        "node ec2 is an EC2 instance",
    ),
    "real device plugin's capacity": (
        replace(HEALTHY, nodes=[node("real", capacity={"aws.amazon.com/neuron": "16"})]),
        "real Neuron",
        Verdict.FAILED,
        "node real has aws.amazon.com/neuron in its capacity",
    ),
    "real driver": (
        replace(
            HEALTHY,
            daemon_sets=[daemon_set("neuron-dra-driver-kubelet-plugin", "mirror:5000/neuron-dra-driver:1.2.0")],
        ),
        "real Neuron",
        Verdict.FAILED,
        "neuron-dra-driver-kubelet-plugin",
    ),
    "real slices": (
        replace(HEALTHY, unmarked_slices=[{"metadata": {"name": "s"}, "spec": {"driver": "neuron.aws.com"}}]),
        "real Neuron",
        Verdict.FAILED,
        "publishes ResourceSlices as neuron.aws.com: s",
    ),
    "CRDs missing": (
        replace(HEALTHY, our_api={}),
        "CRDs",
        Verdict.FAILED,
        "neuronnodepools, neuronnodes, neuronfaults",
    ),
    "class missing": (replace(HEALTHY, device_classes=[]), "device classes", Verdict.FAILED, "neuron.aws.com"),
    "class of somebody else": (
        replace(HEALTHY, device_classes=[{"metadata": {"name": "neuron.aws.com"}}]),
        "device classes",
        Verdict.FAILED,
        "not made by neuron-sim: neuron.aws.com",
    ),
    "operator missing": (replace(HEALTHY, deployments=[]), "operator", Verdict.FAILED, "not installed"),
    "operator down": (replace(HEALTHY, deployments=[operator(ready=0)]), "operator", Verdict.FAILED, "0 of 2"),
    "one replica down": (replace(HEALTHY, deployments=[operator(ready=1)]), "operator", Verdict.WARNING, "1 of 2"),
    "agents missing": (replace(HEALTHY, daemon_sets=[]), "agents", Verdict.FAILED, "not installed"),
    "agent down": (replace(HEALTHY, daemon_sets=[agent(ready=1, wanted=2)]), "agents", Verdict.FAILED, "1 of 2"),
    "no pool": (replace(HEALTHY, pools=[]), "pools", Verdict.WARNING, "there is none"),
    "pool refused": (
        replace(HEALTHY, pools=[pool(Accepted="False", Ready="False")]),
        "pool default",
        Verdict.FAILED,
        "why Accepted is False",
    ),
    "pool without nodes": (
        replace(HEALTHY, pools=[NO_NODES]),
        "pool default",
        Verdict.WARNING,
        "NoNodes: No node matches",
    ),
    "node not ready": (
        replace(HEALTHY, neuron_nodes=[neuron_node("a"), neuron_node("b", "False")]),
        "node b",
        Verdict.FAILED,
        "ReadyIsFalse: why Ready is False",
    ),
    "node without a word": (
        replace(HEALTHY, neuron_nodes=[{"metadata": {"name": "b"}, "spec": {}}]),
        "node b",
        Verdict.FAILED,
        "nothing reported yet",
    ),
    "agent gone for good": (
        replace(HEALTHY, agent_pods=[agent_pod("worker", "False")]),
        "agents gone",
        Verdict.FAILED,
        "no agent is ready on worker",
    ),
    "device plugin not seen": (
        replace(HEALTHY, neuron_nodes=[neuron_node("worker", resources="DevicePlugin")]),
        "device plugins",
        Verdict.FAILED,
        "no aws.amazon.com/neuron is allocatable on worker",
    ),
    "fault that hits nothing": (
        replace(HEALTHY, faults=[fault("False")]),
        "fault hot",
        Verdict.WARNING,
        "ActiveIsFalse: why Active is False",
    ),
    "more cores than a claim can hold": (
        replace(HEALTHY, waiting_pods=[waiting(64)]),
        "pods that wait",
        Verdict.WARNING,
        "more than the 32 devices that a claim can hold and wait for ever: team/train",
    ),
    "nodes not told": (replace(HEALTHY, nodes=REFUSED), "kubelets", Verdict.UNKNOWN, "cannot list nodes"),
}


@pytest.mark.parametrize(("facts", "check", "verdict", "message"), CASES.values(), ids=CASES.keys())
def test_what_is_wrong_is_said_with_a_fix(facts: Facts, check: str, verdict: Verdict, message: str) -> None:
    finding = found(facts, check)
    assert finding.verdict is verdict
    assert message in finding.message
    assert finding.fix


def test_real_neuron_is_left_alone_under_another_driver_name() -> None:
    facts = replace(
        HEALTHY,
        nodes=[node("real", capacity={"aws.amazon.com/neuron": "16"})],
        daemon_sets=[agent(driver="neuron.example.com")],
    )
    assert found(facts, "real Neuron").verdict is Verdict.OK


def test_other_driver_name_has_its_own_class() -> None:
    facts = replace(HEALTHY, daemon_sets=[agent(driver="neuron.example.com")])
    assert found(facts, "device classes").message == "not installed: neuron.example.com"


def test_our_own_device_plugin_is_not_taken_for_a_real_one() -> None:
    worker = node("worker", capacity={"aws.amazon.com/neuron": "16"}, labels={"neuron-sim.dev/device-plugin": "true"})
    worker["status"]["allocatable"] = {"aws.amazon.com/neuron": "16"}
    applied = {"f:metadata": {"f:labels": {"f:neuron-sim.dev/device-plugin": {}}}}
    worker["metadata"]["managedFields"] = [
        {"manager": "neuron-sim-operator", "operation": "Apply", "fieldsV1": applied}
    ]
    facts = replace(HEALTHY, nodes=[worker], neuron_nodes=[neuron_node("worker", resources="DevicePlugin")])
    assert found(facts, "real Neuron").verdict is Verdict.OK
    assert found(facts, "device plugins").verdict is Verdict.OK


def test_a_pod_that_a_device_plugin_can_serve_is_no_finding() -> None:
    nodes = [neuron_node("worker"), neuron_node("other", resources="DevicePlugin")]
    facts = replace(HEALTHY, neuron_nodes=nodes, waiting_pods=[waiting(64)])
    assert not [finding for finding in diagnose(facts) if finding.check == "pods that wait"]


def test_caveat_of_a_pool_is_told_beside_its_verdict() -> None:
    facts = replace(HEALTHY, pools=[pool(Overlapping="True")])
    verdicts = [finding.verdict for finding in diagnose(facts) if finding.check == "pool default"]
    assert verdicts == [Verdict.WARNING, Verdict.OK]


def test_many_bad_nodes_are_counted_not_listed() -> None:
    facts = replace(HEALTHY, neuron_nodes=[neuron_node(f"n{number}", "False") for number in range(12)])
    assert found(facts, "simulated nodes").message == "7 more are not ready"


def test_one_missing_permission_costs_no_other_line() -> None:
    findings = diagnose(replace(HEALTHY, nodes=REFUSED))
    unknown = {finding.check for finding in findings if finding.verdict is Verdict.UNKNOWN}
    assert unknown == {"kubelets", "container runtimes", "real Neuron"}


def test_nothing_told_at_all_is_still_a_report() -> None:
    facts = Facts(**{name: REFUSED for name in Facts.__slots__ if name != "version"}, version="v1.36.3")
    assert {finding.verdict for finding in diagnose(facts)} == {Verdict.OK, Verdict.UNKNOWN}


@pytest.mark.parametrize("reason", ["Scheduled", "Ended"])
def test_a_fault_that_waits_for_its_time_is_no_finding(reason: str) -> None:
    waiting = fault("False")
    waiting["status"]["conditions"][0]["reason"] = reason
    checks = [finding.check for finding in diagnose(replace(HEALTHY, faults=[waiting]))]
    assert not [check for check in checks if check.startswith("fault")]
