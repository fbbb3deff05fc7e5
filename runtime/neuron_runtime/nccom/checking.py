"""Runs an operation on real data and compares every element that any rank has afterwards with what it must be.

What must be is calculated from the seed alone; what is there has been sent from rank to rank, window by window, so that
any size fits into little memory. Ranks of one process share its memory, and a message between them is a reference.
Sums are those of a binary tree over the ranks of each process, and then over the processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from neuron_runtime.nccom import buffers, elements
from neuron_runtime.nccom.pieces import pieces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from neuron_runtime.nccom.buffers import Buffer
    from neuron_runtime.nccom.pieces import Piece
    from neuron_runtime.nccom.streams import Stream

    Wire = Callable[[int, int, bytes], bytes]


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

    def __init__(self, stream: Stream, processes: Sequence[int], *, seed: int | None, wire: Wire | None = None) -> None:
        """`processes` says in which process each rank is; `wire` may change what goes from one rank to another."""
        self._stream = stream
        self._processes = processes
        self._wire = wire
        self._width = elements.width(stream.datatype)
        self._adding = partial(buffers.added, stream.datatype)
        self._inputs = [buffers.buffer(stream.datatype, rank, seed=seed) for rank in range(len(processes))]
        self._goldens: dict[tuple[int, ...], Buffer] = {}
        self._known: dict[bool, tuple[Sequence[bytes], bytes]] = {}

    def run(self, size: int) -> None:
        """Do the operation and look at the results. Raises Mismatch."""
        for piece in pieces(self._stream, size):
            for place, count in buffers.windows(piece.sources[0][1], piece.count):
                offset = place - piece.sources[0][1]
                self.deliver(piece, offset, self.added(piece, self.sent(piece, offset, count)))

    def sent(self, piece: Piece, offset: int, count: int) -> list[bytes]:
        """What arrives at the holder of a piece from the ranks, for a window of it."""
        holder = piece.holder
        return [
            self._carry(rank, holder, self._inputs[rank].window((first + offset) * self._width, count * self._width))
            for rank, first in piece.sources
        ]

    def added(self, piece: Piece, parts: Sequence[bytes]) -> bytes:
        """The sum at the holder."""
        if len(parts) == 1:
            return parts[0]
        # the same bytes from the same ranks have the same sum
        is_whole = len(parts[0]) == buffers.WINDOW * self._width
        known, total = self._known.get(is_whole, ((), b""))
        if len(known) != len(parts) or any(a is not b for a, b in zip(known, parts, strict=True)):
            total = self._sum([rank for rank, _ in piece.sources], parts)
            self._known[is_whole] = (parts, total)
        return total

    def deliver(self, piece: Piece, offset: int, total: bytes) -> None:
        """Send a window of the sum to whom it is for, and compare. Raises Mismatch."""
        golden = self._golden(piece).window((piece.sources[0][1] + offset) * self._width, len(total))
        for rank, first in piece.targets:
            found = self._carry(piece.holder, rank, total)
            if found != golden:
                self._fail(rank, first + offset, found, golden)

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

    def _fail(self, rank: int, first: int, found: bytes, golden: bytes) -> None:
        name = self._stream.datatype
        place = elements.first_difference(name, found, golden)
        expected, actual = (elements.shown(name, data, place) for data in (golden, found))
        raise Mismatch(rank, first + place, expected, actual, found, golden)
