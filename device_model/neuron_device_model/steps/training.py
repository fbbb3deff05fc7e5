"""One step of training: computing, the collectives of a parallel layout, and what of them computing hides. Pure.

As Megatron-LM does it (Narayanan et al. 2021): an all-reduce of the activations twice a layer forward and twice
backward in each tensor group; micro-batches that go through the pipeline one behind the other, and its bubble; one
all-reduce of the gradients in each data group, which can run under the backward pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from neuron_device_model.collectives.fabric import Core, Fabric, Link
from neuron_device_model.collectives.layouts import (
    DATA,
    PIPELINE,
    TENSOR,
    Exchange,
    ExchangeCost,
    Layout,
    check_layout,
    step_costs,
)
from neuron_device_model.collectives.model import Traffic
from neuron_device_model.steps.errors import WrongStep
from neuron_device_model.steps.transformer import Transformer, core_speed

_BACKWARD = 2 / 3
"""Of the computing: twice the forward pass."""
_OPTIMIZER_BYTES = 12
"""Of a parameter: a copy, mean and variance in fp32."""
_ACTIVATION_BYTES = 34
"""Of a token, layer and hidden unit (Korthikanti et al. 2022, attention recomputed, in 16 bits)."""


@dataclass(frozen=True)
class Step:
    """What a step takes, in seconds."""

    compute_s: float
    bubble_s: float
    """The pipeline fills and drains."""
    tensor_s: float
    pipeline_s: float
    data_s: float
    hidden_s: float
    """Of `data_s`, under the backward pass."""
    flops: float
    """Of one rank."""
    exchanges: tuple[ExchangeCost, ...]

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.compute_s + self.bubble_s + self.communication_s

    @property
    def communication_s(self) -> float:
        """What ranks wait for one another."""
        return self.tensor_s + self.pipeline_s + self.data_s - self.hidden_s

    def traffic(self) -> Traffic:
        """What it moves over each link on average, bytes a second: what jobs on the same links have to share."""
        found: dict[Link, float] = {}
        for cost in self.exchanges:
            for answer in cost.estimates:
                for link, moved in answer.link_bytes().items():
                    found[link] = found.get(link, 0.0) + cost.exchange.times * moved / self.seconds
        return found


def step(
    fabric: Fabric,
    ranks: Sequence[Core],
    layout: Layout,
    model: Transformer,
    *,
    numbers: Sequence[int] | None = None,
    micro_batches: int | None = None,
    overlap: bool = True,
    efficiency: float = 1.0,
    speed: float = 1.0,
    others: Sequence[Traffic] = (),
) -> Step:
    """A step on these cores, in the order of their ranks. Raises WrongStep and UnsupportedCollective.

    `numbers` are those of the cores as their processes see them; `speed` is that of the slowest core, 1 if it is whole;
    `others` what other jobs move over the same links.
    """
    many = _micro_batches(layout, model, micro_batches)
    check_layout(fabric, ranks, layout, (TENSOR, DATA, PIPELINE), numbers=numbers)
    core = core_speed(fabric.kind.chip, fabric.logical_neuron_core, model.dtype, efficiency=efficiency, speed=speed)
    of_rank = model.parameters / (layout.tensor * layout.pipeline) * model.element.bytes
    flops = 3 * model.forward_flops(model.batch * model.sequence, model.sequence) / layout.size
    compute = core.seconds(flops, 3 * of_rank * many)
    activations = model.batch // layout.data // many * model.sequence * model.hidden * model.element.bytes
    slots = many + layout.pipeline - 1
    gradients = -(-model.parameters // (layout.tensor * layout.pipeline)) * model.element.bytes
    tensor, pipeline, data = step_costs(
        fabric,
        ranks,
        layout,
        [
            Exchange(TENSOR, "all_reduce", activations, model.element, 4 * model.layers // layout.pipeline * many),
            Exchange(PIPELINE, "sendrecv", activations, model.element, 2 * slots),
            Exchange(DATA, "all_reduce", gradients, model.element),
        ],
        others=others,
    )
    return Step(
        compute_s=compute,
        bubble_s=(compute + tensor.seconds) * (layout.pipeline - 1) / many,
        tensor_s=tensor.seconds,
        pipeline_s=pipeline.seconds,
        data_s=data.seconds,
        hidden_s=min(data.seconds, _BACKWARD * compute) if overlap else 0.0,
        flops=flops,
        exchanges=(tensor, pipeline, data),
    )


def memory(layout: Layout, model: Transformer, *, micro_batches: int | None = None) -> int:
    """Bytes that a rank of the first pipeline stage keeps: weights, gradients, the optimizer's state, activations."""
    many = _micro_batches(layout, model, micro_batches)
    parameters = model.parameters / (layout.tensor * layout.pipeline)
    tokens = model.batch // layout.data // many * model.sequence
    # of as many micro-batches as there are stages, and each stage has its part of the layers
    activations = _ACTIVATION_BYTES * model.element.bytes / 2 * tokens * model.hidden * model.layers / layout.tensor
    return round(parameters * (2 * model.element.bytes + _OPTIMIZER_BYTES) + activations)


def _micro_batches(layout: Layout, model: Transformer, wanted: int | None) -> int:
    model.require_stages(layout.pipeline)
    many = wanted or layout.pipeline
    if model.batch % (layout.data * many):
        raise WrongStep(
            f"a batch of {model.batch} cannot be divided equally among {layout.data} data parallel replicas "
            f"with {many} micro-batches each"
        )
    return many
