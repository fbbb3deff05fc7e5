"""Mesh: every rank writes to every other one at once, each message on the shortest way.

Few waits, but links carry one copy for every rank, which limits it to small messages. The variant for switches sends
one copy to each chip and spreads it there. (AWS docs: neuron-runtime/explore/intranode-collective-comm.rst)
"""

from neuron_device_model.collectives.groups import Block
from neuron_device_model.collectives.stages import Loads, Stage, Waits


def exchange(block: Block, *, reduces: bool, copies: int = 1, name: str = "") -> Stage:
    """Each rank writes its share to each other rank, `copies` shares of it."""
    ranks = block.size
    loads = Loads()
    farthest = 0
    for a, here in block.members:
        for b, there in block.members:
            if a != b:
                routes = block.routes(a, b)
                farthest = max(farthest, len(routes[0]))
                loads.spread(routes, copies * len(here) * len(there) / ranks)
    moved = copies * (ranks - 1) / ranks
    loads.add(block.core_links(), moved)
    return Stage(
        name or ("reduce-scatter, mesh" if reduces else "all-gather, mesh"),
        Waits(steps=1, adding_steps=int(reduces), hops=farthest),
        loads,
        moved if reduces else 0.0,
    )


def single_step(block: Block) -> Stage:
    """All-reduce in one step: each rank writes all it has to every other one, and each adds everything."""
    return exchange(block, reduces=True, copies=block.size, name="all-reduce, mesh in one step")


def over_switch(block: Block, *, reduces: bool) -> tuple[Stage, ...]:
    """All-gather over a switch: a copy for each chip, from rank to rank, which then spread inside the chip.

    A reduce-scatter is the same backwards. Every chip has to have as many ranks as the others.
    """
    chips, per_chip = block.chips, block.size // block.chips
    what = "reduce-scatter" if reduces else "all-gather"
    loads = Loads()
    farthest = 0
    for a in block.positions:
        for b in block.positions:
            if a != b:
                routes = block.routes(a, b)
                farthest = max(farthest, len(routes[0]))
                loads.spread(routes, 1 / chips)
    sent = (chips - 1) / block.size
    loads.add(block.core_links(), sent)
    between = Stage(
        f"{what} between chips, mesh",
        Waits(steps=1, adding_steps=int(reduces), hops=farthest),
        loads,
        sent if reduces else 0.0,
    )
    if per_chip == 1:
        return (between,)
    inside_loads = Loads()
    spread = (per_chip - 1) / per_chip
    inside_loads.add(block.core_links(), spread)
    inside = Stage(
        f"{what} inside chips, mesh",
        Waits(steps=1, adding_steps=int(reduces)),
        inside_loads,
        spread if reduces else 0.0,
    )
    return (inside, between) if reduces else (between, inside)
