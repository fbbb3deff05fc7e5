"""The chips: what one Neuron device is, whatever instance it sits in."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType

from neuron_device_model.catalog.documents import document
from neuron_device_model.catalog.rows import Row, reading

PRECISIONS = ("bf16", "tf32", "fp8", "fp32", "int8", "sparse")


@dataclass(frozen=True, slots=True)
class Chip:
    """One chip generation. `name` is the accelerator name that EC2 and Karpenter use."""

    name: str
    title: str
    neuron_core_version: str
    physical_cores: int
    memory_bytes: int
    memory_banks: int
    memory_bandwidth_bytes_per_s: int
    logical_neuron_core_values: tuple[int, ...]
    default_logical_neuron_core: int
    neuronlink_version: str
    tflops: Mapping[str, float] = field(hash=False)
    """Dense TFLOPS (TOPS for int8) by precision; a precision without a published figure is absent."""
    cc_cores: int
    dma_engines: int
    source: str
    chosen: tuple[str, ...] = ()

    @property
    def has_logical_neuron_cores(self) -> bool:
        """Whether the logical NeuronCore configuration is a choice on this chip (Trainium2 and later)."""
        return len(self.logical_neuron_core_values) > 1


@cache
def chips() -> Mapping[str, Chip]:
    """Every chip, by name."""
    return MappingProxyType(load_chips(document("chips.toml")))


def load_chips(rows: Row) -> dict[str, Chip]:
    """Read a chip file."""
    with reading(rows) as file:
        return {chip.name: chip for chip in map(_chip, file.rows("chip"))}


def _chip(row: Row) -> Chip:
    with reading(row):
        chip = Chip(
            name=row.text("name"),
            title=row.text("title"),
            neuron_core_version=row.text("neuron_core_version"),
            physical_cores=row.integer("physical_cores"),
            memory_bytes=row.integer("memory_gib") << 30,
            memory_banks=row.integer("memory_banks"),
            memory_bandwidth_bytes_per_s=row.bandwidth("memory_bandwidth"),
            logical_neuron_core_values=row.integers("logical_neuron_core_values"),
            default_logical_neuron_core=row.integer("default_logical_neuron_core"),
            neuronlink_version=row.text("neuronlink_version"),
            tflops=MappingProxyType(row.numbers_by_name("tflops")),
            cc_cores=row.integer("cc_cores"),
            dma_engines=row.integer("dma_engines"),
            source=row.text("source"),
            chosen=row.optional_texts("chosen"),
        )
    if unknown := chip.tflops.keys() - set(PRECISIONS):
        raise row.error(f"tflops: unknown precision {', '.join(unknown)} (known: {', '.join(PRECISIONS)})")
    if chip.default_logical_neuron_core not in chip.logical_neuron_core_values:
        raise row.error("default_logical_neuron_core is not one of logical_neuron_core_values")
    return chip
