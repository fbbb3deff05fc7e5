"""Where a node sits in the simulated network: its three network nodes, from the top downwards.

EC2 tells them in the instance topology and EKS writes them on nodes. Here the whole cluster shares layer 1, a
pool shares layer 2, and four nodes with neighbouring numbers in their names (worker, worker2, …) share
layer 3, the closest. A node's place depends on nothing but the node and its pool, so that no node moves
because another one came or went.
"""

import re
import zlib

from neuron_device_model.identity import network_node

_NODES_PER_BLOCK = 4
# For nodes whose names carry no number: enough blocks to tell nodes apart, few enough to share some.
_BLOCKS = 8
_NUMBER = re.compile(r"(\d+)$")


def network_nodes(*, pool: str, node: str) -> tuple[str, ...]:
    """Network nodes of layers 1 to 3."""
    keys = ("cluster", f"pool/{pool}", f"pool/{pool}/block/{_block(node)}")
    return tuple(network_node(f"layer-{layer}/{key}") for layer, key in enumerate(keys, start=1))


def _block(node: str) -> str:
    number = _NUMBER.search(node)
    if number:
        return f"{node[: number.start()]}{(int(number[1]) - 1) // _NODES_PER_BLOCK}"
    if "." in node:  # a host name of a cloud
        return f"hash-{zlib.crc32(node.encode()) % _BLOCKS}"
    return f"{node}0"  # kind calls its first worker `…-worker`, the next `…-worker2`
