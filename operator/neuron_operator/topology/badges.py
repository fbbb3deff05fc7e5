"""What labels say of a node's place: those of real hardware, and our own where nothing else remembers.

A label that only we wrote is no evidence of hardware. It is read where the NeuronNode is gone (deleted by hand, the
CRDs reinstalled): the node still knows where it sat.
"""

import re
from dataclasses import dataclass
from typing import Final

from neuron_device_model.identity import ultraserver
from neuron_device_model.ultraserver import NO_SET, Seat

from neuron_operator import names
from neuron_operator.nodes import NodeFacts
from neuron_operator.topology.layers import Path
from neuron_operator.topology.seating import Badge

_ID = re.compile(r"[a-z0-9]{16}")


class _Outside:
    """The node's labels say that it is a server of its own."""


OUTSIDE: Final = _Outside()


@dataclass(frozen=True, slots=True)
class Memory:
    """Where a node was according to its labels."""

    seat: Seat | None = None
    path: Path | None = None


def badge(node: NodeFacts) -> Badge | _Outside | None:
    """What the labels that others wrote say of the node's UltraServer; None: nothing that can be read."""
    if group := _told(node, names.LABEL_HYPERPOD_ULTRASERVER):
        # its format is nobody's promise, and ids become names of objects
        return Badge(group if _ID.fullmatch(group) else ultraserver(f"label/{group}"), size=None, node=None)
    outside = False
    for servers, (server_label, node_label) in sorted(names.LABELS_ULTRASERVER_SETS.items(), reverse=True):
        found, number = _told(node, server_label), _told(node, node_label)
        if _ID.fullmatch(found) and found != NO_SET and number.isdecimal() and int(number) < servers:
            return Badge(found, size=servers, node=int(number))
        outside = outside or found == NO_SET
    return OUTSIDE if outside else None


def network_labels(node: NodeFacts) -> tuple[str | None, ...]:
    """The network nodes that others wrote on the node, layer 1 first."""
    return tuple(_told(node, label) or None for label in names.LABELS_NETWORK)


def _told(node: NodeFacts, label: str) -> str:
    """A label that somebody else wrote; empty where there is none."""
    ours = label in node.own_labels and label not in node.other_labels
    return "" if ours else node.labels.get(label, "")


def memory(node: NodeFacts, *, pool: str, size: int | None) -> Memory:
    """Where we said that a node of this pool is; `size` is that of the pool's UltraServers."""
    ours = {label: value for label, value in node.labels.items() if label in node.own_labels}
    if ours.get(names.LABEL_POOL) != pool:
        return Memory()
    found, number = ours.get(names.LABEL_ULTRASERVER, ""), ours.get(names.LABEL_ULTRASERVER_NODE, "")
    seated = size is not None and _ID.fullmatch(found) and number.isdecimal() and int(number) < size
    path = tuple(ours[label] for label in names.LABELS_NETWORK if label in ours)
    return Memory(
        seat=Seat(found, size, int(number)) if size is not None and seated else None,
        path=path if len(path) == len(names.LABELS_NETWORK) else None,
    )
