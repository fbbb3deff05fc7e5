"""The commit barrier: kube-scheduler binds no pod of a gang before all of them have their devices.

A gang is promised its places as a whole, but the scheduler binds its pods one by one, and the first one starts even if
the last one never will. A pod that also asks for the barrier, a device of its UltraServer that any number of pods may
have (`ultraservers.devices`), does not start so: its device has a binding condition, so the scheduler writes what all
of the pod's claims are allocated and then waits for that condition in the claim's status. It is set here, for all pods
of a gang when the last one has got that far, and its opposite when the gang is rolled back. A pod of no gang waits for
nobody.

The chips themselves have no such condition, because then each claim of anybody would wait: the scheduler looks when it
begins to wait and every five seconds from then on. Pure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from neuron_operator import names

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Barrier:
    """A claim that has the device."""

    namespace: str
    name: str
    uid: str
    answered: bool
    """Whether the scheduler was told to bind its pods, or not to."""


def barrier(claim: Json) -> Barrier | None:
    """The barrier in a claim that is allocated it."""
    found = _results(claim)
    if not found:
        return None
    metadata, devices = claim["metadata"], (claim.get("status") or {}).get("devices") or ()
    answers = {
        _key(entry)
        for entry in devices
        for condition in entry.get("conditions") or ()
        if condition["type"] in (names.CONDITION_COMPLETE, names.CONDITION_GIVEN_UP) and condition["status"] == "True"
    }
    return Barrier(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        answered=all(_key(result) in answers for result in found),
    )


def answer(claim: Json, *, complete: bool, message: str, now: str) -> list[dict[str, Any]]:
    """All of a claim's `status.devices` once the scheduler is told; what others have written there stays."""
    ours = {_key(result): result for result in _results(claim)}
    others = [dict(entry) for entry in (claim.get("status") or {}).get("devices") or () if _key(entry) not in ours]
    condition = {
        "type": names.CONDITION_COMPLETE if complete else names.CONDITION_GIVEN_UP,
        "status": "True",
        "reason": "GangComplete" if complete else "GangRolledBack",
        "message": message,
        "lastTransitionTime": now,
    }
    kept = ("driver", "pool", "device", "shareID")
    return others + [
        {**{key: result[key] for key in kept if key in result}, "conditions": [condition]} for result in ours.values()
    ]


def _results(claim: Json) -> Sequence[Json]:
    allocation = (claim.get("status") or {}).get("allocation") or {}
    return [
        result
        for result in (allocation.get("devices") or {}).get("results") or ()
        if result["driver"] == names.ULTRASERVER_DRIVER_NAME
        and names.CONDITION_COMPLETE in (result.get("bindingConditions") or ())
    ]


def _key(item: Json) -> tuple[str, str, str, str]:
    return item["driver"], item["pool"], item["device"], item.get("shareID") or ""
