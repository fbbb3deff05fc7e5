"""Which chips of one node a gang of level `row` gets: neighbours in one row of the node.

Rows are the device model's: on tori, and behind a switch, its sets of four; on rings and chains all chips in their
order. Inside a row the gang's chips have consecutive numbers. Rows that are broken already come first, so that whole
ones remain for those who need four.
"""

from functools import cache, lru_cache
from itertools import groupby

from neuron_device_model.catalog import UnknownInstanceType, instance_type
from neuron_device_model.contiguous import allowed_sets

_ROW = 4


@cache
def rows(type_name: str, chips: int) -> tuple[tuple[int, ...], ...]:
    """The rows of a node; one row of all chips if the type is not known."""
    try:
        kind = instance_type(type_name)
    except UnknownInstanceType:
        return (tuple(range(chips)),)
    grouped = kind.topology in ("torus2d", "switch") and kind.chips % _ROW == 0
    return allowed_sets(kind, _ROW if grouped else kind.chips)


@lru_cache(maxsize=1 << 14)
def choose_run(type_name: str, chips: int, free: tuple[int, ...], count: int) -> tuple[bool, tuple[int, ...]] | None:
    """The chips to give, and whether that breaks a row of which all were free; None: no row has room."""
    there = set(free)
    options = []
    for row in rows(type_name, chips):
        open_chips = [chip for chip in row if chip in there]
        for start in range(len(row) - count + 1):
            run = row[start : start + count]
            if there.issuperset(run):
                left = [chip for chip in open_chips if chip not in run]
                breaks = len(open_chips) == len(row) and bool(left)
                options.append((breaks, len(left), -_longest(tuple(left)), run))
    if not options:
        return None
    breaks, _, _, run = min(options)
    return breaks, run


def longest_run(type_name: str, chips: int, free: tuple[int, ...]) -> int:
    """The most chips that are free beside one another in one row."""
    there = set(free)
    return max((_longest(tuple(chip for chip in row if chip in there)) for row in rows(type_name, chips)), default=0)


@lru_cache(maxsize=1 << 14)
def _longest(numbers: tuple[int, ...]) -> int:
    """Of consecutive numbers, in ascending ones."""
    runs = groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0])
    return max((len(list(run)) for _, run in runs), default=0)
