"""What a collective operation costs: the one function of this package, and what it answers.

Time is the launch, then stage by stage the waits and the busiest link. Other traffic on a link is other streams with
the bytes a second that each would like to move; the DMA engines and cards serve streams in turn, so a link is shared as
max-min fairness shares it, and this operation, which would take all it can get, is never slowed below an equal share.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from neuron_device_model.collectives import operations
from neuron_device_model.collectives.algorithms.pairs import Message
from neuron_device_model.collectives.datatypes import DataType, data_type
from neuron_device_model.collectives.errors import UnsupportedCollective
from neuron_device_model.collectives.fabric import LINK_KINDS, Core, Fabric, Link
from neuron_device_model.collectives.operations import Operation, operation
from neuron_device_model.collectives.parameters import Parameters, published
from neuron_device_model.collectives.plans import Plan, message_plan, neighbours_only, plans
from neuron_device_model.collectives.stages import Stage

Traffic = Mapping[Link, float]
"""What one other stream would move over each link, bytes a second."""


@dataclass(frozen=True, slots=True)
class StageCost:
    """One stage of an operation."""

    name: str
    seconds: float
    waiting_s: float
    """Of these, for other ranks and for messages on their way."""
    adding: bool
    """What moves is limited by adding, not by a link."""
    busiest: Link | None
    """The link that takes longest."""


@dataclass(frozen=True)
class Estimate:
    """What an operation costs."""

    operation: Operation
    size: int
    ranks: int
    algorithm: str
    seconds: float
    launch_s: float
    stages: tuple[StageCost, ...]
    plan: Plan

    @property
    def time_us(self) -> float:
        """Microseconds, as nccom-test prints them."""
        return self.seconds * 1e6

    @property
    def algbw(self) -> float:
        """Size over time, in GB/s of 10^9 bytes, as nccom-test prints it."""
        return self.size / self.seconds / 1e9

    @property
    def busbw(self) -> float:
        """Algorithm bandwidth times the operation's factor."""
        return self.algbw * self.operation.bus_factor(self.ranks)

    def link_bytes(self) -> dict[Link, float]:
        """What each link carries in the whole operation."""
        found: dict[Link, float] = {}
        for stage in self.plan.stages:
            for link, load in stage.loads.items():
                found[link] = found.get(link, 0.0) + load * self.size
        return found

    def traffic(self) -> dict[Link, float]:
        """What it moves on average while it runs: the other traffic of whoever uses the same links."""
        return {link: moved / self.seconds for link, moved in self.link_bytes().items()}


def estimate(
    fabric: Fabric,
    ranks: Sequence[Core],
    what: Operation | str,
    size: int,
    dtype: DataType | str,
    *,
    others: Iterable[Traffic] = (),
    parameters: Parameters | None = None,
) -> Estimate:
    """The cost of an operation of `size` bytes among `ranks`; operations.py says what `size` counts.

    `others` are streams of other jobs on the same links. Send/recv goes from the first rank to the second, from the
    third to the fourth, and so on; permute from each rank to the next, and from the last to the first. Raises
    UnsupportedCollective.
    """
    wanted, kind = _operation(what), _type(dtype)
    _check_size(size, kind)
    prices = Prices(fabric, kind, parameters or published(), tuple(others))
    found = [prices.estimate(wanted, size, len(ranks), plan) for plan in plans(fabric, tuple(ranks), wanted, size)]
    return min(found, key=lambda answer: answer.seconds)


def estimate_pairs(
    fabric: Fabric,
    pairs: Sequence[tuple[Core, Core]],
    what: Operation | str,
    size: int,
    dtype: DataType | str,
    *,
    others: Iterable[Traffic] = (),
    parameters: Parameters | None = None,
) -> Estimate:
    """The cost of sending `size` bytes over each of these pairs at once."""
    wanted = _operation(what)
    if wanted is operations.PERMUTE:
        neighbours_only(fabric, pairs)
    kind = _type(dtype)
    _check_size(size, kind)
    plan = message_plan(fabric, [(source, target, 1.0) for source, target in pairs], wanted)
    return Prices(fabric, kind, parameters or published(), tuple(others)).estimate(wanted, size, len(pairs), plan)


def estimate_shares(
    fabric: Fabric,
    ranks: Sequence[Core],
    what: Operation | str,
    shares: Sequence[Sequence[int]],
    dtype: DataType | str,
    *,
    others: Iterable[Traffic] = (),
    parameters: Parameters | None = None,
) -> Estimate:
    """The cost of an all_gatherv or alltoallv: `shares[i][j]` bytes go from rank i to rank j.

    For an all_gatherv, all that one rank sends has the same length. The size of the whole is what the rank that
    receives most receives, and what it keeps.
    """
    wanted = _operation(what)
    if len(shares) != len(ranks) or any(len(row) != len(ranks) for row in shares):
        raise UnsupportedCollective(f"{wanted.name} of {len(ranks)} ranks needs a table of {len(ranks)} times as many")
    if any(length < 0 for row in shares for length in row):
        raise UnsupportedCollective(f"{wanted.name} cannot send less than nothing: give counts from 0")
    size = max(sum(column) for column in zip(*shares, strict=True))
    messages: list[Message] = [
        (source, target, length / size)
        for source, row in zip(ranks, shares, strict=True)
        for target, length in zip(ranks, row, strict=True)
        if length and source != target
    ]
    plan = message_plan(fabric, messages, wanted)
    kind = _type(dtype)
    _check_size(size, kind)
    return Prices(fabric, kind, parameters or published(), tuple(others)).estimate(wanted, size, len(ranks), plan)


class Prices:
    """Prices plans of one fabric for one type, set of parameters and traffic."""

    def __init__(
        self, fabric: Fabric, kind: DataType, parameters: Parameters, others: tuple[Traffic, ...] = ()
    ) -> None:
        version = fabric.kind.chip.neuron_core_version
        if version not in parameters.cores:
            raise UnsupportedCollective(f"{fabric.kind.name} has no collectives: choose Inferentia2 or Trainium")
        self._parameters = parameters
        self._version = version
        self._others = others
        self._launch = parameters.cores[version].launch_s
        self._adding = parameters.adding(version, kind.bytes, fabric.logical_neuron_core)
        self._rates = {kind: parameters.rate(version, kind) for kind in LINK_KINDS}

    def estimate(self, what: Operation, size: int, ranks: int, plan: Plan) -> Estimate:
        """What an operation costs that is done by this plan."""
        stages = tuple(self._stage(stage, size) for stage in plan.stages)
        seconds = self._launch + sum(stage.seconds for stage in stages)
        return Estimate(what, size, ranks, plan.algorithm, seconds, self._launch, stages, plan)

    def _stage(self, stage: Stage, size: int) -> StageCost:
        waiting = self._parameters.wait(self._version, stage.waits)
        slowest, busiest = 0.0, None
        for link, share in stage.busiest:
            taken = share / self._rates[link.kind]
            if taken > slowest:
                slowest, busiest = taken, link
        for link, rates in self._shared(stage).items():
            taken = stage.loads[link] / fair_rate(link.nominal * self._rates[link.kind], rates)
            if taken > slowest:
                slowest, busiest = taken, link
        adding = stage.reduced * self._adding
        moving = size * max(slowest, adding)
        return StageCost(stage.name, waiting + moving, waiting, adding > slowest, busiest)

    def _shared(self, stage: Stage) -> dict[Link, list[float]]:
        """The links of a stage that others use too, and what each of them would move there."""
        found: dict[Link, list[float]] = {}
        for stream in self._others:
            fewer, more = (stream, stage.loads) if len(stream) < len(stage.loads) else (stage.loads, stream)
            for link in fewer:
                if link in more and stream[link] > 0:
                    found.setdefault(link, []).append(stream[link])
        return found


def fair_rate(capacity: float, others: Sequence[float]) -> float:
    """What is left of a link for one more stream that takes all it can: max-min fairness."""
    left = capacity
    waiting = sorted(others)
    for index, rate in enumerate(waiting):
        equal = left / (len(waiting) - index + 1)
        if rate >= equal:
            return equal
        left -= rate
    return left


def _operation(what: Operation | str) -> Operation:
    return operation(what) if isinstance(what, str) else what


def _type(dtype: DataType | str) -> DataType:
    return data_type(dtype) if isinstance(dtype, str) else dtype


def _check_size(size: int, kind: DataType) -> None:
    if size <= 0 or size % kind.bytes:
        raise UnsupportedCollective(
            f"{size} bytes are no number of {kind.name} elements: use a multiple of {kind.bytes}"
        )
