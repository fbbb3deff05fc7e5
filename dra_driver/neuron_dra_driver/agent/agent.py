"""The node agent: serves the kubelet for as long as it runs, and offers devices while its node is a Neuron node.

The two are apart on purpose. The sockets are there from the first second to the last, whatever the node is, because a
kubelet without its driver cannot end pods. The slices are there while the node has a NeuronNode (or the agent was
started with an instance type, then it works alone and reads no CRD) and it can be offered. They stay when the agent
stops: the next one takes over.

Where another driver of the same name publishes for the node, that one is real: nothing is published, and the kubelet
is not told of this one, because it would prefer the newest and ask it to prepare the other's claims.

    NeuronNode ─▶ SimulatedNode ─▶ slices            claims ◀─ kubelet
                       └────────▶ prepare ─▶ files, CDI, checkpoint
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..activity.service import ActivityService
from ..api_server.counter_support import keeps_counters
from ..api_server.kube import Kube
from ..claims.claim_cache import ClaimCache
from ..claims.driver import NodeDriver
from ..claims.reconcile import reconcile
from ..clock import SteadyClock
from ..device_plugin_road.road import DEVICE_PLUGIN, DevicePluginRoad
from ..efa.service import EfaService
from ..errors import AgentError, NodeError
from ..hardware.service import Hardware
from ..kubeletplugin import (
    ApiError,
    HealthMonitor,
    HealthStatus,
    KubeletPlugin,
    Pool,
    Registration,
    Slice,
    SliceController,
    SliceStatus,
)
from ..lock import NodeLock
from ..metrics import Metrics
from ..names import EFA_DRIVER_NAME, SIMULATED
from ..node import SimulatedNode, from_neuron_node
from ..prepared.claim_folders import ClaimFolders
from ..prepared.runtime_tree import RuntimeTrees
from ..prepared.store import ClaimStore
from ..records.checkpoint import Checkpoint
from ..reporting.claim_status import ClaimStatus
from ..reporting.device_health import card_health, device_health, faults_of_held, faults_of_held_card
from ..reporting.pod_events import PodEvents
from ..reporting.pod_warning import PodRef, tell, warning
from ..reporting.prepared_claims import Source
from ..supervision import cancel, forever
from ..ultraserver.service import ultraserver_service
from . import health, http_server
from .readiness import readiness
from .settings import Settings
from .status import Readiness, neuron_node_status

RECONCILE_EVERY = 300.0
UNKNOWN_AGAIN = 30.0
FIRST_LOOK = 5.0
FIRST_ANSWER = 10.0

log = logging.getLogger(__name__)


class RealDriverFound(NodeError):
    """Another driver of this name publishes for this node."""

    def __init__(self, driver: str, node: str, slices: tuple[str, ...]) -> None:
        super().__init__(
            "RealDriverFound",
            f"another driver {driver} publishes devices for node {node} (ResourceSlice {', '.join(slices)}, without "
            f"the label {SIMULATED}): a node has either real or simulated devices; remove that driver from the node, "
            "or leave the node out of the pool, or give the simulated driver another name (chart value driverName, "
            "flag --driver-name)",
        )


class Agent:
    """One node's agent. See the module."""

    def __init__(self, settings: Settings, kube: Kube) -> None:
        self._settings = settings
        self._kube = kube
        self._metrics = Metrics()
        self._lock = NodeLock(self._driver_dir)
        self._store = ClaimStore(
            driver=settings.driver_name,
            cdi_directory=settings.cdi_dir,
            run_directory=settings.run_dir / settings.driver_name,
            checkpoint=Checkpoint(self._driver_dir),
            trees=RuntimeTrees(settings.runtime_tree, settings.state_dir / settings.driver_name),
        )
        self._claims = ClaimCache(kube, driver=settings.driver_name, pool=settings.node_name)
        driver = NodeDriver(
            driver=settings.driver_name,
            pool=settings.node_name,
            read_claim=kube.claim_patiently,
            store=self._store,
            lock=self._lock,
            node=self._serving_node,
            changed=self._claims_changed,
            metrics=self._metrics,
            cache=self._claims,
        )
        self._health = HealthMonitor()
        self._plugin = KubeletPlugin(
            driver,
            driver_name=settings.driver_name,
            plugins_dir=settings.plugins_dir,
            registry_dir=settings.registry_dir,
            instance=settings.pod_uid,
            on_registration=self._registered,
            health=self._health,
        )
        self._efa = EfaService(
            node_name=settings.node_name,
            kube=kube,
            plugins_dir=settings.plugins_dir,
            registry_dir=settings.registry_dir,
            cdi_dir=settings.cdi_dir,
            instance=settings.pod_uid,
            node=self._serving_node,
            claims_changed=self._cards_changed,
        )
        sources = (
            Source(settings.driver_name, self._store.prepared, faults_of_held),
            Source(EFA_DRIVER_NAME, self._efa.service.prepared, faults_of_held_card),
        )
        self._claim_status = ClaimStatus(
            field_manager=settings.driver_name,
            request=kube.request,
            read_claim=kube.claim,
            sources=sources,
            node=self._offered,
        )
        self._pod_events = PodEvents(
            node_name=settings.node_name,
            request=kube.request,
            read_claim=kube.claim,
            sources=sources,
            node=self._offered,
            kubelet_listens=lambda: self._health.watchers > 0,
        )
        self._road = DevicePluginRoad(
            node_name=settings.node_name,
            store=self._store,
            lock=self._lock,
            kube=kube,
            metrics=self._metrics,
            changed=self._claims_changed,
            folder=settings.device_plugins_dir,
            pod_resources=settings.pod_resources_dir / "kubelet.sock",
        )
        clock = SteadyClock()
        self._hardware = Hardware(self._driver_dir, node=self._offered, clock=clock)
        self._activity = ActivityService(
            store=self._store,
            lock=self._lock,
            folders=ClaimFolders(settings.run_dir / settings.driver_name),
            node=self._offered,
            list_pods=self._pods,
            hardware=self._hardware,
            directory=self._driver_dir,
            tell_pod=self._tell_of_profile,
            clock=clock,
        )
        self._ultraserver = ultraserver_service(
            node_name=settings.node_name,
            read_claim=kube.claim,
            plugins_dir=settings.plugins_dir,
            registry_dir=settings.registry_dir,
            cdi_dir=settings.cdi_dir,
            instance=settings.pod_uid,
            node=self._serving_node,
        )
        """Neither is used by an agent that stands alone: it may stand beside the chart's, and each has one name."""
        self._slices: SliceController | None = None
        self._counters = True
        """Whether the API server keeps them; known before the first slice is published."""
        self._node = settings.standalone
        self._problem: NodeError | None = None
        self._known = asyncio.Event()
        """It is known what the node is. Until then, what an earlier process left stays as it is."""
        if settings.standalone:
            self._known.set()
        self._neuron_node: dict[str, Any] | None = None
        self._refused: RealDriverFound | None = None
        self._serving_due = asyncio.Event()
        self._serving = False
        self._status_due = asyncio.Event()
        self._reconcile_due = asyncio.Event()
        self._refusal = asyncio.Event()

    @property
    def _driver_dir(self) -> Path:
        return self._settings.plugins_dir / self._settings.driver_name

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until told to stop; raises when there is no sense in going on."""
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self._store.close)
            stack.callback(self._lock.close)
            stack.push_async_callback(self._leave)
            async with self._lock.held():
                self._store.refresh()
            await self._look_for_real_driver()
            if self._settings.standalone and self._refused:
                raise self._refused
            server = await http_server.serve(
                {"/metrics": self._metrics_page, "/healthz": self._health_page, "/readyz": self._ready_page},
                port=self._settings.metrics_port,
            )
            stack.callback(server.close)
            work = [
                # Its first word is on the way while the sockets are made.
                forever("slices", self._publish_slices),
                self._serve_kubelet(),
                forever("claims", self._claims.follow),
                forever("reconcile", self._reconcile),
                forever("claim status", self._claim_status.run),
                forever("pod events", self._pod_events.run),
                forever("activity", self._activity.run),
                forever("activity profiles", self._activity.follow_pods),
            ]
            if self._settings.standalone:
                work += [self._fail_when_refused()]
            else:
                work += [
                    forever("neuron node", self._follow_neuron_node),
                    forever("device plugins", self._road.run),
                    forever("EFA kubelet", self._efa.service.serve),
                    forever("EFA slices", self._efa.publish),
                    forever("EFA claims", self._efa.service.reconcile),
                    forever("UltraServer kubelet", self._ultraserver.serve),
                    forever("UltraServer claims", self._ultraserver.reconcile),
                    forever("status", self._report_status, failed=self._status_due.set),
                ]
            tasks = [asyncio.create_task(one) for one in work]
            stack.push_async_callback(cancel, tasks)
            stopped = asyncio.create_task(stop.wait())
            stack.push_async_callback(cancel, [stopped])
            await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for ended in tasks:
                if ended.done():
                    ended.result()
            log.info("stopping; what is published stays")

    async def _leave(self) -> None:
        """Take everything along from a node that is no Neuron node: the chart may be on its way out."""
        if not self._known.is_set() or self._node or self._neuron_node:
            return
        try:
            async with self._lock.held():
                self._store.refresh()
                # the checkpoint takes the folder along
                self._hardware.discard()
                self._activity.discard()
                self._store.discard()
        except AgentError as error:
            log.warning("something is left on the node: %s", error)

    # --- the kubelet

    async def _serve_kubelet(self) -> None:
        """Serve, but not beside a real driver unless claims are left to unprepare."""
        while True:
            if not self._superfluous():
                async with self._plugin:
                    self._serving = True
                    while not self._superfluous():
                        await self._serving_due.wait()
                        self._serving_due.clear()
                    self._serving = False
                self._plugin.registration = None
                self._metrics.registered.set(0)
            await self._serving_due.wait()
            self._serving_due.clear()

    async def _fail_when_refused(self) -> None:
        """Alone, nobody reads a status: the sentence goes to whoever started the process."""
        await self._refusal.wait()
        assert self._refused
        raise self._refused

    def _superfluous(self) -> bool:
        return self._refused is not None and not self._store.prepared()

    def _registered(self, registration: Registration) -> None:
        self._metrics.registered.set(int(registration.registered))
        self._status_due.set()

    # --- what the node is

    async def _serving_node(self) -> SimulatedNode:
        """What the node is; an AgentError tells why it has nothing to give.

        The kubelet asks as soon as the sockets are there, so the first answer may have to wait for the API server.
        """
        if not self._known.is_set():
            await self._wait_to_know()
        if self._refused:
            raise self._refused
        if self._problem:
            raise self._problem
        if self._node is None:
            raise AgentError(
                f"node {self._settings.node_name} is not a Neuron node (any more): it has no NeuronNode; delete the "
                "pod, so that it is scheduled elsewhere, or let a NeuronNodePool select the node"
            )
        return self._node

    async def _wait_to_know(self) -> None:
        try:
            async with asyncio.timeout(FIRST_ANSWER):
                await self._known.wait()
        except TimeoutError:
            raise AgentError(
                f"the NeuronNode of {self._settings.node_name} cannot be read from the API server yet; the kubelet "
                "tries again"
            ) from None

    async def _follow_neuron_node(self) -> None:
        """From asking for the NeuronNode on, for as long as the watch lasts."""
        try:
            async with contextlib.aclosing(self._kube.follow_neuron_node(self._settings.node_name)) as changes:
                async for neuron_node in changes:
                    self._neuron_node_changed(neuron_node)
        except ApiError as error:
            if error.status == 404:  # no CRD: nobody can wish for Neuron nodes
                self._neuron_node_changed(None)
            raise

    def _neuron_node_changed(self, neuron_node: dict[str, Any] | None) -> None:
        before, self._neuron_node = self._neuron_node, neuron_node
        self._known.set()
        if neuron_node and before and neuron_node.get("spec") == before.get("spec"):
            # Not even the status is written again: in a rolling update it may be the other agent's.
            return
        self._activity.faults_change()
        if neuron_node is None or "deletionTimestamp" in neuron_node["metadata"]:
            if before is not None:
                log.info("the NeuronNode is gone: nothing is offered any more")
            self._neuron_node = self._node = self._problem = None
        else:
            try:
                self._node, self._problem = from_neuron_node(neuron_node), None
            except NodeError as error:
                log.error("this node cannot be offered: %s", error, extra={"reason": error.reason})
                self._node, self._problem = None, error
        self._publish()
        self._status_due.set()
        self._reconcile_due.set()

    # --- slices

    async def _publish_slices(self) -> None:
        self._counters = await keeps_counters(
            self._kube.request, driver=self._settings.driver_name, node=self._settings.node_name
        )
        self._slices = SliceController(
            self._kube.slices,
            driver_name=self._settings.driver_name,
            node_name=self._settings.node_name,
            node_uid=await self._kube.node_uid(self._settings.node_name),
            labels={SIMULATED: "true"},
            on_status=self._slices_changed,
        )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.kubelet_patience):
                await self._plugin.wait_registered()
        self._publish()
        await self._slices.run()

    def _offered(self) -> SimulatedNode | None:
        return self._node if not self._refused else None

    def _publish(self) -> None:
        node = self._offered()
        found = device_health(node) if node else {}
        self._metrics.devices.set(len(node.devices) if node else 0)
        self._metrics.unhealthy.set(sum(one.status is HealthStatus.UNHEALTHY for one in found.values()))
        self._metrics.node(_labels_of(node) if node else {})
        self._health.set(found)
        self._claim_status.wake()
        self._pod_events.wake()
        self._activity.faults_changed()
        by_plugin = node is not None and node.resources == DEVICE_PLUGIN
        self._road.offer(node)
        if self._known.is_set():
            cards = node if self._settings.efa and not by_plugin else None
            self._efa.offer(cards, card_health(cards) if cards else {})
            self._ultraserver.offer(node is not None and node.seat is not None and not by_plugin)
        if self._slices and self._known.is_set():
            pages = self._pages(node) if node and not by_plugin else ()
            self._slices.publish(Pool(self._settings.node_name, pages) if pages else None)

    def _pages(self, node: SimulatedNode) -> tuple[Slice, ...]:
        offer = node.offer if self._counters else node.offer.without_counters()
        return tuple(Slice(devices=page.devices, shared_counters=page.counter_sets) for page in offer.pages())

    def _slices_changed(self, status: SliceStatus) -> None:
        if status.foreign_slices:
            self._refuse(status.foreign_slices)
        elif self._refused and status.synced:  # only then are the slices of the node known
            log.info("the other driver's slices are gone")
            self._refused = None
            self._serving_due.set()
            self._publish()
        self._status_due.set()

    async def _look_for_real_driver(self) -> None:
        """Before the kubelet hears of this driver. An API server that is away is no reason to let pods wait."""
        selector = f"spec.driver={self._settings.driver_name},spec.nodeName={self._settings.node_name}"
        try:
            async with asyncio.timeout(FIRST_LOOK):
                slices, _ = await self._kube.slices.list(field_selector=selector)
        except Exception as error:
            log.warning("cannot look for another driver yet: %s", error or type(error).__name__)
            return
        names = [s["metadata"]["name"] for s in slices if (s["metadata"].get("labels") or {}).get(SIMULATED) != "true"]
        if names:
            self._refuse(tuple(names))

    def _refuse(self, slices: tuple[str, ...]) -> None:
        if self._refused:
            return
        self._refused = RealDriverFound(self._settings.driver_name, self._settings.node_name, slices)
        log.error("%s", self._refused)
        self._refusal.set()
        self._serving_due.set()
        self._publish()

    # --- claims

    def _cards_changed(self) -> None:
        self._claim_status.wake()
        self._pod_events.wake()

    def _claims_changed(self) -> None:
        """After every call of the kubelet: nothing here may cost."""
        self._status_due.set()
        if self._refused:
            self._serving_due.set()
        self._cards_changed()
        self._activity.wake()
        if self._node is None:
            self._reconcile_due.set()  # the runtime goes with the last claim

    async def _reconcile(self) -> None:
        """Once, and then again when there is a reason to, or some time has passed."""
        while True:
            self._reconcile_due.clear()
            async with self._lock.held():
                self._store.refresh()
                if self._node:
                    await _in_thread(self._store.install_runtime)
            done = await reconcile(
                driver=self._settings.driver_name,
                pool=self._settings.node_name,
                read_claim=self._kube.claim,
                store=self._store,
                lock=self._lock,
                node=self._node,
            )
            self._metrics.reconciled["removed"].inc(done.removed)
            self._metrics.reconciled["repaired"].inc(done.repaired)
            async with self._lock.held():
                self._store.refresh()
                if self._known.is_set():
                    self._store.prune_runtimes(serving=bool(self._node or self._neuron_node))
            if done.removed or done.repaired:
                self._claims_changed()
            self._status_due.set()  # somebody else may have written it
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(UNKNOWN_AGAIN if done.unknown else RECONCILE_EVERY):
                    await self._reconcile_due.wait()

    # --- status

    def _readiness(self) -> Readiness:
        return readiness(
            obstacle=self._refused or self._problem,
            registration=self._plugin.registration,
            slices=self._slices.status if self._slices else SliceStatus(),
            node=self._node,
            road=self._road.status,
            counters=self._counters,
        )

    def _other_road_claims(self) -> int:
        """What running pods still have by the road that the node does not go any more."""
        if self._node is None:
            return 0
        by_plugin = self._node.resources == DEVICE_PLUGIN
        return sum((entry.origin == "device-plugin") != by_plugin for entry in self._store.prepared())

    async def _report_status(self) -> None:
        reported: dict[str, Any] = {}
        while True:
            await self._status_due.wait()
            self._status_due.clear()
            async with self._lock.held():
                self._store.refresh()
            neuron_node = self._neuron_node
            if neuron_node is None:
                continue
            readiness = self._readiness()
            status = neuron_node_status(
                neuron_node,
                readiness=readiness,
                devices=self._node.instance_type.chips if self._node and not self._refused else 0,
                prepared_claims=len(self._store.prepared()),
                other_road_claims=self._other_road_claims(),
                quarantined=[path.name for path in self._store.quarantined()],
                now=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            )
            current = neuron_node.get("status") or {}
            # What was written last may be on its way back yet, so both have to agree.
            if status != reported or status != {key: current.get(key) for key in status}:
                try:
                    await self._kube.patch_neuron_node_status(self._settings.node_name, status)
                except ApiError as error:
                    if error.status != 404:
                        raise
                else:
                    reported = status
            await asyncio.sleep(self._settings.status_interval)

    # --- pages

    async def _metrics_page(self) -> tuple[int, bytes]:
        self._metrics.prepared_claims.set(len(self._store.prepared()))
        self._metrics.quarantined.set(len(self._store.quarantined()))
        return 200, self._metrics.render() + self._activity.metrics().encode()

    async def _health_page(self) -> tuple[int, bytes]:
        if not self._serving or await health.answers(self._plugin.service_socket):
            return 200, b"ok\n"
        return 503, b"the DRA socket does not answer\n"

    async def _ready_page(self) -> tuple[int, bytes]:
        """Not before the kubelet knows this agent: in a rolling update the other one goes when this one is ready."""
        if self._serving and not (self._plugin.registration and self._plugin.registration.registered):
            return 503, b"the kubelet has not registered the driver\n"
        return await self._health_page()

    # --- pods

    async def _pods(self) -> list[dict[str, Any]]:
        """The node's pods, as the API server remembers them. An agent that stands alone need not be let see them."""
        if self._settings.standalone:
            return []
        selector = f"spec.nodeName={self._settings.node_name}"
        params = {"fieldSelector": selector, "resourceVersion": "0"}
        return (await self._kube.request("GET", "/api/v1/pods", params=params)).get("items") or []

    async def _tell_of_profile(self, pod: Mapping[str, Any], sentence: str) -> None:
        event = warning(
            PodRef(*(pod["metadata"][key] for key in ("namespace", "name", "uid"))),
            reason="UnknownActivityProfile",
            action="ReadAnnotations",
            note=sentence,
            about=[sentence],
            reporter=self._settings.node_name,
            now=datetime.now(UTC),
        )
        await tell(self._kube.request, event)


async def _in_thread(function: Callable[[], None]) -> None:
    """Off the event loop, and to its end also when cancelled: the lock that the caller holds must not go before."""
    work = asyncio.create_task(asyncio.to_thread(function))
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.gather(work, return_exceptions=True)
        raise


def _labels_of(node: SimulatedNode) -> dict[str, object]:
    seat = node.seat
    return {
        "instance_type": node.instance_type.name,
        "ultraserver_id": seat.id if seat else "",
        "ultraserver_node": seat.node if seat else "",
    }
