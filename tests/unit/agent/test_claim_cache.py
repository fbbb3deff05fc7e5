"""Claims known from a watch: when they are used, and every way in which a watch can be wrong about them.

`Cluster` is the truth, which a read sees at once; its watch shows it when the test lets it, in the order in which
things happened.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from neuron_dra_driver.api_server.kube import Kube
from neuron_dra_driver.claims.claim_cache import FRESH, MANY, SETTLE, ClaimCache
from neuron_dra_driver.claims.driver import NodeDriver
from neuron_dra_driver.errors import AgentError, ClaimError, DeviceHeld
from neuron_dra_driver.kubeletplugin import ApiError, ClaimRef
from neuron_dra_driver.lock import NodeLock
from neuron_dra_driver.metrics import Metrics
from neuron_dra_driver.node import SimulatedNode, standalone
from neuron_dra_driver.prepared.runtime_tree import RuntimeTrees
from neuron_dra_driver.prepared.store import ClaimStore
from neuron_dra_driver.records.checkpoint import Checkpoint

DRIVER, NODE = "neuron.aws.com", "worker-1"


class FakeStream:
    """A watch as `Kube.follow_claims` gives it."""

    def __init__(self) -> None:
        self.unread = False
        self.begun = asyncio.Event()
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._handle: Callable[[bytes], object]

    async def each(self, handle: Callable[[bytes], object], *, silence: float) -> None:
        self._handle = handle
        self.begun.set()
        await self.ended

    def tell(self, kind: str, obj: Any) -> None:
        self._handle(json.dumps({"type": kind, "object": obj}).encode())

    def waiting(self) -> bool:
        return self.unread


class Cluster:
    """The API server, its watch, and one node's cache, driver and clock."""

    def __init__(self, root: Path, node: SimulatedNode) -> None:
        self.claims: dict[str, Any] = {}
        self.version = 100
        self.now = 1000.0
        self.reads: list[str] = []
        self.asked_from: list[str] = []
        self.late: list[tuple[str, Any]] = []
        """Events that the watch has yet to show."""
        self.refusal: ApiError | None = None
        self.failing = False
        self.cache = ClaimCache(self, driver=DRIVER, pool=NODE, clock=lambda: self.now)  # type: ignore[arg-type]
        (root / "tree/bin").mkdir(parents=True)
        self.root = root
        self.store = self.another_store()
        self.lock = NodeLock(root / "plugins")
        self.metrics = Metrics()

        async def of_node() -> SimulatedNode:
            return node

        self.driver = NodeDriver(
            driver=DRIVER,
            pool=NODE,
            read_claim=self.read,
            store=self.store,
            lock=self.lock,
            node=of_node,
            changed=lambda: None,
            metrics=self.metrics,
            cache=self.cache,
        )
        self.stream = FakeStream()
        self._following: asyncio.Task[None] | None = None

    def another_store(self, *, compact_after: int = 1000) -> ClaimStore:
        """What a process that begins now knows of the claims that are prepared."""
        store = ClaimStore(
            driver=DRIVER,
            cdi_directory=self.root / "cdi",
            run_directory=self.root / "run",
            checkpoint=Checkpoint(self.root / "plugins", compact_after=compact_after),
            trees=RuntimeTrees(self.root / "tree", self.root / "state"),
        )
        store.refresh()
        return store

    # --- the watch

    @contextlib.asynccontextmanager
    async def follow_claims(self, version: str) -> AsyncIterator[FakeStream]:
        self.asked_from.append(version)
        if self.refusal:
            raise self.refusal
        yield self.stream

    async def watch(self, *, settled: bool = True, initial: bool = True) -> None:
        """Begin to watch, from all that there is, or from where the last watch ended."""
        self._following = asyncio.create_task(self.cache.follow())
        await self.stream.begun.wait()
        if initial:
            self.late.clear()
            for claim in self.claims.values():
                self.stream.tell("ADDED", claim)
            end = {"resourceVersion": str(self.version), "annotations": {"k8s.io/initial-events-end": "true"}}
            self.stream.tell("BOOKMARK", {"metadata": end})
        if settled:
            self.now += SETTLE

    async def interrupt(self, error: Exception | None = None) -> None:
        assert self._following
        if error:
            self.stream.ended.set_exception(error)
        else:
            self.stream.ended.set_result(None)
        with contextlib.suppress(ApiError, ConnectionError):
            await self._following
        self._following = None
        self.stream = FakeStream()

    def show(self, most: int = 1000) -> None:
        """The watch catches up."""
        while self.late and most:
            self.stream.tell(*self.late.pop(0))
            most -= 1

    # --- what users and the scheduler do

    def put(self, name: str, claim: Any) -> ClaimRef:
        before = self.claims.get(name)
        same = before is not None and before["metadata"]["uid"] == claim["metadata"]["uid"]
        if before and not same:
            self.delete(name)
        self.version += 1
        claim["metadata"]["resourceVersion"] = str(self.version)
        self.claims[name] = json.loads(json.dumps(claim))
        self.late.append(("MODIFIED" if same else "ADDED", self.claims[name]))
        metadata = claim["metadata"]
        return ClaimRef(metadata["namespace"], metadata["name"], metadata["uid"])

    def delete(self, name: str) -> None:
        self.version += 1
        gone = self.claims.pop(name)
        gone = gone | {"metadata": gone["metadata"] | {"resourceVersion": str(self.version)}}
        self.late.append(("DELETED", gone))

    async def read(self, namespace: str, name: str) -> Any:
        self.reads.append(name)
        await asyncio.sleep(0)
        if self.failing:
            raise ApiError(500, "etcdserver: request timed out")
        return json.loads(json.dumps(self.claims.get(name)))

    # --- the kubelet

    async def prepare(self, *refs: ClaimRef) -> Any:
        """The devices' numbers of each claim, or why not."""
        answers = await self.driver.prepare(refs)
        found = [answers[ref.uid] for ref in refs]
        given = [
            one if isinstance(one, Exception) else [int(d.device.rpartition("-")[2]) for d in one] for one in found
        ]
        return given if len(refs) > 1 else given[0]

    async def unprepare(self, ref: ClaimRef) -> None:
        assert await self.driver.unprepare([ref]) == {ref.uid: None}

    async def close(self) -> None:
        if self._following:
            await self.interrupt()
        self.store.close()
        self.lock.close()


@pytest.fixture
async def cluster(memory: Path, trn2: SimulatedNode) -> AsyncIterator[Cluster]:
    made = Cluster(memory, trn2)
    yield made
    await made.close()


async def test_a_claim_that_the_watch_announced_is_not_read(cluster: Cluster, make: Any) -> None:
    await cluster.watch()
    one, two = (cluster.put(name, make.claim(name, devices={"r": [n]})) for n, name in enumerate(("one", "two")))
    cluster.show()
    assert await cluster.prepare(one, two) == [[0], [1]]
    assert cluster.reads == []
    assert 'read_total{source="watch"} 2.0' in cluster.metrics.render().decode()


async def test_of_a_pods_claims_only_those_in_doubt_are_read(cluster: Cluster, make: Any) -> None:
    await cluster.watch()
    known = cluster.put("known", make.claim("known", devices={"r": [0]}))
    cluster.show()
    late = cluster.put("late", make.claim("late", devices={"r": [1]}))
    assert await cluster.prepare(late, known) == [[1], [0]]
    assert cluster.reads == ["late"]


async def test_a_late_watch_asks(cluster: Cluster, make: Any) -> None:
    """The claim is not there yet, or its allocation is not."""
    await cluster.watch()
    unallocated = make.claim("mine")
    del unallocated["status"]
    cluster.put("mine", unallocated)
    cluster.show()
    ref = cluster.put("mine", make.claim("mine", devices={"r": [3]}))
    assert await cluster.prepare(ref) == [3]
    assert cluster.reads == ["mine"]


async def test_allocated_elsewhere_by_now(cluster: Cluster, make: Any) -> None:
    """Under the same uid; the watch is right, and the refusal is the API server's."""
    await cluster.watch()
    cluster.put("mine", make.claim("mine"))
    cluster.show()
    ref = cluster.put("mine", make.claim("mine", pool="worker-2"))
    cluster.show()
    answer = await cluster.prepare(ref)
    assert isinstance(answer, ClaimError)
    assert "in pool worker-2" in str(answer)
    assert cluster.reads == ["mine"]


async def test_deleted_and_made_anew_under_its_name(cluster: Cluster, make: Any) -> None:
    await cluster.watch()
    cluster.put("mine", make.claim("mine", uid="old", devices={"r": [0]}))
    cluster.show()
    new = cluster.put("mine", make.claim("mine", uid="new", devices={"r": [1]}))
    assert await cluster.prepare(new) == [1]  # the watch knows the old one only
    assert cluster.reads == ["mine"]
    cluster.show()
    answer = await cluster.prepare(ClaimRef("team", "mine", "old"))
    assert "deleted and made anew" in str(answer)


@pytest.mark.parametrize("shown", range(4))
async def test_one_uid_allocated_twice_in_a_row(cluster: Cluster, make: Any, shown: int) -> None:
    """Between two pods, however much of the end and of the second allocation the watch has shown."""
    await cluster.watch()
    ref = cluster.put("mine", make.claim("mine", devices={"r": [0]}))
    cluster.show()
    assert await cluster.prepare(ref) == [0]
    reserved = make.claim("mine", devices={"r": [0]})
    reserved["status"]["reservedFor"] = []
    cluster.put("mine", reserved)
    free = make.claim("mine")
    del free["status"]
    cluster.put("mine", free)
    await cluster.unprepare(ref)
    cluster.put("mine", make.claim("mine", devices={"r": [5]}))
    cluster.show(shown)
    assert await cluster.prepare(ref) == [5]
    cluster.show()
    assert await cluster.prepare(ref) == [5]


@pytest.mark.parametrize("shown", range(7))
async def test_a_watch_that_is_late_by_a_whole_pod(cluster: Cluster, make: Any, shown: int) -> None:
    """What was read, used and over passes by in the watch afterwards, while there is a new allocation."""
    await cluster.watch()
    free = make.claim("mine")
    del free["status"]
    ref = cluster.put("mine", free)
    cluster.put("mine", make.claim("mine", devices={"r": [0]}))  # its pod went before the kubelet saw it
    cluster.put("mine", free)
    cluster.put("mine", make.claim("mine", devices={"r": [1]}))
    assert await cluster.prepare(ref) == [1]
    cluster.put("mine", free)
    await cluster.unprepare(ref)
    cluster.put("mine", make.claim("mine", devices={"r": [2]}))
    cluster.show(shown)
    assert await cluster.prepare(ref) == [2]


@pytest.mark.parametrize("read", [False, True])
async def test_a_claim_that_was_unprepared_is_read_for_its_next_pod(cluster: Cluster, make: Any, read: bool) -> None:
    await cluster.watch()
    ref = cluster.put("mine", make.claim("mine", devices={"r": [0]}))
    cluster.show(0 if read else 1)
    assert await cluster.prepare(ref) == [0]
    await cluster.unprepare(ref)
    free = make.claim("mine")
    del free["status"]
    cluster.put("mine", free)
    cluster.put("mine", make.claim("mine", devices={"r": [1]}))
    cluster.show()
    cluster.reads.clear()
    assert await cluster.prepare(ref) == [1]
    assert cluster.reads == ["mine"]


async def test_unprepared_while_it_has_another_allocation_already(cluster: Cluster, make: Any) -> None:
    """Found by the soak: that allocation was shown afterwards, as if it were news, and its end was not."""
    await cluster.watch()
    free = make.claim("mine")
    del free["status"]
    ref = cluster.put("mine", make.claim("mine", devices={"r": [0]}))
    assert await cluster.prepare(ref) == [0]
    cluster.put("mine", free)
    cluster.put("mine", make.claim("mine", devices={"r": [1]}))
    await cluster.unprepare(ref)
    cluster.show()
    cluster.put("mine", free)
    cluster.put("mine", make.claim("mine", devices={"r": [2]}))
    assert await cluster.prepare(ref) == [2]


async def test_two_stale_looks_in_a_row(cluster: Cluster, make: Any) -> None:
    """Found by the soak: the end of what was prepared by the first look made the next allocation news."""
    await cluster.watch()
    free = make.claim("mine")
    del free["status"]
    ref = cluster.put("mine", make.claim("mine", devices={"r": [0]}))
    cluster.show()
    cluster.put("mine", free)
    cluster.put("mine", make.claim("mine", devices={"r": [1]}))
    assert await cluster.prepare(ref) == [0], "which the module describes"
    cluster.store.unprepare(ref.uid)  # as `reconcile` does, when it learns of it
    cluster.show()
    cluster.put("mine", free)
    cluster.put("mine", make.claim("mine", devices={"r": [2]}))
    assert await cluster.prepare(ref) == [2]


async def test_shown_after_a_read_that_failed(cluster: Cluster, make: Any) -> None:
    """Found by the soak: what was not answered the first time was taken for a claim that nobody had asked for."""
    await cluster.watch()
    free = make.claim("mine")
    del free["status"]
    ref = cluster.put("mine", make.claim("mine", devices={"r": [0]}))
    cluster.failing = True
    assert isinstance(await cluster.prepare(ref), AgentError)
    cluster.failing = False
    cluster.show()
    cluster.put("mine", free)
    cluster.put("mine", make.claim("mine", devices={"r": [1]}))
    assert await cluster.prepare(ref) == [1]


@pytest.mark.parametrize("late", [False, True])
async def test_prepared_by_another_process_and_over(cluster: Cluster, make: Any, late: bool) -> None:
    """In a rolling update the other agent prepares, this one is told to unprepare."""
    await cluster.watch()
    ref = cluster.put("mine", make.claim("mine", devices={"r": [0]}))
    cluster.show(0 if late else 1)
    await cluster.unprepare(ref)
    cluster.show()
    cluster.put("mine", make.claim("mine", devices={"r": [1]}))
    assert await cluster.prepare(ref) == [1]


async def test_prepared_by_another_process_and_not_over(cluster: Cluster, make: Any, trn2: SimulatedNode) -> None:
    await cluster.watch()
    ref = cluster.put("mine", make.claim("mine", devices={"r": [0]}))
    cluster.show()
    cluster.store.refresh()
    cluster.store.prepare(make.allocation(make.claim("mine", devices={"r": [0]})), trn2)
    cluster.put("mine", make.claim("mine", devices={"r": [1]}))
    assert await cluster.prepare(ref) == [1]


@pytest.mark.parametrize("compacts", [False, True])
@pytest.mark.parametrize("again", [False, True])
async def test_prepared_and_unprepared_by_another_process(
    cluster: Cluster, make: Any, trn2: SimulatedNode, compacts: bool, again: bool
) -> None:
    """In a rolling update the other agent serves a whole pod, and this one's watch is late by all of it.

    `again`: after this one served a pod before. `compacts`: nothing in the checkpoint tells of the claim any more.
    """
    await cluster.watch()
    free = make.claim("mine")
    del free["status"]
    ref = cluster.put("mine", make.claim("mine", devices={"r": [0]}))
    cluster.show()
    if again:
        assert await cluster.prepare(ref) == [0]
        await cluster.unprepare(ref)
        cluster.put("mine", free)
        cluster.put("mine", make.claim("mine", devices={"r": [1]}))
        cluster.show()
    other = cluster.another_store(compact_after=0 if compacts else 1000)
    other.prepare(make.allocation(cluster.claims["mine"]), trn2)
    other.unprepare(ref.uid)
    cluster.put("mine", free)
    cluster.put("mine", make.claim("mine", devices={"r": [2]}))
    assert await cluster.prepare(ref) == [2]
    other.close()


@pytest.mark.parametrize("shown", range(5))
async def test_prepared_by_the_other_unprepared_by_this_one(
    cluster: Cluster, make: Any, trn2: SimulatedNode, shown: int
) -> None:
    """What this one remembers of its own use must not stand for the other one's, which was of a later allocation."""
    await cluster.watch()
    free = make.claim("mine")
    del free["status"]
    ref = cluster.put("mine", make.claim("mine", devices={"r": [0]}))
    cluster.show()
    assert await cluster.prepare(ref) == [0]
    await cluster.unprepare(ref)
    cluster.put("mine", free)
    cluster.put("mine", make.claim("mine", devices={"r": [1]}))
    other = cluster.another_store()
    other.prepare(make.allocation(cluster.claims["mine"]), trn2)
    await cluster.unprepare(ref)
    cluster.put("mine", free)
    cluster.put("mine", make.claim("mine", devices={"r": [2]}))
    cluster.show(shown)
    assert await cluster.prepare(ref) == [2]
    other.close()


async def test_what_the_other_prepared_wrongly_is_put_right_here_when_it_is_gone(
    cluster: Cluster, make: Any, trn2: SimulatedNode, eventually: Any
) -> None:
    await cluster.watch()
    old = make.allocation(make.claim("mine", devices={"r": [0]}))
    cluster.put("mine", make.claim("mine", devices={"r": [1]}))
    cluster.show()
    other = cluster.another_store()
    other.prepare(old, trn2)
    other.close()
    cluster.store.refresh()
    await eventually(lambda: held(cluster) == {"mine": [1]})


async def test_a_claim_whose_end_is_shown_while_somebody_has_the_lock(
    cluster: Cluster, make: Any, eventually: Any
) -> None:
    await cluster.watch()
    ref = cluster.put("mine", make.claim("mine", devices={"r": [0]}))
    cluster.show()
    async with cluster.lock.held():
        preparing = asyncio.create_task(cluster.prepare(ref))
        await eventually(lambda: sizes(cluster.cache) == (0, 1), "the claim was taken")
        free = make.claim("mine")
        del free["status"]
        cluster.put("mine", free)
        cluster.put("mine", make.claim("mine", devices={"r": [1]}))
        cluster.show()
    assert await preparing == [1]


async def test_after_a_new_checkpoint_the_watch_begins_anew(cluster: Cluster, make: Any) -> None:
    await cluster.watch()
    cluster.put("one", make.claim("one", devices={"r": [0]}))
    (cluster.root / "plugins/checkpoint.jsonl").write_bytes(b"")
    cluster.store.refresh()
    with contextlib.suppress(ApiError):
        cluster.show()
    await cluster.interrupt(ApiError(410, "as the event's handler says"))
    await cluster.watch()
    assert cluster.asked_from == ["", ""]
    two = cluster.put("two", make.claim("two", devices={"r": [1]}))
    cluster.show()
    assert await cluster.prepare(two) == [1]
    assert cluster.reads == []


@pytest.mark.parametrize("touched", [False, True])
async def test_what_was_there_before_the_watch_is_in_doubt(cluster: Cluster, make: Any, touched: bool) -> None:
    """Another process may have prepared and unprepared it."""
    ref = cluster.put("mine", make.claim("mine", devices={"r": [0]}))
    await cluster.watch()
    if touched:
        cluster.put("mine", make.claim("mine", devices={"r": [0]}, annotations={"a": "b"}))
        cluster.show()
    cluster.put("mine", make.claim("mine", devices={"r": [1]}))
    assert await cluster.prepare(ref) == [1]
    assert cluster.reads == ["mine"]


@pytest.mark.parametrize("error", [None, ConnectionError(), ApiError(410, "too old")])
async def test_what_an_interrupted_watch_may_have_missed(cluster: Cluster, make: Any, error: Exception | None) -> None:
    await cluster.watch()
    ref = cluster.put("mine", make.claim("mine", devices={"r": [0]}))
    cluster.show()
    await cluster.interrupt(error)
    cluster.put("mine", make.claim("mine", devices={"r": [1]}))
    assert await cluster.prepare(ref) == [1]
    await cluster.unprepare(ref)
    expired = isinstance(error, ApiError)
    await cluster.watch(initial=expired)
    assert cluster.asked_from == ["", "" if expired else "101"]
    other = cluster.put("other", make.claim("other", devices={"r": [2]}))
    cluster.show()
    assert await cluster.prepare(other) == [2]
    assert cluster.reads == ["mine"]


async def test_a_watch_that_goes_on_but_tells_nothing_yet(cluster: Cluster, make: Any) -> None:
    await cluster.watch()
    ref = cluster.put("mine", make.claim("mine", devices={"r": [0]}))
    cluster.show()
    await cluster.interrupt()
    cluster.put("mine", make.claim("mine", devices={"r": [1]}))
    await cluster.watch(initial=False)
    assert await cluster.prepare(ref) == [1]


async def test_a_watch_that_is_just_beginning_may_tell_the_past(cluster: Cluster, make: Any) -> None:
    await cluster.watch()
    await cluster.interrupt()
    await cluster.watch(initial=False, settled=False)
    ref = cluster.put("mine", make.claim("mine", devices={"r": [0]}))
    cluster.show()
    cluster.put("mine", make.claim("mine", devices={"r": [1]}))
    assert await cluster.prepare(ref) == [1]


async def test_while_bytes_of_the_watch_wait_to_be_read(cluster: Cluster, make: Any) -> None:
    """A process that was stopped for some seconds may find the kubelet's call before the news."""
    await cluster.watch()
    ref = cluster.put("mine", make.claim("mine", devices={"r": [0]}))
    cluster.show()
    cluster.put("mine", make.claim("mine", devices={"r": [1]}))
    cluster.stream.unread = True
    assert await cluster.prepare(ref) == [1]


async def test_an_allocation_that_waited_for_long(cluster: Cluster, make: Any) -> None:
    await cluster.watch()
    ref = cluster.put("mine", make.claim("mine", devices={"r": [0]}))
    cluster.show()
    cluster.now += FRESH
    cluster.put("mine", make.claim("mine", devices={"r": [1]}))
    assert await cluster.prepare(ref) == [1]


async def test_nothing_is_given_that_another_holds_before_the_api_server_was_asked(cluster: Cluster, make: Any) -> None:
    """The watch shows an allocation that is over, and its device has a new owner, who was quicker."""
    await cluster.watch()
    stale = cluster.put("stale", make.claim("stale", devices={"r": [0]}))
    cluster.show()
    cluster.put("stale", make.claim("stale", devices={"r": [1]}))
    owner = cluster.put("owner", make.claim("owner", devices={"r": [0]}))
    assert await cluster.prepare(owner) == [0]
    assert await cluster.prepare(stale) == [1]


async def test_a_holder_is_gone_only_by_the_api_servers_word(cluster: Cluster, make: Any) -> None:
    await cluster.watch()
    holder = cluster.put("holder", make.claim("holder", devices={"r": [0]}))
    new = cluster.put("new", make.claim("new", devices={"r": [0]}))
    cluster.show()
    assert await cluster.prepare(holder) == [0]
    assert isinstance(await cluster.prepare(new), DeviceHeld)
    assert cluster.reads == ["new", "holder"]
    cluster.delete("holder")
    assert await cluster.prepare(new) == [0]


async def test_an_allocation_that_ended_unseen_is_put_right_when_the_watch_goes_on(
    cluster: Cluster, make: Any, eventually: Any
) -> None:
    """The one case that no local sign tells: allocated here, never prepared, and allocated here again, all unseen."""
    await cluster.watch()
    ref = cluster.put("mine", make.claim("mine", devices={"r": [0]}))
    cluster.show()
    free = make.claim("mine")
    del free["status"]
    cluster.put("mine", free)
    cluster.put("mine", make.claim("mine", devices={"r": [1]}))
    assert await cluster.prepare(ref) == [0]
    cluster.show()
    await eventually(lambda: held(cluster) == {"mine": [1]})
    assert await cluster.prepare(ref) == [1]


async def test_the_names_that_the_kubelet_was_given_bring_what_the_claim_has_then(
    cluster: Cluster, make: Any, eventually: Any
) -> None:
    """It has an answer and does not ask again: a name that nobody knows would keep the containers from starting."""
    await cluster.watch()
    ref = cluster.put("mine", make.claim("mine", devices={"r": [0]}))
    cluster.show()
    free = make.claim("mine")
    del free["status"]
    answered: list[str] = []
    for device in (1, 2, 0):
        cluster.put("mine", free)
        cluster.put("mine", make.claim("mine", devices={"r": [device]}))
        if not answered:
            [given] = (await cluster.driver.prepare([ref]))[ref.uid]
            assert given.device == "neuron-device-0"
            answered += given.cdi_device_ids
        cluster.show()
        await eventually(lambda device=device: held(cluster) == {"mine": [device]})
        assert cdi_names(cluster, ref) >= set(answered)
        assert device_nodes(cluster, ref, answered) == ["/dev/neuron0"]
    assert len(cdi_names(cluster, ref)) == 4
    (cluster.root / "plugins/checkpoint.jsonl").write_bytes(b"")
    cluster.store.refresh()
    (cluster.root / f"cdi/{DRIVER}-claim_{ref.uid}.json").unlink()
    assert await cluster.prepare(ref) == [0]
    assert len(cdi_names(cluster, ref)) == 4, "they stay when files are rendered anew, and when the checkpoint is lost"
    await cluster.unprepare(ref)
    assert await cluster.prepare(ref) == [0]
    assert len(cdi_names(cluster, ref)) == 2, "the kubelet has forgotten them"


async def test_a_second_look_that_fails_is_told(
    cluster: Cluster, make: Any, eventually: Any, caplog: pytest.LogCaptureFixture
) -> None:
    await cluster.watch()
    ref = cluster.put("mine", make.claim("mine", devices={"r": [0]}))
    cluster.show()
    holder = cluster.put("holder", make.claim("holder", devices={"r": [1]}))
    free = make.claim("mine")
    del free["status"]
    cluster.put("mine", free)
    cluster.put("mine", make.claim("mine", devices={"r": [1]}))
    assert await cluster.prepare(ref, holder) == [[0], [1]]
    cluster.show()
    await eventually(lambda: not cluster.driver._second_looks)
    assert held(cluster) == {"mine": [0], "holder": [1]}
    assert "cannot look at claim team/mine again: claim team/mine is given devices that are still" in caplog.text


async def test_its_device_is_given_to_the_new_owner_even_before_that(cluster: Cluster, make: Any) -> None:
    await cluster.watch()
    ref = cluster.put("mine", make.claim("mine", devices={"r": [0]}))
    cluster.show()
    cluster.put("mine", make.claim("mine", devices={"r": [1]}))
    owner = cluster.put("owner", make.claim("owner", devices={"r": [0]}))
    assert await cluster.prepare(ref) == [0]
    assert await cluster.prepare(owner) == [0]
    assert held(cluster) == {"owner": [0]}


async def test_claims_of_others_leave_nothing_behind(cluster: Cluster, make: Any) -> None:
    await cluster.watch()
    for n in range(50):
        cluster.put(f"c{n}", make.claim(f"c{n}", pool="worker-2"))
    for n in range(50):
        cluster.put(f"mine{n}", make.claim(f"mine{n}", admin=True))
    cluster.show()
    for n in range(50):
        cluster.delete(f"mine{n}")
    cluster.show()
    assert sizes(cluster.cache) == (0, 0)


async def test_what_is_never_asked_for_is_forgotten(cluster: Cluster, make: Any) -> None:
    await cluster.watch()
    cluster.put("first", make.claim("first", admin=True))
    cluster.show()
    cluster.now += FRESH
    cluster.put("second", make.claim("second", admin=True))
    cluster.show()
    assert sizes(cluster.cache) == (1, 0)


async def test_what_is_remembered_of_claims_that_are_gone_is_sorted_out(cluster: Cluster) -> None:
    await cluster.watch()
    for n in range(MANY + 1):
        cluster.cache.unprepared(f"gone-{n}")
    await cluster.interrupt()
    await cluster.watch()
    assert cluster.asked_from == ["", ""]
    assert sizes(cluster.cache) == (0, 0)


async def test_a_server_that_streams_no_lists(cluster: Cluster, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its feature gate is off: said once in a while, and every claim is read."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("neuron_dra_driver.claims.claim_cache.asyncio", SimpleNamespace(sleep=sleep))
    cluster.refusal = ApiError(422, "sendInitialEvents is forbidden")
    await cluster.cache.follow()
    assert slept[0] > 60
    assert await cluster.prepare(cluster.put("mine", make.claim("mine"))) == [0]


@pytest.mark.parametrize(("status", "version"), [(503, "102"), (429, "102"), (500, ""), (410, "")])
async def test_where_it_goes_on_after_a_refusal(cluster: Cluster, make: Any, status: int, version: str) -> None:
    await cluster.watch()
    cluster.put("one", make.claim("one", pool="worker-2"))
    cluster.put("two", make.claim("two", pool="worker-2"))
    cluster.show()
    await cluster.interrupt(ApiError(status, "no"))
    cluster.refusal = ApiError(410, "too old")
    await cluster.cache.follow()
    assert cluster.asked_from[-1] == version


async def test_over_http(api: Any, kube: Kube, make: Any, eventually: Any) -> None:
    """The real client and a server: what is there first, then what happens, an error in the end."""
    api.put("resourceclaims", make.claim("before", devices={"r": [0]}))
    now = [0.0]
    cache = ClaimCache(kube, driver=DRIVER, pool=NODE, clock=lambda: now[0])
    seen: list[str] = []
    cache.announced = lambda claim: seen.append(claim["metadata"]["uid"])
    following = asyncio.create_task(cache.follow())
    await eventually(lambda: any(path.endswith("/resourceclaims") for _, path in api.requests))
    await eventually(lambda: api._watchers)
    api.put("resourceclaims", make.claim("mine", devices={"r": [1]}))
    await eventually(lambda: "uid-of-mine" in seen)
    now[0] = 10.0
    claim = await cache.take("uid-of-mine")
    assert claim
    assert claim["status"] == api.objects["resourceclaims", "team", "mine"]["status"]
    assert await cache.take("uid-of-mine") is None
    assert await cache.take("uid-of-before") is None
    api.end_watches()
    await following


OPERATIONS = st.sampled_from(
    ["allocate", "free", "touch", "show", "show all", "prepare", "unprepare", "interrupt", "wait"]
)


@settings(max_examples=100, deadline=None)
@given(operations=st.lists(OPERATIONS, max_size=40))
def test_any_order_of_things(tmp_path_factory: pytest.TempPathFactory, operations: list[str]) -> None:
    """Whatever happens to a claim and its watch, what is prepared is what the API server says, then or soon.

    "Soon" is the case that the module describes: an allocation was shown, never used, and is over.
    """
    asyncio.run(any_order(tmp_path_factory.mktemp("node"), operations))


async def any_order(root: Path, operations: list[str]) -> None:
    cluster = Cluster(root, standalone(name=NODE, type_name="trn2.48xlarge"))
    await cluster.watch()
    number, allocated, prepared = 0, False, False
    used: set[int] = set()

    def put() -> ClaimRef:
        results = [{"request": "r", "driver": DRIVER, "pool": NODE, "device": f"neuron-device-{number % 16}"}]
        status = {"allocation": {"devices": {"results": results}}} if allocated else {}
        metadata = {"namespace": "team", "name": "mine", "uid": "u"}
        return cluster.put("mine", {"metadata": metadata, "spec": {"devices": {}}, "status": status})

    ref = put()
    for operation in operations:
        match operation:
            case "allocate" if not allocated:
                number, allocated = number + 1, True
                put()
            case "free" if allocated:
                allocated = False
                put()
            case "touch":
                put()
            case "show" | "show all":
                cluster.show(1 if operation == "show" else 1000)
            case "prepare" if allocated:
                given = await cluster.prepare(ref)
                if given != [number % 16]:
                    ended = [n for n in range(1, number) if n not in used and [n % 16] == given]
                    assert ended, f"{given}, and {number} is allocated"
                    assert cluster.late, "the watch has shown all"
                    used.add(ended[-1])
                used.add(number)
                prepared = True
            case "unprepare":
                await cluster.unprepare(ref)
                used.add(number)
                prepared = False
            case "interrupt":
                await cluster.interrupt()
                await cluster.watch(initial=False)
            case "wait":
                cluster.now += FRESH / 2
    cluster.show()
    while looks := cluster.driver._second_looks:
        await asyncio.wait(looks)
    if prepared and allocated:
        assert held(cluster) == {"mine": [number % 16]}
    await cluster.close()


def held(cluster: Cluster) -> dict[str, list[int]]:
    return {
        entry.name: [int(device.device.rpartition("-")[2]) for device in entry.devices]
        for entry in cluster.store.prepared()
    }


def cdi_devices(cluster: Cluster, ref: ClaimRef) -> dict[str, Any]:
    """What the container runtime finds under each name."""
    spec = json.loads((cluster.root / f"cdi/{DRIVER}-claim_{ref.uid}.json").read_text())
    return {f"{spec['kind']}={device['name']}": device["containerEdits"] for device in spec["devices"]}


def cdi_names(cluster: Cluster, ref: ClaimRef) -> set[str]:
    return set(cdi_devices(cluster, ref))


def device_nodes(cluster: Cluster, ref: ClaimRef, names: list[str]) -> list[str]:
    edits = [cdi_devices(cluster, ref)[name] for name in names]
    return [node["path"] for edit in edits for node in edit.get("deviceNodes", ())]


def sizes(cache: ClaimCache) -> tuple[int, int]:
    return len(cache._waiting), len(cache._spent)
