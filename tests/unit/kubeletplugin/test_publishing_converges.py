"""Whatever happens to the slices, the watch and the server, in any order: in the end what was published is there.

Faults come at any moment of the controller's work (virtual time passes between the steps). When they stop, the
server must hold the pool as the allocator wants it, foreign slices must be as they were, and nothing is written
any more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from neuron_dra_driver.kubeletplugin import Pool, Slice, SliceController, SliceObject
from slice_fake_server import FakeServer
from virtual_time import VirtualTimeLoop

LABELS = {"ours": "true"}
FOREIGN = "not-ours"


def _devices(*names: str, **fields: Any) -> Slice:
    return Slice(devices=[{"name": name, **fields} for name in names])


POOLS = [
    Pool("node-1", (_devices("a"),)),
    Pool("node-1", (_devices("a", "b", taints=[{"key": "k", "effect": "NoSchedule"}]),)),
    Pool("node-1", (_devices("c", capacity={"memory": {"value": "1024Mi"}}),)),
    Pool("node-1", (Slice(),)),
    Pool("renamed", (_devices("a"),)),
    Pool(
        "node-1",
        (
            Slice(shared_counters=[{"name": "chip", "counters": {"core": {"value": "1"}}}]),
            _devices("a", "b"),
            _devices("c", taints=[{"key": "k", "effect": "NoExecute"}]),
        ),
    ),
    Pool("node-1", (_devices("c"), _devices("a"))),
    None,
]

EDITS: dict[str, Any] = {
    "empty": lambda found: found["spec"].pop("devices", None),
    "device": lambda found: found["spec"].update(devices=[{"name": "z"}]),
    "generation": lambda found: found["spec"]["pool"].update(generation=50),
    "count": lambda found: found["spec"]["pool"].update(resourceSliceCount=9),
    "owner": lambda found: found["metadata"].pop("ownerReferences", None),
    "labels": lambda found: found["metadata"].update(labels={"theirs": "x"}),
    "annotation": lambda found: found["metadata"].update(annotations={"theirs": "x"}),
}


class Publishing(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualTimeLoop()
        self.server = FakeServer()
        self.task: asyncio.Task[None] | None = None
        self.pool: Pool | None = None
        self.foreign: dict[str, SliceObject] = {}
        self.stripped_unseen: set[str] = set()
        """Lost the label before the controller saw it: may be foreign to it."""

    def teardown(self) -> None:
        try:
            if self.task is not None:
                self.loop.run_until_complete(self._converge())
        finally:
            if self.task is not None:
                self._stop()
            self.loop.close()

    @initialize(pool=st.sampled_from(POOLS), lag=st.sampled_from([0.0, 0.001, 0.02, 3.0]))
    def start(self, pool: Pool | None, lag: float) -> None:
        self.server.lag = lag
        self._start(pool)

    @rule(seconds=st.sampled_from([0.0, 0.004, 0.006, 0.011, 0.3, 5.0, 400.0]))
    def time_passes(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))

    @rule(pool=st.sampled_from(POOLS))
    def publish(self, pool: Pool | None) -> None:
        self.pool = pool
        self._in_loop(lambda: self.controller.publish(pool))

    @rule(pool=st.sampled_from(POOLS))
    def restart_the_driver(self, pool: Pool | None) -> None:
        self._stop()
        self._start(pool)

    @rule()
    def wipe(self) -> None:
        for name in self._not_foreign():
            self._in_loop(lambda name=name: self.server.remove(name))

    @rule(which=st.integers(0, 2))
    def delete_one(self, which: int) -> None:
        for name in self._not_foreign()[which : which + 1]:
            self._in_loop(lambda name=name: self.server.remove(name))

    @rule(which=st.integers(0, 2), edit=st.sampled_from(sorted(EDITS)))
    def edit_one(self, which: int, edit: str) -> None:
        for name in self._not_foreign()[which : which + 1]:
            if edit == "labels" and self.server.objects[name]["metadata"]["uid"] not in self.controller._ours:
                self.stripped_unseen.add(name)
            self._in_loop(lambda name=name: self.server.edit(name, EDITS[edit]))

    @rule()
    def duplicate(self) -> None:
        for name in self._not_foreign()[:1]:
            if self._labelled(name):
                self._in_loop(lambda name=name: self.server.add(self.server.objects[name]))

    @rule()
    def foreign_comes(self) -> None:
        found = {
            "apiVersion": "resource.k8s.io/v1",
            "kind": "ResourceSlice",
            "metadata": {"name": f"{FOREIGN}-00000"},
            "spec": {"pool": {"name": "node-1", "generation": 70, "resourceSliceCount": 1}},
        }
        name = self._in_loop(lambda: self.server.add(found))
        self.foreign[name] = self.server.objects[name]

    @rule()
    def outage(self) -> None:
        self._in_loop(self.server.outage)

    @rule()
    def outage_ends(self) -> None:
        self.server.down = False

    @rule(answers=st.integers(1, 3))
    def answers_get_lost(self, answers: int) -> None:
        self.server.lost_answers = answers

    @rule(fault=st.sampled_from(["compact", "end_watches", "silence_watches"]))
    def watch_breaks(self, fault: str) -> None:
        self._in_loop(getattr(self.server, fault))

    @rule(dropped=st.sampled_from([set(), {"taints"}, {"capacity"}]))
    def feature_gates_change(self, dropped: set[str]) -> None:
        self.server.dropped = dropped

    # ---------------------------------------------------------------------------------------------

    def _start(self, pool: Pool | None) -> None:
        self.pool = pool
        self.controller = SliceController(
            self.server, driver_name="example.com", node_name="node-1", node_uid="uid", labels=LABELS
        )
        self.controller.publish(pool)
        self.task = self.loop.create_task(self.controller.run())

    def _stop(self) -> None:
        assert self.task is not None
        assert not self.task.done(), "run() never ends by itself"
        self.task.cancel()
        self.loop.run_until_complete(asyncio.gather(self.task, return_exceptions=True))
        # What lost its label while nobody looked is foreign to the next process.
        for name in self._not_foreign():
            if not self._labelled(name):
                self.server.objects.pop(name)

    def _in_loop(self, action: Any) -> Any:
        async def act() -> Any:
            return action()

        return self.loop.run_until_complete(act())

    def _not_foreign(self) -> list[str]:
        return sorted(name for name in self.server.objects if name not in self.foreign)

    def _labelled(self, name: str) -> bool:
        return LABELS.items() <= (self.server.objects[name]["metadata"].get("labels") or {}).items()

    async def _converge(self) -> None:
        self.server.down = False
        self.server.lost_answers = 0
        # The longest way: a silent watch, a backoff at its end, an editor's backoff.
        await asyncio.sleep(300 + 2 * 60 + 2 * 30 + self.server.lag)
        await asyncio.wait_for(self.controller.synced(), 1)
        for name in self.stripped_unseen & self.server.objects.keys():
            if not self._labelled(name):
                self.foreign[name] = self.server.objects[name]
        self._check()
        writes = self.server.writes()
        await asyncio.sleep(1000)
        assert self.server.writes() == writes, "writes without a reason"
        self._check()
        assert self.controller.status.foreign_slices == tuple(sorted(self.foreign))
        assert self.controller.status.error == ""

    def _check(self) -> None:
        published = [self.server.objects[name] for name in self._not_foreign()]
        wanted = self.pool.slices if self.pool else ()
        assert len(published) == len(wanted)
        # The order of names is the order of the pool.
        for found, slice_ in zip(published, wanted, strict=True):
            assert LABELS.items() <= found["metadata"]["labels"].items()
            assert [owner["uid"] for owner in found["metadata"]["ownerReferences"]] == ["uid"]
            spec = found["spec"]
            assert self.pool is not None
            assert spec["pool"]["name"] == self.pool.name
            assert spec["pool"]["resourceSliceCount"] == len(wanted)
            assert spec.get("sharedCounters", []) == list(slice_.shared_counters)
            assert [device["name"] for device in spec.get("devices", [])] == [
                device["name"] for device in slice_.devices
            ]
            for have, want in zip(spec.get("devices", []), slice_.devices, strict=True):
                assert have.keys() <= want.keys()
                # A gate that opened again is found out with the next change.
                missing = want.keys() - have.keys()
                dropped = " ".join(self.controller.status.dropped_fields)
                assert all(field in dropped for field in missing)
        assert len({found["spec"]["pool"]["generation"] for found in published}) <= 1
        for name, found in self.foreign.items():
            assert self.server.objects[name] == found


@pytest.fixture(autouse=True)
def _quietly() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


TestPublishing = pytest.mark.timeout(60)(Publishing.TestCase)
TestPublishing.settings = settings(
    max_examples=40,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
