"""A decoder-only transformer by its sizes: how many parameters it has, what a token costs, what has to be kept.

12 hidden² parameters a layer (attention 4, a feed-forward network of four times the width 8), no embeddings. Two
operations for each parameter and token forward, and 4 · sequence · hidden a layer for attention over all tokens; the
backward pass is twice the forward one (Narayanan et al. 2021, without recomputation). Pure.
"""

from dataclasses import dataclass

from neuron_device_model.catalog.chips import Chip
from neuron_device_model.collectives.datatypes import DataType, data_type
from neuron_device_model.cores import visible_cores
from neuron_device_model.steps.errors import WrongStep

_PRECISIONS = {"bf16": "bf16", "fp16": "bf16", "fp32": "fp32", "fp8": "fp8", "int8": "int8"}
"""Of the catalogue's figures, by element type: 16 bits are 16 bits."""


@dataclass(frozen=True, slots=True)
class Transformer:
    """A model, and how much of it is asked for at once. Raises WrongStep."""

    layers: int
    hidden: int
    sequence: int
    """Tokens of a sequence."""
    batch: int
    """Sequences at once, of all data parallel replicas together."""
    dtype: str = "bf16"

    def __post_init__(self) -> None:
        for name in ("layers", "hidden", "sequence", "batch"):
            if not 0 < getattr(self, name) < 1 << 32:
                raise WrongStep(f"{name}={getattr(self, name)}: give a whole number from 1")
        if self.dtype not in _PRECISIONS:
            raise WrongStep(f"dtype={self.dtype}: use one of {', '.join(_PRECISIONS)}")

    @property
    def element(self) -> DataType:
        """Of weights, activations and gradients."""
        return data_type(self.dtype)

    @property
    def parameters(self) -> int:
        """Of all layers."""
        return 12 * self.layers * self.hidden**2

    def require_stages(self, stages: int) -> None:
        """Raises WrongStep if its layers cannot be divided equally among so many pipeline stages."""
        if self.layers % stages:
            raise WrongStep(f"{self.layers} layers cannot be divided equally among {stages} pipeline stages")

    def forward_flops(self, tokens: int, context: float) -> float:
        """Operations of a forward pass over so many tokens, each of which looks at `context` tokens."""
        return tokens * (2.0 * self.parameters + 4.0 * self.layers * self.hidden * context)


@dataclass(frozen=True, slots=True)
class CoreSpeed:
    """What one visible core can do: the chip's published figures in equal parts."""

    flops_per_s: float
    memory_bytes_per_s: float

    def seconds(self, flops: float, moved: float) -> float:
        """The longer of computing and of reading memory, both at once."""
        return max(flops / self.flops_per_s, moved / self.memory_bytes_per_s)


def core_speed(
    chip: Chip, logical_neuron_core: int, dtype: str, *, efficiency: float = 1.0, speed: float = 1.0
) -> CoreSpeed:
    """A core's speed in a type. `efficiency`: of the published FLOPS; `speed`: of a core that is throttled."""
    precision = _PRECISIONS[dtype]
    if precision not in chip.tflops:
        known = ", ".join(name for name, figure in _PRECISIONS.items() if figure in chip.tflops)
        raise WrongStep(f"no speed of {chip.title} in {dtype} is published: use {known}")
    cores = visible_cores(chip, logical_neuron_core)
    return CoreSpeed(
        chip.tflops[precision] * 1e12 / cores * efficiency * speed,
        chip.memory_bandwidth_bytes_per_s / cores * speed,
    )
