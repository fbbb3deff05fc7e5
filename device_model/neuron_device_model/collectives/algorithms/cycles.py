"""Rings for data to go round on: Hamiltonian cycles over neighbouring chips that share no link.

The 4x4 torus has two. Along each row three steps, then one down, is the first; the links it leaves are the second, and
that is the first with rows and columns changed. Other sets of chips are searched, within a bound on the effort: a set
that is scattered has none, and its ring takes the ways that there are.
"""

from collections.abc import Collection, Mapping
from functools import lru_cache

from neuron_device_model.catalog import instance_type
from neuron_device_model.topology import Topology

Cycle = tuple[int, ...]
_EFFORT = 4000
"""Chips tried in one search; a regular block of chips needs a few dozen."""


@lru_cache(maxsize=4096)
def cycles(type_name: str, chips: tuple[int, ...]) -> tuple[Cycle, ...]:
    """Cycles through all these chips of one instance that share no link; none where there is no way round.

    Two chips that are neighbours go to and fro, which counts as one.
    """
    wiring = instance_type(type_name).wiring
    if wiring.kind == "switch" or len(chips) == 1:
        return (chips,)
    if wiring.kind == "torus2d" and len(chips) == wiring.size and wiring.shape[0] == wiring.shape[1]:
        return _square_torus(wiring)
    members = set(chips)
    free = {chip: [other for other in wiring.neighbours(chip) if other in members] for chip in chips}
    found = []
    while (cycle := _search(chips[0], free)) is not None:
        found.append(cycle)
        for a, b in zip(cycle, (*cycle[1:], cycle[0]), strict=True):
            for here, there in ((a, b), (b, a)):
                if there in free[here]:
                    free[here].remove(there)
    return tuple(found)


def _square_torus(wiring: Topology) -> tuple[Cycle, Cycle]:
    extent = wiring.shape[0]
    along_rows = [(row, (step - row) % extent) for row in range(extent) for step in range(extent)]
    first = tuple(row * extent + column for row, column in along_rows)
    second = tuple(column * extent + row for row, column in along_rows)
    return first, second


def _search(start: int, free: Mapping[int, Collection[int]]) -> Cycle | None:
    """Depth first, chips with the fewest ways on before others (Warnsdorff)."""
    if len(free) == 2:
        other = next(chip for chip in free if chip != start)
        return (start, other) if other in free[start] else None
    path, used = [start], {start}
    ways = [_ways_on(start, free, used)]
    effort = _EFFORT
    while ways and effort:
        effort -= 1
        if not ways[-1]:
            ways.pop()
            used.discard(path.pop())
            continue
        chip = ways[-1].pop()
        path.append(chip)
        used.add(chip)
        if len(path) == len(free) and start in free[chip]:
            return tuple(path)
        ways.append(_ways_on(chip, free, used))
    return None


def _ways_on(chip: int, free: Mapping[int, Collection[int]], used: Collection[int]) -> list[int]:
    """The free neighbours, the one to try first at the end."""
    return sorted(
        (other for other in free[chip] if other not in used),
        key=lambda other: (-sum(beyond not in used for beyond in free[other]), -other),
    )
