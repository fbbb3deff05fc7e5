"""The instance types: which chips, in which slots, wired how, beside which EFA devices.

A family's file has three kinds of rows. A board lists the chips as the driver enumerates them (PCI address,
NUMA node, neighbours in the order that the tools print); an EFA map pairs chips with EFA devices; an
instance type names its board and EFA map. Types that differ in name and network only share a board.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from neuron_device_model.catalog.chips import Chip, chips
from neuron_device_model.catalog.documents import document
from neuron_device_model.catalog.nearest import not_known
from neuron_device_model.catalog.rows import CatalogError, Row, reading
from neuron_device_model.catalog.ultraservers import ultraserver_types
from neuron_device_model.cores import visible_cores
from neuron_device_model.topology import Topology

# Also the order of the catalogue.
FAMILY_FILES = ("inf1.toml", "inf2.toml", "trn1.toml", "trn2.toml", "trn3.toml")


class UnknownInstanceType(LookupError):
    """No such instance type; the message lists the known ones and names the nearest."""


@dataclass(frozen=True, slots=True)
class DeviceSlot:
    """One chip's place on the host, as the driver and neuron-ls report it."""

    index: int
    pci_bdf: str
    numa_node: int
    """-1: the host reports none."""
    cpu_affinity: str
    connected: tuple[int, ...]
    """Neighbours in the order printed, which is not sorted. On switch hosts this is what the driver
    reports, not the fabric."""
    efa_bdf: str | None
    """The EFA device that AWS's connected-device map pairs with the chip; None on types it does not list."""


@dataclass(frozen=True, slots=True)
class InstanceType:
    """One EC2 instance type with Neuron devices."""

    name: str
    chip: Chip
    topology: str
    """The kind of wiring; `wiring` gives the whole Topology."""
    shape: tuple[int, ...]
    vcpus: int
    memory_gib: int
    efa_count: int
    network_gbps: float
    neuronlink_bytes_per_s: int
    """Per chip, to the other chips of the instance; 0 with a single chip."""
    ultraserver: str | None
    """The UltraServer type that this instance is a member of."""
    devices: tuple[DeviceSlot, ...]
    source: str
    chosen: tuple[str, ...]
    """Fields that no public source gives; their values are ours (docs/fidelity.md lists them)."""

    @property
    def family(self) -> str:
        """The EC2 family: the part of the name before the dot."""
        return self.name.partition(".")[0]

    @property
    def chips(self) -> int:
        """How many Neuron devices there are."""
        return len(self.devices)

    @property
    def wiring(self) -> Topology:
        """How the chips of one instance are connected."""
        return Topology(self.topology, self.shape)

    @property
    def physical_cores(self) -> int:
        """Physical NeuronCores of the instance: what EC2 and Karpenter count."""
        return self.chips * self.chip.physical_cores

    @property
    def device_memory_bytes(self) -> int:
        """Memory of all chips together."""
        return self.chips * self.chip.memory_bytes

    def cores(self, logical_neuron_core: int) -> int:
        """NeuronCores that software sees on the instance at this logical NeuronCore configuration."""
        return self.chips * visible_cores(self.chip, logical_neuron_core)


@dataclass(frozen=True, slots=True)
class _BoardSlot:
    """A chip's place on a board, before an instance type adds its EFA device."""

    pci_bdf: str
    numa_node: int
    cpu_affinity: str
    connected: tuple[int, ...]


def instance_type(name: str) -> InstanceType:
    """The instance type of this name."""
    try:
        return _by_name()[name]
    except KeyError:
        raise UnknownInstanceType(not_known("instance type", name, _by_name())) from None


def instance_types() -> tuple[InstanceType, ...]:
    """Every instance type, Inferentia first, oldest and smallest first."""
    return tuple(_by_name().values())


@cache
def _by_name() -> Mapping[str, InstanceType]:
    found: dict[str, InstanceType] = {}
    for file in FAMILY_FILES:
        for kind in load_family(document(file), chips(), {kind.name for kind in ultraserver_types()}):
            if kind.name in found:
                raise CatalogError(f"{file}: instance_type[{kind.name}]: listed twice")
            found[kind.name] = kind
    return MappingProxyType(found)


def load_family(rows: Row, known_chips: Mapping[str, Chip], known_ultraservers: Collection[str]) -> list[InstanceType]:
    """Read one family's file."""
    with reading(rows) as file:
        boards = {row.text("name"): _board(row) for row in file.rows("board")}
        efa_maps = {row.text("name"): _efa_map(row) for row in file.rows("efa_map")}
        return [
            _instance_type(row, known_chips, known_ultraservers, boards, efa_maps) for row in file.rows("instance_type")
        ]


def _board(row: Row) -> tuple[_BoardSlot, ...]:
    with reading(row):
        row.text("source")
        affinity = row.texts_by_name("cpu_affinity")
        slots = []
        for position, device in enumerate(row.rows("devices")):
            with reading(device):
                if device.integer("index") != position:
                    raise device.error(f"index must be {position}: devices are listed in order")
                numa_node = device.integer("numa_node")
                if str(numa_node) not in affinity:
                    raise device.error(f"cpu_affinity has no entry for NUMA node {numa_node}")
                slots.append(
                    _BoardSlot(
                        pci_bdf=device.text("pci_bdf"),
                        numa_node=numa_node,
                        cpu_affinity=affinity[str(numa_node)],
                        connected=device.integers("connected"),
                    )
                )
        if not slots:
            raise row.error("a board needs at least one device")
    return tuple(slots)


def _efa_map(row: Row) -> tuple[str, ...]:
    with reading(row):
        row.text("source")
        return row.texts("bdfs")


def _instance_type(
    row: Row,
    known_chips: Mapping[str, Chip],
    known_ultraservers: Collection[str],
    boards: Mapping[str, tuple[_BoardSlot, ...]],
    efa_maps: Mapping[str, tuple[str, ...]],
) -> InstanceType:
    with reading(row):
        chip, board = row.text("chip"), row.text("board")
        efa_map, ultraserver = row.optional_text("efa_map"), row.optional_text("ultraserver")
        references: tuple[tuple[str, str | None, Collection[str]], ...] = (
            ("chip", chip, known_chips),
            ("board", board, boards),
            ("efa_map", efa_map, efa_maps),
            ("ultraserver", ultraserver, known_ultraservers),
        )
        for what, name, known in references:
            if name is not None and name not in known:
                raise row.error(not_known(what, name, known))
        slots = boards[board]
        efa = efa_maps[efa_map] if efa_map else (None,) * len(slots)
        if len(efa) != len(slots):
            raise row.error(f"efa_map {efa_map} has {len(efa)} devices, board {board} has {len(slots)}")
        kind = InstanceType(
            name=row.text("name"),
            chip=known_chips[chip],
            topology=row.text("topology"),
            shape=row.integers("shape"),
            vcpus=row.integer("vcpus"),
            memory_gib=row.integer("memory_gib"),
            efa_count=row.integer("efa_count"),
            network_gbps=row.number("network_gbps"),
            neuronlink_bytes_per_s=row.bandwidth("neuronlink"),
            ultraserver=ultraserver,
            devices=tuple(
                DeviceSlot(
                    index=index,
                    pci_bdf=slot.pci_bdf,
                    numa_node=slot.numa_node,
                    cpu_affinity=slot.cpu_affinity,
                    connected=slot.connected,
                    efa_bdf=efa_bdf,
                )
                for index, (slot, efa_bdf) in enumerate(zip(slots, efa, strict=True))
            ),
            source=row.text("source"),
            chosen=row.optional_texts("chosen"),
        )
    try:
        size = kind.wiring.size
    except ValueError as error:
        raise row.error(str(error)) from error
    if size != kind.chips:
        raise row.error(f"a {kind.topology} of shape {kind.shape} has {size} chips, board {board} has {kind.chips}")
    return kind
