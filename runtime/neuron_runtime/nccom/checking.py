"""Runs an operation on real data and compares every element that any rank has afterwards with what it must be.

What must be is calculated from the seed alone; what is there has been sent from rank to rank, window by window, so
that any size fits into little memory. Ranks of one process share its memory, and a message between them is a
reference; between processes bytes are sent, those of many windows at once: first the sums that each process has of its
own ranks to the process that adds them, then the whole sums to whom they are for. Windows of all pieces take turns, so
that all processes have something to do at any time. Sums are those of a binary tree over the ranks of each process,
then over processes.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from itertools import islice

from neuron_runtime.nccom import buffers, elements, frames
from neuron_runtime.nccom.pieces import pieces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Protocol

    from neuron_runtime.nccom.buffers import Buffer
    from neuron_runtime.nccom.pieces import Piece
    from neuron_runtime.nccom.streams import Stream

    Wire = Callable[[int, int, bytes], bytes]
    Window = tuple["_Part", int, int, int]
    """What this process has to do with it, its first element in the sources and in the targets, its elements."""

    class Transport(Protocol):
        """Root and members of a group."""

        @property
        def number(self) -> int:
            """Of this process."""

        def exchange(
            self, outgoing: Mapping[int, Sequence[bytes]], incoming: Mapping[int, int]
        ) -> Mapping[int, bytearray]:
            """Send data to other processes, and receive so many bytes from them."""


AT_ONCE = 8 << 20
"""Bytes of windows that processes exchange together."""
_PIECES_AT_ONCE = 256


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


@dataclass(frozen=True, slots=True)
class _Part:
    """What this process has to do with pieces from certain ranks for certain others."""

    holder: int
    mine: Sequence[int]
    """Its ranks among the sources."""
    targets: Sequence[int]
    """Its ranks among the targets."""
    owners: Sequence[int]
    """The processes that have something to add."""
    others: Sequence[int]
    """Other processes that get the sum."""
    adder: int
    own: Buffer | None
    """What its ranks' sum comes to."""
    of_owners: Sequence[Buffer]
    golden: Buffer


class _Arrived:
    """Data from another process, taken in the order in which it was sent."""

    __slots__ = ("_data", "_place")

    def __init__(self, data: bytearray) -> None:
        self._data = data
        self._place = frames.HEADER_BYTES

    def take(self, length: int, like: bytes) -> bytes:
        """So many bytes; `like` itself where they are the same."""
        begin = self._place
        self._place += length
        if len(like) == length and self._data.startswith(like, begin):
            return like
        return bytes(self._data[begin : begin + length])


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
        self._number = group.number if group else 0
        self._width = elements.width(stream.datatype)
        self._adding = partial(buffers.added, stream.datatype)
        self._inputs = [buffers.buffer(stream.datatype, rank, seed=seed) for rank in range(len(processes))]
        self._sums: dict[tuple[int, ...], Buffer] = {}
        self._parts: dict[tuple[tuple[int, ...], tuple[int, ...]], _Part | None] = {}
        self._mismatch: Mismatch | None = None

    def run(self, size: int) -> None:
        """Do the operation and look at the results of this process' ranks. Raises Mismatch.

        With a group it is done to the end all the same, because the others wait for it.
        """
        self._mismatch = None
        rest = pieces(self._stream, size)
        while some := list(islice(rest, _PIECES_AT_ONCE)):
            for windows in self._together([(piece, self._part_of(piece)) for piece in some]):
                self._move(windows)
                if self._mismatch is not None and self._group is None:
                    raise self._mismatch
        if self._mismatch is not None:
            raise self._mismatch

    def _part_of(self, piece: Piece) -> _Part | None:
        key = (piece.sources, piece.targets)
        if key not in self._parts:
            self._parts[key] = self._part(*key)
        return self._parts[key]

    def _part(self, ranks: tuple[int, ...], targets: tuple[int, ...]) -> _Part | None:
        of = [0] * len(self._processes) if self._group is None else self._processes
        owners = list(dict.fromkeys(of[rank] for rank in ranks))
        receivers = list(dict.fromkeys(of[rank] for rank in targets))
        here = self._number
        if here not in owners and here not in receivers:
            return None
        mine = tuple(rank for rank in ranks if of[rank] == here)
        return _Part(
            targets[0],
            mine,
            [rank for rank in targets if of[rank] == here],
            owners,
            [number for number in receivers if number != here],
            receivers[0] if len(owners) > 1 else owners[0],
            self._sum_of(mine) if mine else None,
            [self._sum_of(tuple(rank for rank in ranks if of[rank] == number)) for number in owners],
            self._sum_of(ranks),
        )

    def _together(self, pieces: Sequence[tuple[Piece, _Part | None]]) -> Iterator[list[Window]]:
        """Windows of all pieces in turn, as many as go together: those in which this process has a part."""
        rest = [(part, piece, buffers.windows(piece.first, piece.count)) for piece, part in pieces]
        found: list[Window] = []
        total = 0
        while rest:
            left = []
            for turn in rest:
                part, piece, windows = turn
                for first, count in islice(windows, 1):
                    left.append(turn)
                    total += count * self._width
                    if part is not None:
                        found.append((part, first, piece.place + first - piece.first, count))
            rest = left
            if total >= AT_ONCE:
                yield found
                found, total = [], 0
        yield found

    def _move(self, windows: Sequence[Window]) -> None:
        """Add these windows up, bring the sums to whom they are for, and compare."""
        here, width = self._number, self._width
        outgoing: defaultdict[int, list[bytes]] = defaultdict(list)
        incoming: defaultdict[int, int] = defaultdict(int)
        totals = []
        for part, first, _, count in windows:
            own = self._own(part, part.own, first * width, count * width) if part.own else b""
            totals.append(own)
            if part.adder == here:
                for number in part.owners:
                    if number != here:
                        incoming[number] += count * width
            elif part.own:
                outgoing[part.adder].append(own)
        came = self._exchanged(outgoing, incoming)
        outgoing.clear()
        incoming.clear()
        for place, (part, first, _, count) in enumerate(windows):
            if part.adder == here:
                if len(part.owners) > 1:
                    totals[place] = self._sum(part, first * width, count * width, totals[place], came)
                for number in part.others:
                    outgoing[number].append(totals[place])
            elif part.targets:
                incoming[part.adder] += count * width
        came = self._exchanged(outgoing, incoming)
        for (part, first, place, count), total in zip(windows, totals, strict=True):
            if part.targets:
                golden = part.golden.window(first * width, count * width)
                found = total if part.adder == here else came[part.adder].take(count * width, golden)
                self._deliver(part, place, found, golden)

    def _own(self, part: _Part, known: Buffer, begin: int, length: int) -> bytes:
        """The sum of a window over the ranks of this process, as the data arrives at the holder of the piece."""
        if self._wire is not None:
            sent = [self._inputs[rank].window(begin, length) for rank in part.mine]
            came = [self._carry(rank, part.holder, data) for rank, data in zip(part.mine, sent, strict=True)]
            if any(a is not b for a, b in zip(sent, came, strict=True)):
                return self._added(part.mine, came)
        return known.window(begin, length)

    def _sum(self, part: _Part, begin: int, length: int, own: bytes, came: Mapping[int, _Arrived]) -> bytes:
        """The sum of a window over processes: added here, unless all have sent what has been added before."""
        parts, is_known = [], True
        for number, buffer in zip(part.owners, part.of_owners, strict=True):
            known = buffer.window(begin, length)
            data = own if number == self._number else came[number].take(length, known)
            is_known = is_known and data == known
            parts.append(data)
        return part.golden.window(begin, length) if is_known else buffers.tree_sum(parts, self._adding)

    def _exchanged(
        self, outgoing: Mapping[int, Sequence[bytes]], incoming: Mapping[int, int]
    ) -> Mapping[int, _Arrived]:
        if self._group is None or not (outgoing or incoming):
            return {}
        found = self._group.exchange(outgoing, incoming)
        return {number: _Arrived(data) for number, data in found.items()}

    def _deliver(self, part: _Part, place: int, total: bytes, golden: bytes) -> None:
        """Bring a window of the sum to those of this process for whom it is, and compare."""
        if self._wire is None:
            # a message between ranks of a process is a reference: all have the same bytes
            if total is not golden and total != golden:
                self._mismatch = self._mismatch or self._difference(part.targets[0], place, total, golden)
            return
        for rank in part.targets:
            found = self._carry(part.holder, rank, total)
            if found != golden:
                self._mismatch = self._mismatch or self._difference(rank, place, found, golden)

    def _carry(self, source: int, target: int, data: bytes) -> bytes:
        return self._wire(source, target, data) if self._wire and source != target else data

    def _added(self, ranks: Sequence[int], parts: Sequence[bytes]) -> bytes:
        of_processes: dict[int, list[bytes]] = {}
        for rank, part in zip(ranks, parts, strict=True):
            of_processes.setdefault(self._processes[rank], []).append(part)
        inside = [buffers.tree_sum(members, self._adding) for members in of_processes.values()]
        return buffers.tree_sum(inside, self._adding)

    def _sum_of(self, ranks: tuple[int, ...]) -> Buffer:
        """The sum of these ranks' inputs. It repeats as they do, so a block of it is added, and once."""
        if len(ranks) == 1:
            return self._inputs[ranks[0]]
        if ranks not in self._sums:
            inside: dict[int, list[int]] = {}
            for rank in ranks:
                inside.setdefault(self._processes[rank], []).append(rank)
            parts = [self._inputs[rank] for rank in ranks]
            if len(inside) > 1:
                parts = [self._sum_of(tuple(members)) for members in inside.values()]
            block = buffers.PERIOD * self._width
            self._sums[ranks] = buffers.Buffer(
                buffers.tree_sum([part.window(0, block) for part in parts], self._adding)
            )
        return self._sums[ranks]

    def _difference(self, rank: int, first: int, found: bytes, golden: bytes) -> Mismatch:
        name = self._stream.datatype
        place = elements.first_difference(name, found, golden)
        expected, actual = (elements.shown(name, data, place) for data in (golden, found))
        return Mismatch(rank, first + place, expected, actual, found, golden)
