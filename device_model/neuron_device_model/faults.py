"""Faults of the hardware: which devices one hits, and the taint that tells the scheduler.

A fault names physical hardware (a node, a chip, a physical core), while devices are cut as the pool likes;
so one broken core taints every device that it is part of, and no other.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from neuron_device_model.catalog import InstanceType
from neuron_device_model.partitions import Part

TAINT_KEY = "neuron-sim.dev/unhealthy"

FAULT_TYPES: Mapping[str, str | None] = MappingProxyType(
    {
        "SRAMUncorrectable": "SRAM_UNCORRECTABLE_ERROR",
        "HBMUncorrectable": "HBM_UNCORRECTABLE_ERROR",
        "NCUncorrectable": "NC_UNCORRECTABLE_ERROR",
        "DMAError": "DMA_ERROR",
        "Hang": "HANG_ON_COLLECTIVES",
        "DeviceLost": None,
    }
)
"""What can break, and the X of the driver's kernel message `NEURON_HW_ERR=X` about it, where it has one."""

EFFECTS = ("NoExecute", "NoSchedule", "None")
"""Strictest first."""

# Of a device in resource.k8s.io/v1. Six types with three effects are two more, and what is then left out is of
# effect None.
MAX_TAINTS = 16


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is broken on a node. Without a chip it is the whole node, without a core the whole chip."""

    name: str
    type: str
    chip: int | None
    core: int | None
    """A physical core, numbered in its chip."""
    effect: str
    message: str
    since: str
    """RFC 3339."""


def hits(fault: Fault, part: Part, instance_type: InstanceType) -> bool:
    """Whether a device contains what is broken."""
    if fault.chip is None:
        return True
    if fault.core is None:
        return fault.chip in part.chips
    per_chip = instance_type.chip.physical_cores
    return fault.core < per_chip and fault.chip * per_chip + fault.core in part.physical_cores


def faults_of(part: Part, faults: Iterable[Fault], instance_type: InstanceType) -> tuple[Fault, ...]:
    """The faults that hit a device, in the order given."""
    return tuple(fault for fault in faults if hits(fault, part, instance_type))


def taint(fault: Fault) -> dict[str, Any]:
    """The DRA device taint (resource.k8s.io/v1) of a fault."""
    return {"key": TAINT_KEY, "value": fault.type, "effect": fault.effect, "timeAdded": fault.since}


def taints(faults: Iterable[Fault]) -> list[dict[str, Any]]:
    """The taints of a device that these faults hit: the oldest fault of each type and effect speaks for all."""
    oldest: dict[tuple[str, str], Fault] = {}
    for fault in sorted(faults, key=lambda fault: (EFFECTS.index(fault.effect), fault.type, fault.since)):
        oldest.setdefault((fault.type, fault.effect), fault)
    return [taint(fault) for fault in oldest.values()][:MAX_TAINTS]
