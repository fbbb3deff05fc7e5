"""Messages from rank to rank: send/recv, permute, all-to-all, and the variants whose shares differ."""

from collections.abc import Sequence

from neuron_device_model.collectives.fabric import EFA, Core, Fabric
from neuron_device_model.collectives.groups import Group
from neuron_device_model.collectives.stages import Loads, Stage, Waits

Message = tuple[Core, Core, float]
"""Source, target, and bytes for each byte of the operation's size."""

RENDEZVOUS = 2
"""Messages that a send/recv takes: that the buffer is free, and the data."""


def messages(fabric: Fabric, wanted: Sequence[Message], name: str, *, rounds: int = 1) -> Stage:
    """All messages at once; `rounds` is how many messages one of them consists of."""
    loads = Loads()
    hops = crosses_network = layers = 0
    crosses_die = False
    for source, target, share in wanted:
        route = fabric.route(source, target)
        loads.add(route, share)
        loads.add((fabric.core_link(source),), share)
        if source.node != target.node and any(link.kind == EFA for link in route):
            crosses_network = 1
            layers = max(layers, fabric.layers_apart(source, target))
        else:
            hops = max(hops, len(route))
        crosses_die |= not route and _die(fabric, source) != _die(fabric, target)
    return Stage(
        name,
        Waits(
            steps=rounds,
            hops=rounds * hops,
            efa_hops=rounds * crosses_network,
            network_layers=rounds * layers,
            die_crossings=rounds * crosses_die if rounds > 1 else 0,
        ),
        loads,
    )


def all_to_all(group: Group) -> Stage:
    """Each rank sends every other one an equal share of its buffer. Counted by chips, not by ranks."""
    fabric, ranks = group.fabric, group.size
    members = [(cores[0], len(cores)) for block in group.blocks for _, cores in block.members]
    loads = Loads()
    hops = layers = 0
    for source, here in members:
        for target, there in members:
            if source != target:
                routes = fabric.routes(source, target)
                loads.spread(routes, here * there / ranks)
                if routes[0][0].kind == EFA:
                    layers = max(layers, fabric.layers_apart(source, target))
                else:
                    hops = max(hops, len(routes[0]))
    for block in group.blocks:
        loads.add(block.core_links(), (ranks - 1) / ranks)
    efa_hops = int(len(group.blocks) > 1)
    return Stage(
        "all-to-all, mesh", Waits(steps=1, hops=hops, efa_hops=efa_hops, network_layers=layers * efa_hops), loads
    )


def _die(fabric: Fabric, core: Core) -> int:
    """Which die of the chip a core is on: from Trainium2 on there are two, of four physical cores each."""
    if not fabric.kind.chip.has_logical_neuron_cores:
        return 0
    return core.core * fabric.logical_neuron_core // 4
