"""A batch of requests that is served: the prompt in one go, then token by token. Pure.

All sequences of a replica go through its pipeline stages together, one stage after the other. A stage reads its
weights and the keys and values of all tokens so far, which is what a token mostly takes, and its tensor group does two
all-reduces a layer. Replicas (data parallel) have nothing to tell one another.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from neuron_device_model.collectives.fabric import Core, Fabric
from neuron_device_model.collectives.layouts import (
    PIPELINE,
    TENSOR,
    Exchange,
    ExchangeCost,
    Layout,
    check_layout,
    step_costs,
)
from neuron_device_model.steps.errors import WrongStep
from neuron_device_model.steps.transformer import CoreSpeed, Transformer, core_speed


@dataclass(frozen=True)
class Pass:
    """One way of a batch through the model, in seconds."""

    compute_s: float
    """All stages, one after the other."""
    tensor_s: float
    pipeline_s: float
    flops: float
    """Of one rank."""
    exchanges: tuple[ExchangeCost, ...]

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.compute_s + self.tensor_s + self.pipeline_s


@dataclass(frozen=True)
class Serving:
    """A batch of requests."""

    prefill: Pass
    token: Pass
    """In the middle of the answer."""
    tokens: int
    """Of an answer."""
    batch: int

    @property
    def seconds(self) -> float:
        """From the requests to the last token of the answers."""
        return self.prefill.seconds + self.tokens * self.token.seconds

    @property
    def tokens_per_s(self) -> float:
        """Of all answers."""
        return self.batch * self.tokens / self.seconds


def serving(
    fabric: Fabric,
    ranks: Sequence[Core],
    layout: Layout,
    model: Transformer,
    *,
    tokens: int,
    numbers: Sequence[int] | None = None,
    efficiency: float = 1.0,
    speed: float = 1.0,
) -> Serving:
    """A batch with prompts of `model.sequence` tokens and answers of `tokens`. Raises as a training step does."""
    if tokens < 1:
        raise WrongStep(f"answers of {tokens} tokens: give 1 or more")
    check_layout(fabric, ranks, layout, (TENSOR, PIPELINE), numbers=numbers)
    _check(layout, model)
    core = core_speed(fabric.kind.chip, fabric.logical_neuron_core, model.dtype, efficiency=efficiency, speed=speed)
    middle = model.sequence + tokens / 2
    return Serving(
        prefill=_pass(fabric, ranks, layout, model, core, tokens=model.sequence, context=model.sequence),
        token=_pass(fabric, ranks, layout, model, core, tokens=1, context=middle),
        tokens=tokens,
        batch=model.batch,
    )


def memory(layout: Layout, model: Transformer, *, tokens: int) -> int:
    """Bytes that a rank keeps: its weights, and the keys and values of all sequences at their ends."""
    _check(layout, model)
    shared = layout.tensor * layout.pipeline
    return round((model.parameters * model.element.bytes + _kept(layout, model, model.sequence + tokens)) / shared)


def _check(layout: Layout, model: Transformer) -> None:
    model.require_stages(layout.pipeline)
    if model.batch % layout.data:
        raise WrongStep(f"a batch of {model.batch} cannot be divided equally among {layout.data} replicas")


def _pass(
    fabric: Fabric,
    ranks: Sequence[Core],
    layout: Layout,
    model: Transformer,
    core: CoreSpeed,
    *,
    tokens: int,
    context: float,
) -> Pass:
    sequences = model.batch // layout.data
    flops = model.forward_flops(sequences * tokens, context) / (layout.tensor * layout.pipeline)
    read = (model.parameters * model.element.bytes + _kept(layout, model, context)) / (layout.tensor * layout.pipeline)
    activations = sequences * tokens * model.hidden * model.element.bytes
    tensor, pipeline = step_costs(
        fabric,
        ranks,
        layout,
        [
            Exchange(TENSOR, "all_reduce", activations, model.element, 2 * model.layers),
            Exchange(PIPELINE, "sendrecv", activations, model.element, layout.pipeline - 1),
        ],
    )
    return Pass(
        compute_s=layout.pipeline * core.seconds(flops, read),
        tensor_s=tensor.seconds,
        pipeline_s=pipeline.seconds,
        flops=flops,
        exchanges=(tensor, pipeline),
    )


def _kept(layout: Layout, model: Transformer, context: float) -> float:
    """Bytes of keys and values of a replica's sequences."""
    return 2 * model.layers * model.hidden * context * model.batch // layout.data * model.element.bytes
