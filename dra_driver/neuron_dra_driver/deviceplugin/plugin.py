"""One resource's presence on a node, for as long as it is wanted and whatever the kubelet does.

A device plugin is a socket in the kubelet's folder and a call that tells the kubelet of it. The kubelet forgets both:
at each start it removes every socket of the folder and knows no plugins. So the plugin looks every second:

* Its socket is gone: it listens anew.
* Another process has put a socket of its own in that place: it has taken over, as the new pod of a rolling update does.
  This one lets go of the kubelet and stands by; it takes the place back when the other is dead.
* Nobody reads its devices: it registers, at once when the kubelet's socket is a new one, else less and less often.
  That also covers a flaw of the kubelet, which drops the new process's connection when the old one's ends.

The socket is made under a name of its own and then renamed, so the place is never empty while one process follows
another, and closing a server cannot remove what another has put there. Its time of modification is set to when its
process began, so that of two that find the place empty at once, the newer one has it in the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import grpc
import grpc.aio

from .api import Allocate, Device, Prefer
from .proto import deviceplugin_v1beta1_pb2 as pb
from .service import DevicePluginService

KUBELET_DEVICE_PLUGINS_DIR = Path("/var/lib/kubelet/device-plugins")
KUBELET_SOCKET = "kubelet.sock"
VERSION = "v1beta1"

MAX_PATH = 107
"""Longest path of a Unix socket on Linux (sun_path is 108 bytes with its end); gRPC refuses longer ones."""

REGISTER_TIMEOUT = 15.0
"""The kubelet connects to the plugin before it answers, and gives that 10 s."""
RETRY_MIN, RETRY_MAX = 0.25, 30.0
CALM = 10.0
"""Seconds that the kubelet has to read for the next trouble to be a new one."""
READS_WITHIN = 2.0
"""Seconds in which a kubelet that has registered the plugin begins to read."""

log = logging.getLogger(__name__)


class _File(NamedTuple):
    """Which file it is; made anew, it may get the number of the old one, but not its time."""

    device: int
    inode: int
    modified: int


@dataclass(frozen=True, slots=True)
class PluginStatus:
    """How the plugin stands with the kubelet."""

    serving: bool = False
    """False: another process has taken over, or the socket cannot be made."""
    registered: bool = False
    """The kubelet reads the devices: only then it counts them."""
    error: str = ""


class DevicePlugin:
    """Serves one resource to the kubelet for as long as the context is entered.

    `endpoint` is the socket's name in the folder: another process with the same name takes this one's place.
    `on_status` is called when `status` has changed. Several of these live side by side in one process.
    """

    def __init__(
        self,
        allocate: Allocate,
        *,
        resource: str,
        endpoint: str,
        devices: Sequence[Device],
        prefer: Prefer | None = None,
        folder: Path = KUBELET_DEVICE_PLUGINS_DIR,
        look_every: float = 1.0,
        grace: float = 10.0,
        on_status: Callable[[PluginStatus], None] | None = None,
    ) -> None:
        self.resource = resource
        self.socket = folder / endpoint
        self.status = PluginStatus()
        if len(os.fsencode(self._temporary().absolute())) > MAX_PATH:
            raise ValueError(f"{self._temporary()} is longer than a Unix socket's path may be ({MAX_PATH} bytes)")
        self._kubelet_socket = folder / KUBELET_SOCKET
        self._look_every = look_every
        self._grace = grace
        self._on_status = on_status
        self._service = DevicePluginService(
            allocate, resource=resource, devices=devices, prefer=prefer, on_streams=self._streams_changed
        )
        self._server: grpc.aio.Server | None = None
        self._own: _File | None = None
        self._began = 0
        self._asked: _File | None = None
        """The kubelet's socket at the last registration."""
        self._retry_at = self._read_since = 0.0
        self._pause = RETRY_MIN
        self._error = ""
        self._look = asyncio.Event()
        self._closing = False
        self._minding: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if not self.socket.parent.is_dir():
            raise FileNotFoundError(
                f"{self.socket.parent} does not exist: the kubelet's folder must be mounted at its own path"
            )
        self._began = time.time_ns()
        await self._listen()
        self._minding = asyncio.create_task(self._mind())
        return self

    async def __aexit__(self, *_: object) -> None:
        # To its end also when it is cancelled, which takes no longer than the grace.
        closing = asyncio.create_task(self._close())
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError:
            await closing
            raise

    def publish(self, devices: Sequence[Device]) -> None:
        """Say what devices there are now."""
        self._service.publish(devices)

    async def withdraw(self) -> None:
        """Say that there are no devices any more, and wait until the kubelet was told.

        Before leaving for good: the kubelet then counts 0 at once. Of a plugin that just goes away, it counts devices
        that are all unhealthy for five minutes, and its successor finds the pods' devices as they were.
        """
        self._service.publish(())
        await self._service.told()

    # --- every second

    async def _mind(self) -> None:
        while not self._closing:  # a cancellation can get lost in gRPC's server.stop (Python before 3.12)
            try:
                await self._mind_socket()
                await self._mind_registration()
            except (OSError, RuntimeError) as error:  # RuntimeError: gRPC cannot listen
                self._failed(f"cannot serve on {self.socket}: {error}")
            self._tell()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._look_every):
                    await self._look.wait()
            self._look.clear()

    async def _mind_socket(self) -> None:
        found = _file(self.socket)
        if self._server and found == self._own:
            return
        if found is None or found.modified < self._began or not _is_served(self.socket):
            await self._listen()
        elif self._server:
            log.info("another process serves %s now", self.socket, extra={"resource": self.resource})
            self._error = f"another process serves {self.socket}"
            await self._service.drain(self._grace)
            await self._let_go()

    async def _mind_registration(self) -> None:
        if self._server is None or self._service.watched:
            return
        kubelet = _file(self._kubelet_socket)
        if kubelet is None:
            self._error = f"there is no {self._kubelet_socket}"
            return
        if kubelet != self._asked:
            self._pause = RETRY_MIN
        elif _now() < self._retry_at:
            return
        self._asked = kubelet
        registered = await self._register()
        self._retry_at = _now() + max(self._pause, READS_WITHIN if registered else 0)
        self._pause = min(2 * self._pause, RETRY_MAX)

    async def _register(self) -> bool:
        request = pb.RegisterRequest(
            version=VERSION, endpoint=self.socket.name, resource_name=self.resource, options=self._service.options
        )
        # Without a pool of its own the channel would inherit the waits of the one before, up to two minutes.
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(f"unix://{self._kubelet_socket.absolute()}", options=options) as channel:
            call = channel.unary_unary(
                "/v1beta1.Registration/Register",
                request_serializer=pb.RegisterRequest.SerializeToString,
                response_deserializer=pb.Empty.FromString,
            )
            try:
                await call(request, timeout=REGISTER_TIMEOUT)
            except grpc.aio.AioRpcError as error:
                self._failed(f"the kubelet does not register {self.resource}: {error.details()}")
                return False
        self._error = ""
        log.info("registered %s", self.resource, extra={"resource": self.resource})
        return True

    # --- listening

    async def _listen(self) -> None:
        await self._let_go()
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((self._service.handlers(),))
        making = self._temporary()
        try:
            server.add_insecure_port(f"unix://{making.absolute()}")
            await server.start()
            os.utime(making, ns=(self._began, self._began))
            own = _file(making)
            making.rename(self.socket)
        except BaseException:
            await server.stop(None)
            raise
        self._server, self._own = server, own
        self._asked = None
        self._error = ""
        log.info("serving %s on %s", self.resource, self.socket, extra={"resource": self.resource})

    def _temporary(self) -> Path:
        return self.socket.with_name(f".{self.socket.name}.{secrets.token_hex(3)}")

    async def _let_go(self) -> None:
        """Stop listening. Allocations in flight go on by themselves."""
        if self._server is not None:
            server, self._server = self._server, None
            self._service.end_streams()
            await server.stop(None)

    async def _close(self) -> None:
        self._closing = True
        if self._minding is not None:
            self._minding.cancel()
            await asyncio.gather(self._minding, return_exceptions=True)
        if self._own is not None and _file(self.socket) == self._own:
            self.socket.unlink(missing_ok=True)
        await self._service.drain(self._grace)
        await self._let_go()
        self._tell()

    # --- telling

    def _streams_changed(self) -> None:
        if self._service.watched:
            self._error = ""
            self._read_since = _now()
        else:
            if _now() - self._read_since > CALM:
                self._pause = RETRY_MIN
            self._retry_at = _now() + self._pause
        self._look.set()
        self._tell()

    def _failed(self, error: str) -> None:
        if error != self._error:
            log.warning("%s", error, extra={"resource": self.resource})
        self._error = error

    def _tell(self) -> None:
        status = PluginStatus(serving=self._server is not None, registered=self._service.watched, error=self._error)
        if status != self.status:
            self.status = status
            if self._on_status is not None:
                self._on_status(status)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _file(path: Path) -> _File | None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return _File(found.st_dev, found.st_ino, found.st_mtime_ns)


def _is_served(path: Path) -> bool:
    """Whether a process listens there. Unsure counts as yes."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        return probe.connect_ex(str(path)) not in (errno.ECONNREFUSED, errno.ENOENT)
