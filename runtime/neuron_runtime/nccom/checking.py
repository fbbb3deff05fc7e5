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
    from neuron_runtime.nccom.pieces import Piece, Spot
    from neuron_runtime.nccom.streams import Stream

    Wire = Callable[[int, int, bytes], bytes]
    Window = tuple["_Share", int, int]
    """What this process has to do with it, its place in the piece, its elements."""

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


class _Sum:
    """Sums of windows from the same places. Most windows are the same bytes as the last one, and have the same sum."""

    __slots__ = ("_adding", "_known", "_whole")

    def __init__(self, adding: Callable[[Sequence[bytes]], bytes], whole: int) -> None:
        self._adding = adding
        self._known: dict[bool, tuple[Sequence[bytes], bytes]] = {}
        self._whole = whole

    def like(self, length: int, place: int) -> bytes:
        """What came from there for the last window of this length."""
        known, _ = self._known.get(length == self._whole, ((), b""))
        return known[place] if known else b""

    def of(self, parts: Sequence[bytes]) -> bytes:
        """The sum."""
        if len(parts) == 1:
            return parts[0]
        is_whole = len(parts[0]) == self._whole
        known, total = self._known.get(is_whole, ((), b""))
        if len(known) != len(parts) or any(a is not b for a, b in zip(known, parts, strict=True)):
            total = self._adding(parts)
            self._known[is_whole] = (parts, total)
        return total


@dataclass(frozen=True, slots=True)
class _Share:
    """What this process has to do with a piece."""

    first: int
    """Where the piece begins in the buffer of its first source."""
    holder: int
    mine: Sequence[Spot]
    targets: Sequence[Spot]
    owners: Sequence[int]
    """The processes that have something to add."""
    others: Sequence[int]
    """Other processes that get the sum."""
    adder: int
    golden: Buffer | None
    of_ranks: _Sum
    of_processes: _Sum


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
        self._goldens: dict[tuple[int, ...], Buffer] = {}
        self._of_ranks: dict[tuple[int, ...], _Sum] = {}
        self._of_processes: dict[tuple[int, ...], _Sum] = {}
        self._mismatch: Mismatch | None = None

    def run(self, size: int) -> None:
        """Do the operation and look at the results of this process' ranks. Raises Mismatch.

        With a group it is done to the end all the same, because the others wait for it.
        """
        self._mismatch = None
        rest = pieces(self._stream, size)
        while some := list(islice(rest, _PIECES_AT_ONCE)):
            for windows in self._together([(piece, self._share(piece)) for piece in some]):
                self._move(windows)
                if self._mismatch is not None and self._group is None:
                    raise self._mismatch
        if self._mismatch is not None:
            raise self._mismatch

    def _share(self, piece: Piece) -> _Share | None:
        ranks = tuple(rank for rank, _ in piece.sources)
        owners = receivers = [0]
        mine, targets = piece.sources, piece.targets
        if self._group is not None:
            of = self._processes
            owners = list(dict.fromkeys(of[rank] for rank in ranks))
            receivers = list(dict.fromkeys(of[rank] for rank, _ in piece.targets))
            if self._number not in owners and self._number not in receivers:
                return None
            mine = tuple(spot for spot in piece.sources if of[spot[0]] == self._number)
            targets = tuple(spot for spot in piece.targets if of[spot[0]] == self._number)
        whole = buffers.WINDOW * self._width
        own_ranks = tuple(rank for rank, _ in mine)
        if own_ranks not in self._of_ranks:
            self._of_ranks[own_ranks] = _Sum(partial(self._added, own_ranks), whole)
        if ranks not in self._of_processes:
            self._of_processes[ranks] = _Sum(partial(buffers.tree_sum, adding=self._adding), whole)
        return _Share(
            piece.sources[0][1],
            piece.holder,
            mine,
            targets,
            owners,
            [number for number in receivers if number != self._number],
            receivers[0] if len(owners) > 1 else owners[0],
            self._golden(ranks) if targets else None,
            self._of_ranks[own_ranks],
            self._of_processes[ranks],
        )

    def _together(self, shares: Sequence[tuple[Piece, _Share | None]]) -> Iterator[list[Window]]:
        """Windows of all pieces in turn, as many as go together: those in which this process has a share."""
        rest = [(share, buffers.windows(piece.sources[0][1], piece.count)) for piece, share in shares]
        found: list[Window] = []
        total = 0
        while rest:
            left = []
            for turn in rest:
                share, windows = turn
                for place, count in islice(windows, 1):
                    left.append(turn)
                    total += count * self._width
                    if share is not None:
                        found.append((share, place - share.first, count))
            rest = left
            if total >= AT_ONCE:
                yield found
                found, total = [], 0
        yield found

    def _move(self, windows: Sequence[Window]) -> None:
        """Add these windows up, bring the sums to whom they are for, and compare."""
        here = self._number
        outgoing: defaultdict[int, list[bytes]] = defaultdict(list)
        incoming: defaultdict[int, int] = defaultdict(int)
        own = []
        for share, offset, count in windows:
            part = share.of_ranks.of(self._sent(share, offset, count)) if share.mine else b""
            own.append(part)
            if share.adder == here:
                for number in share.owners:
                    if number != here:
                        incoming[number] += count * self._width
            elif share.mine:
                outgoing[share.adder].append(part)
        came = self._exchanged(outgoing, incoming)
        outgoing.clear()
        incoming.clear()
        totals = []
        for (share, _, count), part in zip(windows, own, strict=True):
            total = part
            if share.adder == here:
                if len(share.owners) > 1:
                    total = self._sum(share, count * self._width, part, came)
                for number in share.others:
                    outgoing[number].append(total)
            elif share.targets:
                incoming[share.adder] += count * self._width
            totals.append(total)
        came = self._exchanged(outgoing, incoming)
        for (share, offset, count), total in zip(windows, totals, strict=True):
            if share.golden is not None:
                length = count * self._width
                golden = share.golden.window((share.first + offset) * self._width, length)
                found = total if share.adder == here else came[share.adder].take(length, golden)
                self._deliver(share, offset, found, golden)

    def _sum(self, share: _Share, length: int, own: bytes, came: Mapping[int, _Arrived]) -> bytes:
        sums = share.of_processes
        return sums.of(
            [
                own if number == self._number else came[number].take(length, sums.like(length, place))
                for place, number in enumerate(share.owners)
            ]
        )

    def _exchanged(
        self, outgoing: Mapping[int, Sequence[bytes]], incoming: Mapping[int, int]
    ) -> Mapping[int, _Arrived]:
        if self._group is None or not (outgoing or incoming):
            return {}
        found = self._group.exchange(outgoing, incoming)
        return {number: _Arrived(data) for number, data in found.items()}

    def _sent(self, share: _Share, offset: int, count: int) -> list[bytes]:
        """What arrives at the holder of a piece from ranks of this process, for a window of it."""
        length = count * self._width
        if self._wire is None:
            return [self._inputs[rank].window((first + offset) * self._width, length) for rank, first in share.mine]
        return [
            self._carry(rank, share.holder, self._inputs[rank].window((first + offset) * self._width, length))
            for rank, first in share.mine
        ]

    def _deliver(self, share: _Share, offset: int, total: bytes, golden: bytes) -> None:
        """Bring a window of the sum to those of this process for whom it is, and compare."""
        if self._wire is None:
            # a message between ranks of a process is a reference: all have the same bytes
            if total is not golden and total != golden:
                rank, first = share.targets[0]
                self._mismatch = self._mismatch or self._difference(rank, first + offset, total, golden)
            return
        for rank, first in share.targets:
            found = self._carry(share.holder, rank, total)
            if found != golden:
                self._mismatch = self._mismatch or self._difference(rank, first + offset, found, golden)

    def _carry(self, source: int, target: int, data: bytes) -> bytes:
        return self._wire(source, target, data) if self._wire and source != target else data

    def _added(self, ranks: Sequence[int], parts: Sequence[bytes]) -> bytes:
        of_processes: dict[int, list[bytes]] = {}
        for rank, part in zip(ranks, parts, strict=True):
            of_processes.setdefault(self._processes[rank], []).append(part)
        inside = [buffers.tree_sum(members, self._adding) for members in of_processes.values()]
        return buffers.tree_sum(inside, self._adding)

    def _golden(self, ranks: tuple[int, ...]) -> Buffer:
        if len(ranks) == 1:
            return self._inputs[ranks[0]]
        if ranks not in self._goldens:
            block = buffers.PERIOD * self._width
            blocks = [self._inputs[rank].window(0, block) for rank in ranks]
            self._goldens[ranks] = buffers.Buffer(self._added(ranks, blocks))
        return self._goldens[ranks]

    def _difference(self, rank: int, first: int, found: bytes, golden: bytes) -> Mismatch:
        name = self._stream.datatype
        place = elements.first_difference(name, found, golden)
        expected, actual = (elements.shown(name, data, place) for data in (golden, found))
        return Mismatch(rank, first + place, expected, actual, found, golden)
