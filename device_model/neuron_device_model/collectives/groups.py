"""A group of ranks as an algorithm sees it: which domains, which chips in each, which cores on each chip."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from neuron_device_model.collectives.errors import UnsupportedCollective
from neuron_device_model.collectives.fabric import Core, Fabric, Link, chip_route, chip_routes
from neuron_device_model.cores import visible_cores

GroupKey = tuple[Core, ...]


@dataclass(frozen=True)
class Block:
    """The ranks of a group in one domain."""

    fabric: Fabric
    domain: str
    joined: bool
    """The domain is an UltraServer."""
    members: tuple[tuple[int, tuple[Core, ...]], ...]
    """The chips, ascending by position, and the ranks on each."""

    @cached_property
    def positions(self) -> tuple[int, ...]:
        """The chips' numbers in the domain."""
        return tuple(position for position, _ in self.members)

    @cached_property
    def ranks(self) -> tuple[Core, ...]:
        """All ranks, chip by chip."""
        return tuple(core for _, cores in self.members for core in cores)

    @property
    def size(self) -> int:
        """How many ranks."""
        return len(self.ranks)

    @property
    def chips(self) -> int:
        """How many chips."""
        return len(self.members)

    @cached_property
    def per_chip(self) -> int | None:
        """Ranks on each chip; None if chips differ."""
        counts = {len(cores) for _, cores in self.members}
        return counts.pop() if len(counts) == 1 else None

    @property
    def whole_chips(self) -> bool:
        """Whether every core of every chip is a rank."""
        return self.per_chip == visible_cores(self.fabric.kind.chip, self.fabric.logical_neuron_core)

    @cached_property
    def servers(self) -> tuple["Block", ...]:
        """The ranks of each instance of an UltraServer."""
        chips = self.fabric.kind.chips
        numbers = sorted({position // chips for position in self.positions})
        return tuple(
            Block(
                self.fabric,
                self.domain,
                self.joined,
                tuple(member for member in self.members if member[0] // chips == number),
            )
            for number in numbers
        )

    def route(self, a: int, b: int) -> tuple[Link, ...]:
        """The links from one chip to another."""
        return chip_route(self.fabric.instance_type, self.joined, self.domain, a, b)

    def routes(self, a: int, b: int) -> tuple[tuple[Link, ...], ...]:
        """The ways that many messages from one chip to another take in equal parts."""
        return chip_routes(self.fabric.instance_type, self.joined, self.domain, a, b)

    def core_links(self) -> Iterator[Link]:
        """The DMA engines of each rank."""
        return map(self.fabric.core_link, self.ranks)

    @cached_property
    def shape(self) -> tuple[tuple[int, tuple[int, ...]], ...]:
        """Which cores of which chips, counted from its first instance, so that blocks of different domains compare."""
        first = self.positions[0] // self.fabric.kind.chips * self.fabric.kind.chips
        return tuple((position - first, tuple(core.core for core in cores)) for position, cores in self.members)


@dataclass(frozen=True)
class Group:
    """All ranks, domain by domain."""

    fabric: Fabric
    blocks: tuple[Block, ...]

    @property
    def size(self) -> int:
        """How many ranks."""
        return sum(block.size for block in self.blocks)

    def require_symmetry(self) -> None:
        """Across domains a group has to have the same cores in each (internode-collective-comm.rst)."""
        if len({block.shape for block in self.blocks}) > 1:
            raise UnsupportedCollective(
                "a group over several nodes needs the same cores on each of them: choose the same local ranks on all"
            )


def group(fabric: Fabric, ranks: Iterable[Core]) -> Group:
    """Sort ranks into domains and chips."""
    kind = fabric.kind
    if not kind.chip.cc_cores:
        raise UnsupportedCollective(f"{kind.name} has no collectives: choose Inferentia2 or Trainium")
    per_chip = visible_cores(kind.chip, fabric.logical_neuron_core)
    chips: dict[str, dict[int, list[Core]]] = {}
    joined = {}
    seen = set()
    for core in ranks:
        if not (0 <= core.node < len(fabric.nodes) and 0 <= core.chip < kind.chips and 0 <= core.core < per_chip):
            raise UnsupportedCollective(
                f"no such core: {core}; {kind.name} has {kind.chips} chips of {per_chip} cores, "
                f"the fabric {len(fabric.nodes)} nodes"
            )
        if core in seen:
            raise UnsupportedCollective(f"{core} is in the group twice: name each core once")
        seen.add(core)
        domain, position = fabric.place(core)
        chips.setdefault(domain, {}).setdefault(position, []).append(core)
        joined[domain] = fabric.in_ultraserver(core)
    if not seen:
        raise UnsupportedCollective("a group needs at least one rank")
    blocks = tuple(
        Block(
            fabric,
            domain,
            joined[domain],
            tuple((position, tuple(sorted(cores))) for position, cores in sorted(positions.items())),
        )
        for domain, positions in chips.items()
    )
    if len(blocks) > 1 and not kind.efa_count:
        raise UnsupportedCollective(
            f"{kind.name} has no EFA, so its collectives end at the instance: choose ranks of one node"
        )
    return Group(fabric, blocks)
