"""Why a node may not take a pod at all, devices aside: labels, affinity, taints, cordon, readiness."""

from collections.abc import Iterator, Mapping
from typing import Any

from neuron_operator.node_affinity import KEEPS_AWAY, required, selects, tolerates

Json = Mapping[str, Any]

_RESERVED = "neuron-sim.dev/reserved"
_STATES = {
    "node.kubernetes.io/unschedulable": "is cordoned: `kubectl uncordon {node}`",
    "node.kubernetes.io/not-ready": "is not ready: `kubectl describe node {node}`",
    "node.kubernetes.io/unreachable": "is unreachable: its kubelet does not report",
    "node.kubernetes.io/disk-pressure": "has no disk space left",
    "node.kubernetes.io/memory-pressure": "has no memory left",
}


def lacks(pod: Json, node: Json) -> list[str]:
    """Why a node may not take a pod; empty if it may."""
    spec = pod.get("spec") or {}
    labels = node["metadata"].get("labels") or {}
    name = node["metadata"]["name"]
    found = [
        f"label {key} is {labels[key]}, not {value} as in the pod's nodeSelector"
        if key in labels
        else f"has no label {key}={value} as in the pod's nodeSelector"
        for key, value in (spec.get("nodeSelector") or {}).items()
        if labels.get(key) != value
    ]
    affinity = required(spec)
    if affinity and not selects(affinity, name=name, labels=labels):
        found.append("is not selected by the pod's required node affinity")
    return found + list(_untolerated(spec.get("tolerations") or (), node, name))


def _untolerated(tolerations: Any, node: Json, name: str) -> Iterator[str]:
    spec = node.get("spec") or {}
    taints = list(spec.get("taints") or ())
    if spec.get("unschedulable") and not any(t["key"] == "node.kubernetes.io/unschedulable" for t in taints):
        taints.append({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"})
    for taint in taints:
        if taint.get("effect") not in KEEPS_AWAY or any(tolerates(t, taint) for t in tolerations):
            continue
        value = taint.get("value") or ""
        if taint["key"] in _STATES:
            yield _STATES[taint["key"]].format(node=name)
        elif taint["key"] == _RESERVED:
            yield f"is reserved for gang {value}"
        else:
            written = f"{taint['key']}={value}" if value else taint["key"]
            yield f"has the taint {written}:{taint['effect']}, which the pod does not tolerate"
