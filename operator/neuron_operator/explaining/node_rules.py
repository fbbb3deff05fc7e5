"""Whether a node may take a pod at all, devices aside: labels, affinity, taints, cordon, readiness.

Only rules that decide by node and pod alone. Room for processors, memory and ports depends on all other pods, and
is left to the scheduler.
"""

from collections.abc import Iterator, Mapping
from typing import Any

Json = Mapping[str, Any]

_HOSTNAME = "kubernetes.io/hostname"
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
    affinity = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    if affinity and not selects(affinity, node):
        found.append("is not selected by the pod's required node affinity")
    return found + list(_untolerated(spec.get("tolerations") or (), node, name))


def selects(selector: Json, node: Json) -> bool:
    """Whether a NodeSelector (of an affinity, of an allocation) selects a node."""
    terms = selector.get("nodeSelectorTerms") or ()
    labels: Mapping[str, str] = node["metadata"].get("labels") or {}
    fields = {"metadata.name": node["metadata"]["name"]}
    return any(
        (term.get("matchExpressions") or term.get("matchFields"))
        and all(_holds(each, labels) for each in term.get("matchExpressions") or ())
        and all(_holds(each, fields) for each in term.get("matchFields") or ())
        for term in terms
    )


def _untolerated(tolerations: Any, node: Json, name: str) -> Iterator[str]:
    spec = node.get("spec") or {}
    taints = list(spec.get("taints") or ())
    if spec.get("unschedulable") and not any(t["key"] == "node.kubernetes.io/unschedulable" for t in taints):
        taints.append({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"})
    for taint in taints:
        if taint.get("effect") not in ("NoSchedule", "NoExecute") or any(tolerates(t, taint) for t in tolerations):
            continue
        value = taint.get("value") or ""
        if taint["key"] in _STATES:
            yield _STATES[taint["key"]].format(node=name)
        elif taint["key"] == _RESERVED:
            yield f"is reserved for gang {value}"
        else:
            written = f"{taint['key']}={value}" if value else taint["key"]
            yield f"has the taint {written}:{taint['effect']}, which the pod does not tolerate"


def tolerates(toleration: Json, taint: Json) -> bool:
    """Whether a toleration of a pod is about a taint of a node."""
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if toleration.get("operator") == "Exists":
        return toleration.get("key") in (None, "", taint["key"])
    return toleration.get("key") == taint["key"] and (toleration.get("value") or "") == (taint.get("value") or "")


def _holds(requirement: Json, labels: Mapping[str, str]) -> bool:
    key, values = requirement["key"], list(requirement.get("values") or ())
    value = labels.get(key)
    match requirement["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case "Gt" | "Lt" as sign:
            try:
                here, there = int(value or ""), int(values[0])
            except (ValueError, IndexError):
                return False
            return here > there if sign == "Gt" else here < there
        case _:
            return False
