"""On which nodes a pod may run at all, by its own words: nodeSelector, required node affinity, tolerations.

Everything else that a scheduler looks at (CPU, memory, ports, other pods) is left to the scheduler: where it
disagrees, the gang is rolled back with its words.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from neuron_operator.gangs import names
from neuron_operator.node_affinity import KEEPS_AWAY, required, selects, tolerates
from neuron_operator.nodes import NodeFacts

Json = Mapping[str, Any]
Taint = tuple[str, str, str]

_REMEMBERED = 8


class Eligible:
    """On which of thousands of nodes pods may run, kept for pods that ask the same and for nodes that stay the same."""

    def __init__(self) -> None:
        self._answers: dict[str, dict[str, tuple[NodeFacts, bool]]] = {}
        """By what a pod says, the latest last; of each node, the facts that were looked at."""

    def nodes(self, spec: Json, facts: Iterable[NodeFacts]) -> frozenset[str]:
        """The names of those on which a pod with this spec may run."""
        words = json.dumps({key: spec.get(key) for key in ("nodeSelector", "affinity", "tolerations")}, sort_keys=True)
        before, now = self._answers.pop(words, {}), dict[str, tuple[NodeFacts, bool]]()
        for node in facts:
            known = before.get(node.name)
            if known is None or known[0] is not node:
                known = node, may_run(spec, name=node.name, labels=node.labels, taints=node.taints)
            now[node.name] = known
        self._answers[words] = now
        if len(self._answers) > _REMEMBERED:
            del self._answers[next(iter(self._answers))]
        return frozenset([name for name, (_, able) in now.items() if able])


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
