"""What a node offers to the scheduler: DRA devices, with the attributes of AWS's own driver.

The names, types and conditions follow AWS's docs (deploy/eks/dra.rst), so that selectors and constraints
written for real nodes match. Nothing is added under AWS's domains but the resource type `neuron_core`, for a
device that AWS does not have; the marker that says the device is simulated, and what a core is, stand under
ours.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, TypeAlias

from neuron_device_model.catalog import DeviceSlot, InstanceType, SdkRelease
from neuron_device_model.cores import core_memory
from neuron_device_model.counters import as_api, counter_sets, drawn
from neuron_device_model.faults import MAX_TAINTS, Fault, faults_of, taints
from neuron_device_model.partitions import Part, PartKind, part, parts

OUR_DOMAIN = "neuron-sim.dev"
SIMULATED_ATTRIBUTE = f"{OUR_DOMAIN}/simulated"
# Of the devices of a node that a workload of the UltraServer operator has: the claims of its own template tolerate it.
RESERVED_TAINT = f"{OUR_DOMAIN}/reserved"

# Of resource.k8s.io/v1 (k8s.io/api/resource/v1 types.go). A slice holds twice as many devices while none has a taint
# or draws from counters, but no instance type has so many without.
MAX_DEVICES_PER_SLICE = 64
MAX_COUNTER_SETS_PER_SLICE = 8
# Of a string or version value. The limit of 32 attributes and capacities a device cannot be passed by anything a
# caller gives; a test holds every type to it.
MAX_VALUE_LENGTH = 64

MAX_NETWORK_LAYERS = 3

_RESOURCE_TYPES: Mapping[PartKind, str] = {
    "core": "neuron_core",
    "physical_core": "neuron_core",
    "chip": "neuron_device",
    "node": "neuron_node",
}
_CORE_PARTITIONS: Mapping[PartKind, str] = {"core": "logical", "physical_core": "physical"}
# The expression that semver.org suggests; the API server refuses any other version value.
_SEMVER = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(-(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*)?"
    r"(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?",
    re.ASCII,
)

Attributes: TypeAlias = dict[str, dict[str, Any]]
Device: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Page:
    """What one ResourceSlice holds: devices or counter sets."""

    devices: tuple[dict[str, Any], ...] = ()
    counter_sets: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Offer:
    """All that a node offers, as resource.k8s.io/v1 devices and counter sets, in the scheduler's order."""

    devices: tuple[dict[str, Any], ...]
    counter_sets: tuple[dict[str, Any], ...]

    def without_counters(self) -> "Offer":
        """What is left where nothing keeps overlapping devices apart: the chips, or the node if it offers none."""
        by_kind: dict[str, list[Device]] = {}
        for device in self.devices:
            plain = {key: value for key, value in device.items() if key != "consumesCounters"}
            by_kind.setdefault(device["attributes"]["resourceType"]["string"], []).append(plain)
        chips = sorted(by_kind.get("neuron_device", ()), key=lambda chip: chip["attributes"]["deviceId"]["int"])
        return Offer(devices=tuple(chips or by_kind["neuron_node"]), counter_sets=())

    def pages(self) -> tuple[Page, ...]:
        """The offer cut into slices. The scheduler reads slices by name and so in this order."""
        return (
            *(Page(devices=chunk) for chunk in _chunks(self.devices, MAX_DEVICES_PER_SLICE)),
            *(Page(counter_sets=chunk) for chunk in _chunks(self.counter_sets, MAX_COUNTER_SETS_PER_SLICE)),
        )


def offer(
    instance_type: InstanceType,
    *,
    sdk: SdkRelease,
    driver_version: str | None = None,
    dra_driver_version: str,
    network_nodes: Sequence[str] = (),
    capacity_block: str | None = None,
    workload_id: str | None = None,
    logical_neuron_core: int,
    partitions: str = "none",
    devices: str = "chips",
    faults: Iterable[Fault] = (),
) -> Offer:
    """What a node offers, cut as `partitions` and `devices` say.

    `driver_version` is the kernel driver's, the SDK's own unless given; `network_nodes` are the node's EC2
    network nodes, layer 1 (the widest) first, as many as are known; `capacity_block` is that of its UltraServer,
    `workload_id` that of the workload to which the UltraServer operator gave the node.
    """
    if not _SEMVER.fullmatch(dra_driver_version):
        raise ValueError(f"DRA driver version {dra_driver_version!r} must be a semantic version, as in 0.1.0")
    if len(network_nodes) > MAX_NETWORK_LAYERS:
        raise ValueError(f"a node has at most {MAX_NETWORK_LAYERS} network nodes, not {len(network_nodes)}")
    shared: Attributes = {
        "instanceType": {"string": instance_type.name},
        "neuronDriverVersion": {"string": driver_version or sdk.driver_version},
        "draDriverVersion": {"version": dra_driver_version},
        **{f"networkNodeLayer{layer}": {"string": node} for layer, node in enumerate(network_nodes, start=1)},
        # AWS docs: deploy/eks/ultraserver-operator.rst. The operator groups nodes by the second, which is the first
        **{name: {"string": capacity_block} for name in ("capacityBlockId", "ultraserverId") if capacity_block},
        **({"workloadId": {"string": workload_id}} if workload_id else {}),
        SIMULATED_ATTRIBUTE: {"bool": True},
    }
    chips = [_chip_attributes(instance_type, slot) for slot in instance_type.devices]
    for attributes in (shared, *chips):
        _check_lengths(attributes)

    pieces = {
        name: part(name, instance_type, logical_neuron_core=logical_neuron_core)
        for name in parts(
            instance_type, logical_neuron_core=logical_neuron_core, partitions=partitions, devices=devices
        )
    }
    sets = counter_sets(instance_type, {piece.kind for piece in pieces.values()})
    offered = []
    for name, piece in pieces.items():
        device: Device = {
            "name": name,
            "attributes": {**shared, "resourceType": {"string": _RESOURCE_TYPES[piece.kind]}},
        }
        if piece.kind != "node":
            device["attributes"] |= chips[piece.chips[0]]
        if partition := _CORE_PARTITIONS.get(piece.kind):
            _describe_core(device, piece, partition, instance_type)
        if takes := drawn(piece, instance_type, sets):
            device["consumesCounters"] = [
                {"counterSet": name, "counters": as_api(counters)} for name, counters in takes.items()
            ]
        if closed := reserved(workload_id):
            device["taints"] = closed
        offered.append(device)
    whole = Offer(
        devices=tuple(offered),
        counter_sets=tuple({"name": name, "counters": as_api(counters)} for name, counters in sets.items()),
    )
    return broken(whole, tuple(faults), pieces, instance_type)


def broken(whole: Offer, faults: Sequence[Fault], pieces: Mapping[str, Part], instance_type: InstanceType) -> Offer:
    """What is left of an offer without faults when there are these: every device that one hits is tainted.

    `pieces`: what each device's name means. Devices that nothing hits are the very same objects.
    """
    if not faults:
        return whole

    def tainted(device: Device) -> Device:
        found = taints(faults_of(pieces[device["name"]], faults, instance_type))
        return {**device, "taints": [*device.get("taints", ()), *found][:MAX_TAINTS]} if found else device

    return replace(whole, devices=tuple(map(tainted, whole.devices)))


def reserved(workload_id: str | None) -> list[dict[str, Any]]:
    """The taint (resource.k8s.io/v1) of devices that a workload has, none where it is None."""
    return [{"key": RESERVED_TAINT, "value": workload_id, "effect": "NoSchedule"}] if workload_id else []


def device_group_id(instance_type: InstanceType, index: int, size: int) -> str | None:
    """The id that `size` neighbouring chips share, the same on every node of the type; None without EFA.

    AWS publishes the algorithm (connected-device-maps-over-efa-for-neuron, lookup/lookup.go): the EFA
    addresses of the chips in the block, without doubles, sorted as strings, joined with commas, SHA-256,
    the first 16 hexadecimal digits. A group of one is the EFA address itself.
    """
    start = index // size * size
    addresses = {slot.efa_bdf for slot in instance_type.devices[start : start + size] if slot.efa_bdf}
    if not addresses:
        return None
    if size == 1:
        return addresses.pop()
    return sha256(",".join(sorted(addresses)).encode()).hexdigest()[:16]


def device_group_attributes(instance_type: InstanceType, index: int) -> Attributes:
    """The ids of all groups that a chip, and the EFA device paired with it, are in; none without EFA."""
    groups = {size: device_group_id(instance_type, index, size) for size in (1, 4, 8, 16)}
    return {f"resource.aws.com/devicegroup{size}_id": {"string": group} for size, group in groups.items() if group}


def _chip_attributes(instance_type: InstanceType, slot: DeviceSlot) -> Attributes:
    return {
        "deviceId": {"int": slot.index},
        **_grid_attributes(instance_type, slot),
        **device_group_attributes(instance_type, slot.index),
    }


def _describe_core(device: Device, piece: Part, partition: str, instance_type: InstanceType) -> None:
    chip, physical = instance_type.chip, len(piece.physical_cores)
    device["attributes"] |= {
        f"{OUR_DOMAIN}/partition": {"string": partition},
        f"{OUR_DOMAIN}/core": {"int": piece.index % (chip.physical_cores // physical)},
        f"{OUR_DOMAIN}/logicalNeuronCore": {"int": physical},
    }
    device["capacity"] = {f"{OUR_DOMAIN}/memory": {"value": _quantity(core_memory(chip, physical).bytes_per_core)}}


def _grid_attributes(instance_type: InstanceType, slot: DeviceSlot) -> Attributes:
    """Row and column, on the torus types that are no UltraServer member."""
    if instance_type.topology != "torus2d" or instance_type.ultraserver:
        return {}
    row, column = instance_type.wiring.coordinates(slot.index)
    return {
        "topology_x": {"int": row},
        "topology_y": {"int": column},
        "topology4_id": {"int": slot.index // 4},
        "topology8_id": {"int": slot.index // 8},
    }


def _check_lengths(attributes: Attributes) -> None:
    for name, value in attributes.items():
        for content in value.values():
            if isinstance(content, str) and not 0 < len(content) <= MAX_VALUE_LENGTH:
                raise ValueError(f"attribute {name} needs 1 to {MAX_VALUE_LENGTH} characters: {content!r}")


def _quantity(size: int) -> str:
    """Bytes as Kubernetes writes them back: in the largest unit that leaves no rest."""
    for shift, unit in ((30, "Gi"), (20, "Mi"), (10, "Ki")):
        if size % (1 << shift) == 0:
            return f"{size >> shift}{unit}"
    return str(size)


def _chunks(items: tuple[Device, ...], size: int) -> Iterator[tuple[Device, ...]]:
    return (items[start : start + size] for start in range(0, len(items), size))
