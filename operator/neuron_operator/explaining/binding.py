"""What kube-scheduler waits for when it has chosen a pod's devices and does not bind it yet: conditions of devices."""

from collections.abc import Iterable, Mapping
from typing import Any

from neuron_operator import names
from neuron_operator.conditions import listing

Json = Mapping[str, Any]


def awaited(pod: Json, claims: Iterable[Json]) -> str:
    """A sentence, if claims that are reserved for a pod lack conditions; else empty."""
    uid = pod["metadata"].get("uid")
    lacking = {
        claim["metadata"]["name"]: found
        for claim in claims
        if uid in {each["uid"] for each in (claim.get("status") or {}).get("reservedFor") or ()}
        and (found := _lacking(claim["status"]))
    }
    if not lacking:
        return ""
    if any(names.CONDITION_COMPLETE in found for found in lacking.values()):
        gang = (pod["metadata"].get("labels") or {}).get(f"{names.GROUP}/gang", "")
        return (
            f"The pod has its devices and waits at the barrier of its gang {gang}: kube-scheduler binds it, and looks"
            " every 5 s, when all pods of the gang have theirs"
        )
    said = listing([f"{listing(found)} in claim {name}" for name, found in sorted(lacking.items())])
    return f"The pod has its devices, and kube-scheduler waits for conditions of them before it binds the pod: {said}"


def _lacking(status: Json) -> list[str]:
    met = {
        (entry["driver"], entry["pool"], entry["device"], condition["type"])
        for entry in status.get("devices") or ()
        for condition in entry.get("conditions") or ()
        if condition["status"] == "True"
    }
    results = ((status.get("allocation") or {}).get("devices") or {}).get("results") or ()
    return [
        condition
        for result in results
        for condition in result.get("bindingConditions") or ()
        if (result["driver"], result["pool"], result["device"], condition) not in met
    ]
