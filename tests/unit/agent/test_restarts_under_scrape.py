"""Agents follow one another under scrape, faults come and go, the clock is set: no count goes back or begins anew."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from neuron_device_model.faults import Fault
from neuron_dra_driver.activity.service import ActivityService
from neuron_dra_driver.clock import SteadyClock
from neuron_dra_driver.hardware import service as hardware_service
from neuron_dra_driver.hardware.service import Hardware
from neuron_dra_driver.lock import NodeLock
from neuron_dra_driver.node import SimulatedNode
from neuron_dra_driver.prepared.claim_folders import ClaimFolders
from prometheus_client.parser import text_string_to_metric_families

BORN = 1_767_225_600.0
KINDS = ("HBMUncorrectable", "HBMCorrectable", "SRAMCorrectable", "Hang", "ThermalThrottle")
POD = {
    "metadata": {
        "namespace": "team",
        "name": "p",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "annotations": {"neuron-sim.dev/activity-profile": "inference"},
    },
    "spec": {
        "containers": [{"name": "c", "resources": {"claims": [{"name": "neurons"}]}}],
        "resourceClaims": [{"name": "neurons", "resourceClaimName": "mine"}],
    },
}


class Node:
    """Its disk stays, its agents do not; its clocks go as they are told."""

    def __init__(self, host: Any, node: SimulatedNode, eventually: Callable[..., Any]) -> None:
        self.now = node
        self.wall, self.monotonic = BORN + 600, 0.0
        self._host = host
        self._eventually = eventually

    @asynccontextmanager
    async def agent(self) -> AsyncIterator[ActivityService]:
        """A new process, until it is killed."""

        async def list_pods() -> list[Any]:
            return [POD]

        async def tell_pod(pod: Any, sentence: str) -> None:
            raise AssertionError(sentence)

        clock = SteadyClock(lambda: self.wall, lambda: self.monotonic)
        store = self._host.opened()
        service = ActivityService(
            store=store,
            lock=NodeLock(self._host.root / "plugins" / "neuron.aws.com"),
            folders=ClaimFolders(self._host.views),
            node=lambda: self.now,
            list_pods=list_pods,
            hardware=Hardware(self._host.root, node=lambda: self.now, clock=clock),
            directory=self._host.root,
            tell_pod=tell_pod,
            clock=clock,
        )
        tasks = [asyncio.create_task(service.run()), asyncio.create_task(service.follow_pods())]
        await self._eventually(lambda: any(place.board.profile for place in service.places))
        yield service
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        store.close()

    def breaks(self, kind: str, number: int) -> tuple[Fault, ...]:
        """What is broken afterwards."""
        since = datetime.fromtimestamp(self.wall, UTC).isoformat()
        return (*self.now.faults, Fault(f"f-{number}", kind, 3, None, "None", "", since))


def counters(page: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        if family.type == "counter"
        for sample in family.samples
    }


def begins(page: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        if family.name.endswith("_created")
        for sample in family.samples
    }


@pytest.mark.parametrize("seed", range(3))
async def test_no_counter_goes_back(
    host: Any,
    cut: SimulatedNode,
    make: SimpleNamespace,
    eventually: Callable[..., Any],
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hardware_service, "FRESH", 0)  # or what is asked for within a second is not counted anew
    store = host.opened()
    store.prepare(make.allocation(make.claim("mine", uid="a", devices={"neurons": [3]})), cut)
    store.close()
    chance = random.Random(seed)
    cut = replace(cut, created=BORN - 3600)
    node = Node(host, cut, eventually)
    before: dict[Any, float] = {}
    for process in range(3):
        async with node.agent() as service:
            for step in range(7):
                seconds = chance.uniform(0, 60)
                # a clock that is set back is none of the next process' business: nobody knows of it then
                jump = chance.choice((0, 0, 600, -600)) if step < 6 else 0
                node.monotonic += seconds
                node.wall += seconds + jump
                service.faults_change()
                if chance.random() < 0.3:
                    node.now = replace(node.now, faults=node.breaks(chance.choice(KINDS), 100 * process + step))
                elif node.now.faults and chance.random() < 0.3:
                    node.now = replace(node.now, faults=node.now.faults[1:])
                service.faults_changed()
                found = counters(service.metrics())
                assert found.keys() >= before.keys()
                assert {key: value for key, value in before.items() if found[key] < value} == {}
                before = found
                assert {(name, value) for (name, _), value in begins(service.metrics()).items()} == {
                    ("execution_errors_created", BORN),
                    ("execution_status_created", BORN),
                    ("hardware_ecc_events_created", BORN - 3600),
                }
            node.wall = max(node.wall, service._clock())
        if chance.random() < 0.5:  # while no agent is there
            node.now = replace(node.now, faults=node.now.faults[1:])
        node.wall += 30
        node.monotonic += 30
    assert sum(before.values()) > 1000
