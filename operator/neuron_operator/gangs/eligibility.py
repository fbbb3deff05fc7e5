"""On which nodes a pod may run at all, by its own words: nodeSelector, required node affinity, tolerations.

Kubernetes' own rules. Everything else that a scheduler looks at (CPU, memory, ports, other pods) is left to the
scheduler: where it disagrees, the gang is rolled back with its words.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from neuron_operator.gangs import names

Json = Mapping[str, Any]
Taint = tuple[str, str, str]

_KEEPS_AWAY = ("NoSchedule", "NoExecute")


def may_run(spec: Json, *, name: str, labels: Mapping[str, str], taints: Collection[Taint]) -> bool:
    """Whether a pod with this spec may run on a node."""
    selector = spec.get("nodeSelector") or {}
    if any(labels.get(key) != value for key, value in selector.items()):
        return False
    if not _affine(spec, name=name, labels=labels):
        return False
    if not taints:
        return True
    tolerations = spec.get("tolerations") or ()
    return all(
        key == names.TAINT or effect not in _KEEPS_AWAY or _tolerated((key, value, effect), tolerations)
        for key, value, effect in taints
    )


def _affine(spec: Json, *, name: str, labels: Mapping[str, str]) -> bool:
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if not required:
        return True
    return any(
        (term.get("matchExpressions") or term.get("matchFields"))
        and all(_holds(each, labels) for each in term.get("matchExpressions") or ())
        and all(_holds(each, {"metadata.name": name}) for each in term.get("matchFields") or ())
        for term in required.get("nodeSelectorTerms") or ()
    )


def _holds(requirement: Json, labels: Mapping[str, str]) -> bool:
    value, values = labels.get(requirement["key"]), requirement.get("values") or ()
    match requirement["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt":
            return _compares(value, values, greater=requirement["operator"] == "Gt")
    return False


def _compares(value: str | None, values: Sequence[str], *, greater: bool) -> bool:
    try:
        left, right = int(value or ""), int(values[0])
    except (ValueError, IndexError):
        return False
    return left > right if greater else left < right


def _tolerated(taint: Taint, tolerations: Iterable[Json]) -> bool:
    key, value, effect = taint
    return any(
        toleration.get("effect") in (None, "", effect)
        and (
            (toleration.get("key") in (None, "", key) if toleration.get("operator") == "Exists" else False)
            or (
                toleration.get("operator") in (None, "", "Equal")
                and toleration.get("key") == key
                and (toleration.get("value") or "") == value
            )
        )
        for toleration in tolerations
    )
