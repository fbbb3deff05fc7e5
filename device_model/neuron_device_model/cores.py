"""NeuronCores as software sees them: physical cores, grouped by the logical NeuronCore configuration (LNC).

On Trainium2 and later LNC 2 (the default) makes one core of two; everything that counts, numbers or sizes
cores asks here, so that no other module divides by LNC itself.
(AWS docs: about-neuron/arch/neuron-features/logical-neuroncore-config.rst)
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

# The catalogue counts cores with this module, so at run time the import goes the other way.
if TYPE_CHECKING:
    from neuron_device_model.catalog.chips import Chip


class UnsupportedLogicalNeuronCore(ValueError):
    """The chip does not have this LNC; the message says which values it has."""


@dataclass(frozen=True, slots=True)
class CoreMemory:
    """The memory bank behind one visible core, and how many visible cores share it."""

    bank_bytes: int
    sharers: int

    @property
    def bytes_per_core(self) -> int:
        """An even share of the bank."""
        return self.bank_bytes // self.sharers


def visible_cores(chip: "Chip", logical_neuron_core: int) -> int:
    """NeuronCores that software sees on one chip."""
    values = chip.logical_neuron_core_values
    if logical_neuron_core not in values:
        raise UnsupportedLogicalNeuronCore(
            f"{chip.title} has no logical NeuronCore configuration {logical_neuron_core}: "
            f"use {' or '.join(map(str, values))}"
        )
    return chip.physical_cores // logical_neuron_core


def core_ids(chip: "Chip", logical_neuron_core: int, *, device: int) -> tuple[int, ...]:
    """The numbers of a device's visible cores, counted over all devices before it."""
    count = visible_cores(chip, logical_neuron_core)
    return tuple(range(device * count, (device + 1) * count))


def core_list(ids: Iterable[int]) -> str:
    """Core numbers as NEURON_RT_VISIBLE_CORES takes them: ascending, runs shortened, as in 0-3,8."""
    runs: list[list[int]] = []
    for number in sorted(set(ids)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def core_memory(chip: "Chip", logical_neuron_core: int) -> CoreMemory:
    """The memory of one visible core. With LNC 1, Trainium2 and later have two cores on each bank."""
    return CoreMemory(
        bank_bytes=chip.memory_bytes // chip.memory_banks,
        sharers=max(1, visible_cores(chip, logical_neuron_core) // chip.memory_banks),
    )
