"""Tells pods that wait for Neuron devices why they do (``pending``, ``explaining``), now and then, and each once.

Pods are listed, not watched: a watch would bring every pod of the cluster through here twice, to find the few that
were written for another road. The API server selects those that wait for a node, and where many do, they are looked at
less often.

What no node could ever change is told at once. What lacks now is told to a few pods at a time that have waited for half
a minute, off the event loop, and the more work that is the more seldom: explaining is to cost a twentieth of a core at
most. What the operator knows of nodes is enough for it, but for device plugins and classes that are not ours.
"""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

from neuron_operator import kube, names
from neuron_operator.explaining.demand import Known, of_pod
from neuron_operator.explaining.explanation import Facts, explain_pod
from neuron_operator.explaining.modelled import modelled
from neuron_operator.fleet import Fleet
from neuron_operator.kube import Api, ApiError, Conflict
from neuron_operator.nodes import NodeFacts
from neuron_operator.pending import UNSCHEDULED, asked, event, oversized, served_resources, told, waited
from neuron_operator.planning import Snapshot

Json = dict[str, Any]

_EVERY = 10.0
_EVERY_IF_MANY = 60.0
_MANY = 200
# The API server drops Events after an hour.
_TELL_AGAIN = 3000.0
# At a pod of which there was nothing to tell.
_LOOK_AGAIN = 300.0
_WAITED = timedelta(seconds=30)
_EXPLAINED_AT_ONCE = 10
_EXPLAIN_EVERY = 30.0
# Seconds to rest for a second of work.
_REST = 20

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Objects:
    """What pods refer to."""

    classes: Sequence[Json]
    claims: Sequence[Json]
    templates: Sequence[Json]


class PendingPods:
    """The pods that wait, and which of them were told."""

    def __init__(self, api: Api, fleet: Fleet) -> None:
        self._api = api
        self._fleet = fleet
        self._told: dict[str, float] = {}
        self._explain_at = 0.0

    async def run(self) -> NoReturn:
        """Look until cancelled."""
        while True:
            pause = await self.look(datetime.now(UTC))
            await asyncio.sleep(pause)

    async def look(self, now: datetime) -> float:
        """Tell the pods that were not told yet; returns in how many seconds to look again."""
        snapshot = self._fleet.snapshot()
        if snapshot is None or not snapshot.neuron_nodes:
            return _EVERY
        try:
            waiting = (await self._api.list(kube.PODS, fields=UNSCHEDULED)).items
        except ApiError as error:
            logger.warning("pods that wait for a node cannot be listed: %s", error)
            return _EVERY
        there = {pod["metadata"]["uid"] for pod in waiting}
        still = now.timestamp() - _TELL_AGAIN
        self._told = {uid: at for uid, at in self._told.items() if uid in there and at > still}
        resources = served_resources(snapshot.neuron_nodes, snapshot.plain_pods)
        for pod in waiting if resources else ():
            found = oversized(pod, resources=resources)
            if found is not None and found.uid not in self._told:
                await self._tell(found.uid, event(found, now=_stamp(now)), now=now)
        if now.timestamp() >= self._explain_at:
            await self._explain(waiting, snapshot, resources, now=now)
        return _EVERY_IF_MANY if len(waiting) > _MANY else _EVERY

    async def _explain(
        self, waiting: Sequence[Json], snapshot: Snapshot, resources: tuple[str, ...], *, now: datetime
    ) -> None:
        """Tell the pods that have waited longest what the nodes lack for them."""
        since = _stamp(now - _WAITED)
        due = [
            pod
            for pod in waiting
            if pod["metadata"]["uid"] not in self._told
            and waited(pod, since=since)
            and oversized(pod, resources=resources) is None
            and (pod["spec"].get("resourceClaims") or asked(pod, resources))
        ]
        if not due:
            return
        due.sort(key=lambda pod: pod["metadata"].get("creationTimestamp") or "")
        began = time.thread_time()
        spaces = {pod["metadata"]["namespace"] for pod in due[:_EXPLAINED_AT_ONCE]}
        try:
            claims = (await self._api.list(kube.CLAIMS)).items
            templates = (await self._api.list(kube.CLAIM_TEMPLATES)).items
            classes = (await self._api.list(kube.DEVICE_CLASSES)).items
        except ApiError as error:
            logger.warning("claims, templates and classes cannot be listed: %s", error)
            return
        objects = _Objects(classes, claims, [t for t in templates if t["metadata"]["namespace"] in spaces])
        listing = time.thread_time() - began
        texts, judging = await asyncio.to_thread(_explained, due[:_EXPLAINED_AT_ONCE], snapshot, objects, resources)
        self._explain_at = now.timestamp() + max(_EXPLAIN_EVERY, _REST * (listing + judging))
        for pod, text in texts:
            if text:
                await self._tell(pod["metadata"]["uid"], told(pod, text, now=_stamp(now)), now=now)
            else:
                self._told[pod["metadata"]["uid"]] = now.timestamp() - _TELL_AGAIN + _LOOK_AGAIN

    async def _tell(self, uid: str, body: Json, *, now: datetime) -> None:
        regarding = body["regarding"]
        try:
            await self._api.create(kube.EVENTS, body)
        except Conflict:  # told before we were started
            pass
        except ApiError as error:
            pod = f"{regarding['namespace']}/{regarding['name']}"
            logger.warning("Event not written: %s", error, extra={"pod": pod})
            return
        self._told[uid] = now.timestamp()


def _explained(
    pods: Sequence[Json], snapshot: Snapshot, objects: _Objects, resources: tuple[str, ...]
) -> tuple[list[tuple[Json, str]], float]:
    """What to tell each pod, empty: nothing; and the processor's seconds that it took."""
    began = time.thread_time()
    known = Known(
        classes={item["metadata"]["name"]: item for item in objects.classes},
        claims={(item["metadata"]["namespace"], item["metadata"]["name"]): item for item in objects.claims},
        templates={(item["metadata"]["namespace"], item["metadata"]["name"]): item for item in objects.templates},
    )
    facts = Facts(
        nodes=[_node(node) for node in snapshot.nodes],
        neuron_nodes=snapshot.neuron_nodes,
        supplies=modelled(snapshot.neuron_nodes, objects.claims, driver_name=snapshot.driver_name),
        known=known,
    )
    ours = {snapshot.driver_name, names.DEVICE_CLASS, names.CORE_CLASS, names.PHYSICAL_CORE_CLASS}
    texts = [(pod, _text(pod, facts, ours=ours, resources=resources)) for pod in pods]
    return texts, time.thread_time() - began


def _text(pod: Json, facts: Facts, *, ours: set[str], resources: tuple[str, ...]) -> str:
    demand = of_pod(pod, facts.known)
    claims = (*demand.claims, *((demand.plain_claim,) if demand.plain_claim else ()))
    classes = {ask.device_class for claim in claims for request in claim.requests for ask in request.asks}
    # what others publish is not known here, nor what device plugins have given
    if not (classes & ours) and not demand.problems:
        return ""
    if (classes & facts.known.classes.keys()) - ours or not set(demand.plain) <= set(resources):
        return ""
    found = explain_pod(pod, facts)
    return found.summary if found.state == "waiting" else ""


def _node(node: NodeFacts) -> Mapping[str, Any]:
    """A node as an object, as far as it was kept."""
    taints = [{"key": key, "value": value, "effect": effect} for key, value, effect in node.taints]
    return {
        "metadata": {"name": node.name, "labels": node.labels},
        "spec": {"taints": taints, "unschedulable": node.unschedulable},
    }


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
