"""Carrying out a plan for gangs: many writes at a time, each answer straight back into the state.

No write waits for another one of its plan, and one that fails stops none: what remains is in the next plan. An
object that is gone, or another one by now, is no failure: the state learns of it, and the next plan is made without
it.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from neuron_operator import kube, metrics
from neuron_operator.gangs import pods, records
from neuron_operator.gangs.barrier import answer, barrier
from neuron_operator.gangs.planning import Memory
from neuron_operator.gangs.state import Reference, State
from neuron_operator.gangs.taints import reserve
from neuron_operator.gangs.writes import (
    Answer,
    Delete,
    Forget,
    LetGo,
    Make,
    Remake,
    Respec,
    Save,
    SetStatus,
    SetTaint,
    Tell,
    Write,
)
from neuron_operator.kube import Api, ApiError, Conflict, Json, NotFound

_AT_ONCE = 32
_BACKOFF = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0)
_TOO_MANY_REQUESTS = 429
# a UID that does not fit is a conflict in some versions and an invalid change in others
_ANOTHER_BY_NOW = (409, 422)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Failure:
    times: int
    until: datetime


class Writer:
    """Writes, and lets the state know. What failed is tried again after a pause of its own, which grows."""

    def __init__(self, api: Api, state: State, memory: Memory) -> None:
        self._api = api
        self._state = state
        self._memory = memory
        self._failures: dict[str, _Failure] = {}

    def due(self, writes: Sequence[Write], now: datetime) -> list[Write]:
        """Those that did not fail a moment ago."""
        keys = {_key(write): write for write in writes}
        self._failures = {key: failure for key, failure in self._failures.items() if key in keys}
        return [w for k, w in keys.items() if k not in self._failures or self._failures[k].until <= now]

    @property
    def again_at(self) -> datetime | None:
        """When the next of those that failed is due."""
        return min((failure.until for failure in self._failures.values()), default=None)

    async def write(self, writes: Sequence[Write], now: datetime) -> None:
        """Write all of it, Events first."""
        await self._each([write for write in writes if isinstance(write, Tell)], now)
        await self._each([write for write in writes if not isinstance(write, Tell)], now)

    async def look(self, references: Sequence[Reference]) -> bool:
        """Read claims and templates that pods name; whether all of them could be read."""
        return all(await asyncio.gather(*(self._look(reference) for reference in references)))

    async def _each(self, writes: Sequence[Write], now: datetime) -> None:
        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(write: Write) -> None:
            kind, verb = _what(write)
            async with gate:
                try:
                    await self._one(write, now)
                except ApiError as error:
                    metrics.WRITES.labels(kind, verb, "failed").inc()
                    logger.warning("%s of a %s for a gang failed, will be tried again: %s", verb, kind, error)
                    self._failed(_key(write), now)
                    return
            metrics.WRITES.labels(kind, verb, "done").inc()
            self._failures.pop(_key(write), None)

        await asyncio.gather(*(one(write) for write in writes))

    def _failed(self, key: str, now: datetime) -> None:
        times = self._failures[key].times + 1 if key in self._failures else 1
        pause = _BACKOFF[min(times, len(_BACKOFF)) - 1]
        self._failures[key] = _Failure(times, now + timedelta(seconds=pause))

    async def _one(self, write: Write, now: datetime) -> None:
        match write:
            case Tell():
                await self._tell(write)
            case Make():
                await self._make(write)
            case Respec() | SetStatus():
                await self._record(write)
            case SetTaint():
                await self._taint(write)
            case LetGo():
                await self._let_go(write)
            case Save():
                await self._save(write)
            case Delete():
                await self._delete(write)
            case Remake():
                await self._remake(write)
            case Forget():
                await self._forget(write)
            case Answer():
                await self._answer(write, now)

    async def _tell(self, write: Tell) -> None:
        try:
            await self._api.create(kube.EVENTS, write.event)
        except Conflict:  # told before we were started
            pass
        except ApiError as error:
            if not 400 <= error.status < 500 or error.status == _TOO_MANY_REQUESTS:
                raise
            # its namespace is about to go, for example: it will not be taken the next time either
            logger.warning("Event not written: %s", error)
        self._memory.told.add(write.key)

    async def _make(self, write: Make) -> None:
        namespace, name = write.key
        try:
            made = await self._api.create(kube.GANGS, records.manifest(write.key, write.spec))
        except Conflict:
            made = await self._api.get(kube.GANGS, name, namespace=namespace)
        self._state.gangs.seen(made, False)

    async def _record(self, write: Respec | SetStatus) -> None:
        record = write.record
        namespace, name = record.key
        try:
            if isinstance(write, SetStatus):
                answer = await self._api.merge_status(
                    kube.GANGS, name, dict(write.status), namespace=namespace, version=record.version
                )
            else:
                body = {"metadata": {"resourceVersion": record.version}, "spec": dict(write.spec)}
                answer = await self._api.merge(kube.GANGS, name, body, namespace=namespace)
        except NotFound:
            self._state.gangs.gone(f"{namespace}/{name}")
            return
        except Conflict:
            await self._look_at_gang(namespace, name)
            raise
        self._state.gangs.answered(answer)
        if isinstance(write, SetStatus) and write.status["phase"] == "RollingBack" != record.phase:
            metrics.GANG_ROLLBACKS.labels(write.status["conditions"][0]["reason"]).inc()

    async def _look_at_gang(self, namespace: str, name: str) -> None:
        try:
            self._state.gangs.answered(await self._api.get(kube.GANGS, name, namespace=namespace))
        except NotFound:
            self._state.gangs.gone(f"{namespace}/{name}")

    async def _taint(self, write: SetTaint) -> None:
        try:
            known = self._state.as_read(write.node)
            self._state.nodes.answered(await reserve(self._api, write.node, write.value, known=known))
        except NotFound:
            self._state.nodes.gone(write.node)

    async def _let_go(self, write: LetGo) -> None:
        member = write.member
        try:
            body = dict(write.patch)
            self._state.pods.answered(await self._api.merge(kube.PODS, member.name, body, namespace=member.namespace))
        except NotFound:
            self._state.pods.gone(f"{member.namespace}/{member.name}")
        except ApiError as error:
            if error.status in _ANOTHER_BY_NOW:
                await self._look_at_pod(member.namespace, member.name)
            raise

    async def _look_at_pod(self, namespace: str, name: str) -> None:
        try:
            self._state.pods.answered(await self._api.get(kube.PODS, name, namespace=namespace))
        except NotFound:
            self._state.pods.gone(f"{namespace}/{name}")

    async def _save(self, write: Save) -> None:
        record, texts = write.record, list(write.record.remake)
        for member in write.members:
            try:
                pod = await self._api.get(kube.PODS, member.name, namespace=member.namespace)
            except NotFound:
                self._state.pods.gone(f"{member.namespace}/{member.name}")
                continue
            if pod["metadata"]["uid"] != member.uid:
                self._state.pods.answered(pod)
                continue
            texts.append(records.save(uid=member.uid, pod=pods.anew(pod)))
        if len(texts) > len(record.remake):
            await self._record(SetStatus(record, {"phase": record.phase, "remake": texts}))

    async def _delete(self, write: Delete) -> None:
        member = write.member
        try:
            await self._api.delete(kube.PODS, member.name, namespace=member.namespace, uid=member.uid)
        except NotFound:
            self._state.pods.gone(f"{member.namespace}/{member.name}")
            return
        except Conflict:  # another pod of this name by now
            await self._look_at_pod(member.namespace, member.name)
            return
        # until the watch says how it goes on
        await self._look_at_pod(member.namespace, member.name)

    async def _remake(self, write: Remake) -> None:
        metadata = write.pod["metadata"]
        try:
            made = await self._api.create(kube.PODS, dict(write.pod))
        except Conflict:
            made = await self._api.get(kube.PODS, metadata["name"], namespace=metadata["namespace"])
        self._state.pods.seen(made, False)

    async def _forget(self, write: Forget) -> None:
        namespace, name = write.record.key
        with suppress(NotFound):
            await self._api.delete(kube.GANGS, name, namespace=namespace, uid=write.record.uid)
        self._state.gangs.gone(f"{namespace}/{name}")

    async def _answer(self, write: Answer, now: datetime) -> None:
        asked = write.barrier
        try:
            claim = await self._api.get(kube.CLAIMS, asked.name, namespace=asked.namespace)
            if barrier(claim) == asked:
                devices = answer(claim, complete=write.complete, message=write.message, now=records.stamp(now))
                version = claim["metadata"]["resourceVersion"]
                claim = await self._api.merge_status(
                    kube.CLAIMS, asked.name, {"devices": devices}, namespace=asked.namespace, version=version
                )
        except NotFound:
            self._state.claims.gone(f"{asked.namespace}/{asked.name}")
            return
        self._state.claims.answered(claim)

    async def _look(self, reference: Reference) -> bool:
        namespace, name, template = reference
        try:
            found: Json = await self._api.get(
                kube.CLAIM_TEMPLATES if template else kube.CLAIMS, name, namespace=namespace
            )
        except NotFound:
            self._state.looked(reference, None)
            return True
        except ApiError as error:
            logger.warning("the claims that pods of a gang name cannot be read, will be tried again: %s", error)
            return False
        allocated = not template and (found.get("status") or {}).get("allocation")
        spec = found["spec"]["spec"] if template else found["spec"]
        self._state.looked(reference, {} if allocated else spec.get("devices") or {})
        return True


def _what(write: Write) -> tuple[str, str]:
    match write:
        case Tell():
            return "Event", "create"
        case Make():
            return "NeuronGang", "create"
        case Respec() | SetStatus() | Save():
            return "NeuronGang", "patch"
        case SetTaint():
            return "Node", "patch"
        case LetGo():
            return "Pod", "patch"
        case Delete():
            return "Pod", "delete"
        case Remake():
            return "Pod", "create"
        case Forget():
            return "NeuronGang", "delete"
        case Answer():
            return "ResourceClaim", "patch"


def _key(write: Write) -> str:
    """One thing is to be done with an object at a time."""
    match write:
        case Tell(key=key):
            return f"tell {key}"
        case Make(key=(namespace, name)):
            return f"make {namespace}/{name}"
        case SetTaint(node=node):
            return f"taint {node}"
        case LetGo(member=member) | Delete(member=member):
            return f"pod {member.uid}"
        case Answer(barrier=asked):
            return f"answer {asked.uid}"
        case Remake(pod=pod):
            return f"remake {pod['metadata']['namespace']}/{pod['metadata']['name']}"
        case Respec(record=record) | SetStatus(record=record) | Save(record=record) | Forget(record=record):
            return f"gang {record.uid}"
