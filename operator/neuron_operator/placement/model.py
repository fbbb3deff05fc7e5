"""What placement is told and what it answers: plain values, nothing of Kubernetes in them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias, get_args

Level: TypeAlias = Literal["node", "row", "ultraserver-2", "ultraserver", "network-3", "network-2", "network-1"]
"""How far apart the pods of a gang may be; the closest first."""

LEVELS: Final[tuple[Level, ...]] = get_args(Level)


@dataclass(frozen=True, slots=True)
class NodeState:
    """A node, and what is free on it."""

    name: str
    chips: int
    """All that it has."""
    free: tuple[int, ...]
    """Numbers of the chips that nobody has and that are healthy."""
    instance_type: str
    domains: Mapping[Level, str] = field(default_factory=dict)
    """The id of its domain at each level that it has; `node` and `row` need none. Who is in a pair of an UltraServer is
    in that UltraServer."""
    position: int | None = None
    """Its number in its UltraServer."""
    closed: str | None = None
    """Why nobody may be placed here now, as the end of "node X is …": "cordoned", "reserved for gang Y"."""
    used_by: tuple[str, ...] = ()
    """Who has chips here, as people know them: "gang training/a", "pod default/b". For the sentences only."""
    cut_off: bool = False
    """None of its EFA cards works: nothing goes to nodes that NeuronLink does not reach."""


@dataclass(frozen=True, slots=True)
class Gang:
    """Pods that are alike and run together or not at all."""

    name: str
    size: int
    level: Level = "ultraserver"
    chips: int = 0
    """Of each pod; 0: none."""
    whole_nodes: bool = False
    """Each pod has a node of its own, of which every chip is free, and takes all of them, whatever `chips` says."""
    spread: bool = False
    """At most one of its pods on a node. Without it pods share a node where their chips fit."""
    efa: bool = False
    """Its pods claim EFA cards."""
    instance_type: str | None = None
    """None: any, but one and the same for all of its pods."""
    nodes: frozenset[str] | None = None
    """The nodes that selectors, affinity and taints leave; None: all."""

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"gang {self.name} has size {self.size}: give it 1 or more pods")
        if self.chips < 0:
            raise ValueError(f"gang {self.name} asks for {self.chips} chips: ask for 0 or more")
        if self.level not in LEVELS:
            raise ValueError(f"gang {self.name} has level {self.level!r}: use one of {', '.join(LEVELS)}")


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a gang goes."""

    gang: str
    nodes: tuple[str, ...]
    """Of each pod, by its index. Neighbours in the fleet are neighbours here, as a ring over the pods wants it."""
    cost: int
    """Nanoseconds of a ring through the pods in this order and back to the first: see `ways`."""
    domain: str
    """The domain of the gang's level that was chosen; for `node` and `row` the node."""
    chips: tuple[tuple[int, ...], ...]
    """Of each pod: what is counted as taken. Binding for level `row`; otherwise the scheduler may take others."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a gang goes nowhere."""

    gang: str
    reasons: tuple[str, ...]
    """Sentences, the most helpful first: what was considered, what the best domain lacks, what to free or change."""


@dataclass(frozen=True, slots=True)
class Considered:
    """One domain of a gang's level, for people who ask why not there."""

    level: Level
    domain: str
    nodes: tuple[str, ...]
    """Its nodes, in the order of their positions."""
    room: int
    """How many of the gang's pods fit now, at most its size."""
    room_if_empty: int
    """How many would if nothing were used and nothing closed, at most its size."""
    lacks: tuple[str, ...]
    """A sentence for each node that could take more pods of the gang; none where the gang fits."""

    @property
    def fits(self) -> bool:
        """Whether `place` could have chosen it."""
        return not self.lacks
