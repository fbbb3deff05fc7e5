"""The life of the operator's process.

Answer liveness from the start; wait for the Lease; then watch and reconcile. On SIGTERM the order matters:
first nothing is written any more, then the Lease is released for the next replica, and kopf, which only
reads, is stopped last. A lost Lease, or anything that fails for good, ends the process: restarting is
Kubernetes' job, and a start from nothing is the best tested path there is.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import kopf

from neuron_operator import conditions, endpoints, garbage, kube, metrics, webhook
from neuron_operator.breaking import Breaking
from neuron_operator.fleet import Fleet
from neuron_operator.gangs.controller import Gangs
from neuron_operator.gangs.pod_groups import PodGroups
from neuron_operator.handlers import watches
from neuron_operator.kube import Api, ApiError, Kube, NotFound
from neuron_operator.leader import LeaderElection, LeadershipLost
from neuron_operator.ledger import Ledger
from neuron_operator.notices import PendingPods
from neuron_operator.reconciler import RealNeuronFound, Reconciler
from neuron_operator.ultraservers.loop import MOST_DEVICES, UltraServers

_LEASE = "neuron-sim-operator"
_CRD_POLL = 5.0
_TURN = 0.001
"""Seconds for which a thread that plans a large fleet keeps the loop waiting, whenever something happens there."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    driver_name: str
    namespace: str
    identity: str
    health_port: int
    metrics_port: int
    gangs: bool = True
    pod_groups: bool = False
    """Leave gangs to kube-scheduler's PodGroups."""
    gang_barrier: bool = False
    """Offer the commit barrier, and answer those who wait there."""
    virtual_nodes: bool = False
    ultraserver_devices: int = MOST_DEVICES
    """How many UltraServers there may be for them to be devices."""
    kubeconfig: str | None = None
    webhook_port: int = 9443
    webhook_certificates: Path | None = None
    """None: no webhook."""


async def run(options: Options) -> int:
    """Run until a signal or a failure; returns an exit code."""
    stop = asyncio.Event()
    _stop_on_signals(stop)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(
            endpoints.serve(health_port=options.health_port, metrics_port=options.metrics_port)
        )
        if options.webhook_certificates is not None:
            await stack.enter_async_context(
                webhook.serve(port=options.webhook_port, certificates=options.webhook_certificates)
            )
        api = await stack.enter_async_context(kube.connect(options.kubeconfig))
        election = LeaderElection(api, name=_LEASE, namespace=options.namespace, identity=options.identity)
        if not await _unless(stop, election.acquire()):
            return 0
        metrics.LEADER.set(1)
        try:
            return await _lead(options, api=api, election=election, stop=stop)
        except LeadershipLost as lost:
            logger.error("%s", lost)
            # Another replica may act any moment now: no clean-up that could still write something.
            logging.shutdown()
            os._exit(1)


async def _lead(options: Options, *, api: Kube, election: LeaderElection, stop: asyncio.Event) -> int:
    sys.setswitchinterval(_TURN)
    fleet = Fleet(driver_name=options.driver_name, virtual_nodes=options.virtual_nodes)
    reconciler = Reconciler(api=api, fleet=fleet, driver_name=options.driver_name)
    ledger = Ledger()
    ultraservers = UltraServers(
        api=api,
        fleet=fleet,
        driver_name=options.driver_name,
        namespace=options.namespace,
        wrote=reconciler.wake,
        ledger=ledger,
        most_devices=options.ultraserver_devices,
        barrier=options.gang_barrier,
    )

    def wake(relist: bool) -> None:
        reconciler.wake(relist=relist)
        ultraservers.wake()

    registry = kopf.OperatorRegistry()
    breaking = Breaking(api=api, fleet=fleet)
    watches.register(registry, fleet=fleet, wake=wake, fault=breaking.seen)
    ready = asyncio.Event()

    async def reconcile() -> None:
        await _crds_served(api, gangs=options.gangs)
        watching.set()
        await reconciler.run()

    async def watch() -> None:
        await watching.wait()
        await kopf.operator(
            registry=registry,
            settings=watches.settings(),
            # kopf would else ask the system for the user's name, which a container's user need not have
            identity=cast(Any, options.identity),
            standalone=True,
            clusterwide=True,
            ready_flag=ready,
        )

    async def signals_back() -> None:
        await ready.wait()  # kopf takes the signals for itself when it starts
        _stop_on_signals(stop)

    async def gangs() -> None:
        await watching.wait()
        if options.gangs:
            placing = Gangs(api=api, driver_name=options.driver_name, ledger=ledger, barrier=options.gang_barrier)
            await placing.run(api)
        ledger.report("gangs", {})
        await asyncio.Event().wait()

    async def pod_groups() -> None:
        await watching.wait()
        if options.pod_groups:
            await PodGroups(api).run(api)
        await asyncio.Event().wait()

    watching = asyncio.Event()

    # kopf ends all tasks that were not there when it started: ours have to be
    async def nodes() -> None:
        await watching.wait()
        await watches.follow_nodes(api, fleet=fleet, wake=wake, reserved=ultraservers.gangs_moved)

    writers = (
        reconcile(),
        nodes(),
        breaking.run(),
        PendingPods(api, fleet).run(),
        ultraservers.run(),
        ultraservers.follow(api),
        gangs(),
        pod_groups(),
        garbage.collect(),
    )
    writing = [asyncio.create_task(work) for work in writers]
    keeping, kopf_running, stopping = (asyncio.create_task(work) for work in (election.keep(), watch(), stop.wait()))
    tasks = [*writing, keeping, kopf_running, stopping]
    rearming = asyncio.create_task(signals_back())
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)

    if keeping.done():
        keeping.result()  # raises LeadershipLost
    for task in (*writing, keeping):
        await _ended(task)
    code = await _explain(*writing, kopf_running, options=options, api=api)
    await election.release()
    for task in (rearming, kopf_running, stopping):
        await _ended(task)
    return code


async def _explain(*tasks: asyncio.Task[Any], options: Options, api: Api) -> int:
    """Say why it ends; returns the exit code."""
    for task in tasks:
        error = task.exception() if task.done() and not task.cancelled() else None
        if isinstance(error, RealNeuronFound):
            logger.error("%s", error)
            await _tell_pod(str(error), options=options, api=api)
            return 1
        if error is not None:
            logger.error("the operator failed", exc_info=error)
            return 1
    return 0


async def _tell_pod(text: str, *, options: Options, api: Api) -> None:
    """Event on our own pod: there may be no pool yet that could tell it."""
    uid = os.environ.get("POD_UID")
    if uid is None:
        return
    event = conditions.event(
        regarding={
            "apiVersion": "v1",
            "kind": "Pod",
            "name": options.identity,
            "namespace": options.namespace,
            "uid": uid,
        },
        kind="Warning",
        reason="RealNeuronFound",
        note=text,
        action="Start",
        cause="start",
        now=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        namespace=options.namespace,
    )
    try:
        await api.create(kube.EVENTS, event)
    except ApiError as error:
        logger.warning("Event not written: %s", error)


async def _crds_served(api: Api, *, gangs: bool) -> None:
    """Wait for the CRDs, because kopf looks for the kinds only once, when it starts."""
    told = False
    while True:
        try:
            await api.list(kube.POOLS)
            await api.list(kube.NEURON_NODES)
            await api.list(kube.FAULTS)
            if gangs:  # else there is no right to
                await api.list(kube.GANGS)
            await api.list(kube.ULTRASERVER_WORKLOADS)
            await api.list(kube.ULTRASERVERS)
        except NotFound:
            if not told:
                logger.warning("the CRDs are not installed: run `python -m neuron_operator install-crds`")
            told = True
        except ApiError as error:
            logger.warning("the cluster cannot be looked at, will try again: %s", error)
        else:
            return
        await asyncio.sleep(_CRD_POLL)


def _stop_on_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Do some work unless stopped before it is done; whether it was done."""
    tasks = [asyncio.create_task(work), asyncio.create_task(stop.wait())]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    done = tasks[0].done()
    for task in tasks:
        await _ended(task)
    if done:
        tasks[0].result()
    return done


async def _ended(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
        await task
