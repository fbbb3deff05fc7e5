"""What a job does again and again, as the command line wants it: what one turn takes, and how it is told. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from neuron_device_model.collectives.layouts import Layout
from neuron_device_model.steps import serving, training
from neuron_device_model.steps.errors import WrongStep
from neuron_device_model.steps.transformer import Transformer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from neuron_runtime.nccom.costs import Board


@dataclass(frozen=True)
class Turn:
    """A step of training, or a batch of requests."""

    seconds: float
    executions: int
    latency_s: float
    """Of one execution."""
    busy: float
    """The part of the time in which a core computes."""
    flops: float
    """Of a core, in the whole turn."""
    words: str
    """What it takes, for the log."""


@dataclass(frozen=True)
class Sizes:
    """A model as the command line has it; what is left out follows from the layout."""

    layers: int
    hidden: int
    sequence: int
    batch: int | None
    dtype: str

    def model(self, layout: Layout, *, of_replica: int) -> Transformer:
        """With a batch for this layout."""
        return Transformer(self.layers, self.hidden, self.sequence, self.batch or layout.data * of_replica, self.dtype)


@dataclass(frozen=True)
class Training:
    """Steps."""

    sizes: Sizes
    layout: Layout | None
    micro_batches: int | None
    overlap: bool
    efficiency: float

    name = "neuron-sim-train"
    counts = "step"

    def memory(self, layout: Layout) -> int:
        """Bytes of each rank. Raises WrongStep."""
        return training.memory(layout, self._model(layout), micro_batches=self.micro_batches)

    def turn(self, board: Board, layout: Layout, *, speed: float) -> Turn:
        """A step while the slowest core has this part of its speed. Raises WrongStep and UnsupportedCollective."""
        model = self._model(layout)
        found = training.step(
            board.fabric,
            board.ranks,
            layout,
            model,
            numbers=board.numbers,
            micro_batches=self.micro_batches,
            overlap=self.overlap,
            efficiency=self.efficiency,
            speed=speed,
        )
        words = (
            f"{_time(found.seconds)}  {model.batch * model.sequence / found.seconds:,.0f} tokens/s  "
            f"compute {_time(found.compute_s)}  bubble {_time(found.bubble_s)}  tensor {_time(found.tensor_s)}  "
            f"pipeline {_time(found.pipeline_s)}  data {_time(found.data_s)} ({_time(found.hidden_s)} hidden)"
        )
        return Turn(found.seconds, 1, found.seconds, found.compute_s / found.seconds, found.flops, words)

    def _model(self, layout: Layout) -> Transformer:
        return self.sizes.model(layout, of_replica=self.micro_batches or layout.pipeline)


@dataclass(frozen=True)
class Serving:
    """Batches of requests."""

    sizes: Sizes
    layout: Layout | None
    tokens: int
    efficiency: float

    name = "neuron-sim-serve"
    counts = "batch"

    def memory(self, layout: Layout) -> int:
        """Bytes of each rank. Raises WrongStep."""
        return serving.memory(layout, self._model(layout), tokens=self.tokens)

    def turn(self, board: Board, layout: Layout, *, speed: float) -> Turn:
        """A batch while the slowest core has this part of its speed. Raises WrongStep and UnsupportedCollective."""
        found = serving.serving(
            board.fabric,
            board.ranks,
            layout,
            self._model(layout),
            tokens=self.tokens,
            numbers=board.numbers,
            efficiency=self.efficiency,
            speed=speed,
        )
        token, prefill = found.token, found.prefill
        words = (
            f"{_time(found.seconds)}  {found.tokens_per_s:,.0f} tokens/s  first token {_time(prefill.seconds)}  "
            f"token {_time(token.seconds)} (compute {_time(token.compute_s)}, tensor {_time(token.tensor_s)}, "
            f"pipeline {_time(token.pipeline_s)})"
        )
        # of the stages one computes at a time
        computing = (prefill.compute_s + self.tokens * token.compute_s) / layout.pipeline
        return Turn(
            found.seconds,
            1 + self.tokens,
            token.seconds,
            computing / found.seconds,
            prefill.flops + self.tokens * token.flops,
            words,
        )

    def _model(self, layout: Layout) -> Transformer:
        return self.sizes.model(layout, of_replica=1)


def layout_of(work: Training | Serving, board: Board) -> Layout:
    """The one that was asked for; else a process is a tensor group, where there are collectives, and a replica.

    Raises WrongStep.
    """
    found = work.layout
    if found is None:
        tensor = len(board.places[0].cores) if board.fabric.kind.chip.cc_cores else 1
        found = Layout(tensor=tensor, data=len(board.ranks) // tensor)
    if found.size != len(board.ranks):
        raise WrongStep(
            f"the layout {' x '.join(map(str, found.extents))} needs {found.size} ranks, and there are "
            f"{len(board.ranks)}: change --layout, --cores or --nnodes"
        )
    return found


def _time(seconds: float) -> str:
    return f"{seconds:.3f} s" if seconds >= 1 else f"{seconds * 1e3:.2f} ms"
