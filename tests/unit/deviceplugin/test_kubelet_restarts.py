"""A device plugin through kubelet restarts, rolling updates and other people's hands in the folder."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from device_plugin_fake_kubelet import FakeKubelet
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from neuron_dra_driver.deviceplugin import ContainerAllocation, Device, DevicePlugin

TOY = "example.com/toy"


def plugin(folder: Path, device: str = "toy-0", **changes: Any) -> DevicePlugin:
    async def allocate(ids: Sequence[str]) -> ContainerAllocation:
        return ContainerAllocation(environment={"BY": device})

    wanted: dict[str, Any] = {"resource": TOY, "endpoint": "toy.sock", "look_every": 0.02} | changes
    return DevicePlugin(allocate, devices=[Device(device)], folder=folder, **wanted)


async def test_a_kubelet_that_restarts_finds_every_plugin_again(folder: Path, kubelet: FakeKubelet) -> None:
    async with plugin(folder), plugin(folder, "other-0", resource="example.com/other", endpoint="other.sock"):
        for _ in range(3):
            await kubelet.watches(TOY)
            await kubelet.watches("example.com/other")
            await kubelet.restart()
            assert not kubelet.devices
        await kubelet.watches(TOY)
        await kubelet.watches("example.com/other")
        assert dict((await kubelet.allocate(TOY, "toy-0")).envs) == {"BY": "toy-0"}


async def test_what_was_published_while_the_kubelet_was_away_is_what_it_learns(
    folder: Path, kubelet: FakeKubelet
) -> None:
    async with plugin(folder) as served:
        await kubelet.watches(TOY)
        await kubelet.stop()
        served.publish([Device("toy-7")])
        await kubelet.start()
        assert await kubelet.watches(TOY) == {"toy-7": "Healthy"}


async def test_a_plugin_may_come_before_its_kubelet(folder: Path) -> None:
    kubelet = FakeKubelet(folder)
    async with plugin(folder):
        await kubelet.start()
        await kubelet.watches(TOY)
    await kubelet.stop()


async def test_a_socket_that_a_killed_kubelet_left_is_no_kubelet(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(folder / "kubelet.sock"))
    kubelet = FakeKubelet(folder)
    failed = asyncio.Event()
    async with plugin(folder, on_status=lambda status: failed.set() if status.error else None):
        await failed.wait()
        await kubelet.start()
        await kubelet.watches(TOY)
    await kubelet.stop()


async def test_a_kubelet_that_lets_go_without_a_restart_is_asked_again(folder: Path, kubelet: FakeKubelet) -> None:
    async with plugin(folder) as served:
        await kubelet.watches(TOY)
        await kubelet.clients[TOY].channel.close()
        await kubelet.until(lambda: not served.status.registered)
        await kubelet.until(lambda: kubelet.registered == [TOY, TOY])
        await kubelet.watches(TOY)


async def test_a_socket_that_somebody_removed_comes_back(folder: Path, kubelet: FakeKubelet) -> None:
    async with plugin(folder):
        await kubelet.watches(TOY)
        (folder / "toy.sock").unlink()
        await kubelet.until(lambda: kubelet.registered == [TOY, TOY])
        await kubelet.watches(TOY)


async def test_the_newer_process_takes_over_and_the_older_stands_by(folder: Path, kubelet: FakeKubelet) -> None:
    async with plugin(folder, "old-0") as old:
        assert await kubelet.watches(TOY) == {"old-0": "Healthy"}
        async with plugin(folder, "new-0") as new:
            await kubelet.until(lambda: kubelet.devices.get(TOY) == {"new-0": "Healthy"} and not old.status.serving)
            assert "another process serves" in old.status.error
            # The flaw of the kubelet may have cut the new one's connection when the old one's ended.
            await kubelet.until(lambda: new.status.registered and TOY in kubelet.clients and kubelet.streams == 1)
            assert dict((await kubelet.allocate(TOY, "new-0")).envs) == {"BY": "new-0"}
        await kubelet.until(lambda: kubelet.devices.get(TOY) == {"old-0": "Healthy"})


async def test_the_older_process_takes_nothing_along_when_it_ends(folder: Path, kubelet: FakeKubelet) -> None:
    async with AsyncExitStack() as older:
        old = await older.enter_async_context(plugin(folder, "old-0"))
        await kubelet.watches(TOY)
        async with plugin(folder, "new-0"):
            await kubelet.until(lambda: not old.status.serving)
            await older.aclose()
            assert (folder / "toy.sock").is_socket()
            await kubelet.until(lambda: kubelet.devices.get(TOY) == {"new-0": "Healthy"})


async def test_the_place_of_a_process_that_was_killed_is_taken(folder: Path, kubelet: FakeKubelet) -> None:
    async with plugin(folder, "old-0") as old:
        await kubelet.watches(TOY)
        with socket.socket(socket.AF_UNIX) as other:  # a newer process …
            other.bind(str(folder / ".other"))
            other.listen()
            (folder / ".other").rename(folder / "toy.sock")
            await kubelet.until(lambda: not old.status.serving)
        # … that dies without a word
        assert await kubelet.watches(TOY) == {"old-0": "Healthy"}


EVENTS = st.sampled_from(["restart", "away", "back", "drop", "unlink", "publish", "newer", "seen"])


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(EVENTS, max_size=8))
async def test_whatever_happens_the_kubelet_ends_up_with_what_was_published_last(events: list[str]) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="dp") as name:
        folder = Path(name)
        kubelet = FakeKubelet(folder)
        await kubelet.start()
        async with AsyncExitStack() as stack:
            served = await stack.enter_async_context(plugin(folder, "first-0"))
            last = "first-0"
            for number, event in enumerate(events):
                match event:
                    case "restart":
                        await kubelet.restart()
                    case "away":
                        await kubelet.stop()
                    case "back" if kubelet.stopped:
                        await kubelet.start()
                    case "drop" if TOY in kubelet.clients:
                        await kubelet.clients[TOY].channel.close()
                    case "unlink":
                        (folder / "toy.sock").unlink(missing_ok=True)
                    case "publish":
                        last = f"toy-{number}"
                        served.publish([Device(last)])
                    case "newer":
                        last = f"newer-{number}"
                        served = await stack.enter_async_context(plugin(folder, last))
                    case "seen" if not kubelet.stopped:
                        await kubelet.watches(TOY)
            if kubelet.stopped:
                await kubelet.start()
            await kubelet.until(lambda: kubelet.devices.get(TOY) == {last: "Healthy"})
        await kubelet.stop()
