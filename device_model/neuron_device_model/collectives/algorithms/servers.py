"""Between the servers of an UltraServer: equal chips pass data around, both ways.

With an algorithm inside each server it makes a hierarchy like that over the network: all-gather between servers first,
then inside, and reduce-scatter the other way round. That this is what the runtime does is our guess; nothing is
published about collectives over UltraServers.
"""

from neuron_device_model.collectives.groups import Block
from neuron_device_model.collectives.stages import Loads, Stage, Waits


def applies(block: Block) -> bool:
    """Whether there are several servers, and each has the same cores in the group."""
    chips = block.fabric.kind.chips
    shapes = {tuple((position % chips, cores) for position, cores in server.shape) for server in block.servers}
    return len(block.servers) > 1 and len(shapes) == 1


def between(block: Block, *, reduces: bool) -> Stage:
    """The stage between servers; `size` is that of the whole."""
    rings = list(zip(*(server.positions for server in block.servers), strict=True))
    count = len(block.servers)
    share = (count - 1) / count / len(rings) / 2
    loads = Loads()
    longest = 0
    for ring in rings:
        for a, b in zip(ring, (*ring[1:], ring[0]), strict=True):
            for route in (block.route(a, b), block.route(b, a)):
                longest = max(longest, len(route))
                loads.add(route, share)
    moved = (count - 1) / block.size
    loads.add(block.core_links(), moved)
    return Stage(
        f"{'reduce-scatter' if reduces else 'all-gather'} between servers, ring",
        Waits(ring_hops=count - 1, adding_steps=int(reduces), hops=(longest - 1) * (count - 1)),
        loads,
        moved if reduces else 0.0,
    )
