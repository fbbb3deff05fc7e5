"""Where in one UltraServer some pods of a gang go, and how well that leaves it: arithmetic on numbers of free chips.

A *unit* is an UltraServer, or a node that is in none. Only the number of free chips on each node matters here, so that
a thousand UltraServers in the same state are one question, asked once.

A smaller score is better. First comes what later gangs lose, the dearest first: a whole UltraServer broken into, a
whole pair, a whole node, a whole row; whole nodes taken; whole nodes, then chips, left over beside the gang (best fit:
the fewest). Then the way round the gang's own nodes.

In units of up to four nodes every sensible choice is looked at. In the 36 of a Trn3 Gen2 UltraServer a few are: as
compact as possible by racks, then pairs, and what is broken already first.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache, lru_cache
from itertools import combinations
from typing import Literal, NamedTuple, TypeAlias

from neuron_operator.placement.ways import between_servers, ultraserver_type

_SMALL = 4
"""Nodes up to which every choice is looked at."""

State: TypeAlias = tuple[int, ...]
"""Free chips of each node; where the gang may not go, their complement (~), which is negative."""

Score: TypeAlias = tuple[int, ...]
Taken: TypeAlias = tuple[int, ...]
"""Pods on each node of a unit."""


class Demand(NamedTuple):
    """What is looked for; equal demands have equal answers."""

    pods: int
    chips: int
    whole: bool
    spread: bool
    within: Literal["node", "ultraserver-2", "unit"]
    row: bool
    network: bool
    """Only nodes with an EFA card that works."""


class Shape(NamedTuple):
    """What never changes about a unit. Units of one shape are interchangeable."""

    instance_type: str
    chips: int
    positions: tuple[int | None, ...]
    pairs: tuple[int, ...]
    """The number of each node's pair, equal for the nodes of one; a number of its own for a node in none."""
    complete: bool
    """All of its UltraServer's nodes are there."""


class Fit(NamedTuple):
    """An answer."""

    score: Score
    taken: Taken


def room(free: int, chips: int, demand: Demand) -> int:
    """How many of the pods fit on a node."""
    if free < 0:
        return 0
    if demand.whole:
        return int(free == chips > 0)
    most = 1 if demand.spread else demand.pods
    return min(most, free // demand.chips) if demand.chips else most


@lru_cache(maxsize=1 << 16)
def best_fit(shape: Shape, state: State, breaks_row: tuple[bool, ...], demand: Demand) -> Fit | None:
    """The best way to put all of the pods into a unit; None: they do not fit."""
    rooms = [room(free, shape.chips, demand) for free in state]
    options = dict.fromkeys(_options(shape, state, rooms, demand))
    fits = (Fit(_score(shape, state, breaks_row, demand, taken), taken) for taken in options)
    # at equal scores: on low positions
    return min(fits, key=lambda fit: (fit.score, [-pods for pods in fit.taken]), default=None)


def fill(
    rooms: Sequence[int], pods: int, key: Callable[[int, int], tuple[int, ...]] | None = None
) -> list[tuple[int, int]]:
    """Spread pods over the fewest places: the roomiest are filled, what then fits into one goes to the tightest.

    Pairs of a place's index and its pods. There must be room for all. `key` says of a place, and the pods that are
    left, how tight it is, in place of its room.
    """
    tightness = key or (lambda index, _: (rooms[index],))
    order = sorted(range(len(rooms)), key=lambda index: -rooms[index])
    found: list[tuple[int, int]] = []
    for step, index in enumerate(order):
        if rooms[index] >= pods:
            rest = pods
            tightest = min((i for i in order[step:] if rooms[i] >= rest), key=lambda i: (tightness(i, rest), i))
            return [*found, (tightest, rest)]
        found.append((index, rooms[index]))
        pods -= rooms[index]
    raise ValueError(f"{pods} pods too many: ask for as many as there is room for")


def _options(shape: Shape, state: State, rooms: Sequence[int], demand: Demand) -> Iterator[Taken]:
    there = [index for index, most in enumerate(rooms) if most]
    if demand.within == "node":
        groups = [[index] for index in there]
    elif demand.within == "ultraserver-2":
        groups = [[index for index in there if shape.pairs[index] == pair] for pair in sorted(set(shape.pairs))]
    else:
        groups = [there]
    for group in groups:
        if sum(rooms[index] for index in group) < demand.pods:
            continue
        if len(group) <= _SMALL:
            yield from _every_choice(rooms, group, demand.pods)
        else:
            yield _compact(shape, rooms, group, demand.pods)
            yield _broken_first(shape, state, rooms, group, demand.pods)


def _every_choice(rooms: Sequence[int], group: Sequence[int], pods: int) -> Iterator[Taken]:
    """Every set of nodes of which none could be left out, with each of them as the one that is not filled."""
    for count in range(1, len(group) + 1):
        for chosen in combinations(group, count):
            most = sum(rooms[index] for index in chosen)
            for last in chosen:
                if most - rooms[last] < pods <= most:
                    yield tuple(
                        (rooms[index] - (most - pods if index == last else 0)) if index in chosen else 0
                        for index in range(len(rooms))
                    )


def _compact(shape: Shape, rooms: Sequence[int], group: Sequence[int], pods: int) -> Taken:
    taken = [0] * len(rooms)
    by_rack: dict[int, dict[int, list[int]]] = {}
    for index in group:
        rack = _rack(shape.instance_type, shape.positions[index])
        by_rack.setdefault(rack, {}).setdefault(shape.pairs[index], []).append(index)
    racks = [list(pairs.values()) for pairs in by_rack.values()]
    for rack, of_rack in fill([sum(rooms[i] for pair in pairs for i in pair) for pairs in racks], pods):
        for pair, of_pair in fill([sum(rooms[i] for i in pair) for pair in racks[rack]], of_rack):
            nodes = racks[rack][pair]
            for node, of_node in fill([rooms[i] for i in nodes], of_pair):
                taken[nodes[node]] = of_node
    return tuple(taken)


def _broken_first(shape: Shape, state: State, rooms: Sequence[int], group: Sequence[int], pods: int) -> Taken:
    whole = [_free(free) == shape.chips for free in state]
    whole_pairs = {
        pair for pair in shape.pairs if all(whole[i] for i, other in enumerate(shape.pairs) if other == pair)
    }
    taken = [0] * len(rooms)
    for index in sorted(group, key=lambda i: (shape.pairs[i] in whole_pairs, whole[i], rooms[i], i)):
        taken[index] = min(pods, rooms[index])
        pods -= taken[index]
    return tuple(taken)


def _score(shape: Shape, state: State, breaks_row: tuple[bool, ...], demand: Demand, taken: Taken) -> Score:
    chips = shape.chips
    free = [_free(free) for free in state]
    used = [(chips if demand.whole else pods * demand.chips) if pods else 0 for pods in taken]
    members = range(len(state))
    pairs_broken = sum(
        len(pair) > 1 and _broken(chips, [free[i] for i in pair], [used[i] for i in pair])
        for pair in _members_of_pairs(shape.pairs)
    )
    ring = [index for index in members if taken[index]]
    cost = sum(
        between_servers(shape.instance_type, shape.positions[index], shape.positions[ring[step - 1]])
        for step, index in enumerate(ring)
    )
    return (
        shape.complete and _broken(chips, free, used),
        pairs_broken,
        sum(_broken(chips, [free[i]], [used[i]]) for i in members),
        sum(breaks_row[i] for i in members if breaks_row and taken[i]),
        sum(free[i] == chips and used[i] > 0 for i in members),
        sum(free[i] == chips and not used[i] for i in members),
        sum(free) - sum(used),
        cost if len(ring) > 1 else 0,
    )


def _broken(chips: int, free: Sequence[int], used: Sequence[int]) -> bool:
    """Whether what was whole is used in part."""
    return sum(free) == chips * len(free) and 0 < sum(used) < sum(free)


def _free(free: int) -> int:
    return free if free >= 0 else ~free


@cache
def _members_of_pairs(pairs: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(i for i, other in enumerate(pairs) if other == pair) for pair in sorted(set(pairs)))


@cache
def _rack(instance_type: str, position: int | None) -> int:
    kind = ultraserver_type(instance_type)
    groups = kind.switch_groups if kind else ()
    return next((number for number, group in enumerate(groups) if position in group), 0)
