"""What was broken on a node, and when: all that is needed to work out every counter that faults leave behind. Pure.

An agent on a node keeps its counters on a disk, and writes them whenever one goes up. Who has no disk, and thousands of
nodes, cannot: this is written when a fault begins or ends, however fast its counters go up meanwhile. A fault that
ended while nobody looked ended when somebody looked again, so that no counter is less than it was shown.
"""

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeAlias

import orjson
from neuron_device_model.catalog import InstanceType
from neuron_device_model.faults import Fault, read

from .counts import ByChip, add
from .effects import cause, ecc

KEPT = 64
"""Faults that are over and that a job may have suffered from: the oldest are forgotten, but for their ECC events."""

Entry: TypeAlias = dict[str, Any]
"""A fault as in NeuronNode.spec.faults, `seen`: when it was heard of, and of one that is over `until`; in seconds since
the epoch."""

_COUNTS_BY = ("type", "chip", "core", "peer", "efa", "eventsPerMinute", "percent")


class History:
    """Of one node."""

    def __init__(self, record: str = "") -> None:
        """`record`: what `record` gave; raises ValueError, KeyError, TypeError or AttributeError if it is none."""
        found = orjson.loads(record) if record else {}
        self._active: dict[str, Entry] = dict(found.get("active") or {})
        self._over: list[Entry] = list(found.get("over") or ())
        self._ecc: ByChip = {int(chip): dict(events) for chip, events in (found.get("ecc") or {}).items()}
        self.faults()

    def observe(self, entries: Iterable[Mapping[str, Any]], kind: InstanceType, *, now: float, oldest: float) -> bool:
        """Take in what is broken now, the rest is over. Whether that is new.

        `now` and `oldest` are seconds since the epoch: no job that runs is older than `oldest`.
        """
        active: dict[str, Entry] = {}
        for entry in entries:
            name = cause(read(entry))
            before = self._active.get(name)
            if before is None:
                active[name] = {**entry, "seen": now}
            elif all(before.get(key) == entry.get(key) for key in _COUNTS_BY):
                active[name] = before
            else:  # an edit: what it has counted stays, from now on it counts otherwise
                active[name] = {**entry, "since": datetime.fromtimestamp(now, UTC).isoformat(), "seen": now}
        over = [before for name, before in self._active.items() if active.get(name) is not before]
        changed = bool(over) or active.keys() != self._active.keys()
        self._active = active
        self._over += [{**entry, "until": now} for entry in over]
        return self._fold(kind, oldest) or changed

    def faults(self) -> list[tuple[Fault, float, float]]:
        """Those that a job may have suffered from, when they were heard of, and when they were over (or infinity)."""
        over = [(read(entry), float(entry["seen"]), float(entry["until"])) for entry in self._over]
        return over + [(read(entry), float(entry["seen"]), math.inf) for entry in self._active.values()]

    def counters(self, kind: InstanceType, *, now: float) -> ByChip:
        """The ECC counters of the chips; what is not in it is 0."""
        found: ByChip = {}
        add(found, self._ecc)
        for fault, _, until in self.faults():
            add(found, ecc(fault, kind, now=min(now, until)))
        return found

    def __bool__(self) -> bool:
        """Whether anything was ever broken."""
        return bool(self._active or self._over or self._ecc)

    def record(self) -> str:
        """To be kept; empty: nothing was ever broken."""
        if not self:
            return ""
        counted = {str(chip): events for chip, events in self._ecc.items()}
        return orjson.dumps({"active": self._active, "over": self._over, "ecc": counted}).decode()

    def _fold(self, kind: InstanceType, oldest: float) -> bool:
        """Only add up what no job has suffered from."""
        spare = len(self._over) - KEPT
        done = [entry for place, entry in enumerate(self._over) if place < spare or entry["until"] <= oldest]
        for entry in done:
            add(self._ecc, ecc(read(entry), kind, now=entry["until"]))
        self._over = [entry for entry in self._over if entry not in done]
        return bool(done)
