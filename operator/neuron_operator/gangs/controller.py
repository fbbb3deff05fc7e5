"""The loop of gangs: wake up, plan, write, and again until a plan is empty.

Between two writes that depend on one another there is a plan, made from what the API server answered, so nothing waits
for the watch. Time wakes it too: a deadline, the end of a pause.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import NoReturn

from neuron_operator import kube, metrics
from neuron_operator.extender.watching import follow
from neuron_operator.gangs import names
from neuron_operator.gangs.planning import Memory, plan
from neuron_operator.gangs.records import Key
from neuron_operator.gangs.state import State
from neuron_operator.gangs.writes import Make, SetStatus, Write
from neuron_operator.gangs.writing import Writer
from neuron_operator.kube import Api, ApiError, Kube
from neuron_operator.ledger import Held, Ledger

_LONGEST_SLEEP = 10.0
_LOOK_EVERY = 5.0
_PAUSE = 1.0
_ROUNDS = 50
# the API server drops Events after an hour, and who tells one again makes no second one of it
_TOLD = 50_000
_NONE: frozenset[str] = frozenset()
_BOUND = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed"

logger = logging.getLogger(__name__)


class Gangs:
    """Places gangs."""

    def __init__(
        self,
        *,
        api: Api,
        driver_name: str,
        ledger: Ledger,
        barrier: bool = False,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._api = api
        self._ledger = ledger
        self._clock = clock
        self._changed = asyncio.Event()
        self._looked_at = float("-inf")
        self._first_seen: dict[Key, float] = {}
        self._memory = Memory()
        self.state = State(driver_name=driver_name, barrier=barrier, changed=self._changed.set)
        self._writer = Writer(api, self.state, self._memory)
        ledger.listen("gangs", self._changed.set)

    async def run(self, api: Kube) -> NoReturn:
        """Watch and place until cancelled."""
        state = self.state
        async with asyncio.TaskGroup() as group:
            for resource, kept, labels in (
                (kube.PODS, state.pods, names.LABEL_GANG),
                (kube.GANGS, state.gangs, ""),
                (kube.NODES, state.nodes, ""),
                (kube.NEURON_NODES, state.hardware, ""),
                (kube.CLAIMS, state.claims, ""),
            ):
                group.create_task(follow(api, resource, listed=kept.listed, seen=kept.seen, labels=labels))
            group.create_task(self._work())
        raise AssertionError("the watches never end")

    async def _work(self) -> NoReturn:
        while True:
            self._changed.clear()
            pause = await self.step() if self.state.complete else _LONGEST_SLEEP
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._changed.wait()

    async def step(self) -> float:
        """Plan and write until there is nothing to do now; returns in how many seconds to look again anyway."""
        for _ in range(_ROUNDS):
            await self._look_around()
            now = self._clock()
            # from here on nothing waits until what is about to be promised is in the ledger
            self._ledger.report("gangs", self._held())
            others = self._ledger.others("gangs")
            if others is None:
                return _LONGEST_SLEEP
            self.state.leave(others)
            planned = plan(self.state, self._memory, now=now)
            for write in planned.writes:
                if isinstance(write, Make):
                    self._first_seen.setdefault(write.key, time.monotonic())
            wanted, writes = list(self.state.wanted), self._writer.due(planned.writes, now)
            self._pledge(writes)
            known = not wanted or await self._writer.look(wanted)
            if not writes and not (wanted and known):
                self._report()
                times = [at for at in (planned.wake_at, self._writer.again_at) if at is not None]
                pauses = [(at - now).total_seconds() for at in times]
                return max(0.0, min([*pauses, _LONGEST_SLEEP if known else _PAUSE]))
            await self._writer.write(writes, now)
        return 0.0

    def _held(self) -> dict[str, Held]:
        """What gangs have, and which version of its NeuronGang each was seen in."""
        nodes = self.state.has()
        return {
            _owner(key): Held(record.version if (record := self.state.records.get(key)) else "", nodes.get(key, _NONE))
            for key in self.state.records.keys() | nodes.keys()
        }

    def _pledge(self, writes: Iterable[Write]) -> None:
        for write in writes:
            if isinstance(write, SetStatus) and write.status.get("phase") == "Reserved":
                self._ledger.pledge(
                    "gangs", _owner(write.record.key), version=write.record.version, nodes=write.status["nodes"] or ()
                )

    async def _look_around(self) -> None:
        """What no watch tells, while gangs wait: claims that pods name, and what device plugins gave to pods."""
        now = time.monotonic()
        waiting = any(record.phase != "Bound" for record in self.state.records.values())
        if now < self._looked_at + _LOOK_EVERY or not (waiting or self.state.specs):
            return
        self._looked_at = now
        self.state.look_again()
        if not waiting or not self.state.has_plugins:
            return
        try:
            self.state.list_plain((await self._api.list(kube.PODS, fields=_BOUND)).items)
        except ApiError as error:
            logger.warning("pods with devices of device plugins cannot be listed: %s", error)

    def _report(self) -> None:
        phases = Counter(record.phase for record in self.state.records.values())
        for phase in ("Pending", "Reserved", "Bound", "RollingBack"):
            metrics.GANGS.labels(phase).set(phases[phase])
        for key in list(self._first_seen):
            record = self.state.records.get(key)
            if record is None or record.phase != "Pending":
                began = self._first_seen.pop(key)
                if record is not None:
                    metrics.GANG_PLACEMENT_SECONDS.observe(time.monotonic() - began)
        if len(self._memory.told) > _TOLD:
            self._memory.told.clear()


def _owner(key: Key) -> str:
    return "the gang " + "/".join(key)
