"""How the chips of an instance, or of an UltraServer, are wired: neighbours, distances, paths, bisection.

One frozen value says it all, its kind and its extents, and every answer is computed from coordinates; no
graph is kept. Chips are numbered row-major: in a 4x4 torus chip i sits at row i // 4, column i % 4, which
is how the Neuron driver numbers them.

A switch is not a chip: chips behind one are one hop apart, and its bisection counts each chip's uplink as
one link.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations
from math import prod

KINDS = ("single", "chain", "ring", "torus2d", "torus3d", "switch")
_DIMENSIONS = {"torus2d": 2, "torus3d": 3}
_SMALLEST = {"single": 1, "ring": 3}


@dataclass(frozen=True, slots=True)
class Topology:
    """A regular arrangement of chips: what kind, and how many in each dimension."""

    kind: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown topology {self.kind!r}; one of {', '.join(KINDS)}")
        dimensions = _DIMENSIONS.get(self.kind, 1)
        if len(self.shape) != dimensions:
            raise ValueError(f"topology {self.kind} has {dimensions} dimension(s), not shape {self.shape}")
        smallest = _SMALLEST.get(self.kind, 2)
        if min(self.shape) < smallest or (self.kind == "single" and self.shape != (1,)):
            raise ValueError(f"topology {self.kind} cannot have shape {self.shape}")

    @property
    def size(self) -> int:
        """How many chips there are."""
        return prod(self.shape)

    def coordinates(self, chip: int) -> tuple[int, ...]:
        """Where a chip sits, row first."""
        if not 0 <= chip < self.size:
            raise ValueError(f"no chip {chip} in a {self.kind} of {self.size}")
        found = []
        for extent in reversed(self.shape):
            chip, position = divmod(chip, extent)
            found.append(position)
        return tuple(reversed(found))

    def neighbours(self, chip: int) -> tuple[int, ...]:
        """The chips one hop away, ascending."""
        here = self.coordinates(chip)
        if self.kind == "switch":
            return tuple(other for other in range(self.size) if other != chip)
        found = set()
        for axis, extent in enumerate(self.shape):
            for step in (-1, 1):
                position = here[axis] + step
                if self._wraps:
                    position %= extent
                elif not 0 <= position < extent:
                    continue
                found.add(self._chip((*here[:axis], position, *here[axis + 1 :])))
        return tuple(sorted(found - {chip}))

    def distance(self, a: int, b: int) -> int:
        """The fewest hops from one chip to another."""
        start, goal = self.coordinates(a), self.coordinates(b)
        if self.kind == "switch":
            return int(a != b)
        return sum(abs(self._offset(x, y, extent)) for x, y, extent in zip(start, goal, self.shape, strict=True))

    def path(self, a: int, b: int) -> tuple[int, ...]:
        """One shortest path, both ends included: dimension by dimension, the last dimension first.

        Where both ways round are equally long, the ascending one is taken, so the answer is always the same.
        """
        start, goal = self.coordinates(a), self.coordinates(b)
        if self.kind == "switch":
            return (a,) if a == b else (a, b)
        return (a, *self._walk(start, goal))

    def bisection_width(self) -> int:
        """The fewest links that must be cut to part the chips into two halves (differing by one if odd).

        For grids and tori: the staircase cut of Efe and Feng ("A Proof for Bisection Width of Grids", 2007),
        a wrapped dimension counting twice. At extent 2 the wrap is the same link, so it counts once.
        """
        if self.kind == "single":
            return 0
        if self.kind == "switch":
            return self.size // 2
        return min(self._staircase(order) for order in permutations(self.shape))

    @property
    def _wraps(self) -> bool:
        return self.kind in ("ring", "torus2d", "torus3d")

    def _chip(self, position: tuple[int, ...]) -> int:
        chip = 0
        for value, extent in zip(position, self.shape, strict=True):
            chip = chip * extent + value
        return chip

    def _offset(self, start: int, goal: int, extent: int) -> int:
        """Signed steps along one dimension, the shorter way round where it wraps."""
        if not self._wraps:
            return goal - start
        forward = (goal - start) % extent
        return forward if forward <= extent - forward else forward - extent

    def _walk(self, start: tuple[int, ...], goal: tuple[int, ...]) -> Iterator[int]:
        here = list(start)
        for axis in reversed(range(len(here))):
            extent = self.shape[axis]
            offset = self._offset(here[axis], goal[axis], extent)
            for _ in range(abs(offset)):
                here[axis] = (here[axis] + (1 if offset > 0 else -1)) % extent
                yield self._chip(tuple(here))

    def _staircase(self, order: tuple[int, ...]) -> int:
        """Links crossed by halving the first extent, and, while extents are odd, its middle layer in turn."""
        cut = 0
        for position, extent in enumerate(order):
            crossings = 2 if self._wraps and extent > 2 else 1
            cut += crossings * prod(order[position + 1 :])
            if extent % 2 == 0:
                break
        return cut
