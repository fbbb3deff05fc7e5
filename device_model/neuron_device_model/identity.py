"""Names that EC2 would give, made up from what Kubernetes gives: the same input, the same name, for ever.

A node keeps its instance id through restarts of everything, and no store has to remember it.
"""

from hashlib import sha256

EC2_ID_DIGITS = 17


def instance_id(node_uid: str) -> str:
    """An EC2 instance id for a node."""
    return f"i-{_digits('instance', node_uid)}"


def network_node(key: str) -> str:
    """An EC2 network node id, as instance-topology labels carry it, for whatever shares `key`."""
    return f"nn-{_digits('network-node', key)}"


def _digits(kind: str, key: str) -> str:
    return sha256(f"{kind}/{key}".encode()).hexdigest()[:EC2_ID_DIGITS]
