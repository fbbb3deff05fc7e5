"""Recursive doubling and halving (RDH): log2 N steps, each with a partner twice as far in a hypercube.

A 4x4 torus is a hypercube of four dimensions: along an axis of four, the steps 0-1-2-3-0 are a Gray code, so partners
are neighbours. Parts of the data take the dimensions in different orders, so that all of a chip's links work in every
step. Between chips and inside them are separate stages. (AWS docs: neuron-runtime/explore/
intranode-collective-comm.rst; the rotation is our reading of the measured bandwidth)
"""

from neuron_device_model.collectives.groups import Block
from neuron_device_model.collectives.stages import Loads, Stage, Waits
from neuron_device_model.topology import Topology


def applies(block: Block) -> bool:
    """Whether ranks fall into a hypercube: powers of two of chips, and of ranks on each."""
    return block.per_chip is not None and _power_of_two(block.chips) and _power_of_two(block.per_chip)


def phase(block: Block, *, reduces: bool) -> tuple[Stage, ...]:
    """An all-gather by doubling, or a reduce-scatter by halving, which is the same backwards."""
    stages = []
    what = "reduce-scatter by halving" if reduces else "all-gather by doubling"
    if block.chips > 1:
        stages.append(_between_chips(block, f"{what}, between chips", reduces=reduces))
    per_chip = block.size // block.chips
    if per_chip > 1:
        loads = Loads()
        moved = (per_chip - 1) / per_chip
        loads.add(block.core_links(), moved)
        steps = per_chip.bit_length() - 1
        waits = Waits(steps=steps, adding_steps=steps if reduces else 0)
        stages.append(Stage(f"{what}, inside chips", waits, loads, moved if reduces else 0.0))
    return tuple(reversed(stages)) if reduces else tuple(stages)


def _between_chips(block: Block, name: str, *, reduces: bool) -> Stage:
    chips = block.chips
    dimensions = chips.bit_length() - 1
    order = sorted(block.positions, key=lambda position: _gray_place(block, position))
    sent = (chips - 1) / chips / dimensions
    loads = Loads()
    hops = 0
    for dimension in range(dimensions):
        farthest = 0
        for index, position in enumerate(order):
            route = block.route(position, order[index ^ (1 << dimension)])
            farthest = max(farthest, len(route))
            loads.add(route, sent)
        hops += farthest
    moved = (chips - 1) / block.size
    loads.add(block.core_links(), moved)
    waits = Waits(steps=dimensions, adding_steps=dimensions if reduces else 0, hops=hops)
    return Stage(name, waits, loads, moved if reduces else 0.0)


def _gray_place(block: Block, position: int) -> tuple[int, ...]:
    """Where a chip stands in the hypercube's order: each coordinate counted as a Gray code counts."""
    kind = block.fabric.kind
    server, chip = divmod(position, kind.chips)
    wiring = Topology("ring", (kind.chips,)) if kind.topology == "switch" else kind.wiring
    return tuple(value ^ (value >> 1) for value in (server, *wiring.coordinates(chip)))


def _power_of_two(number: int) -> bool:
    return number & (number - 1) == 0
