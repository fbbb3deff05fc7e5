"""A driver's presence on a node: two sockets, from the first call it can answer to the last one it has to.

Up: the sockets of dead processes are removed, the service listens, and only then the kubelet is told. Down:
the kubelet is told first (its sign is that the registration socket disappears), the service takes no new
calls, and those in flight get a grace to end. Published slices stay: the kubelet itself removes them when
no process of the driver is back within 30 seconds, so that an update of the driver does not show to the
scheduler.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

import grpc.aio

from . import sockets
from .api import DRADriver
from .health import SERVICES as HEALTH_SERVICES
from .health import HealthMonitor, HealthService
from .registration import Registration, RegistrationService
from .server import SERVICE_VERSION, DRAService

KUBELET_PLUGINS_DIR = Path("/var/lib/kubelet/plugins")
KUBELET_REGISTRY_DIR = Path("/var/lib/kubelet/plugins_registry")

ANSWERS_LEAVE = 1.0
"""Seconds that the answers to calls ended by the grace have to get out."""

log = logging.getLogger(__name__)


class KubeletPlugin:
    """Serves `driver` to the kubelet for as long as the context is entered.

    `instance`: the pod's uid where two processes may overlap (a DaemonSet's rolling update with maxSurge),
    else None. `on_registration` is called each time the kubelet reports; `registration` holds the last
    report, None as long as there was none. `health`: what the driver says about its devices; without one the
    kubelet is not told that it could ask.
    """

    def __init__(
        self,
        driver: DRADriver,
        *,
        driver_name: str,
        plugins_dir: Path = KUBELET_PLUGINS_DIR,
        registry_dir: Path = KUBELET_REGISTRY_DIR,
        instance: str | None = None,
        grace: float = 10.0,
        on_registration: Callable[[Registration], None] | None = None,
        health: HealthMonitor | None = None,
    ) -> None:
        self._driver_name = driver_name
        self._plugins_dir = plugins_dir
        self._registry_dir = registry_dir
        self._grace = grace
        self._on_registration = on_registration
        self._health = health
        self._service = DRAService(driver)
        self._running = AsyncExitStack()
        self.service_socket = sockets.service_socket(plugins_dir, driver_name=driver_name, instance=instance)
        self.registration_socket = sockets.registration_socket(registry_dir, driver_name=driver_name, instance=instance)
        self.registration: Registration | None = None
        self._accepted = asyncio.Event()

    async def wait_registered(self) -> None:
        """Wait until the kubelet has registered this driver, which takes up to a second.

        Offer devices from then on: a kubelet that does not know the driver of a pod's devices fails the pod, and looks
        at it again only a minute later.
        """
        await self._accepted.wait()

    async def __aenter__(self) -> Self:
        if not self._registry_dir.is_dir():
            raise FileNotFoundError(
                f"{self._registry_dir} does not exist: the kubelet's folder must be mounted at its own path"
            )
        self.service_socket.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        sockets.remove_dead(self._plugins_dir, self._registry_dir, driver_name=self._driver_name)
        async with AsyncExitStack() as starting:
            health = HealthService(self._health) if self._health is not None else None
            service = await _serve(
                self.service_socket, self._service.handlers(), *(health.handlers() if health is not None else ())
            )
            starting.push_async_callback(self._stop_service, service, health)
            registration = RegistrationService(
                driver_name=self._driver_name,
                endpoint=self.service_socket,
                services=(SERVICE_VERSION, *(HEALTH_SERVICES if health is not None else ())),
                on_registration=self._registered,
            )
            registrar = await _serve(self.registration_socket, registration.handlers())
            starting.push_async_callback(registrar.stop, None)
            self._running = starting.pop_all()
        log.info("serving %s on %s", self._driver_name, self.service_socket)
        return self

    async def __aexit__(self, *_: object) -> None:
        # To its end also when it is cancelled, which takes no longer than the grace: half of it would leave sockets,
        # and the cancellation would be lost in the wait_for of gRPC's server (Python before 3.12).
        closing = asyncio.create_task(self._running.aclose())
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError:
            await closing
            raise

    def _registered(self, registration: Registration) -> None:
        self.registration = registration
        if registration.registered:
            self._accepted.set()
        if self._on_registration is not None:
            try:
                self._on_registration(registration)
            except Exception:
                # An error as the answer would make the kubelet drop a plugin that works.
                log.exception("the registration callback failed")

    async def _stop_service(self, server: grpc.aio.Server, health: HealthService | None) -> None:
        stopping = asyncio.create_task(server.stop(self._grace + ANSWERS_LEAVE))
        # Streams end now: the server would wait for them, and the kubelet has let go of this process already.
        streams = asyncio.create_task(health.close(ANSWERS_LEAVE)) if health is not None else None
        await self._service.drain(self._grace)
        if streams is not None and not await streams:
            log.warning("nobody reads a stream of device health; cut off")
            await server.stop(None)
        await stopping
        # A call that was on its way in while the first drain looked.
        await self._service.drain(0)


async def _serve(path: Path, *handlers: grpc.GenericRpcHandler) -> grpc.aio.Server:
    sockets.take(path)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(handlers)
    # not unix://, whose two slashes gRPC counts as part of a path that may have 107 characters
    server.add_insecure_port(f"unix:{path.absolute()}")
    await server.start()
    return server
