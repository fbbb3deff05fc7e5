"""Parallel layouts: which ranks form the groups of tensor, data and pipeline parallelism, and what a step's collectives
cost when all groups of a kind work at once.

Ranks are numbered as Megatron-LM numbers them: tensor parallel ranks are neighbours, data parallel ones come next, and
pipeline stages are farthest apart. So a layout over the cores of a claim, in order, puts tensor parallel groups on
chips and rows, which is where links are.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

from neuron_device_model.collectives import operations
from neuron_device_model.collectives.datatypes import DataType
from neuron_device_model.collectives.errors import UnsupportedCollective
from neuron_device_model.collectives.fabric import CORE, Core, Fabric, Link
from neuron_device_model.collectives.model import Estimate, Traffic, estimate, estimate_pairs
from neuron_device_model.collectives.parameters import Parameters
from neuron_device_model.collectives.rules import check_group
from neuron_device_model.cores import visible_cores

TENSOR = "tensor"
DATA = "data"
PIPELINE = "pipeline"
DIMENSIONS = (TENSOR, DATA, PIPELINE)
"""The first one changes fastest from rank to rank."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How many ranks work together in each dimension."""

    tensor: int = 1
    data: int = 1
    pipeline: int = 1

    @property
    def extents(self) -> tuple[int, int, int]:
        """In the order of DIMENSIONS."""
        return (self.tensor, self.data, self.pipeline)

    @property
    def size(self) -> int:
        """How many ranks."""
        return prod(self.extents)

    def groups(self, dimension: str) -> tuple[tuple[int, ...], ...]:
        """The rank numbers of every group of a dimension; of a pipeline, in the order of its stages."""
        axis = DIMENSIONS.index(dimension)
        extent, stride = self.extents[axis], prod(self.extents[:axis])
        return tuple(
            tuple(range(first, first + extent * stride, stride))
            for first in range(self.size)
            if first // stride % extent == 0
        )


@dataclass(frozen=True, slots=True)
class Exchange:
    """A collective that every group of a dimension does in a step; of a pipeline, a message to the next stage."""

    dimension: str
    operation: str
    size: int
    dtype: DataType | str
    times: int = 1


@dataclass(frozen=True)
class ExchangeCost:
    """What an exchange costs while all groups of its dimension are at it."""

    exchange: Exchange
    estimates: tuple[Estimate, ...]
    """Of each group; of a pipeline, one of all its messages."""

    @property
    def seconds(self) -> float:
        """In the whole step: the slowest group, as often as it is done."""
        return self.exchange.times * max((answer.seconds for answer in self.estimates), default=0.0)

    def shared(self) -> dict[Link, int]:
        """The links that several groups use, and how many do."""
        users = Counter(link for answer in self.estimates for link in answer.link_bytes() if link.kind != CORE)
        return {link: count for link, count in users.items() if count > 1}


def step_costs(
    fabric: Fabric,
    ranks: Sequence[Core],
    layout: Layout,
    exchanges: Iterable[Exchange],
    *,
    others: Sequence[Traffic] = (),
    parameters: Parameters | None = None,
) -> tuple[ExchangeCost, ...]:
    """What the exchanges of a step cost, one after the other, on these cores in the order of their ranks.

    Groups of one dimension work at the same time, and take from one another what they share; `others` are other jobs.
    """
    _check_size(ranks, layout)
    return tuple(_cost(fabric, ranks, layout, exchange, others, parameters) for exchange in exchanges)


def check_layout(
    fabric: Fabric,
    ranks: Sequence[Core],
    layout: Layout,
    dimensions: Iterable[str],
    *,
    numbers: Sequence[int] | None = None,
) -> None:
    """Raise UnsupportedCollective where the runtime refuses the groups of these dimensions.

    `numbers` are those of the cores as their processes see them; left out: those of the instances.
    """
    _check_size(ranks, layout)
    per_chip = visible_cores(fabric.kind.chip, fabric.logical_neuron_core)
    of_ranks = [core.chip * per_chip + core.core for core in ranks] if numbers is None else numbers
    for dimension in dimensions:
        what = operations.SEND_RECV if dimension == PIPELINE else operations.ALL_REDUCE
        for group in layout.groups(dimension):
            if len(group) > 1:
                check_group(fabric, [ranks[rank] for rank in group], [of_ranks[rank] for rank in group], what)


def _check_size(ranks: Sequence[Core], layout: Layout) -> None:
    if len(ranks) != layout.size:
        raise UnsupportedCollective(
            f"a layout of {' x '.join(map(str, layout.extents))} needs {layout.size} ranks: there are {len(ranks)}"
        )


def _cost(
    fabric: Fabric,
    ranks: Sequence[Core],
    layout: Layout,
    exchange: Exchange,
    others: Sequence[Traffic],
    parameters: Parameters | None,
) -> ExchangeCost:
    groups = [[ranks[number] for number in group] for group in layout.groups(exchange.dimension)]
    what = operations.operation(exchange.operation)
    if len(groups[0]) == 1:
        return ExchangeCost(exchange, ())
    if what is operations.SEND_RECV:
        pairs = [pair for group in groups for pair in pairwise(group)]
        answer = estimate_pairs(
            fabric, pairs, what, exchange.size, exchange.dtype, others=others, parameters=parameters
        )
        return ExchangeCost(exchange, (answer,))
    alone = [
        estimate(fabric, group, what, exchange.size, exchange.dtype, others=others, parameters=parameters).traffic()
        for group in groups
    ]
    together = [
        estimate(
            fabric,
            group,
            what,
            exchange.size,
            exchange.dtype,
            others=[*others, *alone[:index], *alone[index + 1 :]],
            parameters=parameters,
        )
        for index, group in enumerate(groups)
    ]
    return ExchangeCost(exchange, tuple(together))
