"""Which chips or cores go to one container on the device-plugin road: AWS's rules, as pure functions.

Two processes must agree on them: the scheduler extension, which chooses for pods that it schedules, and the node's
device plugin, which prefers the same sets for all others. So there is one rule, here, and no state.

The rules are those of AWS's scheduler extension (AWS docs: deploy/infrastructure/scheduler.rst). On rings and chains
any number of chips with consecutive numbers; on tori 1, 4, 8 or 16, a set of 4 being a row and one of 8 two rows; one
chip or all of them always; cores are consecutive. Ours, because nothing is published: types whose chips sit behind a
switch follow the tori, sets do not wrap around a ring's end, and among several free sets the one is taken that breaks
the fewest others, the lowest of those. On an empty node that is first fit from 0.
"""

from collections.abc import Collection
from functools import cache
from itertools import pairwise

from neuron_device_model.catalog import InstanceType
from neuron_device_model.cores import visible_cores

_GROUPED = (4, 8, 16)
"""Set sizes, besides one and all, where chips are not in a line; they are AWS's device groups, too."""


class UnsupportedCount(ValueError):
    """The type never gives this number to one container, however empty it is. The words are AWS's."""

    def __init__(self, instance_type: InstanceType, count: int, *, of: str = "device") -> None:
        super().__init__(
            f"Instance type {instance_type.name} does not support requests for {of}: {count}. "
            f"Please request a different number of {of}s."
        )


def allowed_sets(instance_type: InstanceType, count: int) -> tuple[tuple[int, ...], ...]:
    """Every set of `count` chips that may go to one container, the lowest first."""
    sets = _sets(instance_type.chips, _in_line(instance_type), count)
    if not sets:
        raise UnsupportedCount(instance_type, count)
    return sets


def choose_chips(instance_type: InstanceType, free: Collection[int], count: int) -> tuple[int, ...] | None:
    """The chips to give out of those that are free; None: no allowed set is free now."""
    free = set(free)
    fitting = [chips for chips in allowed_sets(instance_type, count) if free.issuperset(chips)]
    open_sets = [set(s) for s in _every_set(instance_type.chips, _in_line(instance_type)) if free.issuperset(s)]
    return min(fitting, key=lambda chips: sum(not s.isdisjoint(chips) for s in open_sets), default=None)


def choose_cores(
    instance_type: InstanceType, logical_neuron_core: int, free: Collection[int], count: int
) -> tuple[int, ...] | None:
    """The logical cores to give, numbered node-wide, out of those that are free; None: no run of them is free now.

    In this order: on few chips, and those connected; on chips that are used already, so that few are broken; aligned to
    a multiple of the count, as a collective expects its ranks; low numbers.
    """
    per_chip = visible_cores(instance_type.chip, logical_neuron_core)
    if not 1 <= count <= instance_type.chips * per_chip:
        raise UnsupportedCount(instance_type, count, of="core")
    free = set(free)
    wiring = instance_type.wiring

    def cost(cores: range) -> tuple[int, int, int, bool]:
        chips = range(cores[0] // per_chip, cores[-1] // per_chip + 1)
        hops = sum(wiring.distance(one, other) for one, other in pairwise(chips))
        unused = sum(core in free for core in range(chips[0] * per_chip, (chips[-1] + 1) * per_chip))
        return len(chips), hops, unused, cores[0] % count != 0

    windows = (range(start, start + count) for start in range(instance_type.chips * per_chip - count + 1))
    best = min((cores for cores in windows if free.issuperset(cores)), key=cost, default=None)
    return None if best is None else tuple(best)


def _in_line(instance_type: InstanceType) -> bool:
    return instance_type.topology in ("single", "chain", "ring")


@cache
def _every_set(chips: int, in_line: bool) -> tuple[tuple[int, ...], ...]:
    return tuple(found for count in range(1, chips + 1) for found in _sets(chips, in_line, count))


@cache
def _sets(chips: int, in_line: bool, count: int) -> tuple[tuple[int, ...], ...]:
    if in_line and 1 <= count <= chips:
        starts = range(chips - count + 1)
    elif count in (1, chips) or (count in _GROUPED and chips % count == 0):
        starts = range(0, chips, count)
    else:
        return ()
    return tuple(tuple(range(start, start + count)) for start in starts)
