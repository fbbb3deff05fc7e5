"""How well claims pack: the chips that core claims break, beside the fewest that could hold the same cores.

A chip is broken while some of its cores, and not the chip, are held: it cannot be given as a whole. The
scheduler does not optimise, it takes the first free devices in the order offered. So that order (`partitions`)
decides, and what was released before. This replays it for one node, claim after claim; each asks for some
devices of one kind, and one that finds too few is refused, where Kubernetes would keep its pod pending.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, TypeAlias

from neuron_device_model.catalog import InstanceType
from neuron_device_model.partitions import Part, PartKind, part, parts

# Of a ResourceClaim (k8s.io/api/resource/v1 types.go).
MAX_DEVICES_PER_CLAIM = 32


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim arrives, for `count` devices of a kind."""

    name: str
    kind: PartKind
    count: int = 1


@dataclass(frozen=True, slots=True)
class Release:
    """A claim that came before is deleted."""

    name: str


Event: TypeAlias = Claim | Release
Reason: TypeAlias = Literal["not offered", "too many devices", "fragmented", "full"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A claim that got nothing. Fragmented: had the same been held in the best way, there would have been room."""

    claim: Claim
    reason: Reason


@dataclass(frozen=True, slots=True)
class Usage:
    """How the chips of a node are used at one moment."""

    chips: int
    whole: int
    """Given as a whole, or as part of the whole node."""
    broken: int
    best: int
    """The fewest chips that could hold the cores that are held."""

    @property
    def untouched(self) -> int:
        """Chips of which nothing is held."""
        return self.chips - self.whole - self.broken

    def __str__(self) -> str:
        return (
            f"{self.broken} of {self.chips} chips broken by cores, best possible {self.best}; "
            f"{self.whole} given as a whole, {self.untouched} untouched"
        )


@dataclass(frozen=True, slots=True)
class Packing:
    """What came of a sequence of claims."""

    moments: tuple[Usage, ...]
    """Before the first event and after each."""
    held: Mapping[str, tuple[str, ...]]
    """The devices of each claim that is left."""
    refused: tuple[Refusal, ...]

    @property
    def last(self) -> Usage:
        """In the end."""
        return self.moments[-1]

    @property
    def worst(self) -> Usage:
        """The moment with the most chips broken without need, the first of several."""
        return max(self.moments, key=lambda usage: usage.broken - usage.best)

    def __str__(self) -> str:
        lines = [f"in the end: {self.last}"]
        if self.worst.broken > self.worst.best:
            lines.append(f"at worst: {self.worst}")
        lines += (
            f"refused: {refusal.claim.name} ({refusal.claim.count} x {refusal.claim.kind}), {refusal.reason}"
            for refusal in self.refused
        )
        return "\n".join(lines)


def replay(
    events: Iterable[Event],
    instance_type: InstanceType,
    *,
    logical_neuron_core: int,
    partitions: str,
    devices: str = "chips",
) -> Packing:
    """Place claims on an empty node as the scheduler does."""
    names = parts(instance_type, logical_neuron_core=logical_neuron_core, partitions=partitions, devices=devices)
    offered = {name: part(name, instance_type, logical_neuron_core=logical_neuron_core) for name in names}
    held: dict[str, tuple[str, ...]] = {}
    arrived: set[str] = set()
    refused: list[Refusal] = []
    moments = [usage((), instance_type)]
    for event in events:
        if isinstance(event, Release):
            if event.name not in arrived:
                raise ValueError(f"claim {event.name} is released but not there: let it arrive first")
            arrived.remove(event.name)
            held.pop(event.name, None)
        else:
            if event.name in arrived:
                raise ValueError(f"claim {event.name} is there already: release it first, or choose another name")
            if event.count < 1:
                raise ValueError(f"claim {event.name} asks for {event.count} devices: ask for 1 or more")
            arrived.add(event.name)
            pieces = [offered[name] for names in held.values() for name in names]
            found = _first_fit(event, offered, pieces)
            if len(found) == event.count <= MAX_DEVICES_PER_CLAIM:
                held[event.name] = found
            else:
                refused.append(Refusal(event, _reason(event, offered, pieces, instance_type)))
        moments.append(usage([offered[name] for names in held.values() for name in names], instance_type))
    return Packing(tuple(moments), held, tuple(refused))


def _first_fit(claim: Claim, offered: Mapping[str, Part], held: Sequence[Part]) -> tuple[str, ...]:
    taken = {core for piece in held for core in piece.physical_cores}
    free = (
        name for name, piece in offered.items() if piece.kind == claim.kind and taken.isdisjoint(piece.physical_cores)
    )
    return tuple(islice(free, claim.count))


def _reason(claim: Claim, offered: Mapping[str, Part], held: Sequence[Part], instance_type: InstanceType) -> Reason:
    alike = next((piece for piece in offered.values() if piece.kind == claim.kind), None)
    if alike is None:
        return "not offered"
    if claim.count > MAX_DEVICES_PER_CLAIM:
        return "too many devices"
    together = usage([*held, *[alike] * claim.count], instance_type)
    return "fragmented" if together.whole + together.best <= together.chips else "full"


def usage(held: Sequence[Part], instance_type: InstanceType) -> Usage:
    """How the chips of a node are used that has given these parts."""
    cores = [piece for piece in held if piece.kind in ("core", "physical_core")]
    return Usage(
        chips=instance_type.chips,
        whole=sum(len(piece.chips) for piece in held if piece.kind in ("chip", "node")),
        broken=len({chip for piece in cores for chip in piece.chips}),
        best=-(-sum(len(piece.physical_cores) for piece in cores) // instance_type.chip.physical_cores),
    )
