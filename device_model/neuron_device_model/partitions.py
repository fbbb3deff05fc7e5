"""What a node can be cut into (logical cores, physical cores, chips, the whole) and what each name stands for.

A name says everything: with the instance type and the node's LNC it resolves to the physical cores behind
it, and two devices exclude one another exactly when they share one. Nothing is stored, so what the
scheduler's counters, faults and the view of a container say about a device cannot disagree.

The order of the names is the order in which the scheduler tries them, first fit. Cores ascend and chips
descend, so that small claims and large ones fill the node from opposite ends.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from neuron_device_model.catalog import InstanceType

PartKind: TypeAlias = Literal["core", "physical_core", "chip", "node"]

PARTITIONS = ("none", "logical", "physical")
OFFERED_DEVICES = ("chips", "node", "both")
NODE_DEVICE = "neuron-node"

_PREFIXES: Mapping[PartKind, str] = {
    "core": "neuron-core-",
    "physical_core": "neuron-physical-core-",
    "chip": "neuron-device-",
}
_CORES: Mapping[str, tuple[PartKind, ...]] = {
    "none": (),
    "logical": ("core",),
    "physical": ("core", "physical_core"),
}
_KINDS: Mapping[str, PartKind] = {prefix: kind for kind, prefix in _PREFIXES.items()}
_NUMBERED = re.compile(r"(neuron-(?:core|physical-core|device)-)(0|[1-9][0-9]{0,5})")


class UnknownDevice(ValueError):
    """No device has this name on the node; the message says which names there are."""


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a node that can be allocated, and the hardware behind it, numbered over the whole node."""

    kind: PartKind
    index: int
    """The number in the name; 0 for the node."""
    chips: tuple[int, ...]
    physical_cores: tuple[int, ...]


def part(name: str, instance_type: InstanceType, *, logical_neuron_core: int) -> Part:
    """What a device name means on a node, offered at the moment or not."""
    counts = _counts(instance_type, logical_neuron_core)
    if name == NODE_DEVICE:
        cores = range(instance_type.physical_cores)
        return Part("node", 0, tuple(range(instance_type.chips)), tuple(cores))
    match = _NUMBERED.fullmatch(name)
    if match is None or int(match[2]) >= counts[_KINDS[match[1]]]:
        known = [f"{prefix}0 to {prefix}{counts[kind] - 1}" for kind, prefix in _PREFIXES.items() if counts[kind]]
        raise UnknownDevice(
            f"{instance_type.name} with logical NeuronCore configuration {logical_neuron_core} has no device "
            f"{name!r}: it has {', '.join(known)} and {NODE_DEVICE}"
        )
    kind, index = _KINDS[match[1]], int(match[2])
    width = instance_type.physical_cores // counts[kind]
    first = index * width
    chip = first // instance_type.chip.physical_cores
    return Part(kind, index, (chip,), tuple(range(first, first + width)))


def parts(instance_type: InstanceType, *, logical_neuron_core: int, partitions: str, devices: str) -> tuple[str, ...]:
    """The names of all devices that a node offers, in the order in which the scheduler is to try them."""
    _check("partitions", partitions, PARTITIONS)
    _check("devices", devices, OFFERED_DEVICES)
    counts = _counts(instance_type, logical_neuron_core)
    cores = _CORES[partitions]
    names = [f"{_PREFIXES[kind]}{index}" for kind in cores for index in range(counts[kind])]
    if devices != "node":
        # Without cores there is no other end to start from, and AWS's own order stands.
        chips = reversed(range(instance_type.chips)) if cores else range(instance_type.chips)
        names += (f"{_PREFIXES['chip']}{index}" for index in chips)
    if devices != "chips":
        names.append(NODE_DEVICE)
    return tuple(names)


def _counts(instance_type: InstanceType, logical_neuron_core: int) -> Mapping[PartKind, int]:
    """How many devices of each kind there are. A logical core of one physical core makes the latter redundant."""
    return {
        "core": instance_type.cores(logical_neuron_core),
        "physical_core": instance_type.physical_cores if logical_neuron_core > 1 else 0,
        "chip": instance_type.chips,
    }


def _check(what: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{what} must be {', '.join(allowed[:-1])} or {allowed[-1]}, not {value!r}")
