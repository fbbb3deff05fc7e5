"""The parameters of the cost model: what each means, and the published set.

The values are in parameters.toml, which hack/fit-collectives writes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from neuron_device_model.catalog.documents import parse
from neuron_device_model.catalog.rows import Row, reading
from neuron_device_model.collectives.fabric import CORE, EFA
from neuron_device_model.collectives.stages import Waits

DATA = Path(__file__).parent / "parameters.toml"


@dataclass(frozen=True, slots=True)
class CoreParameters:
    """What one generation of NeuronCores and its CC-cores take."""

    launch_s: float
    """From the trigger to the first step, and from the last one to the end."""
    step_s: float
    """To tell another rank that its data is there."""
    add_step_s: float
    """More, where that rank has to add it before it goes on."""
    hop_s: float
    """For each chip that a message comes to."""
    ring_hop_s: float
    """For data to be passed on by a rank of a ring or a kangaring."""
    efa_hop_s: float
    """For a message from HBM to HBM over the network."""
    die_crossing_s: float
    """More for a message of a send/recv that goes to the chip's other die."""
    copy_bytes_per_s: float
    """What the DMA engines of a physical core move in one stream, from HBM to HBM."""
    add_bytes_per_s: float
    """What they move and add, besides the time for each element."""
    add_element_s: float
    """For each element added, by one physical core."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """All of them."""

    neuronlink_share: float
    """What a NeuronLink carries of its published bandwidth."""
    efa_share: float
    """What an EFA card carries of its published bandwidth."""
    network_layer_s: float
    """More for each layer of the network above the leaf."""
    cores: Mapping[str, CoreParameters] = field(hash=False)
    """By NeuronCore version."""

    def rate(self, version: str, kind: str) -> float:
        """What a link of this kind carries of its published bandwidth; of a core, for each physical core."""
        if kind == CORE:
            return self.cores[version].copy_bytes_per_s
        return self.efa_share if kind == EFA else self.neuronlink_share

    def wait(self, version: str, waits: Waits) -> float:
        """Seconds of waiting."""
        core = self.cores[version]
        return (
            waits.steps * core.step_s
            + waits.adding_steps * core.add_step_s
            + waits.hops * core.hop_s
            + waits.ring_hops * core.ring_hop_s
            + waits.die_crossings * core.die_crossing_s
            + waits.efa_hops * core.efa_hop_s
            + waits.network_layers * self.network_layer_s
        )

    def adding(self, version: str, element_bytes: int, physical_cores: int) -> float:
        """Seconds for a rank to add a byte."""
        core = self.cores[version]
        return (1 / core.add_bytes_per_s + core.add_element_s / element_bytes) / physical_cores


@cache
def published() -> Parameters:
    """The parameters of parameters.toml."""
    return load(DATA)


def load(path: Path) -> Parameters:
    """Read a parameter file."""
    with reading(parse(path)) as file:
        with reading(file.table("links")) as links:
            neuronlink_share, efa_share = links.number("neuronlink_share"), links.number("efa_share")
        with reading(file.table("network")) as network:
            layer_s = network.number("layer_s")
        return Parameters(
            neuronlink_share=neuronlink_share,
            efa_share=efa_share,
            network_layer_s=layer_s,
            cores={row.text("version"): _core(row) for row in file.rows("core")},
        )


def _core(row: Row) -> CoreParameters:
    with reading(row):
        return CoreParameters(
            launch_s=row.number("launch_s"),
            step_s=row.number("step_s"),
            add_step_s=row.number("add_step_s"),
            hop_s=row.number("hop_s"),
            ring_hop_s=row.number("ring_hop_s"),
            efa_hop_s=row.number("efa_hop_s"),
            die_crossing_s=row.number("die_crossing_s"),
            copy_bytes_per_s=row.number("copy_bytes_per_s"),
            add_bytes_per_s=row.number("add_bytes_per_s"),
            add_element_s=row.number("add_element_s"),
        )
