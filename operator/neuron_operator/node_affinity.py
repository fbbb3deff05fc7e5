"""Kubernetes' own rules about pods and nodes, as its scheduler has them: node selectors of affinities, tolerations.

Only what node and pod decide alone. Room for processors, memory and ports depends on all other pods, and is left to
the scheduler.
"""

from collections.abc import Mapping
from typing import Any

Json = Mapping[str, Any]

KEEPS_AWAY = ("NoSchedule", "NoExecute")
"""Effects of taints that matter to a pod that is to be scheduled."""


def selects(selector: Json, *, name: str, labels: Mapping[str, str]) -> bool:
    """Whether a NodeSelector (of a required affinity, of an allocation) selects a node: any of its terms does."""
    return any(
        (term.get("matchExpressions") or term.get("matchFields"))
        and all(_holds(each, labels) for each in term.get("matchExpressions") or ())
        and all(_holds(each, {"metadata.name": name}) for each in term.get("matchFields") or ())
        for term in selector.get("nodeSelectorTerms") or ()
    )


def required(spec: Json) -> Json | None:
    """The node selector of a pod's required node affinity, if it has one."""
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    return affinity.get("requiredDuringSchedulingIgnoredDuringExecution")


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
