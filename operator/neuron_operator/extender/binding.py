"""`bind`: choose the ids, and bind the pod with them in one write.

One binding at a time on each node, so that two pods never choose from the same picture, and that the device plugin
meets pods in the order of their NEURON_ALLOC_TIME. One at a time for each pod, because kube-scheduler tries again
after its own timeout, which can be shorter than ours.

An answer that did not arrive is not a refusal: the pod is read again, and where that does not tell either, the ids
stay taken until it must have been decided.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any

from neuron_operator import kube
from neuron_operator.extender import names
from neuron_operator.extender.demand import Demand, Holding, demand
from neuron_operator.extender.occupancy import Refusal, ServedNode, place
from neuron_operator.extender.state import State
from neuron_operator.kube import ApiError, Conflict, Kube, NotFound

logger = logging.getLogger(__name__)


class NotBound(Exception):
    """The pod is not bound; the text is for the Event that kube-scheduler writes."""


class Binder:
    """Binds pods."""

    def __init__(self, api: Kube, state: State) -> None:
        self._api = api
        self._state = state
        self._locks: dict[str, asyncio.Lock] = {}
        self._under_way: set[str] = set()
        self._last_time = 0

    async def bind(self, *, namespace: str, name: str, uid: str, node: str) -> None:
        """Bind a pod to a node; raises ``NotBound``."""
        if uid in self._under_way:
            raise NotBound(f"pod {namespace}/{name} is being bound already")
        self._under_way.add(uid)
        try:
            async with self._locks.setdefault(node, asyncio.Lock()):
                await self._bind(namespace=namespace, name=name, uid=uid, node=node)
        finally:
            self._under_way.discard(uid)

    async def _bind(self, *, namespace: str, name: str, uid: str, node: str) -> None:
        if not self._state.complete:
            raise NotBound("the scheduler extension has just started and does not know all pods yet")
        served = self._state.served(node)
        annotations: dict[str, str] = {}
        if served is not None:
            wanted = await self._wanted(namespace, name, uid)
            if wanted:
                annotations = self._choose(served, wanted, pod=f"{namespace}/{name}", uid=uid)
        if annotations:
            logger.info("Updating POD Annotation with alloc devices!", extra={"pod": f"{namespace}/{name}"})
        try:
            await self._api.bind(namespace=namespace, name=name, uid=uid, node=node, annotations=annotations)
        except ApiError as error:
            if not _uncertain(error):
                self._state.forget(uid)
                raise NotBound(str(error)) from error
            await self._ask(error, namespace=namespace, name=name, uid=uid, node=node)
        self._state.acknowledge(uid)
        if annotations:
            logger.info("Updating the DevUsageMap since the bind is successful!", extra={"node": node})

    async def _wanted(self, namespace: str, name: str, uid: str) -> Demand:
        try:
            pod = await self._api.get(kube.PODS, name, namespace=namespace)
        except ApiError as error:
            raise NotBound(str(error)) from error
        if pod["metadata"]["uid"] != uid:
            raise NotBound(f"pod {namespace}/{name} was deleted, another one has its name")
        return demand(pod)

    def _choose(self, served: ServedNode, wanted: Demand, *, pod: str, uid: str) -> dict[str, str]:
        taken = self._state.occupancy(served, but=uid)
        used = taken.usage_maps()[names.CHIP_MAP if wanted.chips else names.CORE_MAP].replace(",", " ")
        logger.info("neuronDevUsageMap for resource:%s in node: %s is [%s]", wanted.resource, served.name, used)
        ids = place(taken, wanted)
        if isinstance(ids, Refusal):
            raise NotBound(f"{served.name}: {ids.reason}")
        self._last_time = max(self._last_time + 1, time.time_ns())
        self._state.assume(Holding(uid, pod, served.name, wanted, ids, order=("~", "")))
        listed = ",".join(map(str, ids))
        logger.info("Allocated ids for POD %s are: %s", pod, listed, extra={"node": served.name, "ids": ids})
        annotations = {
            names.IDS: listed,
            names.ALLOC_TIME: str(self._last_time),
            names.ALLOCATED: "false",
        }
        return annotations | ({names.RESOURCE_TYPE: names.CORES} if wanted.cores else {})

    async def _ask(self, error: ApiError, *, namespace: str, name: str, uid: str, node: str) -> None:
        """Find out what became of a binding without answer."""
        try:
            pod: Mapping[str, Any] = await self._api.get(kube.PODS, name, namespace=namespace)
        except ApiError:
            pod = {"metadata": {"uid": uid}}
        if pod["metadata"]["uid"] == uid and (pod.get("spec") or {}).get("nodeName") == node:
            return
        self._state.doubt(uid)
        raise NotBound(f"no answer to the binding: {error}") from error


def _uncertain(error: ApiError) -> bool:
    return not isinstance(error, NotFound | Conflict) and (error.status == 0 or error.status >= 500)
