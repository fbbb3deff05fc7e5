"""What a fault does: to the counters of its chips, and to the containers that have a part of it. Pure."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from neuron_device_model.catalog import InstanceType
from neuron_device_model.faults import EVENTS_PER_MINUTE, RATED, Fault, chips_hit

SCHEMA = 1

View = Mapping[str, Any]


def begin(fault: Fault) -> float:
    """Since when it is broken, in seconds since the epoch."""
    return datetime.fromisoformat(fault.since).timestamp()


def cause(fault: Fault) -> str:
    """What tells a fault from all others, and from the same one at another time."""
    return f"{fault.name}@{fault.since}"


def ecc(fault: Fault, instance_type: InstanceType, *, now: float) -> dict[int, dict[str, int]]:
    """The ECC events that it has caused until now, by chip: one, and for corrected errors more and more."""
    count = 1
    if fault.type in RATED:
        rate = fault.events_per_minute or EVENTS_PER_MINUTE
        count += int(max(now - begin(fault), 0) * rate / 60)
    if not fault.kind.ecc:
        return {}
    return {chip: dict.fromkeys(fault.kind.ecc, count) for chip in chips_hit(fault, instance_type)}


def cores_hit(fault: Fault, view: View, *, physical_cores: int) -> dict[int, list[int]]:
    """The cores of a view that have a part of what is broken, by device; both numbered as in the view.

    A link is only used by who has both of its chips.
    """
    if fault.type == "EFADown":
        return {}
    together = view["logical_neuroncore_config"] or 1
    per_chip = physical_cores // together
    found: dict[int, list[int]] = {}
    ends = set()
    for device in view["devices"]:
        if fault.chip is not None and device["host_index"] not in (fault.chip, fault.peer):
            continue
        first = device["index"] * per_chip
        cores = [c for c in device["core_ids"] if fault.core is None or fault.core // together == c - first]
        if cores:
            found[device["index"]] = cores
            ends.add(device["host_index"])
    return found if fault.peer is None or len(ends) > 1 else {}


def told(view: View, faults: Iterable[Fault], *, physical_cores: int) -> dict[str, Any]:
    """The document for the containers of a request: what of theirs is broken, and how the runtime fails then."""
    return {
        "schema": SCHEMA,
        "faults": [
            _entry(fault, hit, per_chip=physical_cores // (view["logical_neuroncore_config"] or 1))
            for fault in faults
            if (hit := cores_hit(fault, view, physical_cores=physical_cores)) or fault.peer is not None
        ],
    }


def _entry(fault: Fault, hit: Mapping[int, list[int]], *, per_chip: int) -> dict[str, Any]:
    error = fault.kind.error
    entry: dict[str, Any] = {
        "name": fault.name,
        "type": fault.type,
        "since": begin(fault),
        "devices": sorted(hit),
        # of each core: its device, and its number in it
        "cores": {str(core): [device, core - device * per_chip] for device, cores in hit.items() for core in cores},
        "status": error.status if error else 0,
        "place": error.place if error else "",
        "words": error.words if error else "",
        "at_open": bool(error and error.at_open),
        "counts_as": fault.kind.counts_as,
        "slower": fault.degree if fault.type == "ThermalThrottle" else 0,
        "leak": fault.degree if fault.type == "MemoryLeak" else 0,
    }
    if fault.peer is not None:
        entry["link"] = [fault.chip, fault.peer]
    return entry
