"""Ring and kangaring: data is passed on from neighbour to neighbour until it has been everywhere.

A ring visits rank after rank. Kangaring needs all ranks of every chip: data jumps from chip to chip and is spread there
beside, so links carry it once for a chip, ways are half as long, and the copies of a single core are no limit.
Both go round all link-disjoint cycles in both directions. Over the servers of an UltraServer, equal chips form rings
first and each server goes on by itself. (AWS docs: neuron-runtime/explore/intranode-collective-comm.rst; the order over
an UltraServer is ours)
"""

from neuron_device_model.collectives.algorithms.cycles import tour
from neuron_device_model.collectives.groups import Block
from neuron_device_model.collectives.stages import Loads, Stage, Waits


def kangaring_applies(block: Block) -> bool:
    """All ranks of the chips, more than one chip, and a way round over neighbours in every server."""
    return (
        block.chips > 1
        and block.whole_chips
        and servers_alike(block)
        and all(tour(block.fabric.instance_type, _local(server))[1] for server in block.servers)
    )


def servers_alike(block: Block) -> bool:
    """Whether every server of an UltraServer has the same cores in the group."""
    chips = block.fabric.kind.chips
    return len({tuple((at % chips, cores) for at, cores in server.shape) for server in block.servers}) == 1


def phase(block: Block, *, reduces: bool, kangaring: bool) -> tuple[Stage, ...]:
    """An all-gather around, or a reduce-scatter, which is the same backwards."""
    name = "kangaring" if kangaring else "ring"
    if len(block.servers) > 1 and servers_alike(block):
        stages = [_between_servers(block, reduces=reduces)]
        if block.servers[0].size > 1:
            stages.append(_around(block, block.servers, name, reduces=reduces, kangaring=kangaring))
        return tuple(reversed(stages)) if reduces else tuple(stages)
    return (_around(block, (block,), name, reduces=reduces, kangaring=kangaring),)


def _around(block: Block, parts: tuple[Block, ...], name: str, *, reduces: bool, kangaring: bool) -> Stage:
    loads = Loads()
    detours = 0
    for part in parts:
        detours = max(detours, _ring_loads(part, loads, kangaring=kangaring))
    ranks = parts[0].size
    moved = (ranks - 1) / ranks
    if not kangaring:
        loads.add(block.core_links(), moved)
    waits = Waits(
        ring_hops=ranks // 2 if kangaring else ranks - 1,
        adding_steps=int(reduces),
        hops=detours,
    )
    return Stage(f"{'reduce-scatter' if reduces else 'all-gather'}, {name}", waits, loads, moved if reduces else 0.0)


def _ring_loads(part: Block, loads: Loads, *, kangaring: bool) -> int:
    """Add what the links of one instance carry; how many hops the ways are longer than neighbours'."""
    if part.chips == 1:
        return 0
    first = min(part.positions) // part.fabric.kind.chips * part.fabric.kind.chips if len(part.servers) == 1 else 0
    if len(part.servers) == 1:
        found, _ = tour(part.fabric.instance_type, _local(part))
        rounds = [tuple(first + chip for chip in cycle) for cycle in found]
    else:
        rounds = [part.positions]
    stops = part.chips if kangaring else part.size
    share = (stops - 1) / stops / (2 * len(rounds))
    longest = 0
    for cycle in rounds:
        total = 0
        for a, b in zip(cycle, (*cycle[1:], cycle[0]), strict=True):
            forth, back = part.route(a, b), part.route(b, a)
            loads.add(forth, share)
            loads.add(back, share)
            total += max(len(forth), len(back)) - 1
        longest = max(longest, total)
    return longest


def _between_servers(block: Block, *, reduces: bool) -> Stage:
    """Equal chips of all servers, around both ways."""
    servers = block.servers
    count = len(servers)
    loads = Loads()
    chips = block.fabric.kind.chips
    share = (count - 1) / count / servers[0].chips / 2
    ring = [server.positions for server in servers]
    longest = 0
    for here, there in zip(ring, (*ring[1:], ring[0]), strict=True):
        for a, b in zip(sorted(here, key=lambda at: at % chips), sorted(there, key=lambda at: at % chips), strict=True):
            for x, y in ((a, b), (b, a)):
                route = block.route(x, y)
                longest = max(longest, len(route))
                loads.add(route, share)
    moved = (count - 1) / count / servers[0].size
    loads.add(block.core_links(), moved)
    return Stage(
        f"{'reduce-scatter' if reduces else 'all-gather'} between servers, ring",
        Waits(ring_hops=count - 1, adding_steps=int(reduces), hops=(longest - 1) * (count - 1)),
        loads,
        moved if reduces else 0.0,
    )


def _local(block: Block) -> tuple[int, ...]:
    """The chips' numbers in their own instance."""
    return tuple(position % block.fabric.kind.chips for position in block.positions)
