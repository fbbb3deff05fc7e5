"""What a driver says about its devices reaches every kubelet that listens, and none of them can hold up anything."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from dra_fake_kubelet import FakeKubelet
from neuron_dra_driver.kubeletplugin import ClaimRef, Health, HealthMonitor, HealthStatus, KubeletPlugin
from neuron_dra_driver.kubeletplugin.health import MAX_STREAMS, HealthService
from neuron_dra_driver.kubeletplugin.proto import health_v1_pb2 as pb
from virtual_time import run

FINE = Health(HealthStatus.HEALTHY)
BROKEN = Health(HealthStatus.UNHEALTHY, "memory error: take another device")

Told = dict[tuple[str, str], tuple[int, str]]


class Driver:
    async def prepare(self, claims: Sequence[ClaimRef]) -> Mapping[str, Any]:
        return {claim.uid: [] for claim in claims}

    async def unprepare(self, claims: Sequence[ClaimRef]) -> Mapping[str, Any]:
        return dict.fromkeys(claim.uid for claim in claims)


def plugin(host: Path, health: HealthMonitor | None, **options: Any) -> KubeletPlugin:
    return KubeletPlugin(
        Driver(),
        driver_name="example.com",
        plugins_dir=host / "plugins",
        registry_dir=host / "registry",
        health=health,
        **options,
    )


def told(report: Any) -> Told:
    return {(d.device.pool_name, d.device.device_name): (d.health, d.message) for d in report.devices}


# --- over real sockets -----------------------------------------------------------------------------


async def test_the_health_services_are_advertised_only_when_the_driver_has_them(
    host: Path, kubelet: FakeKubelet
) -> None:
    async with plugin(host, HealthMonitor()):
        await kubelet.pick_up()
        assert list(kubelet.only_plugin().info.supported_versions) == [
            "v1.DRAPlugin",
            "v1.DRAResourceHealth",
            "v1alpha1.DRAResourceHealth",
        ]
    await kubelet.pick_up()
    async with plugin(host, None):
        await kubelet.pick_up()
        assert list(kubelet.only_plugin().info.supported_versions) == ["v1.DRAPlugin"]
        with pytest.raises(grpc.aio.AioRpcError, match="Method not found"):
            await kubelet.only_plugin().watch_health().read()


@pytest.mark.parametrize("version", ["v1", "v1alpha1"])
async def test_a_stream_gets_every_field_of_every_device(host: Path, kubelet: FakeKubelet, version: str) -> None:
    health = HealthMonitor()
    health.set({("node-1", "a"): FINE, ("node-1", "b"): BROKEN, ("other", "a"): Health(HealthStatus.UNKNOWN)})
    async with plugin(host, health):
        await kubelet.pick_up()
        before = int(time.time())
        stream = kubelet.only_plugin().watch_health(version)
        report = await stream.read()
        assert told(report) == {
            ("node-1", "a"): (1, ""),
            ("node-1", "b"): (2, "memory error: take another device"),
            ("other", "a"): (0, ""),
        }
        assert all(before <= device.last_updated_time <= time.time() for device in report.devices)
        assert {device.health_check_timeout_seconds for device in report.devices} == {0}, "the kubelet's own 30 s"
        stream.cancel()


async def test_a_change_reaches_all_streams_as_a_complete_list(host: Path, kubelet: FakeKubelet) -> None:
    health = HealthMonitor()
    async with plugin(host, health):
        await kubelet.pick_up()
        streams = [kubelet.only_plugin().watch_health(version) for version in ("v1", "v1alpha1")]
        reads = [asyncio.ensure_future(stream.read()) for stream in streams]
        await until(lambda: health.watchers == 2)
        assert not any(read.done() for read in reads), "the driver has said nothing yet"
        health.set({("p", "a"): FINE, ("p", "b"): FINE})
        for read in reads:
            assert told(await read) == {("p", "a"): (1, ""), ("p", "b"): (1, "")}
        health.set({("p", "a"): FINE, ("p", "b"): BROKEN})
        for stream in streams:
            assert told(await stream.read()) == {("p", "a"): (1, ""), ("p", "b"): (2, BROKEN.message)}
        health.set({("p", "a"): FINE})
        for stream in streams:
            assert told(await stream.read()) == {("p", "a"): (1, "")}
            stream.cancel()
        await until(lambda: health.watchers == 0)


async def test_stopping_ends_streams_cleanly_and_at_once(host: Path, kubelet: FakeKubelet) -> None:
    health = HealthMonitor()
    health.set({("p", "a"): FINE})
    async with asyncio.timeout(5):
        async with plugin(host, health, grace=3600):
            await kubelet.pick_up()
            stream = kubelet.only_plugin().watch_health()
            await stream.read()
        assert await stream.read() is grpc.aio.EOF
        assert await stream.code() == grpc.StatusCode.OK
    assert health.watchers == 0


async def test_the_next_serving_of_the_same_driver_has_health_again(host: Path, kubelet: FakeKubelet) -> None:
    health = HealthMonitor()
    health.set({("p", "a"): FINE})
    for _ in range(2):
        async with plugin(host, health):
            await kubelet.pick_up()
            assert told(await kubelet.only_plugin().watch_health().read()) == {("p", "a"): (1, "")}
        await kubelet.pick_up()


async def test_a_stuck_reader_holds_up_no_other_stream_no_call_and_no_stop(
    host: Path, kubelet: FakeKubelet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neuron_dra_driver.kubeletplugin.plugin.ANSWERS_LEAVE", 0.05)
    health = HealthMonitor()
    much = {("p", f"device-{n}"): Health(HealthStatus.UNHEALTHY, "x" * 1000) for n in range(3000)}
    health.set(much)
    async with asyncio.timeout(20):
        async with plugin(host, health, grace=3600):
            await kubelet.pick_up()
            stuck = kubelet.only_plugin().watch_health()
            await until(lambda: health.watchers == 1)
            other = FakeKubelet(host / "registry")
            await other.pick_up()
            reader = other.only_plugin().watch_health()
            for n in range(3):
                health.set({**much, ("p", "device-0"): Health(HealthStatus.HEALTHY, f"change {n}")})
                while (await reader.read()).devices[0].message != f"change {n}":
                    pass
                claim = ClaimRef("default", "a", "uid-a")
                assert set((await other.only_plugin().prepare(claim)).claims) == {"uid-a"}
            assert health.watchers == 2
            await other.stop()
        stuck.cancel()


async def test_streams_without_end_are_refused(host: Path, kubelet: FakeKubelet) -> None:
    health = HealthMonitor()
    health.set({("p", "a"): FINE})
    async with plugin(host, health):
        await kubelet.pick_up()
        streams = [kubelet.only_plugin().watch_health() for _ in range(MAX_STREAMS)]
        for stream in streams:
            await stream.read()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await kubelet.only_plugin().watch_health().read()
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        streams.pop().cancel()
        await until(lambda: health.watchers == MAX_STREAMS - 1)
        assert await kubelet.only_plugin().watch_health().read()


# --- when and what, in virtual time ----------------------------------------------------------------


class Reader:
    """A stream whose reports carry the time at which they came."""

    def __init__(self, health: HealthMonitor) -> None:
        self.reports: list[tuple[float, Told]] = []
        self.service = HealthService(health)
        self.blocked: asyncio.Event | None = None
        self.task = asyncio.create_task(self.service.feed(self._write))

    async def _write(self, report: bytes) -> None:
        now = asyncio.get_running_loop().time()
        self.reports.append((now, told(pb.NodeWatchResourcesResponse.FromString(report))))
        if self.blocked:
            await self.blocked.wait()

    async def close(self) -> list[float]:
        assert await self.service.close(1)
        await self.task
        return [when for when, _ in self.reports]


def test_health_is_repeated_well_within_the_kubelets_patience() -> None:
    async def scenario() -> None:
        health = HealthMonitor()
        reader = Reader(health)
        await asyncio.sleep(7)
        assert reader.reports == []
        health.set({("p", "a"): FINE})
        await asyncio.sleep(8)
        health.set({("p", "a"): BROKEN})
        await asyncio.sleep(4)
        assert await reader.close() == [7, 12, 15]
        assert reader.reports[-1][1] == {("p", "a"): (2, BROKEN.message)}

    run(scenario())


def test_what_is_said_again_is_not_sent_again_before_the_heartbeat() -> None:
    async def scenario() -> None:
        health = HealthMonitor()
        reader = Reader(health)
        for _ in range(18):
            health.set({("p", "a"): FINE})
            await asyncio.sleep(1)
        assert await reader.close() == [0, 5, 10, 15]

    run(scenario())


def test_a_slow_reader_gets_the_newest_state_and_not_the_history() -> None:
    async def scenario() -> None:
        health = HealthMonitor()
        health.set({("p", "a"): FINE})
        reader = Reader(health)
        reader.blocked = asyncio.Event()
        await asyncio.sleep(0)
        for n in range(1000):
            health.set({("p", "a"): Health(HealthStatus.UNHEALTHY, str(n))})
        await asyncio.sleep(100)
        reader.blocked.set()
        await asyncio.sleep(1)
        await reader.close()
        assert [report[("p", "a")] for _, report in reader.reports] == [(1, ""), (2, "999")]

    run(scenario())


def test_a_driver_that_stopped_looking_is_not_believed_for_ever() -> None:
    async def scenario() -> None:
        health = HealthMonitor(valid_for=12, clock=asyncio.get_running_loop().time)
        health.set({("p", "a"): FINE})
        reader = Reader(health)
        await asyncio.sleep(60)
        assert [when for when, _ in reader.reports] == [0, 5, 10]
        health.set({("p", "a"): FINE})
        await asyncio.sleep(1)
        assert await reader.close() == [0, 5, 10, 60]

    run(scenario())


@pytest.mark.parametrize(
    ("message", "sent"),
    [
        ("short", "short"),
        ("x" * 1024, "x" * 1024),
        ("x" * 1025, "x" * 1021 + "…"),
        ("é" * 600, "é" * 510 + "…"),
        ("no file named \udcff", "no file named \\udcff"),
    ],
)
def test_a_message_has_at_most_1024_bytes(message: str, sent: str) -> None:
    async def scenario() -> None:
        health = HealthMonitor()
        health.set({("p", "a"): Health(HealthStatus.UNHEALTHY, message)})
        reader = Reader(health)
        await asyncio.sleep(0)
        await reader.close()
        assert reader.reports[0][1] == {("p", "a"): (2, sent)}
        assert len(sent.encode()) <= 1024

    run(scenario())


@pytest.mark.parametrize("heartbeat", [0, -1, 11])
def test_a_heartbeat_that_the_kubelet_would_miss_is_refused(heartbeat: float) -> None:
    with pytest.raises(ValueError, match="at most 10 s"):
        HealthMonitor(heartbeat=heartbeat)


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110, the server tells nobody
            await asyncio.sleep(0)
