"""What a node offers to the scheduler: its chips as DRA devices, with the attributes of AWS's own driver.

The names, types and conditions follow AWS's docs (deploy/eks/dra.rst), so that selectors and constraints
written for real nodes match. Nothing is added under AWS's domains; the marker that says the device is
simulated stands under ours.
"""

import re
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from neuron_device_model.catalog import DeviceSlot, InstanceType, SdkRelease

SIMULATED_ATTRIBUTE = "neuron-sim.dev/simulated"

# Of a string or version value in resource.k8s.io/v1 (k8s.io/api/resource/v1 types.go). The other limit, 32
# attributes a device, cannot be passed by anything a caller gives; a test holds every type to it.
MAX_VALUE_LENGTH = 64

MAX_NETWORK_LAYERS = 3
_DEVICE_NAME = re.compile(r"neuron-device-(0|[1-9][0-9]*)")
# The expression that semver.org suggests; the API server refuses any other version value.
_SEMVER = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(-(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*)?"
    r"(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?",
    re.ASCII,
)


def device_name(index: int) -> str:
    """The DRA name of a chip: what real nodes show (AWS's docs print an older form without the dashes)."""
    if index < 0:
        raise ValueError(f"a device index counts from 0, not {index}")
    return f"neuron-device-{index}"


def device_index(name: str) -> int:
    """The chip that a DRA device name means."""
    match = _DEVICE_NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"{name!r} is not a Neuron device: names are neuron-device-0, neuron-device-1, …")
    return int(match[1])


def chip_devices(
    instance_type: InstanceType,
    *,
    sdk: SdkRelease,
    driver_version: str | None = None,
    dra_driver_version: str,
    network_nodes: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """The chips of a node as resource.k8s.io/v1 devices, ascending.

    `driver_version` is the kernel driver's, the SDK's own unless given; `network_nodes` are the node's EC2
    network nodes, layer 1 (the widest) first, as many as are known.
    """
    if not _SEMVER.fullmatch(dra_driver_version):
        raise ValueError(f"DRA driver version {dra_driver_version!r} must be a semantic version, as in 0.1.0")
    if len(network_nodes) > MAX_NETWORK_LAYERS:
        raise ValueError(f"a node has at most {MAX_NETWORK_LAYERS} network nodes, not {len(network_nodes)}")
    shared: dict[str, dict[str, Any]] = {
        "instanceType": {"string": instance_type.name},
        "neuronDriverVersion": {"string": driver_version or sdk.driver_version},
        "draDriverVersion": {"version": dra_driver_version},
        "resourceType": {"string": "neuron_device"},
        **{f"networkNodeLayer{layer}": {"string": node} for layer, node in enumerate(network_nodes, start=1)},
        SIMULATED_ATTRIBUTE: {"bool": True},
    }
    devices = []
    for slot in instance_type.devices:
        attributes = {
            "deviceId": {"int": slot.index},
            **shared,
            **_grid_attributes(instance_type, slot),
            **_device_group_attributes(instance_type, slot),
        }
        _check_lengths(attributes)
        devices.append({"name": device_name(slot.index), "attributes": attributes})
    return devices


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


def _grid_attributes(instance_type: InstanceType, slot: DeviceSlot) -> dict[str, dict[str, Any]]:
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


def _device_group_attributes(instance_type: InstanceType, slot: DeviceSlot) -> dict[str, dict[str, Any]]:
    groups = {size: device_group_id(instance_type, slot.index, size) for size in (1, 4, 8, 16)}
    return {f"resource.aws.com/devicegroup{size}_id": {"string": group} for size, group in groups.items() if group}


def _check_lengths(attributes: dict[str, dict[str, Any]]) -> None:
    for name, value in attributes.items():
        for content in value.values():
            if isinstance(content, str) and not 0 < len(content) <= MAX_VALUE_LENGTH:
                raise ValueError(f"attribute {name} needs 1 to {MAX_VALUE_LENGTH} characters: {content!r}")
