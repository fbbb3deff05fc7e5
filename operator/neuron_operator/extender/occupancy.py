"""Which chips and cores of a node are free, which of them a pod gets, and in which words it is refused.

Pure: a node, the pods that are bound to it, and the wish of another one. The rules about sets are the device
model's, and the device plugin follows the same ones.

Most pods say what they hold. One that another scheduler bound does not, nor does one whose annotation cannot be
right (copied from another pod's YAML). Such a pod is taken to hold what the device plugin prefers to give it. That
can be wrong, for example after a restart of the kubelet; the plugin, which knows, then refuses and the pod is
started anew, and nobody gets a device twice.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from neuron_device_model import contiguous
from neuron_device_model.catalog import InstanceType, UnknownInstanceType, instance_type
from neuron_device_model.cores import UnsupportedLogicalNeuronCore, visible_cores
from neuron_device_model.faults import Fault, hits, read
from neuron_device_model.partitions import part

from neuron_operator import names as operator_names
from neuron_operator.extender import names
from neuron_operator.extender.demand import Demand, Holding

_HARMLESS = "None"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a pod does not fit; kube-scheduler counts equal sentences, so they name no node and no number of it."""

    reason: str
    final: bool
    """No pod that ends could change it."""


@dataclass(frozen=True)
class ServedNode:
    """A node whose devices a device plugin serves."""

    name: str
    instance_type: InstanceType
    logical_neuron_core: int
    faults: tuple[Fault, ...] = ()

    @property
    def cores_per_chip(self) -> int:
        """Logical cores on each chip."""
        return visible_cores(self.instance_type.chip, self.logical_neuron_core)

    @cached_property
    def chips(self) -> frozenset[int]:
        """Chips without a fault that matters."""
        return frozenset(chip for chip in range(self.instance_type.chips) if not self._broken(f"neuron-device-{chip}"))

    @cached_property
    def cores(self) -> frozenset[int]:
        """Logical cores without a fault that matters, numbered over the node."""
        total = self.instance_type.chips * self.cores_per_chip
        return frozenset(core for core in range(total) if not self._broken(f"neuron-core-{core}"))

    def _broken(self, device: str) -> bool:
        if not self.faults:
            return False
        found = part(device, self.instance_type, logical_neuron_core=self.logical_neuron_core)
        return any(fault.effect != _HARMLESS and hits(fault, found, self.instance_type) for fault in self.faults)


@dataclass(frozen=True)
class Occupancy:
    """What is given to pods."""

    node: ServedNode
    chips: frozenset[int] = frozenset()
    """Given as a whole."""
    cores: frozenset[int] = frozenset()
    """Given one by one."""

    @cached_property
    def free_chips(self) -> frozenset[int]:
        """Chips that can be given as a whole."""
        touched = {core // self.node.cores_per_chip for core in self.cores}
        return self.node.chips - self.chips - touched

    @cached_property
    def free_cores(self) -> frozenset[int]:
        """Cores that can be given."""
        per_chip = self.node.cores_per_chip
        return frozenset(core for core in self.node.cores - self.cores if core // per_chip not in self.chips)

    def free(self, demand: Demand) -> frozenset[int]:
        """What can be given of the resource that a pod asks for."""
        return self.free_chips if demand.chips else self.free_cores

    def with_given(self, demand: Demand, ids: Iterable[int]) -> "Occupancy":
        """The same with some more given."""
        if demand.chips:
            return Occupancy(self.node, self.chips.union(ids), self.cores)
        return Occupancy(self.node, self.chips, self.cores.union(ids))

    def usage_maps(self) -> dict[str, str]:
        """AWS's annotations of the node: what is in use, chip by chip and core by core."""
        per_chip = self.node.cores_per_chip
        cores = [
            core in self.cores or core // per_chip in self.chips
            for core in range(self.node.instance_type.chips * per_chip)
        ]
        chips = [any(cores[first : first + per_chip]) for first in range(0, len(cores), per_chip)]
        return {names.CHIP_MAP: _booleans(chips), names.CORE_MAP: _booleans(cores)}


def from_neuron_node(neuron_node: Mapping[str, Any]) -> ServedNode | None:
    """A node of ours; None if it is not served by a device plugin."""
    spec = neuron_node["spec"]
    if spec.get("resources") != "DevicePlugin":
        return None
    faults = tuple(read(fault) for fault in spec.get("faults") or ())
    try:
        found = instance_type(spec["instanceType"])
        found.cores(spec["logicalNeuronCore"])
    except (UnknownInstanceType, UnsupportedLogicalNeuronCore):
        return None  # of another release's catalogue
    return ServedNode(neuron_node["metadata"]["name"], found, spec["logicalNeuronCore"], faults)


def from_node(node: Mapping[str, Any]) -> ServedNode | None:
    """A node without NeuronNode, from its label and what its device plugin reports; None if there is no such plugin.

    The number of cores tells the LNC.
    """
    capacity = (node.get("status") or {}).get("capacity") or {}
    label = (node["metadata"].get("labels") or {}).get(operator_names.LABEL_INSTANCE_TYPE)
    chips, cores = (int(capacity.get(resource, 0)) for resource in (names.CHIPS, names.CORES))
    if label is None or not (chips or cores):
        return None
    try:
        found = instance_type(label)
    except UnknownInstanceType:
        return None
    values = found.chip.logical_neuron_core_values
    lnc = next((lnc for lnc in values if found.cores(lnc) == cores), found.chip.default_logical_neuron_core)
    return ServedNode(node["metadata"]["name"], found, lnc)


def occupancy(node: ServedNode, holdings: Iterable[Holding]) -> Occupancy:
    """What the pods of a node hold."""
    # a fault that came later takes nothing away from a pod
    taken = Occupancy(ServedNode(node.name, node.instance_type, node.logical_neuron_core))
    silent = []
    for held in sorted(holdings, key=lambda held: (held.order, held.uid)):
        if held.ids is not None and _can_hold(held.ids, held.demand, taken):
            taken = taken.with_given(held.demand, held.ids)
        else:
            silent.append(held.demand)
    taken = Occupancy(node, taken.chips, taken.cores)
    for wanted in silent:
        for demand in (Demand(wanted.chips, 0), Demand(0, wanted.cores)):
            taken = taken.with_given(demand, _guess(taken, demand))
    return taken


def place(taken: Occupancy, demand: Demand) -> tuple[int, ...] | Refusal:
    """The ids that a pod gets on a node, or why it gets none."""
    if demand.chips and demand.cores:
        return Refusal(
            f"the pod asks for {names.CHIPS} and {names.CORES}: ask for one of them, the annotation"
            f" {names.IDS} holds one list of ids",
            final=True,
        )
    try:
        ids = _choose(taken, demand)
    except contiguous.UnsupportedCount as unsupported:
        return Refusal(str(unsupported), final=True)
    if ids is not None:
        return ids
    what = "devices" if demand.chips else "NeuronCores"
    if len(taken.free(demand)) < demand.count:
        return Refusal(f"fewer than {demand.count} free Neuron {what}, a chip and its cores exclude one another", False)
    return Refusal(
        f"no {demand.count} contiguous free Neuron {what}, those that are free are scattered: "
        "end pods beside them, or ask for fewer",
        final=False,
    )


def _can_hold(ids: tuple[int, ...], demand: Demand, taken: Occupancy) -> bool:
    if (demand.chips and demand.cores) or len(ids) != demand.count:
        return False
    return len(set(ids)) == len(ids) and taken.free(demand).issuperset(ids)


def _guess(taken: Occupancy, demand: Demand) -> Collection[int]:
    if not demand:
        return ()
    try:
        ids = _choose(taken, demand)
    except contiguous.UnsupportedCount:
        ids = None
    # containers are served one by one, so a pod can have what no single request would be given
    return ids or sorted(taken.free(demand))[: demand.count]


def _choose(taken: Occupancy, demand: Demand) -> tuple[int, ...] | None:
    node = taken.node
    chips = bool(demand.chips)
    return _chosen(node.instance_type.name, node.logical_neuron_core, chips, taken.free(demand), demand.count)


@lru_cache(maxsize=4096)
def _chosen(type_name: str, lnc: int, chips: bool, free: frozenset[int], count: int) -> tuple[int, ...] | None:
    # a fleet has many nodes and few different occupancies
    if chips:
        return contiguous.choose_chips(instance_type(type_name), free, count)
    return contiguous.choose_cores(instance_type(type_name), lnc, free, count)


def _booleans(values: Iterable[bool]) -> str:
    return ",".join("true" if value else "false" for value in values)
