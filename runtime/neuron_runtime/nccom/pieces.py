"""What an operation does to the data of a group, as pieces: elements added up from some ranks, for some ranks. Pure.

A piece has a holder: the ranks send theirs to it, it adds them, and sends the sum to whom it is for. That is what a
mesh does, so every pair of ranks has messages, and every link between their chips carries some. Where a rank's data for
several others is in a row, that is one piece: there is a share of it for each.
"""

from __future__ import annotations

from dataclasses import dataclass

from neuron_device_model.collectives import operations

from neuron_runtime.nccom import buffers, costs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from neuron_runtime.nccom.streams import Stream


@dataclass(frozen=True, slots=True)
class Piece:
    """`count` elements: the sum of what the sources have from element `first` on, for the targets, from `place` on.

    If it is shared out, each target gets the next `count` elements; else all get the same, and the first one adds.
    """

    sources: tuple[int, ...]
    """Ranks."""
    first: int
    targets: tuple[int, ...]
    place: int
    count: int
    shared_out: bool = False


def pieces(stream: Stream, size: int) -> Iterator[Piece]:
    """All pieces of an operation of this size, group by group, part by part."""
    begin = 0
    for part in stream.parts:
        count = stream.count(size) * part // sum(stream.parts)
        if stream.pairs is not None:
            yield from (Piece((a,), begin, (b,), begin, count) for a, b in stream.pairs)
        else:
            for group in stream.groups:
                yield from _of_group(stream, group, begin, count, size)
        begin += count


def _of_group(stream: Stream, group: tuple[int, ...], begin: int, count: int, size: int) -> Iterator[Piece]:
    ranks = len(group)
    what = stream.operation
    share = count // ranks
    if what is operations.ALL_REDUCE:
        step = -(-count // ranks)
        if count > buffers.PERIOD:
            # so pieces begin where blocks do, and their windows are alike
            step = -(-step // buffers.PERIOD) * buffers.PERIOD
        for number, first in enumerate(range(begin, begin + count, step)):
            order = (group[number], *group[:number], *group[number + 1 :])
            length = min(step, begin + count - first)
            yield Piece(group, first, order, first, length)
    elif what is operations.REDUCE_SCATTER:
        yield Piece(group, begin, group, begin // ranks, share, shared_out=True)
    elif what is operations.ALL_GATHER:
        for number, rank in enumerate(group):
            yield Piece((rank,), begin // ranks, group, begin + number * share, share)
    elif what is operations.ALL_TO_ALL:
        for here, source in enumerate(group):
            yield Piece((source,), begin, group, begin + here * share, share, shared_out=True)
    else:
        yield from _of_variable_sizes(stream, group, size)


def _of_variable_sizes(stream: Stream, group: tuple[int, ...], size: int) -> Iterator[Piece]:
    table = costs.shares(stream, size)
    even = stream.count(size) // len(group)
    gathers = stream.operation is operations.ALL_GATHER_V
    for here, source in enumerate(group):
        for there, target in enumerate(group):
            if not table[here][there]:
                continue
            if stream.counts is None:
                sent, received = 0 if gathers else there * even, here * even
            else:
                sent = 0 if gathers else stream.counts[here].send_displs[there]
                received = stream.counts[there].recv_displs[here]
            yield Piece((source,), sent, (target,), received, table[here][there])
