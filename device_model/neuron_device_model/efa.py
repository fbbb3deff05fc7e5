"""The EFA cards of a node as DRA devices: what pairs a chip with the card that is next to it.

On EC2 DRANET publishes the network cards, and on Neuron instances gives each EFA card the device group ids of the
chips beside it, so that one `matchAttribute` in a claim holds chips and cards together. Names and attributes are
DRANET's own, as it shows them for a trn1.32xlarge. Left out is what no public source tells for every type: the PCI
subsystem (the generation of the card), and the PCIe root of a card that sits behind a bridge, as those of trn2 and
trn3 do.

A card of a type that AWS's map does not list has no known address, and is not offered.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from neuron_device_model.advertise import SIMULATED_ATTRIBUTE, device_group_attributes
from neuron_device_model.catalog import InstanceType
from neuron_device_model.faults import Fault, taints, whole_node

DRANET = "dra.net"
MODEL = "Elastic Fabric Adapter (EFA)"
VENDOR = "Amazon.com, Inc."


@dataclass(frozen=True, slots=True)
class EfaDevice:
    """One EFA card of an instance."""

    name: str
    """Of the DRA device."""
    pci_bdf: str
    numa_node: int
    """-1: the host reports none."""
    verbs: int
    """The number of its /dev/infiniband/uverbsN: cards are found in the order of their PCI addresses."""
    chips: tuple[int, ...]
    """The chips that AWS's map pairs with it; on trn1 there are two."""

    @property
    def rdma_device(self) -> str:
        """The kernel's name of the RDMA device: bus and slot, in decimal."""
        _, bus, slot = self.pci_bdf.partition(".")[0].split(":")
        return f"rdmap{int(bus, 16)}s{int(slot, 16)}"


def efa_devices(instance_type: InstanceType) -> tuple[EfaDevice, ...]:
    """The EFA cards of an instance in the order of their PCI addresses; none where the map has none."""
    by_address: dict[str, list[int]] = {}
    for slot in instance_type.devices:
        if slot.efa_bdf:
            by_address.setdefault(slot.efa_bdf, []).append(slot.index)
    return tuple(
        EfaDevice(
            name="pci-" + address.replace(":", "-").replace(".", "-"),
            pci_bdf=address,
            numa_node=instance_type.devices[chips[0]].numa_node,
            verbs=number,
            chips=tuple(chips),
        )
        for number, (address, chips) in enumerate(sorted(by_address.items()))
    )


def faults_of_card(card: EfaDevice, faults: Iterable[Fault]) -> tuple[Fault, ...]:
    """What breaks a card, in the order given. A broken chip leaves it whole; a broken node does not."""
    return tuple(
        fault for fault in faults if whole_node(fault) or (fault.type == "EFADown" and fault.efa in (None, card.verbs))
    )


def offered(instance_type: InstanceType, *, faults: Iterable[Fault] = ()) -> tuple[dict[str, Any], ...]:
    """The cards as resource.k8s.io/v1 devices, with the taints of what breaks them."""
    known = tuple(faults)
    devices = []
    for card in efa_devices(instance_type):
        tainted = taints(faults_of_card(card, known))
        devices.append(
            {
                "name": card.name,
                "attributes": _attributes(instance_type, card),
                **({"taints": tainted} if tainted else {}),
            }
        )
    return tuple(devices)


def _attributes(instance_type: InstanceType, card: EfaDevice) -> dict[str, dict[str, Any]]:
    return {
        f"{DRANET}/pciAddress": {"string": card.pci_bdf},
        f"{DRANET}/pciVendor": {"string": VENDOR},
        f"{DRANET}/pciDevice": {"string": MODEL},
        **({f"{DRANET}/numaNode": {"int": card.numa_node}} if card.numa_node >= 0 else {}),
        f"{DRANET}/rdma": {"bool": True},
        f"{DRANET}/rdmaDevice": {"string": card.rdma_device},
        **device_group_attributes(instance_type, card.chips[0]),
        SIMULATED_ATTRIBUTE: {"bool": True},
    }
