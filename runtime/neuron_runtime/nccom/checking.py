"""Runs an operation on real data and compares every element that any rank has afterwards with what it must be.

What must be is calculated from the seed alone; what is there has been sent from rank to rank, window by window, so
that any size fits into little memory. Ranks of one process share its memory, and a message between them is a reference;
between processes bytes are sent. Sums are those of a binary tree over the ranks of each process, then over processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from neuron_runtime.nccom import buffers, elements
from neuron_runtime.nccom.pieces import pieces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol

    from neuron_runtime.nccom.buffers import Buffer
    from neuron_runtime.nccom.pieces import Piece
    from neuron_runtime.nccom.streams import Stream

    Wire = Callable[[int, int, bytes], bytes]

    class Transport(Protocol):
        """Root and members of a group."""

        @property
        def number(self) -> int:
            """Of this process."""

        def combine(
            self, owners: Sequence[int], own: bytes | None, adding: Callable[[bytes, bytes], bytes], length: int
        ) -> bytes | None:
            """The sum of what these processes have, at the root."""

        def spread(self, receivers: Sequence[int], total: bytes | None, length: int) -> bytes | None:
            """Bring the root's sum to these processes."""


@dataclass(eq=False)
class Mismatch(Exception):
    """An element is not what it must be."""

    rank: int
    element: int
    expected: str
    found: str
    output: bytes
    golden: bytes

    def __str__(self) -> str:
        return (
            f"Data check failed: rank {self.rank} has {self.found} in element {self.element} of its output, "
            f"and {self.expected} is right"
        )


class Check:
    """One stream's data in one process."""

    def __init__(
        self,
        stream: Stream,
        processes: Sequence[int],
        *,
        seed: int | None,
        wire: Wire | None = None,
        group: Transport | None = None,
    ) -> None:
        """`processes` says in which process each rank is; `wire` may change what goes from one rank to another.

        Without a group all ranks are in this process.
        """
        self._stream = stream
        self._processes = processes
        self._wire = wire
        self._group = group
        self._width = elements.width(stream.datatype)
        self._adding = partial(buffers.added, stream.datatype)
        self._inputs = [buffers.buffer(stream.datatype, rank, seed=seed) for rank in range(len(processes))]
        self._goldens: dict[tuple[int, ...], Buffer] = {}
        self._known: dict[bool, tuple[Sequence[bytes], bytes]] = {}
        self._mismatch: Mismatch | None = None

    def run(self, size: int) -> None:
        """Do the operation and look at the results of this process' ranks. Raises Mismatch.

        With a group it is done to the end all the same, because the others wait for it.
        """
        self._mismatch = None
        for piece in pieces(self._stream, size):
            for place, count in buffers.windows(piece.sources[0][1], piece.count):
                offset = place - piece.sources[0][1]
                total = self._total(piece, offset, count)
                if total is not None:
                    self._deliver(piece, offset, total)
                if self._mismatch is not None and self._group is None:
                    raise self._mismatch
        if self._mismatch is not None:
            raise self._mismatch

    def _total(self, piece: Piece, offset: int, count: int) -> bytes | None:
        """A window of the sum, where it is for a rank of this process."""
        mine = [spot for spot in piece.sources if self._is_mine(spot[0])]
        own = self._added([rank for rank, _ in mine], self._sent(mine, piece.holder, offset, count)) if mine else None
        if self._group is None:
            return own
        length = count * self._width
        owners = list(dict.fromkeys(self._processes[rank] for rank, _ in piece.sources))
        receivers = list(dict.fromkeys(self._processes[rank] for rank, _ in piece.targets))
        if owners == receivers == [self._group.number]:
            return own
        if len(owners) == 1 and owners == receivers:
            return None  # of another process alone
        return self._group.spread(receivers, self._group.combine(owners, own, self._adding, length), length)

    def _is_mine(self, rank: int) -> bool:
        return self._group is None or self._processes[rank] == self._group.number

    def _sent(self, spots: Sequence[tuple[int, int]], holder: int, offset: int, count: int) -> list[bytes]:
        """What arrives at the holder of a piece from ranks of this process, for a window of it."""
        return [
            self._carry(rank, holder, self._inputs[rank].window((first + offset) * self._width, count * self._width))
            for rank, first in spots
        ]

    def _added(self, ranks: Sequence[int], parts: Sequence[bytes]) -> bytes:
        if len(parts) == 1:
            return parts[0]
        # the same bytes from the same ranks have the same sum
        is_whole = len(parts[0]) == buffers.WINDOW * self._width
        known, total = self._known.get(is_whole, ((), b""))
        if len(known) != len(parts) or any(a is not b for a, b in zip(known, parts, strict=True)):
            total = self._sum(ranks, parts)
            self._known[is_whole] = (parts, total)
        return total

    def _deliver(self, piece: Piece, offset: int, total: bytes) -> None:
        """Bring a window of the sum to those of this process for whom it is, and compare."""
        golden = self._golden(piece).window((piece.sources[0][1] + offset) * self._width, len(total))
        for rank, first in piece.targets:
            if self._is_mine(rank):
                found = self._carry(piece.holder, rank, total)
                if found != golden:
                    self._mismatch = self._mismatch or self._difference(rank, first + offset, found, golden)

    def _carry(self, source: int, target: int, data: bytes) -> bytes:
        return self._wire(source, target, data) if self._wire and source != target else data

    def _sum(self, ranks: Sequence[int], parts: Sequence[bytes]) -> bytes:
        of_processes: dict[int, list[bytes]] = {}
        for rank, part in zip(ranks, parts, strict=True):
            of_processes.setdefault(self._processes[rank], []).append(part)
        inside = [buffers.tree_sum(members, self._adding) for members in of_processes.values()]
        return buffers.tree_sum(inside, self._adding)

    def _golden(self, piece: Piece) -> Buffer:
        ranks = tuple(rank for rank, _ in piece.sources)
        if len(ranks) == 1:
            return self._inputs[ranks[0]]
        if ranks not in self._goldens:
            block = buffers.PERIOD * self._width
            blocks = [self._inputs[rank].window(0, block) for rank in ranks]
            self._goldens[ranks] = buffers.Buffer(self._sum(ranks, blocks))
        return self._goldens[ranks]

    def _difference(self, rank: int, first: int, found: bytes, golden: bytes) -> Mismatch:
        name = self._stream.datatype
        place = elements.first_difference(name, found, golden)
        expected, actual = (elements.shown(name, data, place) for data in (golden, found))
        return Mismatch(rank, first + place, expected, actual, found, golden)
