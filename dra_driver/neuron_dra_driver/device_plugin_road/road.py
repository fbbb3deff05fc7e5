"""The device-plugin road: a node's devices as extended resources, as AWS's device plugin and scheduler extension do it.

Only how devices are given away is different. What a container gets is prepared by the same store as claims are, so the
tools and the environment are the same on both roads.

    kubelet ─ Allocate ─▶ plan (pure) ─▶ ClaimStore.prepare ─▶ CDI device
                           ▲  the pod's annotations, by the API server
    kubelet ◀─ PodResources ─ tidy: what nobody has any more ─▶ ClaimStore.unprepare

`offer` says what the node is. While it has devices for this road, they are served to the kubelet; else they are
withdrawn, and what running pods have stays until they end. Tidying goes on either way, every few seconds, because
nobody tells a device plugin that a pod has ended. It also writes again what a reboot took from pods that the kubelet
goes on with, without allocating anew.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..deviceplugin import (
    KUBELET_DEVICE_PLUGINS_DIR,
    KUBELET_POD_RESOURCES_SOCKET,
    AllocationRefused,
    ContainerAllocation,
    DevicePlugin,
    PluginStatus,
    PodResourcesError,
    given_devices,
)
from ..errors import AgentError
from ..lock import NodeLock
from ..metrics import ERROR, SUCCESS, Metrics
from ..node import SimulatedNode
from ..prepared.store import ClaimStore
from ..records.checkpoint import Entry
from .plan import (
    ORIGIN,
    RESOURCES,
    InTheWay,
    Plan,
    Resource,
    Situation,
    allocation_of,
    best,
    offered,
    plan,
    wants_choice,
)
from .pod_annotations import ALLOCATED, CHIPS, CORES, Pod, Waiting, with_init_container
from .releases import Owner, listed_owners, over

DEVICE_PLUGIN = "DevicePlugin"
PODS = "/api/v1/pods"
POD = "/api/v1/namespaces/{namespace}/pods/{name}"

TIDY_EVERY = 3.0
"""Seconds. Nobody tells of a container's end, and until it is found out its devices seem to be held."""
SOON = 1.0
"""After an allocation, when the kubelet lists it: that tells whose it is."""
YOUNG = 10.0
"""Seconds in which an allocation may still be missing in the kubelet's list for no reason at all."""
ASK_PATIENCE = 8.0
"""For the API server, while the kubelet waits and admits no other pod."""
WISH_PATIENCE = 1.5

log = logging.getLogger(__name__)


class Api(Protocol):
    """The API server."""

    async def request(
        self, method: str, path: str, *, params: Any = None, body: Any = None, content_type: str = "application/json"
    ) -> dict[str, Any]:
        """One call, one answer."""
        ...


@dataclass(frozen=True, slots=True)
class RoadStatus:
    """How the node's device plugins stand with the kubelet."""

    offering: bool = False
    """The node gives its devices away by this road."""
    registered: bool = False
    """The kubelet counts all of the resources."""
    message: str = ""


class DevicePluginRoad:
    """See the module. `changed` is called when `status` or what is prepared has changed."""

    def __init__(
        self,
        *,
        node_name: str,
        store: ClaimStore,
        lock: NodeLock,
        kube: Api,
        metrics: Metrics,
        changed: Callable[[], None],
        folder: Path = KUBELET_DEVICE_PLUGINS_DIR,
        pod_resources: Path = KUBELET_POD_RESOURCES_SOCKET,
        look_every: float = 1.0,
        tidy_every: float = TIDY_EVERY,
    ) -> None:
        self.status = RoadStatus()
        self._node_name = node_name
        self._store = store
        self._lock = lock
        self._kube = kube
        self._metrics = metrics
        self._tell = changed
        self._folder = folder
        self._pod_resources = pod_resources
        self._look_every = look_every
        self._tidy_every = tidy_every
        self._node: SimulatedNode | None = None
        self._offer_changed = asyncio.Event()
        self._tidy_soon = asyncio.Event()
        self._plugins: dict[str, DevicePlugin] = {}
        self._made: dict[str, float] = {}
        """When this process made which entry."""
        self._owners: dict[str, Owner] = {}
        """Whose an entry was when the kubelet last listed it."""
        self._unmarked: list[Waiting] = []

    def offer(self, node: SimulatedNode | None) -> None:
        """What the node is now; None: it offers nothing."""
        self._node = node
        self._offer_changed.set()

    async def run(self) -> None:
        """Serve and tidy until cancelled; raises when the kubelet's folder is not there."""
        tidying = asyncio.create_task(self._tidy_forever())
        try:
            while True:
                if self._serving():
                    await self._serve()
                self._offer_changed.clear()
                if not self._serving():
                    await self._offer_changed.wait()
        finally:
            tidying.cancel()
            await asyncio.gather(tidying, return_exceptions=True)

    async def tidy(self) -> None:
        """Forget what nobody has any more, and complete what is not whole; raises when nobody tells."""
        async with self._lock.held():
            self._store.refresh()
            entries = self._entries()
        self._forget(entries)
        for waiting in self._unmarked:
            await self._mark(waiting)
        if entries:
            await self._release(entries, admitting=False)
            await self._repair()

    # --- serving

    def _serving(self) -> SimulatedNode | None:
        return self._node if self._node and self._node.resources == DEVICE_PLUGIN else None

    async def _serve(self) -> None:
        node = self._serving()
        assert node
        async with AsyncExitStack() as stack:
            stack.callback(self._stopped)
            for resource in RESOURCES:
                self._plugins[resource.name] = await stack.enter_async_context(self._plugin(resource, node))
            while node := self._serving():
                for resource in RESOURCES:
                    self._plugins[resource.name].publish(offered(node, resource))
                self._status_changed()
                self._offer_changed.clear()
                await self._offer_changed.wait()
            log.info("the node's devices are not for device plugins any more")
            await asyncio.gather(*(plugin.withdraw() for plugin in self._plugins.values()))

    def _plugin(self, resource: Resource, node: SimulatedNode) -> DevicePlugin:
        async def allocate(ids: Sequence[str]) -> ContainerAllocation:
            return await self._allocate(resource, ids)

        async def prefer(available: Sequence[str], must_include: Sequence[str], count: int) -> Sequence[str]:
            return await self._prefer(resource, available, must_include, count)

        return DevicePlugin(
            allocate,
            resource=resource.name,
            endpoint=resource.endpoint,
            devices=offered(node, resource),
            prefer=prefer,
            folder=self._folder,
            look_every=self._look_every,
            on_status=self._status_changed,
        )

    def _stopped(self) -> None:
        self._plugins.clear()
        self._status_changed()

    def _status_changed(self, _: PluginStatus | None = None) -> None:
        plugins = self._plugins.values()
        status = RoadStatus(
            offering=self._serving() is not None,
            registered=len(plugins) == len(RESOURCES) and all(plugin.status.registered for plugin in plugins),
            message="; ".join(dict.fromkeys(p.status.error for p in plugins if p.status.error)),
        )
        if status != self.status:
            self.status = status
            self._tell()

    # --- the kubelet asks

    async def _allocate(self, resource: Resource, ids: Sequence[str]) -> ContainerAllocation:
        started = time.perf_counter()
        result = ERROR
        try:
            given = await self._give(resource, ids)
            result = SUCCESS
        except AgentError as error:
            raise AllocationRefused(str(error)) from error
        finally:
            self._metrics.allocate[result].observe(time.perf_counter() - started)
            self._tidy_soon.set()
            self._tell()
        return given

    async def _give(self, resource: Resource, ids: Sequence[str]) -> ContainerAllocation:
        node = self._serving()
        if node is None:
            raise AgentError(
                f"node {self._node_name} does not offer {resource.name} (any more): delete the pod, so that it is "
                "scheduled again"
            )
        pods: Collection[Pod] = ()
        if wants_choice(node, resource, len(ids)):
            pods = await self._pods(ASK_PATIENCE)
        try:
            return await self._prepare(resource, ids, node, pods, settled=False)
        except InTheWay:
            # Before it is an error, look who is really there.
            await self._settle()
            pods = await self._pods(ASK_PATIENCE)
            return await self._prepare(resource, ids, node, pods, settled=True)

    async def _prepare(
        self, resource: Resource, ids: Sequence[str], node: SimulatedNode, pods: Collection[Pod], *, settled: bool
    ) -> ContainerAllocation:
        async with self._lock.held():
            self._store.refresh()
            planned = plan(resource, ids, self._situation(node, pods, settled=settled))
            for entry in planned.over:
                log.info("%s is over: the kubelet has handed out its devices anew", entry.uid)
                self._store.unprepare(entry.uid)
            given = self._store.prepare(planned.allocation, node)
            self._made[planned.allocation.uid] = time.monotonic()
        self._log(resource, ids, planned)
        if planned.waiting and planned.waiting.last:
            await self._mark(planned.waiting)
        # The request's: those of single devices are for the other road.
        cdi_devices = dict.fromkeys(device.cdi_device_ids[-1] for device in given)
        return ContainerAllocation(cdi_devices=tuple(cdi_devices))

    async def _prefer(
        self, resource: Resource, available: Sequence[str], must_include: Sequence[str], count: int
    ) -> Sequence[str]:
        node = self._serving()
        if node is None:
            return ()
        pods: Collection[Pod] = ()
        if wants_choice(node, resource, count):
            with contextlib.suppress(AgentError):
                pods = await self._pods(WISH_PATIENCE)
        async with self._lock.held():
            self._store.refresh()
            return best(resource, available, must_include, count, self._situation(node, pods, settled=False))

    def _situation(self, node: SimulatedNode, pods: Collection[Pod], *, settled: bool) -> Situation:
        return Situation(
            node=node,
            entries=list(self._store.prepared()),
            pods=pods,
            owners=self._owners,
            young=self._young(),
            settled=settled,
        )

    async def _pods(self, patience: float) -> list[Pod]:
        """The node's pods that are not over."""
        selector = f"spec.nodeName={self._node_name},status.phase!=Succeeded,status.phase!=Failed"
        error: BaseException
        try:
            async with asyncio.timeout(patience):
                while True:
                    try:
                        found = await self._kube.request("GET", PODS, params={"fieldSelector": selector})
                    except Exception as failed:
                        error = failed
                        await asyncio.sleep(0.2)
                    else:
                        return found.get("items") or []
        except TimeoutError as failed:
            error = failed
        raise AgentError(
            f"the pods of node {self._node_name} cannot be read from the API server, and only they tell which devices "
            f"were chosen for whom ({error or type(error).__name__}): start the pod again when the API server is back"
        )

    async def _mark(self, waiting: Waiting) -> None:
        """Tell the scheduler extension that a pod has got its devices. That can wait, the checkpoint knows it, too."""
        if waiting not in self._unmarked:
            self._unmarked.append(waiting)
        try:
            async with asyncio.timeout(WISH_PATIENCE):
                await self._kube.request(
                    "PATCH",
                    POD.format(namespace=waiting.namespace, name=waiting.pod),
                    # With another uid it is another pod, and the API server refuses.
                    body={"metadata": {"uid": waiting.uid, "annotations": {ALLOCATED: "true"}}},
                    content_type="application/merge-patch+json",
                )
        except Exception as error:
            if getattr(error, "status", None) not in (404, 409):
                log.warning("%s cannot be annotated: %s", waiting, error or type(error).__name__)
                return
        self._unmarked.remove(waiting)

    def _log(self, resource: Resource, ids: Sequence[str], planned: Plan) -> None:
        devices = [device.name for device in planned.allocation.devices]
        log.info(
            "%s: gave %s to %s", resource.name, ", ".join(devices), planned.waiting or "a container",
            extra={"claim_uid": planned.allocation.uid, "kubelet_ids": sorted(ids)},
        )  # fmt: skip

    # --- tidying

    async def _tidy_forever(self) -> None:
        while True:
            try:
                await self.tidy()
            except AgentError as error:
                log.warning("what pods still have cannot be found out: %s", error)
            except Exception:
                log.exception("tidying failed")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._tidy_every):
                    await self._tidy_soon.wait()
                    await asyncio.sleep(min(SOON, self._tidy_every))
            self._tidy_soon.clear()

    async def _settle(self) -> None:
        """Make way for what the kubelet asks for, as far as that is known."""
        try:
            async with self._lock.held():
                self._store.refresh()
                entries = self._entries()
            await self._release(entries, admitting=True)
        except AgentError as error:
            log.warning("what pods still have cannot be found out: %s", error)

    async def _release(self, entries: Sequence[Entry], *, admitting: bool) -> None:
        try:
            given = await given_devices(self._pod_resources)
        except PodResourcesError as error:
            raise AgentError(str(error)) from error
        listed = listed_owners(entries, given)
        self._owners |= listed
        unlisted = [entry for entry in entries if entry.uid not in listed]
        if not unlisted:
            return
        pods = await self._pods(ASK_PATIENCE)
        # While the kubelet asks for a container, all before it are listed, but for init containers of the same pod.
        expected = not admitting or with_init_container(pods, (CHIPS, CORES))
        gone = over(
            unlisted,
            given=given,
            pods=pods,
            owners=self._owners,
            young=self._young() if expected else (),
            admitting=admitting,
        )
        async with self._lock.held():
            self._store.refresh()
            for entry in gone:
                now = self._store.trace(entry.uid).entry
                if now and now.serial == entry.serial:
                    self._store.unprepare(entry.uid)
                    log.info("the container of %s is over", entry.uid, extra={"claim_uid": entry.uid})
                    self._metrics.reconciled["removed"].inc()
        if gone:
            self._tell()

    async def _repair(self) -> None:
        """Write again what is missing, for containers that the kubelet starts again without asking."""
        if self._node is None:
            return
        async with self._lock.held():
            self._store.refresh()
            for entry in self._entries():
                if not self._store.complete(entry):
                    try:
                        self._store.prepare(allocation_of(entry), self._node)
                    except AgentError as error:
                        log.warning("%s cannot be completed: %s", entry.uid, error, extra={"claim_uid": entry.uid})
                    else:
                        log.info("wrote %s again", entry.uid, extra={"claim_uid": entry.uid})
                        self._metrics.reconciled["repaired"].inc()

    def _entries(self) -> list[Entry]:
        return [entry for entry in self._store.prepared() if entry.origin == ORIGIN]

    def _young(self) -> set[str]:
        return {uid for uid, made in self._made.items() if time.monotonic() - made < YOUNG}

    def _forget(self, entries: Sequence[Entry]) -> None:
        """Keep nothing in memory of what is not in the checkpoint."""
        uids = {entry.uid for entry in entries}
        self._made = {uid: made for uid, made in self._made.items() if uid in uids}
        self._owners = {uid: owner for uid, owner in self._owners.items() if uid in uids}
