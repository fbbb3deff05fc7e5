"""NeuronFaults as rows, and as objects made from options. Pure."""

from collections.abc import Mapping
from typing import Any

from neuron_device_model.faults import EFFECTS, FAULT_TYPES
from neuron_operator.names import API_VERSION

from neuron_cli.fleet import condition, why_not

Object = Mapping[str, Any]


class UnknownWord(ValueError):
    """There is no such type or effect; the message lists those that there are."""


def row(fault: Object) -> dict[str, object]:
    """One NeuronFault."""
    spec, active = fault["spec"], condition(fault, "Active")
    return {
        "fault": fault["metadata"]["name"],
        "node": spec["target"]["nodeName"],
        "chip": spec["target"].get("chip"),
        "core": spec["target"].get("core"),
        "type": spec["type"],
        "effect": spec.get("effect"),
        "active": active.get("status", "Unknown"),
        "since": fault["metadata"].get("creationTimestamp"),
        "why": why_not(active),
    }


def manifest(
    name: str, *, node: str, chip: int | None, core: int | None, kind: str, effect: str, message: str | None
) -> dict[str, Any]:
    """A NeuronFault to create; what fits the node is the operator's to judge."""
    for what, word, known in (("type", kind, FAULT_TYPES), ("effect", effect, EFFECTS)):
        if word not in known:
            raise UnknownWord(f"there is no {what} {word!r}: choose one of {', '.join(known)}")
    place = {key: value for key, value in (("chip", chip), ("core", core)) if value is not None}
    return {
        "apiVersion": API_VERSION,
        "kind": "NeuronFault",
        "metadata": {"name": name},
        "spec": {
            "target": {"nodeName": node, **place},
            "type": kind,
            "effect": effect,
            **({"message": message} if message else {}),
        },
    }
