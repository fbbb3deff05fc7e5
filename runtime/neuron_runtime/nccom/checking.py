"""Runs an operation on real data and compares every element that any rank has afterwards with what it must be.

What must be is calculated from the seed alone; what is there has been sent from rank to rank, window by window, so
that any size fits into little memory. Ranks of one process share its memory, and a message between them is a
reference; between processes bytes are sent, those of many windows at once: first the sums that each process has of its
own ranks to the process that adds them, then the whole sums to whom they are for. All pieces go on together, so that
all processes have something to do at any time. Whoever receives knows what must come, and each byte is compared with it
on arrival. Sums are those of a binary tree over the ranks of each process, then over processes.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import partial

from neuron_runtime.nccom import buffers, elements
from neuron_runtime.nccom.pieces import pieces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Protocol

    from neuron_runtime.nccom.buffers import Buffer
    from neuron_runtime.nccom.mesh import Data
    from neuron_runtime.nccom.pieces import Piece
    from neuron_runtime.nccom.streams import Stream

    Wire = Callable[[int, int, bytes], bytes]
    Window = tuple["_Run", int, int]
    """Of what, its first element in the sources, its elements."""

    class Transport(Protocol):
        """Root and members of a group."""

        @property
        def number(self) -> int:
            """Of this process."""

        def exchange(
            self, outgoing: Mapping[int, Sequence[Data]], expected: Mapping[int, Sequence[Data]]
        ) -> Mapping[int, Sequence[Data]]:
            """Send data to other processes, and receive what is expected of them: what came, equal parts as given."""


AT_ONCE = 32 << 20
"""Bytes of sums that are formed together, or a window of each piece: what differs of their parts has to be kept."""
MOVED_AT_ONCE = 1 << 32
"""The same of what is only moved; of it nothing is kept, and a connection's part is less than what a frame can hold."""


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
    shares: int
    """Into so many, one after the other, it is shared out; 1 where all targets get the same."""
    owners: Sequence[int]
    """The processes that have something to add."""
    others: Sequence[int]
    """Other processes that get the sum."""
    adder: int
    own: Buffer | None
    """What its ranks' sum comes to."""
    of_owners: Sequence[Buffer]
    golden: Buffer


@dataclass(frozen=True, slots=True)
class _Run:
    """A piece, or shares of it, as far as this process has to do with it."""

    part: _Part
    first: int
    """Its first element in the sources."""
    place: int
    """Where it begins in the output of each target."""
    count: int
    """Elements for each target."""

    def windows(self, begin: int, end: int) -> Iterator[Window]:
        """Those of the elements between two; of shares in a row all elements."""
        last = self.count * self.part.shares if self.part.shares > 1 else min(end, self.count)
        for first, count in buffers.windows(self.first + begin, max(0, last - begin)):
            yield self, first, count


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
        self._of = [0] * len(processes) if group is None else processes
        self._width = elements.width(stream.datatype)
        self._adding = partial(buffers.added, stream.datatype)
        self._inputs = [buffers.buffer(stream.datatype, rank, seed=seed) for rank in range(len(processes))]
        self._sums: dict[tuple[int, ...], Buffer] = {}
        self._parts: dict[tuple[tuple[int, ...], tuple[int, ...], bool, bool], Sequence[tuple[int, _Part]]] = {}
        self._mismatch: Mismatch | None = None

    def run(self, size: int) -> None:
        """Do the operation and look at the results of this process' ranks. Raises Mismatch.

        With a group it is done to the end all the same, because the others wait for it.
        """
        self._mismatch = None
        found = list(pieces(self._stream, size))
        most = max((piece.count for piece in found), default=0)
        # all processes come to the same number, whether they have a part in a piece or not
        messages = sum(len(piece.targets) if piece.shared_out else 1 for piece in found)
        most_bytes = AT_ONCE if self._stream.operation.reduces else MOVED_AT_ONCE
        step = buffers.WINDOW * max(1, most_bytes // (self._width * buffers.WINDOW * max(1, messages)))
        runs = [run for piece in found for run in self._runs(piece, in_a_row=most <= step and self._wire is None)]
        for begin in range(0, most, step):
            self._move([window for run in runs for window in run.windows(begin, begin + step)])
            if self._mismatch is not None and self._group is None:
                break
        if self._mismatch is not None:
            raise self._mismatch

    def _runs(self, piece: Piece, *, in_a_row: bool) -> Iterator[_Run]:
        """What this process has to do with a piece; shares of one process `in_a_row`, or each for itself.

        Either way the same bytes go over a connection, in the same order.
        """
        key = (piece.sources, piece.targets, piece.shared_out, in_a_row)
        if key not in self._parts:
            self._parts[key] = list(self._parts_of(*key))
        for number, part in self._parts[key]:
            yield _Run(part, piece.first + number * piece.count, piece.place, piece.count)

    def _parts_of(
        self, ranks: tuple[int, ...], targets: tuple[int, ...], shared_out: bool, in_a_row: bool
    ) -> Iterator[tuple[int, _Part]]:
        """What this process has to do with such pieces, and after how many shares."""
        if not shared_out:
            spans = [(0, len(targets))]
        elif not in_a_row:
            spans = [(number, number + 1) for number in range(len(targets))]
        else:
            of = [self._of[rank] for rank in targets]
            begins = [number for number in range(len(of)) if not number or of[number] != of[number - 1]]
            spans = list(zip(begins, [*begins[1:], len(of)], strict=True))
        for begin, end in spans:
            part = self._part(ranks, targets[begin:end], shares=end - begin if shared_out else 1)
            if part is not None:
                yield begin, part

    def _part(self, ranks: tuple[int, ...], targets: tuple[int, ...], *, shares: int) -> _Part | None:
        of, here = self._of, self._number
        owners = list(dict.fromkeys(of[rank] for rank in ranks))
        receivers = list(dict.fromkeys(of[rank] for rank in targets))
        if here not in owners and here not in receivers:
            return None
        mine = tuple(rank for rank in ranks if of[rank] == here)
        return _Part(
            targets[0],
            mine,
            [rank for rank in targets if of[rank] == here],
            shares,
            owners,
            [number for number in receivers if number != here],
            receivers[0] if len(owners) > 1 else owners[0],
            self._sum_of(mine) if mine else None,
            [self._sum_of(tuple(rank for rank in ranks if of[rank] == number)) for number in owners],
            self._sum_of(ranks),
        )

    def _move(self, windows: Sequence[Window]) -> None:
        """Add these windows up, bring the sums to whom they are for, and compare."""
        here, width = self._number, self._width
        outgoing: defaultdict[int, list[Data]] = defaultdict(list)
        known: defaultdict[int, list[Data]] = defaultdict(list)
        sums: list[Data] = []
        goldens, to_add = [], []
        for run, first, count in windows:
            part, begin, length = run.part, first * width, count * width
            own = self._own(part, part.own, begin, length) if part.own else b""
            sums.append(own)
            goldens.append(part.golden.window(begin, length))
            if part.adder != here:
                if part.own:
                    outgoing[part.adder].append(own)
            elif len(part.owners) > 1:
                to_add.append(own)
                for number, buffer in zip(part.owners, part.of_owners, strict=True):
                    known[number].append(buffer.window(begin, length))
        came = self._exchanged(outgoing, {number: parts for number, parts in known.items() if number != here})
        came[here] = iter(to_add)
        must_be = {number: iter(parts) for number, parts in known.items()}
        outgoing.clear()
        expected: defaultdict[int, list[Data]] = defaultdict(list)
        for place, ((run, _, _), golden) in enumerate(zip(windows, goldens, strict=True)):
            part = run.part
            if part.adder == here:
                if len(part.owners) > 1:
                    parts = [next(came[number]) for number in part.owners]
                    # what has been added before is not added again
                    is_known = parts == [next(must_be[number]) for number in part.owners]
                    sums[place] = golden if is_known else buffers.tree_sum(list(map(bytes, parts)), self._adding)
                for number in part.others:
                    outgoing[number].append(sums[place])
            elif part.targets:
                expected[part.adder].append(golden)
        came = self._exchanged(outgoing, expected)
        for (run, first, _), own, golden in zip(windows, sums, goldens, strict=True):
            if run.part.targets:
                found = own if run.part.adder == here else next(came[run.part.adder])
                self._deliver(run, first, found, golden)

    def _own(self, part: _Part, known: Buffer, begin: int, length: int) -> Data:
        """The sum of a window over the ranks of this process, as the data arrives at the holder of the piece."""
        if self._wire is not None:
            sent = [bytes(self._inputs[rank].window(begin, length)) for rank in part.mine]
            came = [self._carry(rank, part.holder, data) for rank, data in zip(part.mine, sent, strict=True)]
            if any(a is not b for a, b in zip(sent, came, strict=True)):
                return self._added(part.mine, came)
        return known.window(begin, length)

    def _exchanged(
        self, outgoing: Mapping[int, Sequence[Data]], expected: Mapping[int, Sequence[Data]]
    ) -> dict[int, Iterator[Data]]:
        if self._group is None or not (outgoing or expected):
            return {}
        return {number: iter(parts) for number, parts in self._group.exchange(outgoing, expected).items()}

    def _deliver(self, run: _Run, first: int, total: Data, golden: Data) -> None:
        """Bring a window of the sum to those of this process for whom it is, and compare."""
        part = run.part
        if self._wire is None:
            # a message between ranks of a process is a reference: all have the same bytes
            if total is not golden and total != golden:
                self._mismatch = self._mismatch or self._difference(run, part.targets, first, total, golden)
            return
        for rank in part.targets:
            found = self._carry(part.holder, rank, bytes(total))
            if found != golden:
                self._mismatch = self._mismatch or self._difference(run, (rank,), first, found, golden)

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
                buffers.tree_sum([bytes(part.window(0, block)) for part in parts], self._adding)
            )
        return self._sums[ranks]

    def _difference(self, run: _Run, ranks: Sequence[int], first: int, found: Data, golden: Data) -> Mismatch:
        """What is wrong in a window that begins at an element of the sources, and is for these ranks."""
        name = self._stream.datatype
        place = elements.first_difference(name, found, golden)
        share, element = divmod(first + place - run.first, run.count)
        expected, actual = (elements.shown(name, data, place) for data in (golden, found))
        return Mismatch(ranks[share], run.place + element, expected, actual, bytes(found), bytes(golden))
