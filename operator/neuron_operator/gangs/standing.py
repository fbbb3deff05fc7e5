"""The fleet as gangs are placed on it, kept from one plan to the next.

Only nodes that changed since are looked at anew: a gang on thousands of nodes costs what it touches, and what is kept
may be lost at any time.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from neuron_operator.gangs.eligibility import may_run
from neuron_operator.gangs.records import Key
from neuron_operator.nodes import NodeFacts
from neuron_operator.placement import Board, NodeState

_REMEMBERED = 8

Promised = Mapping[str, Sequence[tuple[Key, int]]]
"""Chips of a node that gangs are to have, and which gangs."""


class KnownNodes(Protocol):
    """What is known of nodes."""

    @property
    def facts(self) -> Mapping[str, NodeFacts]:
        """The nodes."""
        ...

    @property
    def capacity(self) -> int:
        """A number that grows with each change."""
        ...

    def changed_since(self, number: int) -> Collection[str] | None:
        """Nodes that changed, or came or went, after `capacity` was this number; None: that is not known any more."""
        ...

    def state(self, node: str, promised: Sequence[tuple[Key, int]]) -> NodeState | None:
        """A node for placement; None if it is no Neuron node."""
        ...


class Standing:
    """See the module."""

    def __init__(self) -> None:
        self.states: dict[str, NodeState] = {}
        """The Neuron nodes, as of the last look."""
        self._seen = -1
        self._promised: frozenset[str] = frozenset()
        self._board: Board | None = None
        self._able: dict[str, tuple[set[str], int]] = {}
        """Where pods may run, by what a pod says, the latest last; and when that was so."""

    def look(self, known: KnownNodes, promised: Promised) -> Board:
        """Take in what changed; the board has all Neuron nodes, and nothing is taken on it yet."""
        changed = known.changed_since(self._seen)
        if changed is None:
            self.states.clear()
            self._board, changed = None, list(known.facts)
        due = {*changed, *self._promised, *promised}
        self._seen, self._promised = known.capacity, frozenset(promised)
        found = {node: known.state(node, promised.get(node, ())) for node in due}
        for node, state in found.items():
            if state is None:
                self.states.pop(node, None)
            else:
                self.states[node] = state
        if self._board is None or not self._board.renew(found):
            self._board = Board(self.states.values())
        return self._board

    def able(self, spec: Mapping[str, Any], known: KnownNodes) -> Collection[str]:
        """The names of all nodes on which a pod with this spec may run, by its own words."""
        words = json.dumps({key: spec.get(key) for key in ("nodeSelector", "affinity", "tolerations")}, sort_keys=True)
        able, seen = self._able.pop(words, (set(), -1))
        changed = known.changed_since(seen)
        if changed is None:
            able.clear()
            changed = known.facts
        for name in changed:
            facts = known.facts.get(name)
            if facts is not None and may_run(spec, name=name, labels=facts.labels, taints=facts.taints):
                able.add(name)
            else:
                able.discard(name)
        self._able[words] = able, known.capacity
        if len(self._able) > _REMEMBERED:
            del self._able[next(iter(self._able))]
        return able
