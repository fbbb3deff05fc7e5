"""What of a ResourceClaim a driver has to prepare: the checks that every driver owes, in sentences.

The kubelet sends names and uids. Between the scheduler's decision and the kubelet's call the claim may have been
deleted, made anew under its name, deallocated or given to another node, and each of that must fail the prepare. The
texts are what the user reads in the pod's event.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .api import ClaimRef


class ClaimNotUsable(Exception):
    """The claim, as it is now, is nothing to prepare here. The text says why and what to do."""


@dataclass(frozen=True, slots=True)
class AllocatedDevice:
    """One result of a claim's allocation."""

    request: str
    """`main/sub` where the request has alternatives (firstAvailable)."""
    pool: str
    device: str
    share_id: str | None = None
    admin_access: bool = False
    """The device may be in use by others at the same time, and must not be counted as taken."""


def allocated_devices(
    claim: Mapping[str, Any] | None, ref: ClaimRef, *, driver_name: str, pool: str
) -> tuple[AllocatedDevice, ...]:
    """The driver's devices in a claim as the API server gave it (None: there is none), or ClaimNotUsable.

    Devices of other drivers are left out: those are theirs to prepare.
    """
    if claim is None:
        raise ClaimNotUsable(f"claim {ref} does not exist any more: delete the pod, so that it gets a new one")
    if claim["metadata"]["uid"] != ref.uid:
        raise ClaimNotUsable(
            f"claim {ref} was deleted and made anew (its uid is {claim['metadata']['uid']} now, this pod was scheduled "
            f"with {ref.uid}): delete the pod, so that it is scheduled with the new claim"
        )
    allocation = (claim.get("status") or {}).get("allocation")
    if not allocation:
        raise ClaimNotUsable(f"claim {ref} is not allocated (any more): delete the pod, so that it is scheduled again")
    results = (allocation.get("devices") or {}).get("results") or []
    ours = [result for result in results if result["driver"] == driver_name]
    here = [result for result in ours if result["pool"] == pool]
    if not here:
        pools = ", ".join(sorted({result["pool"] for result in ours})) or "no pool"
        raise ClaimNotUsable(
            f"claim {ref} holds devices of driver {driver_name} in {pools} and none in {pool}: delete the pod, so that "
            "it is scheduled where its devices are"
        )
    return tuple(
        AllocatedDevice(
            request=result["request"],
            pool=result["pool"],
            device=result["device"],
            share_id=result.get("shareID"),
            admin_access=bool(result.get("adminAccess")),
        )
        for result in here
    )
