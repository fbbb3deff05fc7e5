"""The counters that keep the scheduler from giving a piece of hardware away twice.

Devices overlap: a chip and its cores, the node and all that is in it. A counter stands for each physical
core, in a set for each chip; where the whole node is a device, one set more has a counter for each chip, as
large as the chip has cores, because a device may draw from two sets at most and the node has more chips than
that. A core draws from both, so does a chip, the node from the second alone.

A set that no two devices can meet in is left out: for each pod, Kubernetes 1.36 goes through the counters of
all nodes that have any.
"""

from collections.abc import Collection, Mapping
from typing import Any

from neuron_device_model.catalog import InstanceType
from neuron_device_model.partitions import Part, PartKind

Counters = Mapping[str, int]

NODE_SET = "node"


def counter_sets(instance_type: InstanceType, kinds: Collection[PartKind]) -> dict[str, Counters]:
    """The sets of a node that offers devices of these kinds, the chips' in order, then the node's."""
    sets: dict[str, Counters] = {}
    if len(set(kinds) - {"node"}) > 1:
        per_chip = {_core(core): 1 for core in range(instance_type.chip.physical_cores)}
        sets |= {_chip(chip): per_chip for chip in range(instance_type.chips)}
    if "node" in kinds and len(kinds) > 1:
        sets[NODE_SET] = {_chip(chip): instance_type.chip.physical_cores for chip in range(instance_type.chips)}
    return sets


def drawn(part: Part, instance_type: InstanceType, sets: Mapping[str, Counters]) -> dict[str, Counters]:
    """What a device takes from these sets, by set."""
    if part.kind == "node":
        wanted = {NODE_SET: sets.get(NODE_SET, {})}
    else:
        [chip] = part.chips
        per_chip = instance_type.chip.physical_cores
        wanted = {
            _chip(chip): {_core(core % per_chip): 1 for core in part.physical_cores},
            NODE_SET: {_chip(chip): len(part.physical_cores)},
        }
    return {name: counters for name, counters in wanted.items() if name in sets}


def as_api(counters: Counters) -> dict[str, Any]:
    """Counters as resource.k8s.io/v1 writes them."""
    return {name: {"value": str(value)} for name, value in counters.items()}


def _chip(index: int) -> str:
    return f"chip-{index}"


def _core(index: int) -> str:
    return f"core-{index}"
