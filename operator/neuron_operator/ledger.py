"""Who is promised which node: the one view that gangs and NeuronUltraServerWorkloads share. Pure, in one process.

Each of the two finds places by what it knows, and promises them by one write of a status. Until the other one knows,
there are that write, a watch, and a write that follows from it (a taint, a NeuronNode). So each asks here what the
other one has before it decides, and enters what it is about to promise before it writes. Nothing waits between asking
and entering, so at no moment can both have a node.

What is *held* stands in statuses and pods as they are known. What is *pledged* is on its way: its write may have been
carried out even if its answer never came. A pledge ends when the object is seen in another version than that which was
judged, since the write was for this version only; when it is gone; or after longer than an API server works on a
request.

Nobody is told anything before both have said what they hold: an operator that has just started knows nothing.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

Side: TypeAlias = Literal["gangs", "workloads"]

# the API server's own limit is 60 s, and ours before that
PLEDGED_SECONDS = 100.0

_OTHER: Mapping[Side, Side] = {"gangs": "workloads", "workloads": "gangs"}


@dataclass(frozen=True, slots=True)
class Held:
    """The nodes that an owner has, by its object's version."""

    version: str
    nodes: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Pledge:
    owner: str
    version: str
    nodes: frozenset[str]
    until: float


class Ledger:
    """See the module. Owners are named as people know them: `the gang team/train`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._held: dict[Side, Mapping[str, Held]] = {}
        self._pledges: dict[Side, list[_Pledge]] = {"gangs": [], "workloads": []}
        self._nodes: dict[Side, dict[str, str]] = {"gangs": {}, "workloads": {}}
        self._listeners: dict[Side, Callable[[], None]] = {}

    def listen(self, side: Side, changed: Callable[[], None]) -> None:
        """Call whenever what the other side has may have changed."""
        self._listeners[side] = changed

    def report(self, side: Side, held: Mapping[str, Held]) -> None:
        """All that a side has, as it is known now."""
        now, first = self._clock(), side not in self._held
        self._held[side] = held
        self._pledges[side] = [
            pledge
            for pledge in self._pledges[side]
            if pledge.owner in held and held[pledge.owner].version == pledge.version and now < pledge.until
        ]
        self._update(side, first=first)

    def pledge(self, side: Side, owner: str, *, version: str, nodes: Iterable[str]) -> None:
        """A side is about to promise these nodes to an owner, by a write for this version of its object."""
        until = self._clock() + PLEDGED_SECONDS
        self._pledges[side].append(_Pledge(owner, version, frozenset(nodes), until))
        self._update(side)

    def others(self, side: Side) -> Mapping[str, str] | None:
        """The nodes that the other side has, and whose they are; None while not both have reported."""
        return self._nodes[_OTHER[side]] if len(self._held) == len(_OTHER) else None

    def _update(self, side: Side, *, first: bool = False) -> None:
        nodes = {node: owner for owner, held in self._held.get(side, {}).items() for node in held.nodes}
        for pledge in self._pledges[side]:
            nodes |= dict.fromkeys(pledge.nodes, pledge.owner)
        changed, self._nodes[side] = nodes != self._nodes[side], nodes
        if (changed or first) and (listener := self._listeners.get(_OTHER[side])) is not None:
            listener()
