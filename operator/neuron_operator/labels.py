"""The labels that a real Neuron node carries, and how they get on a node without hurting anyone.

They are written by server-side apply without force, in one apply per node: what the apply holds is ours,
what it no longer holds vanishes, and the empty set takes everything of ours away. A label that somebody else
set to another value (a cloud's own instance type) is left out, so that the apply can neither overwrite it
nor fail because of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from neuron_device_model.ultraserver import Seat

from neuron_operator import names
from neuron_operator.nodes import NodeFacts
from neuron_operator.topology import seat


@dataclass(frozen=True, slots=True)
class KeptLabel:
    """A label that stays as somebody else wrote it."""

    node: str
    label: str
    value: str
    wished: str


@dataclass(frozen=True, slots=True)
class LabelChange:
    """What to apply to a node; ``apply`` is None where the node is right already."""

    apply: Mapping[str, str] | None
    kept: tuple[KeptLabel, ...]


def wished_labels(spec: Mapping[str, Any]) -> dict[str, str]:
    """Labels of a node with this NeuronNode spec."""
    by_plugin = spec["resources"] == "DevicePlugin"
    return dict(_wished(spec["pool"], spec["instanceType"], tuple(spec["networkNodes"]), by_plugin, seat(spec)))


@lru_cache(maxsize=16384)
def _wished(
    pool: str, instance_type: str, network_nodes: tuple[str, ...], by_plugin: bool, sits: Seat | None
) -> Mapping[str, str]:
    """Every plan asks for every node, and hardly ever is the answer another one."""
    return {
        names.LABEL_POOL: pool,
        names.LABEL_SIMULATED: "true",
        names.LABEL_INSTANCE_TYPE: instance_type,
        names.LABEL_PRESENT: "true",
        **dict(zip(names.LABELS_NETWORK, network_nodes, strict=False)),
        **({names.LABEL_DEVICE_PLUGIN: "true"} if by_plugin else {}),
        **_ultraserver_labels(sits),
    }


def _ultraserver_labels(sits: Seat | None) -> dict[str, str]:
    if sits is None:
        return {}
    sets = {servers: pair for servers, pair in names.LABELS_ULTRASERVER_SETS.items() if servers in sits.sets}
    return {
        names.LABEL_ULTRASERVER: sits.id,
        names.LABEL_ULTRASERVER_NODE: str(sits.node),
        names.LABEL_ULTRASERVER_MODE: sits.modes,
        **{label: sits.set_id(servers) for servers, (label, _) in sets.items()},
        **{label: str(sits.set_node(servers)) for servers, (_, label) in sets.items()},
    }


def lingering_labels(node: NodeFacts) -> dict[str, str]:
    """What a node keeps, whatever it becomes: the mark of our device plugin, until its resources are gone.

    They outlive the plugin by a report of the kubelet, and would be taken for those of a real one.
    """
    if names.LABEL_DEVICE_PLUGIN in node.own_labels and node.neuron_capacity:
        return {names.LABEL_DEVICE_PLUGIN: "true"}
    return {}


def label_change(node: NodeFacts, wished: Mapping[str, str]) -> LabelChange:
    """How to bring a node from its labels to the wished ones."""
    ours: dict[str, str] = {}
    kept: list[KeptLabel] = []
    for label, value in wished.items():
        present = node.labels.get(label)
        free = label not in node.labels or (label in node.own_labels and label not in node.other_labels)
        if present == value or free:
            ours[label] = value
        else:
            kept.append(KeptLabel(node.name, label, present or "", value))
    right = node.own_labels == ours.keys() and all(node.labels.get(key) == ours[key] for key in ours)
    return LabelChange(None if right else ours, tuple(kept))
