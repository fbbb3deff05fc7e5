"""Which algorithm the runtime uses.

AWS's documentation draws the ranges for 64 ranks on Trn2: mesh below 1 MB, RDH to 56 MB, kangaring above. They are read
here as bytes for each rank, and so they hold for every group: that also explains what nccom-test printed for 16 ranks
(mesh at 128 KiB, RDH at 2 MiB, kangaring at 32 MiB) and what was seen with 8 (RDH at 256 KiB). Between nodes only the
order is published; the limits are ours. The runtime's limits do not seek the least time, and neither do these.
(AWS docs: neuron-runtime/explore/{intranode,internode}-collective-comm.rst, tools/neuron-sys-tools/nccom-test.rst)
"""

from typing import NamedTuple

from neuron_device_model.collectives.algorithms import halving, network, rings, servers
from neuron_device_model.collectives.groups import Block, Group

MESH = "mesh"
MESH_SWITCH = "mesh_switch"
RDH = "rdh"
KANGARING = "kangaring"
RING = "ring"
HIERARCHICAL = "hier"
FLAT_RING = "flat_ring"
POINT_TO_POINT = "p2p"

MESH_BYTES_PER_RANK = 16 << 10
RDH_BYTES_PER_RANK = 896 << 10
MESH_DEVICES = 128
"""nec.h: chips that a mesh can have."""
INTER_MESH_NODES = 16
INTER_MESH_BYTES_PER_RANK = 64 << 10
"""Two nodes with one rank each: one message at 64 KiB, two at 512 KiB, by their times."""
INTER_RDH_BYTES = 32 << 20


class Inner(NamedTuple):
    """An algorithm among ranks that NeuronLink joins; of the hierarchical one, that inside the servers."""

    name: str
    inside: str = ""


def in_domain(block: Block, size: float) -> tuple[Inner, ...]:
    """The algorithm among the ranks that NeuronLink joins.

    Over several servers of an UltraServer, where nothing is published, it is whatever is fastest of these.
    """
    if not servers.applies(block):
        return (Inner(_in_server(block, size)),)
    over_servers = Inner(HIERARCHICAL, _in_server(block.servers[0], size) if block.servers[0].size > 1 else "")
    direct = _in_server(block, size)
    return (over_servers,) if direct == RING else (Inner(direct), over_servers)


def _in_server(block: Block, size: float) -> str:
    per_rank = size / block.size
    if per_rank <= MESH_BYTES_PER_RANK and block.chips <= MESH_DEVICES:
        return MESH
    if block.fabric.kind.topology == "switch" and block.chips > 1:
        return MESH_SWITCH if block.per_chip is not None and block.chips <= MESH_DEVICES else RING
    if per_rank <= RDH_BYTES_PER_RANK and halving.applies(block):
        return RDH
    return KANGARING if rings.kangaring_applies(block) else RING


def between_nodes(nodes: int, size: float, ranks: int) -> str:
    """The algorithm among equal ranks of several nodes."""
    if nodes <= INTER_MESH_NODES and size / ranks <= INTER_MESH_BYTES_PER_RANK:
        return network.MESH
    if nodes & (nodes - 1) == 0 and size <= INTER_RDH_BYTES:
        return network.RDH
    return network.RING


def uses_flat_ring(group: Group, size: float) -> bool:
    """On Trainium1 alone, for large messages, with several ranks on each node."""
    block = group.blocks[0]
    return group.fabric.kind.chip.name == "trainium" and block.size > 1 and size / group.size > RDH_BYTES_PER_RANK
