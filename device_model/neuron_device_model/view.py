"""What a container sees of its devices: all that the Neuron tools print, resolved beforehand.

The agent writes this document when it prepares a claim, and the tools in the container only format it; so
the tools need no catalogue and the two sides meet in one versioned type.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

from neuron_device_model.catalog import InstanceType, SdkRelease
from neuron_device_model.cores import core_ids, core_memory

VIEW_SCHEMA: Literal[1] = 1


@dataclass(frozen=True, slots=True)
class GivenChip:
    """What a container is given of one chip of its host."""

    host_index: int
    cores: tuple[int, ...] | None = None
    """Numbers of its cores in the chip, at the view's LNC; None for all of them."""


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
    network_nodes: list[str]
    """Of the instance, the spine first, as EC2's instance topology has them; tools of before do not look at it."""
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
    given: Sequence[GivenChip],
    first_index: int,
    logical_neuron_core: int,
    instance_id: str,
    sdk: SdkRelease,
    driver_version: str | None = None,
    network_nodes: Sequence[str] = (),
) -> View:
    """The view of some chips of a host, or of some of their cores, in the order given, numbered on from `first_index`.

    Devices and cores are numbered as in the container, while `connected` keeps the host's numbers: that is
    what a container with one device of a trn2.48xlarge shows. It is None where the driver reports no
    neighbour, which the real tool prints as null.

    A core keeps its place in the chip, so part of a chip may begin at any number; what is not given is
    neither counted nor listed, its memory included.
    """
    chip = instance_type.chip
    memory = core_memory(chip, logical_neuron_core).bytes_per_core
    devices: list[DeviceView] = []
    for index, piece in enumerate(given, start=first_index):
        if not 0 <= piece.host_index < instance_type.chips:
            raise ValueError(
                f"{instance_type.name} has no device {piece.host_index}: it has {instance_type.chips}, from 0"
            )
        ids = core_ids(chip, logical_neuron_core, device=index)
        cores = range(len(ids)) if piece.cores is None else sorted(piece.cores)
        if not cores or len(set(cores)) != len(cores) or not 0 <= cores[0] <= cores[-1] < len(ids):
            raise ValueError(
                f"{piece.cores} are not cores of a {chip.title} with logical NeuronCore configuration "
                f"{logical_neuron_core}: give one or more of 0 to {len(ids) - 1}, each once"
            )
        slot = instance_type.devices[piece.host_index]
        devices.append(
            {
                "index": index,
                "host_index": piece.host_index,
                "core_count": len(cores),
                "core_ids": [ids[core] for core in cores],
                "memory_bytes": len(cores) * memory,
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
        "network_nodes": list(network_nodes),
        "logical_neuroncore_config": logical_neuron_core if chip.has_logical_neuron_cores else None,
        "sdk_version": sdk.version,
        "tools_version": sdk.tools_version,
        "driver_version": driver_version or sdk.driver_version,
        "runtime_version": sdk.runtime_version,
        "host_device_count": instance_type.chips,
        "topology": {"kind": instance_type.topology, "shape": list(instance_type.shape)},
        "devices": devices,
    }
