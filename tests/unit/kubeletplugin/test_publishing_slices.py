"""The controller against an API server in memory, in virtual time: one fault each."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import virtual_time
from neuron_dra_driver.kubeletplugin import ApiError, Pool, Slice, SliceController, SliceStatus
from slice_fake_server import FakeServer

DEVICES = Pool("node-1", (Slice(devices=[{"name": "d0"}, {"name": "d1"}]),))
FEWER = Pool("node-1", (Slice(devices=[{"name": "d0"}]),))
TAINTED = Pool("node-1", (Slice(devices=[{"name": "d0", "taints": [{"key": "k", "effect": "NoSchedule"}]}]),))
SEVERAL = Pool("node-1", (Slice(shared_counters=[{"name": "c", "counters": {}}]), *TAINTED.slices))

Test = Callable[[], Coroutine[Any, Any, None]]


def in_virtual_time(test: Test) -> Callable[[], None]:
    def wrapper() -> None:
        virtual_time.run(test())

    wrapper.__name__ = test.__name__
    return wrapper


@asynccontextmanager
async def controlling(
    server: FakeServer, pool: Pool | None = DEVICES, **options: Any
) -> AsyncIterator[SliceController]:
    controller = SliceController(
        server,
        driver_name="example.com",
        node_name="node-1",
        node_uid="node-uid",
        labels={"ours": "true"},
        **options,
    )
    task = asyncio.create_task(controller.run())
    try:
        controller.publish(pool)
        yield controller
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def names(server: FakeServer) -> list[list[str]]:
    return [
        [device["name"] for device in server.objects[name]["spec"].get("devices", [])]
        for name in sorted(server.objects)
    ]


async def quiet(server: FakeServer, seconds: float = 1000) -> None:
    """Nothing is written any more."""
    before = server.writes()
    await asyncio.sleep(seconds)
    assert server.writes() == before


@in_virtual_time
async def test_the_pool_is_published_once_and_then_left_alone() -> None:
    server = FakeServer()
    async with controlling(server) as controller:
        await controller.synced()
        assert asyncio.get_running_loop().time() < 0.1, "the first slice does not wait for anything"
        assert names(server) == [["d0", "d1"]]
        assert controller.status == SliceStatus(synced=True, generation=1, slices=1)
        await quiet(server)
    assert server.selectors == {"spec.driver=example.com,spec.nodeName=node-1"}
    assert server.writes() == 1
    assert server.objects, "stopping leaves the slices"


@in_virtual_time
async def test_nothing_is_touched_before_something_is_published() -> None:
    server = FakeServer()
    async with controlling(server) as controller:
        await controller.synced()
    task = asyncio.create_task(
        SliceController(
            server, driver_name="example.com", node_name="node-1", node_uid="u", labels={"ours": "true"}
        ).run()
    )
    await quiet(server)
    task.cancel()


@in_virtual_time
async def test_a_quiet_watch_with_bookmarks_is_not_listed_again() -> None:
    server = FakeServer()
    async with controlling(server) as controller:
        await controller.synced()
        await quiet(server, 3600)
        assert server.calls["list"] == 1


@in_virtual_time
async def test_the_next_process_takes_over_without_a_write() -> None:
    server = FakeServer()
    async with controlling(server) as controller:
        await controller.synced()
    async with controlling(server) as controller:
        await controller.synced()
        await quiet(server)
        assert server.writes() == 1


@in_virtual_time
async def test_a_change_and_a_withdrawal() -> None:
    server = FakeServer()
    async with controlling(server) as controller:
        await controller.synced()
        controller.publish(FEWER)
        assert not controller.status.synced
        await controller.synced()
        assert names(server) == [["d0"]]
        assert controller.status.generation == 2
        controller.publish(None)
        await controller.synced()
        assert names(server) == []
        assert controller.status.slices == 0
        controller.publish(DEVICES)
        await controller.synced()
        assert controller.status.generation == 3
        await quiet(server)


@in_virtual_time
async def test_a_pool_grows_from_one_slice_to_several_and_back() -> None:
    server = FakeServer()
    async with controlling(server) as controller:
        for pool, slices in ((SEVERAL, [[], ["d0"]]), (DEVICES, [["d0", "d1"]])):
            controller.publish(pool)
            await controller.synced()
            assert names(server) == slices
        await quiet(server)


@in_virtual_time
async def test_a_kubelets_wipe_is_repaired_within_a_second() -> None:
    server = FakeServer()
    async with controlling(server, SEVERAL) as controller:
        await controller.synced()
        server.wipe()
        await asyncio.sleep(1)
        assert names(server) == [[], ["d0"]]
        assert controller.status.synced
        assert server.calls["create"] == 4, "several deletions are one repair"
        await quiet(server)


@in_virtual_time
async def test_an_edit_is_undone_and_a_stubborn_editor_is_met_ever_more_slowly() -> None:
    server = FakeServer()
    async with controlling(server) as controller:
        await controller.synced()
        for _ in range(1000):
            (name,) = server.objects
            server.edit(name, lambda found: found["spec"].update(devices=[]))
            await asyncio.sleep(1)
        assert server.writes() < 80
        await asyncio.sleep(60)
        assert names(server) == [["d0", "d1"]]
        await quiet(server)
        server.wipe()
        await asyncio.sleep(1)
        assert names(server) == [["d0", "d1"]], "after a calm, repairs are quick again"


@in_virtual_time
async def test_labels_taken_off_are_put_back_and_the_slice_stays_ours() -> None:
    server = FakeServer()
    async with controlling(server) as controller:
        await controller.synced()
        (name,) = server.objects
        server.edit(name, lambda found: found["metadata"].update(labels={"theirs": "x"}))
        await asyncio.sleep(1)
        assert server.objects[name]["metadata"]["labels"] == {"theirs": "x", "ours": "true"}
        assert controller.status.foreign_slices == ()
        await quiet(server)


@in_virtual_time
async def test_foreign_slices_are_reported_and_never_touched() -> None:
    server = FakeServer()
    heard: list[SliceStatus] = []
    async with controlling(server, on_status=heard.append) as controller:
        await controller.synced()
        (name,) = server.objects
        theirs = {**server.objects[name], "metadata": {"name": name, "labels": {"other": "driver"}}}
        foreign = server.add(theirs)
        await asyncio.sleep(1)
        assert controller.status.foreign_slices == (foreign,)
        controller.publish(None)
        await controller.synced()
        assert list(server.objects) == [foreign]
        server.remove(foreign)
        await asyncio.sleep(1)
        assert not controller.status.foreign_slices
        await quiet(server)
    assert all(one != other for one, other in itertools.pairwise(heard)), "only news"


@in_virtual_time
async def test_dropped_fields_are_reported_once_and_not_fought_over() -> None:
    server = FakeServer()
    server.dropped = {"taints"}
    heard: list[SliceStatus] = []
    async with controlling(server, TAINTED, on_status=heard.append) as controller:
        await controller.synced()
        assert controller.status.dropped_fields == ("devices[0].taints",)
        await quiet(server)
        server.wipe()
        server.end_watches()
        await asyncio.sleep(60)
        assert controller.status.synced
        await quiet(server)
        controller.publish(SEVERAL)
        await controller.synced()
        assert controller.status.dropped_fields == ("slices[1].devices[0].taints",)
        server.dropped = set()
        controller.publish(TAINTED)
        await controller.synced()
        assert not controller.status.dropped_fields
        await quiet(server)
    assert server.calls["create"] == 5
    assert server.calls["replace"] == 0


@in_virtual_time
async def test_labels_that_the_server_refuses_are_not_fought_over() -> None:
    server = FakeServer()
    server.strip_labels = True
    async with controlling(server) as controller:
        await asyncio.wait_for(controller.synced(), 1)
        assert controller.status.dropped_fields == ("labels.ours",)
        await quiet(server)
        assert server.writes() == 1


@in_virtual_time
async def test_a_pool_that_is_overtaken_is_not_written_to_its_end() -> None:
    server = FakeServer()
    async with controlling(server, SEVERAL) as controller:
        while not server.calls["create"]:  # noqa: ASYNC110, the clock is virtual
            await asyncio.sleep(0.001)
        controller.publish(DEVICES)
        await controller.synced()
        assert names(server) == [["d0", "d1"]]
        assert server.calls["create"] == 2


@in_virtual_time
async def test_a_restart_on_a_server_that_drops_fields_costs_one_write() -> None:
    server = FakeServer()
    server.dropped = {"taints"}
    for _ in range(2):
        async with controlling(server, TAINTED) as controller:
            await controller.synced()
            await quiet(server)
    assert server.writes() == 2


@in_virtual_time
async def test_an_outage_is_waited_out_with_a_backoff() -> None:
    server = FakeServer()
    server.outage()
    async with controlling(server) as controller:
        await asyncio.sleep(600)
        assert 8 <= server.calls["list"] <= 30
        assert controller.status.error == "ConnectionRefusedError: connection refused"
        server.down = False
        await asyncio.wait_for(controller.synced(), 61)
        assert controller.status.error == ""
        await quiet(server)


@in_virtual_time
async def test_a_new_pool_does_not_wait_for_the_backoff() -> None:
    server = FakeServer()
    server.outage()
    async with controlling(server) as controller:
        await asyncio.sleep(600)
        server.down = False
        controller.publish(FEWER)
        await asyncio.wait_for(controller.synced(), 0.1)
        assert names(server) == [["d0"]]


@in_virtual_time
async def test_a_refusal_is_told_in_the_servers_words_and_tried_again() -> None:
    server = FakeServer()
    server.refuse = ApiError(422, "spec.devices[0].name: Invalid value")
    async with controlling(server) as controller:
        await asyncio.sleep(300)
        assert controller.status.error == "422: spec.devices[0].name: Invalid value"
        assert server.writes() < 20
        server.refuse = None
        await asyncio.wait_for(controller.synced(), 61)


@in_virtual_time
async def test_a_create_whose_answer_is_lost_leaves_no_duplicate() -> None:
    server = FakeServer()
    server.lost_answers = 2
    async with controlling(server, SEVERAL) as controller:
        await controller.synced()
        assert names(server) == [[], ["d0"]]
        await quiet(server)


@in_virtual_time
async def test_a_conflict_is_resolved_by_looking_again() -> None:
    server = FakeServer()
    server.lag = 10
    async with controlling(server) as controller:
        await controller.synced()
        (name,) = server.objects
        server.edit(name, lambda found: found["metadata"].update(annotations={"a": "b"}))
        controller.publish(FEWER)
        await controller.synced()
        assert names(server) == [["d0"]]
        assert server.objects[name]["metadata"]["annotations"] == {"a": "b"}
        await quiet(server)


@in_virtual_time
async def test_a_slow_watch_does_not_make_a_second_slice() -> None:
    server = FakeServer()
    server.lag = 20
    async with controlling(server) as controller:
        for pool in (DEVICES, FEWER, None, DEVICES, SEVERAL):
            controller.publish(pool)
            await controller.synced()
        await quiet(server)
        assert names(server) == [[], ["d0"]]
        assert server.calls == {**server.calls, "create": 4, "replace": 1, "delete": 2}


@in_virtual_time
async def test_news_older_than_our_own_write_are_ignored() -> None:
    server = FakeServer()
    server.lag = 20
    heard: list[SliceStatus] = []
    async with controlling(server, on_status=heard.append) as controller:
        for pool in (DEVICES, FEWER, TAINTED):
            controller.publish(pool)
            await controller.synced()
        heard.clear()
        await quiet(server)
        assert not heard, "nobody doubts the newest state"
        started = asyncio.get_running_loop().time()
        controller.publish(None)
        await controller.synced()
        assert asyncio.get_running_loop().time() < started + 1, "nothing waits for the watch"
        controller.publish(DEVICES)
        await controller.synced()
        await quiet(server)
        assert server.calls == {"list": 1, "watch": 1, "create": 2, "replace": 2, "delete": 1}


@in_virtual_time
async def test_a_slice_that_is_gone_already_counts_as_deleted() -> None:
    server = FakeServer()
    server.lag = 20
    async with controlling(server) as controller:
        await controller.synced()
        server.wipe()
        controller.publish(None)
        await controller.synced()
        await quiet(server)
        assert server.calls["list"] == 1


@in_virtual_time
async def test_a_slice_deleted_before_its_creation_is_answered_comes_back() -> None:
    server = FakeServer()
    server.lag = 0
    create = server.create

    async def slow_answer(body: Any) -> Any:
        found = await create(body)
        if server.calls["create"] == 1:
            server.wipe()
            await asyncio.sleep(1)
        return found

    server.create = slow_answer  # type: ignore[method-assign]
    async with controlling(server) as controller:
        await controller.synced()
        await asyncio.sleep(5)
        assert names(server) == [["d0", "d1"]]
        assert server.calls["list"] == 1


@pytest.mark.parametrize("fault", ["compact", "end_watches", "silence_watches"])
def test_a_watch_that_is_gone_ended_or_silent_is_started_over(fault: str) -> None:
    async def test() -> None:
        server = FakeServer()
        async with controlling(server) as controller:
            await controller.synced()
        async with controlling(server) as controller:  # sees no event of its own
            await asyncio.sleep(50)
            getattr(server, fault)()
            server.wipe()
            await asyncio.sleep(305)
            assert names(server) == [["d0", "d1"]]
            assert server.calls["list"] <= 4
            assert controller.status.error == ""
            await quiet(server)

    virtual_time.run(test())


@in_virtual_time
async def test_a_watch_that_ends_during_a_repair_is_not_overlooked() -> None:
    server = FakeServer()
    async with controlling(server) as controller:
        await controller.synced()
        server.wipe()
        await asyncio.sleep(0.05)
        server.end_watches()
        await asyncio.sleep(30)
        server.wipe()
        await asyncio.sleep(1)
        assert names(server) == [["d0", "d1"]]
        await quiet(server)


@in_virtual_time
async def test_a_server_that_ends_every_watch_at_once_is_not_hammered() -> None:
    server = FakeServer()
    async with controlling(server):
        for _ in range(6000):
            server.end_watches()
            await asyncio.sleep(0.1)
        assert server.calls["list"] < 30


@in_virtual_time
async def test_a_failing_callback_does_not_stop_the_work() -> None:
    server = FakeServer()

    def fail(_: SliceStatus) -> None:
        raise RuntimeError("the callback's bug")

    logging.disable(logging.CRITICAL)
    try:
        async with controlling(server, on_status=fail) as controller:
            await controller.synced()
            assert names(server) == [["d0", "d1"]]
    finally:
        logging.disable(logging.NOTSET)
