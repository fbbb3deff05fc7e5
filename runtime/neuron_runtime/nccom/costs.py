"""From streams and places to rows: what each size takes, by the cost model, on the cores that the claims really gave.

All groups of a stream work at once, and so do all streams: each takes from the others what they share. What other jobs
do on these links is not known in a container.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from neuron_device_model.collectives import model, operations
from neuron_device_model.collectives.errors import UnsupportedCollective
from neuron_device_model.collectives.fabric import Core, Fabric, Node
from neuron_device_model.collectives.rules import check_group

from neuron_runtime.nccom import elements

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from neuron_device_model.collectives.model import Estimate, Traffic

    from neuron_runtime.nccom.claims import Place
    from neuron_runtime.nccom.streams import Stream

ALONE = "only single-instance benchmarking is supported on inf2 instances: use ranks of one instance"


class Refused(Exception):
    """The runtime does not run this; the message is the line of its log."""


@dataclass(frozen=True)
class Row:
    """What a size took."""

    size: int
    count: int
    datatype: str
    seconds: float
    bus_factor: float
    algorithm: str
    input_bytes: int
    output_bytes: int

    @property
    def algbw(self) -> float:
        """GB/s."""
        return self.size / self.seconds / 1e9

    @property
    def busbw(self) -> float:
        """GB/s."""
        return self.algbw * self.bus_factor


@dataclass(frozen=True)
class Board:
    """All ranks of a job on their instances."""

    places: tuple[Place, ...]
    """One for each process of the job, in the order of ranks; several may be on one instance."""

    @cached_property
    def fabric(self) -> Fabric:
        """The instances. Raises UnsupportedCollective where they differ."""
        first = self.places[0]
        for place in self.places:
            if (place.instance_type, place.logical_neuron_core) != (first.instance_type, first.logical_neuron_core):
                raise UnsupportedCollective(
                    f"{place.instance_type} with logical NeuronCore configuration {place.logical_neuron_core} and "
                    f"{first.instance_type} with {first.logical_neuron_core} in one group: use equal ones"
                )
        nodes = {
            place.instance_id: Node(place.instance_id, place.ultraserver, place.seat, place.network)
            for place in self.places
        }
        if len(nodes) > 1 and first.instance_type.startswith("inf"):
            raise UnsupportedCollective(ALONE)
        return Fabric(first.instance_type, first.logical_neuron_core, tuple(nodes.values()))

    @cached_property
    def ranks(self) -> tuple[Core, ...]:
        """The core of each rank."""
        names = [node.name for node in self.fabric.nodes]
        return tuple(
            Core(names.index(place.instance_id), core.chip, core.core) for place in self.places for core in place.cores
        )

    @cached_property
    def numbers(self) -> tuple[int, ...]:
        """The number of each rank's core in its container."""
        return tuple(core.number for place in self.places for core in place.cores)

    @cached_property
    def processes(self) -> tuple[int, ...]:
        """The process of each rank."""
        return tuple(number for number, place in enumerate(self.places) for _ in place.cores)


def rows(board: Board, streams: Sequence[Stream]) -> Iterator[tuple[int, int, Row | Refused]]:
    """Stream by stream: its number, the size, and the row or why there is none."""
    traffic = [_traffic(board, stream) for stream in streams] if len(streams) > 1 else [()]
    for number, stream in enumerate(streams):
        others = [moved for other, of_other in enumerate(traffic) if other != number for moved in of_other]
        for size in stream.sizes:
            try:
                yield number, size, _row(board, stream, size, others)
            except Refused as refused:
                yield number, size, refused


def _traffic(board: Board, stream: Stream) -> Sequence[Traffic]:
    """What a stream moves, at its largest size."""
    try:
        return [answer.traffic() for answer in _estimates(board, stream, stream.sizes[-1], ())]
    except Refused:
        return ()


def _row(board: Board, stream: Stream, size: int, others: Sequence[Traffic]) -> Row:
    slowest = max(_estimates(board, stream, size, others), key=lambda answer: answer.seconds)
    return Row(
        size,
        stream.count(size),
        stream.datatype,
        slowest.seconds,
        stream.operation.bus_factor(stream.group_size),
        slowest.algorithm,
        stream.input_bytes(size),
        stream.output_bytes(size),
    )


def _estimates(board: Board, stream: Stream, size: int, others: Sequence[Traffic]) -> Sequence[Estimate]:
    """What each group takes while all are at it."""
    try:
        groups = [[board.ranks[rank] for rank in group] for group in stream.groups]
        for group, members in zip(stream.groups, groups, strict=True):
            check_group(board.fabric, members, [board.numbers[rank] for rank in group], stream.operation)
        if stream.pairs is not None:
            return [_of_pairs(board, stream, size, others)]
        alone = [_of_group(board, stream, group, size, others) for group in groups]
        if len(groups) == 1:
            return alone
        moved = [answer.traffic() for answer in alone]
        return [
            _of_group(board, stream, group, size, [*others, *moved[:place], *moved[place + 1 :]])
            for place, group in enumerate(groups)
        ]
    except UnsupportedCollective as error:
        raise Refused(
            f"Collective operation {stream.operation.name.upper()} is currently not supported: {error}"
        ) from None


def _of_group(board: Board, stream: Stream, group: Sequence[Core], size: int, others: Sequence[Traffic]) -> Estimate:
    if stream.operation in (operations.ALL_TO_ALL_V, operations.ALL_GATHER_V):
        table = [[count * elements.width(stream.datatype) for count in row] for row in shares(stream, size)]
        return model.estimate_shares(board.fabric, group, stream.operation, table, stream.datatype, others=others)
    return model.estimate(board.fabric, group, stream.operation, size, stream.datatype, others=others)


def _of_pairs(board: Board, stream: Stream, size: int, others: Sequence[Traffic]) -> Estimate:
    moving = [(board.ranks[a], board.ranks[b]) for a, b in stream.pairs or () if a != b]
    if not moving:
        raise UnsupportedCollective("no rank sends to another one: name such a pair")
    return model.estimate_pairs(board.fabric, moving, stream.operation, size, stream.datatype, others=others)


def shares(stream: Stream, size: int) -> list[list[int]]:
    """Elements that each rank of a group sends to each other one in an operation of variable sizes.

    Where what one sends and what the other expects differ, the smaller number is moved.
    """
    ranks = range(stream.group_size)
    counts = stream.counts
    if counts is None:
        return [[stream.count(size) // stream.group_size for _ in ranks] for _ in ranks]
    if stream.operation is operations.ALL_GATHER_V:
        return [
            [min(counts[source].send_counts[source], counts[target].recv_counts[source]) for target in ranks]
            for source in ranks
        ]
    return [
        [min(counts[source].send_counts[target], counts[target].recv_counts[source]) for target in ranks]
        for source in ranks
    ]
