"""A device plugin over real sockets: what the kubelet is told, and what becomes of its calls."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from device_plugin_fake_kubelet import FakeKubelet
from neuron_dra_driver.deviceplugin import (
    AllocationRefused,
    ContainerAllocation,
    Device,
    DeviceNode,
    DevicePlugin,
    Mount,
    PluginStatus,
)
from neuron_dra_driver.deviceplugin.proto import deviceplugin_v1beta1_pb2 as pb

TOY = "example.com/toy"


async def nothing(ids: Sequence[str]) -> ContainerAllocation:
    return ContainerAllocation(cdi_devices=[f"example.com/toy={i}" for i in ids])


def plugin(folder: Path, **changes: Any) -> DevicePlugin:
    defaults: dict[str, Any] = {
        "allocate": nothing,
        "resource": TOY,
        "endpoint": "toy.sock",
        "devices": [Device("toy-0"), Device("toy-1")],
        "folder": folder,
        "look_every": 0.02,
        "grace": 5.0,
    }
    wanted = defaults | changes
    return DevicePlugin(wanted.pop("allocate"), **wanted)


async def test_the_kubelet_learns_of_the_devices_their_health_and_their_numa_nodes(
    folder: Path, kubelet: FakeKubelet
) -> None:
    devices = [Device("toy-0", numa_nodes=(1,)), Device("toy-1", healthy=False)]
    async with plugin(folder, devices=devices):
        assert await kubelet.watches(TOY) == {"toy-0": "Healthy", "toy-1": "Unhealthy"}
        assert kubelet.numa == {"toy-0": (1,), "toy-1": ()}
        assert kubelet.clients[TOY].endpoint == "toy.sock"


async def test_changes_are_told_and_equal_lists_are_not(folder: Path, kubelet: FakeKubelet) -> None:
    async with plugin(folder) as served:
        await kubelet.watches(TOY)
        served.publish([Device("toy-0"), Device("toy-1")])
        served.publish([Device("toy-0", healthy=False), Device("toy-1")])
        await kubelet.until(lambda: kubelet.devices[TOY]["toy-0"] == "Unhealthy")
        served.publish([])
        await kubelet.until(lambda: kubelet.devices[TOY] == {})
    assert kubelet.registered == [TOY]


async def test_an_allocation_reaches_the_container_runtime_in_full(folder: Path, kubelet: FakeKubelet) -> None:
    async def allocate(ids: Sequence[str]) -> ContainerAllocation:
        return ContainerAllocation(
            environment={"TOYS": ",".join(ids)},
            mounts=[Mount("/in", "/out")],
            devices=[DeviceNode("/dev/toy", "/dev/null", "r")],
            annotations={"a": "b"},
            cdi_devices=["example.com/toy=1"],
        )

    async with plugin(folder, allocate=allocate):
        await kubelet.watches(TOY)
        answer = await kubelet.allocate(TOY, "toy-1", "toy-0")
    assert dict(answer.envs) == {"TOYS": "toy-1,toy-0"}
    assert [(m.container_path, m.host_path, m.read_only) for m in answer.mounts] == [("/in", "/out", True)]
    assert [(d.container_path, d.host_path, d.permissions) for d in answer.devices] == [("/dev/toy", "/dev/null", "r")]
    assert dict(answer.annotations) == {"a": "b"}
    assert [device.name for device in answer.cdi_devices] == ["example.com/toy=1"]


@pytest.mark.parametrize(
    ("error", "text"), [(AllocationRefused("buy more toys"), "buy more toys"), (KeyError(), "KeyError")]
)
async def test_the_user_reads_why_an_allocation_fails(
    folder: Path, kubelet: FakeKubelet, error: Exception, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def allocate(ids: Sequence[str]) -> ContainerAllocation:
        raise error

    async with plugin(folder, allocate=allocate):
        await kubelet.watches(TOY)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await kubelet.allocate(TOY, "toy-0")
    assert refused.value.details() == text
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert bool(record.exc_info) == isinstance(error, KeyError)


async def test_preferences_are_asked_for_only_where_there_are_some(folder: Path, kubelet: FakeKubelet) -> None:
    async def prefer(available: Sequence[str], must_include: Sequence[str], count: int) -> Sequence[str]:
        return [*must_include, *sorted(set(available) - set(must_include), reverse=True)][:count]

    async with plugin(folder, prefer=prefer), plugin(folder, resource="example.com/plain", endpoint="plain.sock"):
        await kubelet.watches(TOY)
        await kubelet.watches("example.com/plain")
        assert kubelet.clients[TOY].options.get_preferred_allocation_available
        assert not kubelet.clients["example.com/plain"].options.get_preferred_allocation_available
        assert await kubelet.prefer(TOY, ["a", "b", "c"], 2, must_include=["a"]) == ["a", "c"]
        assert await kubelet.prefer("example.com/plain", ["a", "b"], 1) == []


async def test_a_failing_preference_fails_no_pod(
    folder: Path, kubelet: FakeKubelet, caplog: pytest.LogCaptureFixture
) -> None:
    async def prefer(available: Sequence[str], must_include: Sequence[str], count: int) -> Sequence[str]:
        raise RuntimeError("no idea")

    async with plugin(folder, prefer=prefer):
        await kubelet.watches(TOY)
        assert await kubelet.prefer(TOY, ["a"], 1) == []
    assert "no preference" in caplog.text


async def test_pre_start_is_neither_asked_for_nor_an_error(folder: Path, kubelet: FakeKubelet) -> None:
    async with plugin(folder):
        await kubelet.watches(TOY)
        assert not kubelet.clients[TOY].options.pre_start_required
        await kubelet.clients[TOY].call("PreStartContainer", pb.PreStartContainerRequest(devices_ids=["toy-0"]))


async def test_an_allocation_goes_on_when_the_kubelet_lets_go_of_it(folder: Path, kubelet: FakeKubelet) -> None:
    begun, go_on, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def allocate(ids: Sequence[str]) -> ContainerAllocation:
        begun.set()
        await go_on.wait()
        done.set()
        return ContainerAllocation()

    async with plugin(folder, allocate=allocate):
        await kubelet.watches(TOY)
        call = asyncio.create_task(kubelet.allocate(TOY, "toy-0"))
        await begun.wait()
        call.cancel()
        await kubelet.restart()
        go_on.set()
        await done.wait()


async def test_stopping_answers_what_is_in_flight_and_leaves_nothing(folder: Path, kubelet: FakeKubelet) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def allocate(ids: Sequence[str]) -> ContainerAllocation:
        begun.set()
        await go_on.wait()
        return ContainerAllocation(environment={"done": "yes"})

    served = plugin(folder, allocate=allocate)
    async with served:
        await kubelet.watches(TOY)
        call = asyncio.create_task(kubelet.allocate(TOY, "toy-0"))
        await begun.wait()
        asyncio.get_running_loop().call_later(0.05, go_on.set)
    assert dict((await call).envs) == {"done": "yes"}
    assert served.status == PluginStatus()
    assert not list(folder.glob("*toy*"))


async def test_an_allocation_that_outlasts_the_grace_is_answered_with_an_error(
    folder: Path, kubelet: FakeKubelet
) -> None:
    begun = asyncio.Event()

    async def allocate(ids: Sequence[str]) -> ContainerAllocation:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with plugin(folder, allocate=allocate, grace=0.05):
        await kubelet.watches(TOY)
        call = asyncio.create_task(kubelet.allocate(TOY, "toy-0"))
        await begun.wait()
    with pytest.raises(grpc.aio.AioRpcError, match="the device plugin stopped"):
        await call


async def test_the_status_follows_the_kubelet(folder: Path) -> None:
    seen: list[PluginStatus] = []
    changed = asyncio.Event()

    def on_status(status: PluginStatus) -> None:
        seen.append(status)
        changed.set()

    async def until(serving: bool, registered: bool) -> PluginStatus:
        while not seen or (seen[-1].serving, seen[-1].registered) != (serving, registered):
            changed.clear()
            await changed.wait()
        return seen[-1]

    kubelet = FakeKubelet(folder)
    async with plugin(folder, on_status=on_status):
        assert "there is no" in (await until(True, False)).error
        await kubelet.start()
        assert (await until(True, True)).error == ""
        await kubelet.stop()
        await until(True, False)


async def test_a_refusal_of_the_kubelet_is_told(folder: Path, kubelet: FakeKubelet) -> None:
    kubelet.refuse = "I do not like toys"
    told = asyncio.get_running_loop().create_future()

    def on_status(status: PluginStatus) -> None:
        if status.error and not told.done():
            told.set_result(status.error)

    async with plugin(folder, on_status=on_status):
        assert await told == f"the kubelet does not register {TOY}: I do not like toys"


async def test_without_the_kubelets_folder_it_says_what_to_mount(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match="must be mounted at its own path"):
        async with plugin(folder / "nowhere"):
            pass


def test_a_path_that_no_socket_can_have_is_refused_at_once(folder: Path) -> None:
    with pytest.raises(ValueError, match="longer than a Unix socket's path may be"):
        plugin(folder / ("x" * 100))


@pytest.mark.parametrize("bad", ["", "x" * 64])
def test_ids_that_the_kubelet_cannot_take_are_refused_at_once(bad: str) -> None:
    with pytest.raises(ValueError, match="a device id has 1 to 63 characters"):
        Device(bad)


async def test_two_devices_of_one_id_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="the same id"):
        plugin(folder, devices=[Device("a"), Device("a", healthy=False)])
