"""Keeps a node's pool published, whatever others do to it.

A kubelet deletes all slices of its node when it starts, and a driver's when it has not been connected for
half a minute; people and controllers edit; API servers go away and drop fields they do not know. So this
lists, watches and compares until it is stopped: list, write what `slices.plan` says, follow the watch,
write again when an event makes a difference. Whatever fails (a write, the watch, the list) starts over with
a list after a backoff, because a fresh look is the one recovery that is right after every failure.

Its view is the list, the events after it and the answers to its own writes, the newest resourceVersion of
each: without the answers, an event that is still on its way would make it create a slice twice.

Stopping leaves the slices: the next process of the driver takes them over, and no scheduler notices.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from .backoff import Backoff
from .slice_client import ApiError, SliceClient
from .slices import Identity, Plan, Pool, SliceObject, content, dropped_fields, plan

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SliceStatus:
    """How publishing stands.

    `dropped_fields`: what the API server did not keep of what it was sent, usually for a feature gate that is
    off: `devices[0].taints`, in a pool of several slices `slices[1].devices[0].taints`. It is not sent again.
    `foreign_slices`: names of slices of the same driver and node that are not ours. They are not touched.
    `error`: the last failure, until something succeeds.
    """

    synced: bool = False
    generation: int = 0
    slices: int = 0
    error: str = ""
    dropped_fields: tuple[str, ...] = ()
    foreign_slices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds.

    `settle`: before repairing what others did, since a deletion comes as several events; it doubles up to
    `settle_max` against someone who keeps undoing it. `retry`, `retry_max`: after a failure. `calm`: after
    so long without, both start over. `silence`: a watch without even a bookmark (one a minute) is taken for
    dead.
    """

    settle: float = 0.2
    settle_max: float = 30.0
    retry: float = 0.5
    retry_max: float = 60.0
    calm: float = 60.0
    silence: float = 300.0


@dataclass(slots=True)
class _Target:
    """What was published last, and what the server made of it, by slice index."""

    pool: Pool | None
    accepted: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    dropped: dict[int, tuple[str, ...]] = field(default_factory=dict)


class SliceController:
    """Publishes one driver's pool on one node; `publish` says what, `run` does it.

    `labels` mark the slices as ours: only those are changed or deleted. `on_status` is called with each new
    status, and only with a new one.
    """

    def __init__(
        self,
        client: SliceClient,
        *,
        driver_name: str,
        node_name: str,
        node_uid: str,
        labels: Mapping[str, str],
        on_status: Callable[[SliceStatus], None] | None = None,
        timing: Timing | None = None,
    ) -> None:
        self.status = SliceStatus()
        self._client = client
        self._identity = Identity(driver_name, node_name, node_uid, dict(labels))
        self._on_status = on_status
        self._timing = timing or Timing()
        self._target: _Target | None = None
        self._generation = 0
        self._objects: dict[str, SliceObject] = {}
        self._ours: set[str] = set()
        """Uids that we wrote or saw with our labels: ours also when somebody takes the labels off."""
        self._deleted: set[str] = set()
        """Uids whose deletion is known, to ignore what is still on its way about them."""
        self._changed = asyncio.Event()
        """Something may have to be done."""
        self._published = asyncio.Event()
        """Whoever waits out a delay should not."""
        self._synced = asyncio.Event()

    def publish(self, pool: Pool | None) -> None:
        """Say what is to be on the server from now on, None for nothing; not to be modified afterwards.

        Before the first call no slice is touched: what an earlier process published stays valid.
        """
        if self._target is not None and self._target.pool == pool:
            return
        self._target = _Target(pool)
        self._synced.clear()
        self._changed.set()
        self._published.set()
        self._report(synced=False)

    async def synced(self) -> None:
        """Wait until what was published last is on the server."""
        await self._synced.wait()

    async def run(self) -> None:
        """Work until cancelled. An error of the API server never ends it."""
        retry = Backoff(self._timing.retry, self._timing.retry_max, calm=self._timing.calm)
        clock = asyncio.get_running_loop().time
        while True:
            started = clock()
            try:
                await self._follow()
            except Exception as error:
                if not (isinstance(error, ApiError) and error.status == 410):
                    log.warning("publishing slices failed, trying again: %s", _text(error))
                    self._report(error=_text(error))
            await self._pause(retry.next(lasted=clock() - started))

    async def _follow(self) -> None:
        """From a list on, for as long as the watch lasts."""
        objects, version = await self._client.list(field_selector=self._identity.field_selector)
        self._relisted(objects)
        watch = asyncio.create_task(self._watch(version))
        watch.add_done_callback(lambda _: self._changed.set())
        settle = Backoff(self._timing.settle, self._timing.settle_max, calm=self._timing.calm)
        clock = asyncio.get_running_loop().time
        repaired = clock()
        try:
            while True:
                await self._sync()
                if not watch.done():
                    await self._changed.wait()
                if watch.done():
                    watch.result()
                    return
                if not self._published.is_set() and self._due():
                    self._synced.clear()
                    self._report(synced=False)
                    await self._pause(settle.next(lasted=clock() - repaired))
                    repaired = clock()
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)

    async def _watch(self, version: str) -> None:
        clock = asyncio.get_running_loop().time
        events = self._client.watch(field_selector=self._identity.field_selector, resource_version=version)
        try:
            async with asyncio.timeout(self._timing.silence) as silence, aclosing(events):
                async for kind, found in events:
                    silence.reschedule(clock() + self._timing.silence)
                    self._event(kind, found)
        except TimeoutError:
            log.info("the watch of slices is silent, starting over")

    async def _sync(self) -> None:
        """Bring the server to what is published, as far as is known here."""
        self._changed.clear()
        self._published.clear()
        self._report(foreign_slices=tuple(sorted(self._foreign())))
        target = self._target
        if target is None:
            self._report(error="")
            return
        todo = self._plan(target)
        await self._execute(todo, target)
        if self._target is not target or self._plan(target):
            return
        self._synced.set()
        self._report(
            synced=True,
            generation=todo.generation,
            slices=len(target.pool.slices) if target.pool else 0,
            error="",
            dropped_fields=tuple(path for _, paths in sorted(target.dropped.items()) for path in paths),
        )

    async def _execute(self, todo: Plan, target: _Target) -> None:
        for found in todo.deletes:
            await self._delete(found)
        for write in todo.writes:
            if self._target is not target:
                return
            self._generation = todo.generation
            call = self._client.create if write.creates else self._client.replace
            stored = await call(write.body)
            self._ours.add(stored["metadata"]["uid"])
            self._keep(stored)
            target.accepted[write.index] = content(stored, self._identity)
            target.dropped[write.index] = dropped_fields(self._identity, write, stored)
            log.debug("wrote slice %s", stored["metadata"]["name"], extra={"generation": todo.generation})

    async def _delete(self, found: SliceObject) -> None:
        metadata = found["metadata"]
        try:
            await self._client.delete(
                metadata["name"], uid=metadata["uid"], resource_version=metadata["resourceVersion"]
            )
        except ApiError as error:
            if error.status != 404:
                raise
        self._forget(metadata["uid"])

    def _plan(self, target: _Target) -> Plan:
        return plan(
            self._identity,
            target.pool,
            owned=[found for uid, found in self._objects.items() if uid in self._ours],
            generation=self._generation,
            accepted=target.accepted,
        )

    def _due(self) -> bool:
        return self._target is not None and bool(self._plan(self._target))

    def _foreign(self) -> Iterable[str]:
        return (found["metadata"]["name"] for uid, found in self._objects.items() if uid not in self._ours)

    def _relisted(self, objects: Iterable[SliceObject]) -> None:
        self._objects.clear()
        self._deleted.clear()
        for found in objects:
            self._keep(found)
        self._ours &= self._objects.keys()

    def _event(self, kind: str, found: SliceObject) -> None:
        if kind == "ERROR":
            raise ApiError(int(found.get("code", 500)), str(found.get("message", "the watch failed")))
        if kind == "BOOKMARK":
            return
        if self._forget(found["metadata"]["uid"]) if kind == "DELETED" else self._keep(found):
            self._changed.set()

    def _keep(self, found: SliceObject) -> bool:
        """Take over an object unless what is known is as new; whether it was taken."""
        metadata = {key: value for key, value in found["metadata"].items() if key != "managedFields"}
        uid = metadata["uid"]
        known = self._objects.get(uid)
        if uid in self._deleted or (known is not None and _version(known) >= _version(found)):
            return False
        self._objects[uid] = {**found, "metadata": metadata}
        if self._identity.marks(found):
            self._ours.add(uid)
        return True

    def _forget(self, uid: str) -> bool:
        self._deleted.add(uid)
        return self._objects.pop(uid, None) is not None

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._published.wait()
        self._published.clear()

    def _report(self, **changes: Any) -> None:
        status = replace(self.status, **changes)
        if status == self.status:
            return
        previous, self.status = self.status, status
        if status.dropped_fields and status.dropped_fields != previous.dropped_fields:
            log.warning(
                "the API server dropped %d fields of the slices, beginning with %s: is a feature gate off?",
                len(status.dropped_fields),
                status.dropped_fields[0],
            )
        if status.foreign_slices and status.foreign_slices != previous.foreign_slices:
            log.warning("slices of this driver that are not ours: %s", ", ".join(status.foreign_slices))
        if self._on_status is not None:
            try:
                self._on_status(status)
            except Exception:
                log.exception("the status callback failed")


def _version(found: SliceObject) -> int:
    """Comparable since Kubernetes 1.35 by contract, and before in fact."""
    return int(found["metadata"]["resourceVersion"])


def _text(error: Exception) -> str:
    if isinstance(error, ApiError):
        return f"{error.status}: {error}"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
