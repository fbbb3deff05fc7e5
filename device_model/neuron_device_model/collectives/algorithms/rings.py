"""Ring and kangaring: data is passed on from neighbour to neighbour until it has been everywhere.

A ring visits rank after rank. Kangaring needs all ranks of every chip: data jumps from chip to chip and is spread there
beside, so links carry it once for a chip, ways are half as long, and the copies of a single core are no limit.
Both go round all link-disjoint cycles in both directions. (AWS docs: neuron-runtime/explore/
intranode-collective-comm.rst)
"""

from neuron_device_model.collectives.algorithms.cycles import Cycle, cycles
from neuron_device_model.collectives.groups import Block
from neuron_device_model.collectives.stages import Loads, Stage, Waits


def kangaring_applies(block: Block) -> bool:
    """All ranks of the chips, more than one chip, and a way round over neighbours in one instance."""
    return (
        block.chips > 1
        and block.whole_chips
        and len(block.servers) == 1
        and bool(cycles(block.fabric.instance_type, _local(block)))
    )


def phase(block: Block, *, reduces: bool, kangaring: bool) -> Stage:
    """An all-gather around, or a reduce-scatter, which is the same backwards."""
    stops = block.chips if kangaring else block.size
    rounds = _rounds(block)
    share = (stops - 1) / stops / (2 * len(rounds))
    loads = Loads()
    detours = max(_go_round(block, cycle, share, loads) for cycle in rounds) if block.chips > 1 else 0
    ranks = block.size
    moved = (ranks - 1) / ranks
    if not kangaring:
        loads.add(block.core_links(), moved)
    waits = Waits(ring_hops=ranks // 2 if kangaring else ranks - 1, adding_steps=int(reduces), hops=detours)
    name = "kangaring" if kangaring else "ring"
    return Stage(f"{'reduce-scatter' if reduces else 'all-gather'}, {name}", waits, loads, moved if reduces else 0.0)


def _rounds(block: Block) -> tuple[Cycle, ...]:
    """The disjoint cycles, or one round through the chips in the order of their numbers, whatever lies between."""
    if len(block.servers) > 1:
        return (block.positions,)
    first = block.positions[0] - _local(block)[0]
    found = cycles(block.fabric.instance_type, _local(block))
    return tuple(tuple(first + chip for chip in cycle) for cycle in found) or (block.positions,)


def _go_round(block: Block, cycle: Cycle, share: float, loads: Loads) -> int:
    """Load the links of a round, both ways; how many hops it has more than stops."""
    detours = 0
    for a, b in zip(cycle, (*cycle[1:], cycle[0]), strict=True):
        forth, back = block.route(a, b), block.route(b, a)
        loads.add(forth, share)
        loads.add(back, share)
        detours += max(len(forth), len(back)) - 1
    return detours


def _local(block: Block) -> tuple[int, ...]:
    """The chips' numbers in their own instance."""
    return tuple(position % block.fabric.kind.chips for position in block.positions)
