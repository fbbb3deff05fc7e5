"""Which devices a container had best have when nobody has chosen: AWS's sets where one is free, else what is close.

Without the scheduler extension the kubelet asks for any number, on a node that is used in any way, so there is always
an answer as long as there are enough. Pure.
"""

from collections.abc import Collection, Iterable, Mapping
from itertools import combinations

from neuron_device_model.contiguous import UnsupportedCount, allowed_sets, choose_chips, choose_cores
from neuron_device_model.cores import visible_cores

from ..node import SimulatedNode


def preferred_chips(
    node: SimulatedNode, available: Collection[int], count: int, *, must: Collection[int] = ()
) -> tuple[int, ...]:
    """The best chips; with fewer available than asked for, all of them."""
    kind = node.instance_type
    available = {*available, *must}
    try:
        if must:
            sets = (s for s in allowed_sets(kind, count) if set(must) <= set(s) <= available)
            ideal = next(sets, None)
        else:
            ideal = choose_chips(kind, available, count)
    except UnsupportedCount:
        ideal = None
    return ideal or _close(node, {chip: (chip,) for chip in available}, count, must)


def preferred_cores(
    node: SimulatedNode, available: Collection[int], count: int, *, must: Collection[int] = ()
) -> tuple[int, ...]:
    """The best logical cores; with fewer available than asked for, all of them."""
    available = {*available, *must}
    per_chip = visible_cores(node.instance_type.chip, node.logical_neuron_core)
    ideal = None
    if not must:
        try:
            ideal = choose_cores(node.instance_type, node.logical_neuron_core, available, count)
        except UnsupportedCount:
            ideal = None
    chips: dict[int, list[int]] = {}
    for core in sorted(available):
        chips.setdefault(core // per_chip, []).append(core)
    return ideal or _close(node, chips, count, must)


def _close(
    node: SimulatedNode, chips: Mapping[int, Collection[int]], count: int, must: Collection[int]
) -> tuple[int, ...]:
    """Grow a set from each chip, always by the nearest one, and take the set with the shortest ways."""
    distance = node.instance_type.wiring.distance
    begun = sorted(chip for chip, ids in chips.items() if not set(ids).isdisjoint(must))

    def grown(start: Iterable[int]) -> list[int]:
        members = list(start)
        rest = set(chips) - set(members)
        while rest and sum(len(chips[chip]) for chip in members) < count:
            nearest = min(rest, key=lambda c: (sum(distance(c, m) for m in members), -len(chips[c]), c))
            members.append(nearest)
            rest.remove(nearest)
        return members

    def ways(members: list[int]) -> tuple[int, int]:
        return len(members), sum(distance(one, other) for one, other in combinations(members, 2))

    starts = [begun] if begun else [[chip] for chip in sorted(chips)]
    best = min((grown(start) for start in starts), key=ways, default=[])
    ids = [*must, *(id_ for chip in best for id_ in chips[chip] if id_ not in must)]
    return tuple(sorted(ids[:count]))
