"""The kubelet's calls in front of a plugin's two functions.

An allocation runs in a task of its own: the kubelet cancels calls when it restarts, and an allocation cut in the
middle would be one more state to recover from.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import grpc
import grpc.aio

from .api import Allocate, AllocationRefused, ContainerAllocation, Device, Prefer
from .proto import deviceplugin_v1beta1_pb2 as pb

SERVICE = "v1beta1.DevicePlugin"
ANSWERS_LEAVE = 1.0
"""Seconds that answers have to get out before the connection goes."""
ANSWERS_ARE_READ = 0.1
"""Seconds more in which they are read: nothing tells when, and what is unread is lost with the connection."""

log = logging.getLogger(__name__)


class _Stream:
    """One ListAndWatch of the kubelet."""

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        self.told = asyncio.Event()
        """The kubelet was sent the newest list."""
        self.ended = False


class DevicePluginService:
    """Answers for one resource; `on_streams` is called whenever a stream begins or ends."""

    def __init__(
        self,
        allocate: Allocate,
        *,
        resource: str,
        devices: Sequence[Device],
        prefer: Prefer | None,
        on_streams: Callable[[], None],
    ) -> None:
        self.options = pb.DevicePluginOptions(get_preferred_allocation_available=prefer is not None)
        self._resource = resource
        self._allocate_devices = allocate
        self._prefer_devices = prefer
        self._on_streams = on_streams
        self._devices = _message(devices)
        self._streams: set[_Stream] = set()
        self._running: set[asyncio.Task[pb.ContainerAllocateResponse | Exception]] = set()
        self._calls: set[object] = set()
        self._answered = asyncio.Event()
        self._answered.set()

    @property
    def watched(self) -> bool:
        """Whether the kubelet reads what devices there are; it counts them only as long as it does."""
        return bool(self._streams)

    def publish(self, devices: Sequence[Device]) -> None:
        """Say what devices there are now."""
        message = _message(devices)
        if message != self._devices:
            self._devices = message
            for stream in self._streams:
                stream.told.clear()
                stream.wake.set()

    async def told(self) -> None:
        """Wait until whoever reads was sent the newest list; not for long, since a reader may hang."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANSWERS_LEAVE):
                for stream in list(self._streams):
                    await stream.told.wait()

    def end_streams(self) -> None:
        """Let go of whoever reads."""
        for stream in self._streams:
            stream.ended = True
            stream.told.set()
            stream.wake.set()
        self._streams.clear()

    async def drain(self, grace: float) -> None:
        """Let the allocations in flight end and be answered; cancel what is not done after `grace` seconds.

        Comes before `end_streams`, with which the kubelet drops the whole connection.
        """
        if not (self._calls or self._running):
            return
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=grace)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANSWERS_LEAVE):
                await self._answered.wait()
        await asyncio.sleep(ANSWERS_ARE_READ)

    def handlers(self) -> grpc.GenericRpcHandler:
        """What a gRPC server has to be given to serve this."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "GetDevicePluginOptions": grpc.unary_unary_rpc_method_handler(
                    self._get_options,
                    request_deserializer=pb.Empty.FromString,
                    response_serializer=pb.DevicePluginOptions.SerializeToString,
                ),
                "ListAndWatch": grpc.unary_stream_rpc_method_handler(
                    self._list_and_watch,
                    request_deserializer=pb.Empty.FromString,
                    response_serializer=pb.ListAndWatchResponse.SerializeToString,
                ),
                "GetPreferredAllocation": grpc.unary_unary_rpc_method_handler(
                    self._get_preferred,
                    request_deserializer=pb.PreferredAllocationRequest.FromString,
                    response_serializer=pb.PreferredAllocationResponse.SerializeToString,
                ),
                "Allocate": grpc.unary_unary_rpc_method_handler(
                    self._allocate,
                    request_deserializer=pb.AllocateRequest.FromString,
                    response_serializer=pb.AllocateResponse.SerializeToString,
                ),
                "PreStartContainer": grpc.unary_unary_rpc_method_handler(
                    self._pre_start,
                    request_deserializer=pb.PreStartContainerRequest.FromString,
                    response_serializer=pb.PreStartContainerResponse.SerializeToString,
                ),
            },
        )

    async def _get_options(self, request: pb.Empty, context: object) -> pb.DevicePluginOptions:
        return self.options

    async def _pre_start(self, request: pb.PreStartContainerRequest, context: object) -> pb.PreStartContainerResponse:
        """Not asked for by the options; harmless if it comes."""
        return pb.PreStartContainerResponse()

    async def _list_and_watch(self, request: pb.Empty, context: object) -> AsyncIterator[pb.ListAndWatchResponse]:
        stream = _Stream()
        self._streams.add(stream)
        self._on_streams()
        try:
            while not stream.ended:
                stream.wake.clear()
                yield self._devices
                if not stream.wake.is_set():
                    stream.told.set()
                await stream.wake.wait()
        finally:
            stream.told.set()
            self._streams.discard(stream)
            self._on_streams()

    async def _get_preferred(
        self, request: pb.PreferredAllocationRequest, context: object
    ) -> pb.PreferredAllocationResponse:
        answer = pb.PreferredAllocationResponse()
        for wanted in request.container_requests:
            answer.container_responses.add(deviceIDs=await self._preferred(wanted))
        return answer

    async def _preferred(self, wanted: pb.ContainerPreferredAllocationRequest) -> Sequence[str]:
        available, must_include = list(wanted.available_deviceIDs), list(wanted.must_include_deviceIDs)
        try:
            if self._prefer_devices is not None:
                return await self._prefer_devices(available, must_include, wanted.allocation_size)
        except Exception:
            # An error would fail the pod, over a wish.
            log.exception("%s: no preference: it failed", self._resource, extra={"resource": self._resource})
        return ()

    async def _allocate(
        self,
        request: pb.AllocateRequest,
        context: grpc.aio.ServicerContext[pb.AllocateRequest, pb.AllocateResponse],
    ) -> pb.AllocateResponse:
        self._calls.add(context)
        self._answered.clear()
        context.add_done_callback(self._call_ended)  # type: ignore[arg-type]  # the stubs ask for a class of their own
        answer = pb.AllocateResponse()
        for wanted in request.container_requests:  # one, in every kubelet so far
            given = await self._in_task(list(wanted.devices_ids))
            if isinstance(given, Exception):
                self._log_refusal(given, wanted.devices_ids)
                await context.abort(grpc.StatusCode.FAILED_PRECONDITION, error_text(given))
            else:
                answer.container_responses.append(given)
        return answer

    def _call_ended(self, context: Any) -> None:
        self._calls.discard(context)
        if not self._calls:
            self._answered.set()

    async def _in_task(self, device_ids: Sequence[str]) -> pb.ContainerAllocateResponse | Exception:
        async def run() -> pb.ContainerAllocateResponse | Exception:
            try:
                return _allocation_message(await self._allocate_devices(device_ids))
            except asyncio.CancelledError:
                return AllocationRefused("the device plugin stopped while it allocated devices")
            except Exception as error:
                return error

        task = asyncio.create_task(run())
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    def _log_refusal(self, error: Exception, device_ids: Sequence[str]) -> None:
        fields = {"resource": self._resource, "devices": list(device_ids)}
        trace = None if isinstance(error, AllocationRefused) else error
        log.warning("%s: allocation refused: %s", self._resource, error_text(error), exc_info=trace, extra=fields)


def error_text(error: Exception) -> str:
    """What the user reads: never empty, and always valid UTF-8."""
    return (str(error) or type(error).__name__).encode("utf-8", "backslashreplace").decode()


def _message(devices: Sequence[Device]) -> pb.ListAndWatchResponse:
    if len({device.id for device in devices}) != len(devices):
        raise ValueError("two devices have the same id")
    answer = pb.ListAndWatchResponse()
    for device in devices:
        message = answer.devices.add(ID=device.id, health="Healthy" if device.healthy else "Unhealthy")
        for node in device.numa_nodes:
            message.topology.nodes.add(ID=node)
    return answer


def _allocation_message(given: ContainerAllocation) -> pb.ContainerAllocateResponse:
    return pb.ContainerAllocateResponse(
        envs=given.environment,
        mounts=[
            pb.Mount(container_path=mount.container_path, host_path=mount.host_path, read_only=mount.read_only)
            for mount in given.mounts
        ],
        devices=[
            pb.DeviceSpec(container_path=node.container_path, host_path=node.host_path, permissions=node.permissions)
            for node in given.devices
        ],
        annotations=given.annotations,
        cdi_devices=[pb.CDIDevice(name=name) for name in given.cdi_devices],
    )
