"""The catalogue of instance types as rows and records. Pure."""

from neuron_device_model.catalog import InstanceType
from neuron_device_model.catalog.instances import DeviceSlot

GIB = 1 << 30


def summary(kind: InstanceType) -> dict[str, object]:
    """One line of the table of types."""
    return {
        "type": kind.name,
        "chip": kind.chip.title,
        "chips": kind.chips,
        "cores": kind.cores(kind.chip.default_logical_neuron_core),
        "lnc": kind.chip.default_logical_neuron_core if kind.chip.has_logical_neuron_cores else None,
        "device_gib": kind.device_memory_bytes // GIB,
        "topology": topology(kind),
        "vcpus": kind.vcpus,
        "gib": kind.memory_gib,
        "efa": kind.efa_count,
        "gbps": number(kind.network_gbps),
        "ultraserver": kind.ultraserver,
    }


def details(kind: InstanceType) -> dict[str, object]:
    """Everything about one type, its chips at the end."""
    chip = kind.chip
    return {
        "type": kind.name,
        "chip": chip.title,
        "neuron_core": chip.neuron_core_version,
        "chips": kind.chips,
        "physical_cores": kind.physical_cores,
        "logical_neuron_core_values": list(chip.logical_neuron_core_values),
        "default_logical_neuron_core": chip.default_logical_neuron_core,
        "visible_cores": kind.cores(chip.default_logical_neuron_core),
        "memory_per_chip_gib": chip.memory_bytes // GIB,
        "device_memory_gib": kind.device_memory_bytes // GIB,
        "topology": topology(kind),
        "vcpus": kind.vcpus,
        "memory_gib": kind.memory_gib,
        "efa": kind.efa_count,
        "network_gbps": number(kind.network_gbps),
        "ultraserver": kind.ultraserver,
        "source": kind.source,
        "chosen": list(kind.chosen),
        "devices": [slot(device) for device in kind.devices],
    }


def slot(device: DeviceSlot) -> dict[str, object]:
    """One chip's place on the host."""
    return {
        "device": device.index,
        "pci_bdf": device.pci_bdf,
        "numa_node": device.numa_node,
        "cpu_affinity": device.cpu_affinity,
        "connected": list(device.connected),
        "efa_bdf": device.efa_bdf,
    }


def topology(kind: InstanceType) -> str:
    """Kind and extents, as `torus2d 4x4`."""
    if kind.chips == 1:
        return kind.topology
    return f"{kind.topology} {'x'.join(str(extent) for extent in kind.shape)}"


def number(value: float) -> int | float:
    """A whole number without its `.0`."""
    return int(value) if value == int(value) else value
