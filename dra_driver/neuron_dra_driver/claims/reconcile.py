"""Makes what is on the node fit what the API server says about claims, without being asked by the kubelet.

Needed when the kubelet will never ask: a kill left something of a claim that went away meanwhile, the checkpoint was
lost, somebody removed files. Runs when the agent starts and every few minutes. While the API server does not answer,
everything stays as it is, and so does what was given away by another road, of which it knows nothing.
"""

import logging
from dataclasses import dataclass

from ..allocations.allocation import Allocation, allocation_on, still_holds
from ..errors import AgentError, ClaimError
from ..lock import NodeLock
from ..node import SimulatedNode
from ..prepared.store import ClaimStore, Trace
from .driver import ReadClaim

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What was done."""

    removed: int = 0
    repaired: int = 0
    unknown: int = 0
    """Claims that the API server did not tell about."""


async def reconcile(
    *, driver: str, pool: str, read_claim: ReadClaim, store: ClaimStore, lock: NodeLock, node: SimulatedNode | None
) -> Reconciled:
    """Remove what no claim stands behind, and render anew what is incomplete."""
    async with lock.held():
        store.refresh()
        traces = [trace for trace in store.traces() if trace.entry is None or trace.entry.origin == "claim"]
    removed = repaired = unknown = 0
    for trace in traces:
        try:
            allocation = await _allocation(trace, driver=driver, pool=pool, read_claim=read_claim)
        except ClaimError as error:
            if await _remove(trace, store=store, lock=lock):
                log.info("removed what was left of claim %s: %s", trace.uid, error, extra={"claim_uid": trace.uid})
                removed += 1
        except Exception as error:
            log.warning("cannot ask for claim %s: %s", trace.uid, error, extra={"claim_uid": trace.uid})
            unknown += 1
        else:
            if node and await _repair(trace, allocation, node, store=store, lock=lock):
                log.info("rendered claim %s again", trace.entry, extra={"claim_uid": trace.uid})
                repaired += 1
    return Reconciled(removed=removed, repaired=repaired, unknown=unknown)


async def _allocation(trace: Trace, *, driver: str, pool: str, read_claim: ReadClaim) -> Allocation:
    """The claim's allocation as it was prepared; a ClaimError tells why there is none any more."""
    entry = trace.entry
    if entry is None:
        raise ClaimError("it was never completely prepared")
    claim = await read_claim(entry.namespace, entry.name)
    if claim is None:
        raise ClaimError("it was deleted")
    devices = frozenset(held.device for held in entry.devices)
    if not still_holds(claim, uid=entry.uid, driver=driver, pool=pool, devices=devices):
        raise ClaimError("its allocation ended")
    return allocation_on(claim, uid=entry.uid, driver=driver, pool=pool)


async def _remove(trace: Trace, *, store: ClaimStore, lock: NodeLock) -> bool:
    async with lock.held():
        store.refresh()
        if not _unchanged(trace, store):
            return False
        store.unprepare(trace.uid)
        return True


async def _repair(
    trace: Trace, allocation: Allocation, node: SimulatedNode, *, store: ClaimStore, lock: NodeLock
) -> bool:
    async with lock.held():
        store.refresh()
        if trace.entry is None or not _unchanged(trace, store) or store.complete(trace.entry):
            return False
        try:
            store.prepare(allocation, node)
        except AgentError as error:
            log.warning("claim %s cannot be repaired: %s", trace.entry, error, extra={"claim_uid": trace.uid})
            return False
        return True


def _unchanged(trace: Trace, store: ClaimStore) -> bool:
    """Whether the kubelet did nothing to the claim since the API server was asked about it."""
    now = store.trace(trace.uid).entry
    return (now and now.serial) == (trace.entry and trace.entry.serial)
