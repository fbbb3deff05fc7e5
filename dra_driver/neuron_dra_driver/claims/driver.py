"""The driver's answers to the kubelet: claims from the API server in, prepared claims out.

Claims come in two ways. Most were announced by a watch before the kubelet asks (`claim_cache`); such an allocation is
prepared only where nothing speaks against it. For all others, and for whatever did not succeed, the API server is
asked: every refusal is by its word, and only it says that a holder of a device is gone.

What waits for the network comes first and for all claims at once; the lock is held for nothing but the local disk.
That work is done on the event loop and not in a thread: it is a few hundred microseconds a claim, as much as handing
it to a thread and back costs.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from ..allocations.allocation import Allocation, Claim, allocation_on, still_holds
from ..allocations.grants import is_of
from ..errors import AgentError, ClaimError
from ..kubeletplugin import ClaimRef, PreparedDevice, PrepareResult, UnprepareResult
from ..lock import NodeLock
from ..metrics import ERROR, SUCCESS, Durations, Metrics
from ..node import SimulatedNode
from ..prepared.store import ClaimStore
from ..records.checkpoint import Entry
from .claim_cache import ClaimCache

log = logging.getLogger(__name__)

ReadClaim = Callable[[str, str], Awaitable[Claim | None]]
"""Namespace and name → the claim as it is now, None when there is none; raises when the API server does not tell."""


class NodeDriver:
    """Implements `kubeletplugin.DRADriver`."""

    def __init__(
        self,
        *,
        driver: str,
        pool: str,
        read_claim: ReadClaim,
        store: ClaimStore,
        lock: NodeLock,
        node: Callable[[], Awaitable[SimulatedNode]],
        changed: Callable[[], None],
        metrics: Metrics,
        cache: ClaimCache | None = None,
    ) -> None:
        """`node` raises an AgentError while this node offers nothing; `changed` is told after every call.

        Without a cache the API server is asked for every claim.
        """
        self._driver = driver
        self._pool = pool
        self._read_claim = read_claim
        self._store = store
        self._lock = lock
        self._node = node
        self._changed = changed
        self._metrics = metrics
        self._cache = cache
        self._second_looks: set[asyncio.Task[None]] = set()
        if cache:
            cache.announced = self._announced
            store.tell_of_others(cache.used_elsewhere)

    async def prepare(self, claims: Sequence[ClaimRef]) -> Mapping[str, PrepareResult]:
        """Prepare the claims of one pod."""
        started = time.perf_counter()
        results: dict[str, PrepareResult] = {}
        try:
            node = await self._node()
            results |= await self._prepare_announced(claims, node)
            if rest := [claim for claim in claims if claim.uid not in results]:
                results |= await self._prepare_asked(rest, node)
        except AgentError as error:
            results = dict.fromkeys((claim.uid for claim in claims), error) | results
        self._observe(self._metrics.prepare, started, results.values())
        return results

    async def unprepare(self, claims: Sequence[ClaimRef]) -> Mapping[str, UnprepareResult]:
        """Forget claims, whether or not they (still) exist."""
        started = time.perf_counter()
        results: dict[str, UnprepareResult] = {}
        try:
            async with self._lock.held():
                self._store.refresh()
                for claim in claims:
                    results[claim.uid] = self._unprepare(claim)
        except AgentError as error:
            results = dict.fromkeys((claim.uid for claim in claims), error)
        self._observe(self._metrics.unprepare, started, results.values())
        return results

    async def _prepare_announced(
        self, claims: Sequence[ClaimRef], node: SimulatedNode
    ) -> dict[str, Sequence[PreparedDevice]]:
        """Prepare those of the claims that the watch has told everything about; the others are left out."""
        announced = [a for claim in claims if (a := await self._announced_allocation(claim))]
        if not announced or self._cache is None:
            return {}
        prepared: dict[str, Sequence[PreparedDevice]] = {}
        async with self._lock.held():
            self._store.refresh()
            for allocation in announced:
                known = self._store.trace(allocation.uid).entry  # somebody prepared it before
                if known is None and self._cache.stands(allocation.uid):
                    with contextlib.suppress(AgentError):
                        prepared[allocation.uid] = self._store.prepare(allocation, node)
        self._metrics.read["watch"].inc(len(prepared))
        return prepared

    async def _prepare_asked(self, claims: Sequence[ClaimRef], node: SimulatedNode) -> dict[str, PrepareResult]:
        """Prepare claims as the API server has them now."""
        self._metrics.read["api"].inc(len(claims))
        allocations = await asyncio.gather(*(self._allocation(claim) for claim in claims))
        released = await self._released([a for a in allocations if isinstance(a, Allocation)], node)
        async with self._lock.held():
            self._store.refresh()
            return {
                claim.uid: self._prepare(allocation, node, released)
                for claim, allocation in zip(claims, allocations, strict=True)
            }

    def _prepare(
        self, allocation: Allocation | Exception, node: SimulatedNode, released: frozenset[str]
    ) -> PrepareResult:
        if isinstance(allocation, Exception):
            return allocation
        try:
            return self._store.prepare(allocation, node, released=released)
        except AgentError as error:
            return error

    def _unprepare(self, claim: ClaimRef) -> UnprepareResult:
        if self._cache:
            self._cache.unprepared(claim.uid)
        try:
            if not self._store.unprepare(claim.uid):
                log.info("claim %s was not prepared", claim, extra={"claim_uid": claim.uid})
        except AgentError as error:
            return error
        return None

    async def _announced_allocation(self, ref: ClaimRef) -> Allocation | None:
        claim = await self._cache.take(ref.uid) if self._cache else None
        if claim is None:
            return None
        with contextlib.suppress(AgentError):
            return allocation_on(claim, uid=ref.uid, driver=self._driver, pool=self._pool)
        return None

    async def _allocation(self, ref: ClaimRef) -> Allocation | Exception:
        if self._cache:
            self._cache.asked(ref.uid)
        try:
            claim = await self._read_claim(ref.namespace, ref.name)
        except Exception as error:
            return AgentError(
                f"claim {ref} cannot be read from the API server ({error or type(error).__name__}); "
                "the kubelet tries again"
            )
        if claim is None:
            return ClaimError(f"claim {ref} does not exist any more: delete the pod, so that it gets a new one")
        try:
            return allocation_on(claim, uid=ref.uid, driver=self._driver, pool=self._pool)
        except AgentError as error:
            return error

    async def _released(self, allocations: Iterable[Allocation], node: SimulatedNode) -> frozenset[str]:
        """Of the claims that hold devices of these allocations, those that the API server knows to be gone.

        That never becomes untrue again, so it may be asked before the lock is taken.
        """
        released = set()
        async with self._lock.held():
            self._store.refresh()  # another process may have prepared them
            holders = {h.uid: h for allocation in allocations for h in self._store.holders(allocation, node)}
        for holder in holders.values():
            try:
                claim = await self._read_claim(holder.namespace, holder.name)
            except Exception as error:
                log.warning("cannot ask for claim %s: %s", holder, error, extra={"claim_uid": holder.uid})
                continue
            devices = frozenset(held.device for held in holder.devices)
            if not still_holds(claim, uid=holder.uid, driver=self._driver, pool=self._pool, devices=devices):
                released.add(holder.uid)
        return frozenset(released)

    def _announced(self, claim: Claim) -> None:
        """A claim is allocated here. One that is prepared with other devices was so from an allocation that ended.

        Or from a later one, and the watch is late; that is for the API server to say.
        """
        entry = self._store.trace(claim["metadata"]["uid"]).entry
        if entry is None:
            return
        with contextlib.suppress(AgentError):
            if not is_of(entry, allocation_on(claim, uid=entry.uid, driver=self._driver, pool=self._pool)):
                task = asyncio.create_task(self._look_again(entry))
                self._second_looks.add(task)
                task.add_done_callback(self._second_looks.discard)

    async def _look_again(self, entry: Entry) -> None:
        """Prepare a claim anew if it was given other devices.

        The kubelet is not told, it does not ask again: the CDI names that it was given bring the new devices.
        """
        try:
            node = await self._node()
            allocation = await self._allocation(ClaimRef(entry.namespace, entry.name, entry.uid))
            if isinstance(allocation, Exception):
                raise allocation
            released = await self._released([allocation], node)
            async with self._lock.held():
                self._store.refresh()
                now = self._store.trace(entry.uid).entry
                if now and now.serial == entry.serial and not is_of(now, allocation):
                    self._store.prepare(allocation, node, released=released)
                    log.error("claim %s was allocated anew and prepared again", entry, extra={"claim_uid": entry.uid})
        except Exception as error:
            log.warning("cannot look at claim %s again: %s", entry, error, extra={"claim_uid": entry.uid})

    def _observe(self, durations: Mapping[str, Durations], started: float, results: Iterable[object]) -> None:
        failed = any(isinstance(result, Exception) for result in results)
        durations[ERROR if failed else SUCCESS].observe(time.perf_counter() - started)
        self._changed()
