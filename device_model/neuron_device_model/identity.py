"""Names that EC2 would give, made up from what Kubernetes gives: the same input, the same name, for ever.

A node keeps its instance id through restarts of everything, and no store has to remember it.
"""

from hashlib import sha256

EC2_ID_DIGITS = 17
ULTRASERVER_ID_LENGTH = 16
_LETTERS = "0123456789abcdefghijklmnopqrstuvwxyz"


def instance_id(node_uid: str) -> str:
    """An EC2 instance id for a node."""
    return f"i-{_digits('instance', node_uid)}"


def network_node(key: str) -> str:
    """An EC2 network node id, as instance-topology labels carry it, for whatever shares `key`."""
    return f"nn-{_digits('network-node', key)}"


def capacity_block(ultraserver: str) -> str:
    """An EC2 capacity reservation id for an UltraServer: a capacity block is one UltraServer."""
    return f"cr-{_digits('capacity-block', ultraserver)}"


def ultraserver(key: str) -> str:
    """An UltraServer's id, as ultraserver-server-id labels carry it, for whatever shares `key`."""
    return _letters("ultraserver", key)


def ultraserver_set(ultraserver: str, servers: int, number: int) -> str:
    """The id of one of an UltraServer's sets of so many servers."""
    return _letters("ultraserver-set", f"{ultraserver}/{servers}/{number}")


def serial_number(instance_id: str, chip: int) -> int:
    """A chip's 64-bit serial number: that of its file in sysfs (`neuron_runtime.sysfs_tree` has the same)."""
    digest = 0xCBF29CE484222325
    for byte in f"{instance_id}/{chip}".encode():
        digest = (digest ^ byte) * 0x100000001B3 % (1 << 64)
    return digest


def _digits(kind: str, key: str) -> str:
    return sha256(f"{kind}/{key}".encode()).hexdigest()[:EC2_ID_DIGITS]


def _letters(kind: str, key: str) -> str:
    rest = int.from_bytes(sha256(f"{kind}/{key}".encode()).digest())
    letters = []
    for _ in range(ULTRASERVER_ID_LENGTH):
        rest, letter = divmod(rest, len(_LETTERS))
        letters.append(_LETTERS[letter])
    return "".join(letters)
