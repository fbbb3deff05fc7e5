"""What a container sees of its devices: all that the Neuron tools print, resolved beforehand.

The agent writes this document when it prepares a claim, and the tools in the container only format it; so
the tools need no catalogue and the two sides meet in one versioned type.
"""

from collections.abc import Sequence
from typing import Literal, TypedDict

from neuron_device_model.catalog import InstanceType, SdkRelease
from neuron_device_model.cores import core_ids

VIEW_SCHEMA: Literal[1] = 1


class TopologyView(TypedDict):
    """The wiring of the whole instance."""

    kind: str
    shape: list[int]


class DeviceView(TypedDict):
    """One device, numbered as in the container."""

    index: int
    host_index: int
    core_count: int
    core_ids: list[int]
    memory_bytes: int
    connected: list[int] | None
    pci_bdf: str
    cpu_affinity: str
    numa_node: str


class View(TypedDict):
    """The document of one request of one claim."""

    schema: Literal[1]
    simulated: Literal[True]
    instance_type: str
    instance_id: str
    logical_neuroncore_config: int | None
    sdk_version: str
    tools_version: str
    driver_version: str
    runtime_version: str
    host_device_count: int
    topology: TopologyView
    devices: list[DeviceView]


def container_view(
    instance_type: InstanceType,
    *,
    host_devices: Sequence[int],
    first_index: int,
    logical_neuron_core: int,
    instance_id: str,
    sdk: SdkRelease,
    driver_version: str | None = None,
) -> View:
    """The view of some chips of a host, in the order given, numbered on from `first_index`.

    Devices and cores are numbered as in the container, while `connected` keeps the host's numbers: that is
    what a container with one device of a trn2.48xlarge shows. It is None where the driver reports no
    neighbour, which the real tool prints as null.
    """
    chip = instance_type.chip
    devices: list[DeviceView] = []
    for index, host_index in enumerate(host_devices, start=first_index):
        if not 0 <= host_index < instance_type.chips:
            raise ValueError(f"{instance_type.name} has no device {host_index}: it has {instance_type.chips}, from 0")
        slot = instance_type.devices[host_index]
        ids = core_ids(chip, logical_neuron_core, device=index)
        devices.append(
            {
                "index": index,
                "host_index": host_index,
                "core_count": len(ids),
                "core_ids": list(ids),
                "memory_bytes": chip.memory_bytes,
                "connected": list(slot.connected) or None,
                "pci_bdf": slot.pci_bdf,
                "cpu_affinity": slot.cpu_affinity,
                "numa_node": str(slot.numa_node),
            }
        )
    return {
        "schema": VIEW_SCHEMA,
        "simulated": True,
        "instance_type": instance_type.name,
        "instance_id": instance_id,
        "logical_neuroncore_config": logical_neuron_core if chip.has_logical_neuron_cores else None,
        "sdk_version": sdk.version,
        "tools_version": sdk.tools_version,
        "driver_version": driver_version or sdk.driver_version,
        "runtime_version": sdk.runtime_version,
        "host_device_count": instance_type.chips,
        "topology": {"kind": instance_type.topology, "shape": list(instance_type.shape)},
        "devices": devices,
    }
