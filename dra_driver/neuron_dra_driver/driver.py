"""The driver's answers to the kubelet: claims from the API server in, prepared claims out.

What waits for the network comes first and for all claims at once; the lock is held for nothing but the local disk.
That work is done on the event loop and not in a thread: it is a few hundred microseconds a claim, as much as handing
it to a thread and back costs.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from prometheus_client import Histogram

from .claims import Allocation, Claim, allocation_on, still_holds
from .errors import AgentError, ClaimError
from .kubeletplugin import ClaimRef, PrepareResult, UnprepareResult
from .lock import NodeLock
from .metrics import ERROR, SUCCESS, Metrics
from .node import SimulatedNode
from .store import ClaimStore

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
    ) -> None:
        """`node` raises an AgentError while this node offers nothing; `changed` is told after every call."""
        self._driver = driver
        self._pool = pool
        self._read_claim = read_claim
        self._store = store
        self._lock = lock
        self._node = node
        self._changed = changed
        self._metrics = metrics

    async def prepare(self, claims: Sequence[ClaimRef]) -> Mapping[str, PrepareResult]:
        """Prepare the claims of one pod."""
        started = time.perf_counter()
        results: dict[str, PrepareResult] = {}
        try:
            node = await self._node()
            allocations = await asyncio.gather(*(self._allocation(claim) for claim in claims))
            released = await self._released(a for a in allocations if isinstance(a, Allocation))
            async with self._lock.held():
                self._store.refresh()
                for claim, allocation in zip(claims, allocations, strict=True):
                    results[claim.uid] = self._prepare(allocation, node, released)
        except AgentError as error:
            results = dict.fromkeys((claim.uid for claim in claims), error)
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
        try:
            if not self._store.unprepare(claim.uid):
                log.info("claim %s was not prepared", claim, extra={"claim_uid": claim.uid})
        except AgentError as error:
            return error
        return None

    async def _allocation(self, ref: ClaimRef) -> Allocation | Exception:
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

    async def _released(self, allocations: Iterable[Allocation]) -> frozenset[str]:
        """Of the claims that hold devices of these allocations, those that the API server knows to be gone.

        That never becomes untrue again, so it may be asked before the lock is taken.
        """
        released = set()
        for holder in {h.uid: h for allocation in allocations for h in self._store.holders(allocation)}.values():
            try:
                claim = await self._read_claim(holder.namespace, holder.name)
            except Exception as error:
                log.warning("cannot ask for claim %s: %s", holder, error, extra={"claim_uid": holder.uid})
                continue
            devices = frozenset(held.device for held in holder.devices)
            if not still_holds(claim, uid=holder.uid, driver=self._driver, pool=self._pool, devices=devices):
                released.add(holder.uid)
        return frozenset(released)

    def _observe(self, histogram: Histogram, started: float, results: Iterable[object]) -> None:
        failed = any(isinstance(result, Exception) for result in results)
        histogram.labels(ERROR if failed else SUCCESS).observe(time.perf_counter() - started)
        self._changed()
