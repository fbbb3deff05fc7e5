"""Counters of hardware events that never go back, made from faults that come and go. Pure.

What a fault has counted so far follows from its begin and the time; what faults that are over have counted is
remembered. So the same fault may be accounted for as often as one likes, by an agent and the next one, with a clock
that jumps back: a count is the most that was ever seen of each fault, and the sum over all of them.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

ByEvent: TypeAlias = dict[str, int]
ByChip: TypeAlias = dict[int, ByEvent]
"""Counts by chip and event."""


class Counts:
    """The counters of a node's chips."""

    def __init__(self, record: Mapping[str, Any] | None = None) -> None:
        """`record`: what `as_record` gave; raises ValueError, KeyError, TypeError or AttributeError if it is none."""
        found = record or {"over": {}, "running": {}}
        self._over = _by_chip(found["over"])
        self._running = {cause: _by_chip(counts) for cause, counts in found["running"].items()}

    def account(self, active: Mapping[str, Mapping[int, Mapping[str, int]]]) -> bool:
        """Take in what each active fault has counted so far, by its name; the others are over. Whether that is new."""
        changed = False
        for cause in self._running.keys() - active.keys():
            add(self._over, self._running.pop(cause))
            changed = True
        for cause, counts in active.items():
            before = self._running.setdefault(cause, {})
            for chip, events in counts.items():
                mine = before.setdefault(chip, {})
                for event, count in events.items():
                    if count > mine.get(event, 0):
                        mine[event] = count
                        changed = True
        return changed

    def totals(self) -> ByChip:
        """The counters; what is not in it is 0."""
        found: ByChip = {}
        for counts in (self._over, *self._running.values()):
            add(found, counts)
        return found

    def as_record(self) -> dict[str, Any]:
        """For JSON."""
        running = {cause: _as_strings(counts) for cause, counts in self._running.items()}
        return {"over": _as_strings(self._over), "running": running}


def add(into: ByChip, counts: ByChip) -> None:
    """Add counts to others, in place."""
    for chip, events in counts.items():
        mine = into.setdefault(chip, {})
        for event, count in events.items():
            mine[event] = mine.get(event, 0) + count


def _by_chip(record: Mapping[str, Mapping[str, Any]]) -> ByChip:
    return {int(chip): {event: int(count) for event, count in events.items()} for chip, events in record.items()}


def _as_strings(counts: ByChip) -> dict[str, ByEvent]:
    return {str(chip): events for chip, events in counts.items()}
