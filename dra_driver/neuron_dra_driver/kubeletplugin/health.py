"""Device health on its way to the kubelet, and from there to `allocatedResourcesStatus` in the status of pods.

The kubelet opens a stream and keeps what it hears for 30 seconds, or until the stream ends; then the devices'
health is unknown. So each stream gets the complete list at once, whenever it changes, and again every few seconds.

A stream has no queue but a flag that there is something to say: one that is not read misses what was in between,
and holds up neither another one nor the driver.
"""

from __future__ import annotations

import asyncio
import enum
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from .proto import health_v1_pb2, health_v1alpha1_pb2

VERSIONS = (health_v1_pb2, health_v1alpha1_pb2)
"""Most recent first, since the kubelet takes the first that it knows. Their messages are the same bytes."""

SERVICES = tuple(version.DESCRIPTOR.services_by_name["DRAResourceHealth"].full_name for version in VERSIONS)
"""Their names, which are the same in gRPC and in the kubelet's registration."""

MESSAGE_BYTES = 1024
"""Longest message of a device."""

MAX_STREAMS = 16
"""A kubelet has one stream, and a few more overlap while kubelets restart."""


class HealthStatus(enum.IntEnum):
    """What the kubelet can be told of a device."""

    UNKNOWN = health_v1_pb2.UNKNOWN
    HEALTHY = health_v1_pb2.HEALTHY
    UNHEALTHY = health_v1_pb2.UNHEALTHY


@dataclass(frozen=True, slots=True)
class Health:
    """The health of a device, and a sentence for people: what is wrong, and what to do."""

    status: HealthStatus
    message: str = ""


class HealthMonitor:
    """What a driver says about its devices. Give it to `KubeletPlugin`, and use it from the same event loop.

    What was set last is repeated every `heartbeat` seconds. A driver that polls its hardware sets `valid_for`: when
    nothing was set for so many seconds, the repeating ends, and the devices' health becomes unknown instead of
    staying for ever what it was when the polling broke.
    """

    def __init__(
        self, *, heartbeat: float = 5.0, valid_for: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        # The kubelet's 30 seconds would allow more. But when the old process of a rolling update ends its stream,
        # the kubelet also forgets what the new one said, until it is said again.
        if not 0 < heartbeat <= 10:
            raise ValueError(f"a heartbeat of {heartbeat} s is too rare or none: set it to at most 10 s")
        self._heartbeat = heartbeat
        self._valid_for = valid_for
        self._clock = clock
        self._devices: dict[tuple[str, str], Health] | None = None
        self._set_at = 0.0
        self._streams: set[asyncio.Event] = set()
        """One for each stream, set when there is something to say."""

    @property
    def watchers(self) -> int:
        """How many streams are open: 0 also where the kubelet's feature gate ResourceHealthStatus is off."""
        return len(self._streams)

    def set(self, devices: Mapping[tuple[str, str], Health]) -> None:
        """Say how all devices are, by pool and device name. Before the first call the kubelet is told nothing."""
        news = self._silent() or devices != self._devices
        self._devices = dict(devices)
        self._set_at = self._clock()
        if news:
            self._wake()

    def _silent(self) -> bool:
        if self._devices is None:
            return True
        return self._valid_for is not None and self._clock() - self._set_at > self._valid_for

    def _wake(self) -> None:
        for due in self._streams:
            due.set()

    def _report(self) -> bytes:
        now = int(time.time())
        report = health_v1_pb2.NodeWatchResourcesResponse()
        for (pool, device), health in (self._devices or {}).items():
            report.devices.add(
                device=health_v1_pb2.DeviceIdentifier(pool_name=pool, device_name=device),
                health=health.status.value,
                last_updated_time=now,
                message=_cut(health.message),
            )
        return report.SerializeToString()


class HealthService:
    """DRAResourceHealth in all versions, for as long as one server runs."""

    def __init__(self, monitor: HealthMonitor) -> None:
        self._monitor = monitor
        self._closing = False
        self._open = 0
        self._all_ended = asyncio.Event()
        self._all_ended.set()

    def handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        """What a gRPC server has to be given to serve this."""
        return tuple(
            grpc.method_handlers_generic_handler(
                service,
                {
                    "NodeWatchResources": grpc.unary_stream_rpc_method_handler(
                        self._watch, request_deserializer=version.NodeWatchResourcesRequest.FromString
                    )
                },
            )
            for service, version in zip(SERVICES, VERSIONS, strict=True)
        )

    async def close(self, patience: float) -> bool:
        """End all streams, and take no new ones; whether that was done before the patience was over.

        A stream whose reader is stuck cannot be ended from here: gRPC sends its end after what is on the way.
        """
        self._closing = True
        self._monitor._wake()
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._all_ended.wait()
        return self._all_ended.is_set()

    async def feed(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        """Serve one stream to its end."""
        monitor = self._monitor
        due = asyncio.Event()
        monitor._streams.add(due)
        try:
            while not self._closing:
                due.clear()
                if not monitor._silent():
                    await write(monitor._report())
                with suppress(TimeoutError):
                    async with asyncio.timeout(monitor._heartbeat):
                        await due.wait()
        finally:
            monitor._streams.discard(due)

    async def _watch(self, request: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        if self._open >= MAX_STREAMS:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{MAX_STREAMS} streams are open already")
        self._open += 1
        self._all_ended.clear()
        try:
            # The reader went away while it was written to.
            with suppress(grpc.aio.InternalError):
                await self.feed(context.write)
        finally:
            self._open -= 1
            if not self._open:
                self._all_ended.set()


def _cut(message: str) -> str:
    """What fits, always valid UTF-8."""
    text = message.encode("utf-8", "backslashreplace")
    if len(text) > MESSAGE_BYTES:
        text = text[: MESSAGE_BYTES - 3] + "…".encode()
    return text.decode(errors="ignore")
