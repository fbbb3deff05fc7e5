"""On which nodes a pod may run at all, by its own words: nodeSelector, required node affinity, tolerations.

Everything else that a scheduler looks at (CPU, memory, ports, other pods) is left to the scheduler: where it
disagrees, the gang is rolled back with its words.
"""

from collections.abc import Collection, Mapping
from typing import Any

from neuron_operator.gangs import names
from neuron_operator.node_affinity import KEEPS_AWAY, required, selects, tolerates

Json = Mapping[str, Any]
Taint = tuple[str, str, str]


def may_run(spec: Json, *, name: str, labels: Mapping[str, str], taints: Collection[Taint]) -> bool:
    """Whether a pod with this spec may run on a node."""
    selector = spec.get("nodeSelector") or {}
    if any(labels.get(key) != value for key, value in selector.items()):
        return False
    affinity = required(spec)
    if affinity and not selects(affinity, name=name, labels=labels):
        return False
    if not taints:
        return True
    tolerations = spec.get("tolerations") or ()
    return all(
        key == names.TAINT
        or effect not in KEEPS_AWAY
        or any(tolerates(each, {"key": key, "value": value, "effect": effect}) for each in tolerations)
        for key, value, effect in taints
    )
