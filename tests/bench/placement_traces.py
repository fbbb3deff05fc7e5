"""Gangs that arrive and leave, by seed, and what becomes of them with our placement and with two simple ones.

First-fit takes the first domain with room, by name, best-fit the one with the least room left; both then take the first
nodes of it that have room. They know all rules about who may go where, and nothing else.

A trace begins with the fleet as busy as it will stay: as many gangs as run at a time in the long run come at moment 0
and are not counted. Lives are exponential, so it does not matter when they began.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from heapq import heappop, heappush
from random import Random

from neuron_operator.placement import Board, Gang, Level, NodeState, Placement
from neuron_operator.placement.ways import ring_cost

CHIPS = 16
NODES = 4
"""Of an UltraServer."""

# weight, then the gang: pods, level, chips of each (None: whole nodes)
MIX: Sequence[tuple[int, int, Level, int | None]] = (
    (6, 1, "node", 4),
    (4, 2, "node", 8),
    (15, 1, "ultraserver", None),
    (12, 2, "ultraserver-2", None),
    (12, 2, "ultraserver", None),
    (6, 3, "ultraserver", None),
    (30, 4, "ultraserver", None),
    (10, 8, "network-2", None),
    (5, 16, "network-2", None),
)


@dataclass(frozen=True, slots=True)
class Arrival:
    gang: Gang
    comes: int
    """A moment; 0: it is part of the fleet's load when the trace begins, and does not count."""
    leaves: float


@dataclass(slots=True)
class Outcome:
    """What became of the gangs that count."""

    gangs: int = 0
    nodes: float = 0
    """Asked for by all of them; chips as parts of nodes."""
    refused: int = 0
    refused_nodes: float = 0
    ways: int = 0
    """Nanoseconds of the rings of those that were placed."""
    least_ways: int = 0
    """The gangs that were placed, each on a fleet of its own."""

    def __add__(self, other: "Outcome") -> "Outcome":
        return Outcome(
            self.gangs + other.gangs,
            self.nodes + other.nodes,
            self.refused + other.refused,
            self.refused_nodes + other.refused_nodes,
            self.ways + other.ways,
            self.least_ways + other.least_ways,
        )


class FirstFit:
    """First-fit, and best-fit with `tight`; on numbers of free chips, as neither looks at more."""

    def __init__(self, fleet: Sequence[NodeState], *, tight: bool = False) -> None:
        self._nodes = {state.name: state for state in sorted(fleet, key=lambda state: state.name)}
        self._free = {name: len(state.free) for name, state in self._nodes.items()}
        self._tight = tight
        self._domains: dict[Level, dict[str, list[str]]] = {}
        for name, state in self._nodes.items():
            self._domains.setdefault("node", {})[name] = [name]
            for level, domain in state.domains.items():
                self._domains.setdefault(level, {}).setdefault(domain, []).append(name)
        self._left = {level: {d: self._sum(names) for d, names in of.items()} for level, of in self._domains.items()}

    def place(self, gang: Gang) -> list[str] | None:
        wanted = gang.size * (CHIPS if gang.whole_nodes else gang.chips)
        left = self._left[gang.level]
        order = [domain for domain, free in left.items() if free >= wanted]
        if self._tight:
            order.sort(key=lambda domain: left[domain])
        for domain in order:
            found: list[str] = []
            for name in self._domains[gang.level][domain]:
                free = self._free[name]
                rooms = int(free == CHIPS) if gang.whole_nodes else free // gang.chips
                found += [name] * min(rooms, gang.size - len(found))
            if len(found) == gang.size:
                return found
        return None

    def change(self, gang: Gang, nodes: Sequence[str], sign: int) -> None:
        chips = sign * (CHIPS if gang.whole_nodes else gang.chips)
        for name in nodes:
            self._free[name] += chips
            self._left["node"][name] += chips
            for level, domain in self._nodes[name].domains.items():
                self._left[level][domain] += chips

    def _sum(self, names: Sequence[str]) -> int:
        return sum(self._free[name] for name in names)


def fleet(ultraservers: int) -> list[NodeState]:
    """Trn2 UltraServers, four below each network node of layer 3 and 32 below one of layer 2."""
    return [
        NodeState(
            name=f"n{server:04}-{position}",
            chips=CHIPS,
            free=tuple(range(CHIPS)),
            instance_type="trn2u.48xlarge",
            domains={
                "ultraserver": f"us-{server:04}",
                "ultraserver-2": f"us-{server:04}/{position // 2}",
                "network-3": f"nn3-{server // 4:03}",
                "network-2": f"nn2-{server // 32:02}",
                "network-1": "nn1",
            },
            position=position,
        )
        for server in range(ultraservers)
        for position in range(NODES)
    ]


def trace(
    seed: int,
    *,
    gangs: int,
    ultraservers: int,
    load: float,
    mix: Sequence[tuple[int, int, Level, int | None]] = MIX,
    warm: bool = True,
) -> list[Arrival]:
    """One arrival at a time; were all placed, the fleet would be used to `load`, which may be more than 1."""
    random = Random(seed)
    weights = [weight for weight, *_ in mix]
    kinds = [gang_of("", size, level, chips) for _, size, level, chips in mix]
    mean = sum(weight * _nodes_of(kind) for weight, kind in zip(weights, kinds, strict=True)) / sum(weights)
    life = load * ultraservers * NODES / mean
    before = round(life) if warm else 0
    found = []
    for number in range(before + gangs):
        gang = replace(random.choices(kinds, weights)[0], name=f"gang-{number:04}")
        comes = max(0, number - before + 1)
        found.append(Arrival(gang, comes, comes + random.expovariate(1 / life)))
    return found


IN_ULTRASERVERS = [kind for kind in MIX if kind[2] in ("ultraserver", "ultraserver-2")]
"""Of the mix, what `repacking` and the exact solver can tell about."""


def ours(nodes: Sequence[NodeState], arrivals: Sequence[Arrival]) -> Outcome:
    """With our placement."""
    board = Board(nodes)
    held: dict[str, Placement] = {}

    def place(gang: Gang) -> list[str] | None:
        answer = board.place(gang)
        if not isinstance(answer, Placement):
            return None
        board.take(answer)
        held[gang.name] = answer
        return list(answer.nodes)

    return _run(nodes, arrivals, place, lambda gang, _: board.release(held.pop(gang.name)))


def first_fit(nodes: Sequence[NodeState], arrivals: Sequence[Arrival], *, tight: bool = False) -> Outcome:
    """With the simple ones."""
    state = FirstFit(nodes, tight=tight)

    def place(gang: Gang) -> list[str] | None:
        found = state.place(gang)
        if found:
            state.change(gang, found, -1)
        return found

    return _run(nodes, arrivals, place, lambda gang, names: state.change(gang, names, 1))


def best_fit(nodes: Sequence[NodeState], arrivals: Sequence[Arrival]) -> Outcome:
    return first_fit(nodes, arrivals, tight=True)


def repacking(arrivals: Sequence[Arrival], *, ultraservers: int) -> Outcome:
    """As if all gangs could be moved at each arrival; for whole nodes in UltraServers.

    Each gang has the shortest way. Four-node gangs fill an UltraServer, three-node ones leave a node, pairs go by two,
    single nodes fill up: no packing of these sizes needs fewer.
    """
    sizes = [0] * (NODES + 1)

    def place(gang: Gang) -> list[str] | None:
        sizes[gang.size] += 1
        _, one, two, three, four = sizes
        alone = max(0, one - three - 2 * (two % 2))
        if four + three + -(-two // 2) + -(-alone // NODES) <= ultraservers:
            return [f"n0000-{number}" for number in range(gang.size)]
        sizes[gang.size] -= 1
        return None

    def leave(gang: Gang, _: list[str]) -> None:
        sizes[gang.size] -= 1

    return _run(fleet(1), arrivals, place, leave)


def _run(
    nodes: Sequence[NodeState],
    arrivals: Sequence[Arrival],
    place: Callable[[Gang], list[str] | None],
    leave: Callable[[Gang, list[str]], None],
) -> Outcome:
    by_name = {state.name: state for state in nodes}
    result = Outcome()
    running: list[tuple[float, int, list[str]]] = []
    for number, arrival in enumerate(arrivals):
        while running and running[0][0] <= arrival.comes:
            _, which, names = heappop(running)
            leave(arrivals[which].gang, names)
        found = place(arrival.gang)
        if found is not None:
            heappush(running, (arrival.leaves, number, found))
        if arrival.comes:
            _count(result, arrival.gang, None if found is None else [by_name[name] for name in found])
    return result


def _count(result: Outcome, gang: Gang, nodes: list[NodeState] | None) -> None:
    result.gangs += 1
    result.nodes += _nodes_of(gang)
    if nodes is None:
        result.refused += 1
        result.refused_nodes += _nodes_of(gang)
        return
    result.ways += ring_cost(nodes)
    result.least_ways += _least_way(gang.size, gang.level)


@cache
def _least_way(size: int, level: Level) -> int:
    """Round the nodes of a fleet where nothing is used."""
    if level == "node":
        return 0
    return ring_cost(fleet(-(-size // NODES))[:size])


def _nodes_of(gang: Gang) -> float:
    return gang.size if gang.whole_nodes else gang.size * gang.chips / CHIPS


def gang_of(name: str, size: int, level: Level, chips: int | None) -> Gang:
    return Gang(name, size, level, chips=chips or 0, whole_nodes=chips is None)


def outcomes(nodes: Sequence[NodeState], arrivals: Sequence[Arrival]) -> Iterator[tuple[str, Outcome]]:
    """Of all three."""
    yield "ours", ours(nodes, arrivals)
    yield "best-fit", best_fit(nodes, arrivals)
    yield "first-fit", first_fit(nodes, arrivals)
