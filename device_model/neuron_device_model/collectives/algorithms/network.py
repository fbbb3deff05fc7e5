"""Between nodes, over EFA: mesh, doubling and halving, or ring among equal ranks of all nodes; and the flat ring.

The hierarchical algorithm gathers between nodes first and inside them then, and reduces the other way round, so that a
node's cards carry each byte once. The flat ring is one ring over all ranks of all nodes.
(AWS docs: neuron-runtime/explore/internode-collective-comm.rst)
"""

from itertools import pairwise

from neuron_device_model.collectives.algorithms.rings import phase as ring_phase
from neuron_device_model.collectives.fabric import Core
from neuron_device_model.collectives.groups import Group
from neuron_device_model.collectives.stages import Loads, Stage, Waits

MESH = "mesh"
RDH = "rdh"
RING = "ring"


def phase(group: Group, algorithm: str, *, reduces: bool) -> Stage:
    """Each rank with its equals on the other nodes: an all-gather, or a reduce-scatter. `size` is that of the whole."""
    nodes = len(group.blocks)
    sent = (nodes - 1) / group.size
    steps = {MESH: 1, RDH: (nodes - 1).bit_length(), RING: nodes - 1}[algorithm]
    what = "reduce-scatter" if reduces else "all-gather"
    return Stage(
        f"{what} between nodes, {algorithm}",
        Waits(
            steps=steps,
            adding_steps=steps if reduces else 0,
            efa_hops=steps,
            network_layers=steps * farthest_layers(group),
        ),
        _card_loads(group, sent),
        sent if reduces else 0.0,
    )


def single_step(group: Group) -> Stage:
    """All-reduce between nodes in one step: each rank sends what it has to all its equals."""
    nodes = len(group.blocks)
    sent = (nodes - 1) * nodes / group.size
    waits = Waits(steps=1, adding_steps=1, efa_hops=1, network_layers=farthest_layers(group))
    return Stage("all-reduce between nodes, mesh in one step", waits, _card_loads(group, sent), sent)


def flat_ring(group: Group, *, reduces: bool) -> Stage:
    """Rings over all ranks, one for each card, that enter and leave each node once."""
    ranks = group.size
    moved = (ranks - 1) / ranks
    loads = Loads()
    for block in group.blocks:
        if block.size > 1:
            for link, load in ring_phase(block, reduces=reduces, kangaring=False).loads.items():
                # a ring inside the node carries (n-1)/n of the data, this one nearly all of it
                loads.add((link,), load * moved * block.size / (block.size - 1))
        else:
            loads.add(block.core_links(), moved)
        heads = {group.fabric.card(core, "out"): group.fabric.card(core, "in") for core in block.ranks}
        for out, back in heads.items():
            loads.add((out, back), moved / len(heads))
    nodes = len(group.blocks)
    return Stage(
        f"{'reduce-scatter' if reduces else 'all-gather'}, flat ring",
        Waits(
            adding_steps=int(reduces),
            ring_hops=ranks - nodes,
            efa_hops=nodes - 1,
            network_layers=(nodes - 1) * farthest_layers(group),
        ),
        loads,
        moved if reduces else 0.0,
    )


def farthest_layers(group: Group) -> int:
    """How many layers of the network the farthest two nodes are apart."""
    heads = [block.ranks[0] for block in group.blocks]
    return max((group.fabric.layers_apart(a, b) for a, b in pairwise(_spread(heads, group))), default=0)


def _spread(heads: list[Core], group: Group) -> list[Core]:
    """Nodes in the order of their network nodes: neighbours in it are as far apart as it gets anywhere."""
    return sorted(heads, key=lambda core: group.fabric.nodes[core.node].network)


def _card_loads(group: Group, sent: float) -> Loads:
    loads = Loads()
    for block in group.blocks:
        for core in block.ranks:
            fabric = group.fabric
            loads.add((fabric.card(core, "out"), fabric.card(core, "in"), fabric.core_link(core)), sent)
    return loads
