"""NeuronFaults as rows, and as objects made from options. Pure."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from neuron_device_model.faults import EFFECTS, FAULT_KINDS, FAULT_TYPES
from neuron_operator.names import API_VERSION

from neuron_cli.fleet import condition, why_not

Object = Mapping[str, Any]


class UnknownWord(ValueError):
    """There is no such type or effect; the message lists those that there are."""


def row(fault: Object) -> dict[str, object]:
    """One NeuronFault."""
    spec, status, active = fault["spec"], fault.get("status") or {}, condition(fault, "Active")
    return {
        "fault": fault["metadata"]["name"],
        "node": spec["target"]["nodeName"],
        "chip": spec["target"].get("chip"),
        "core": spec["target"].get("core"),
        "peer": spec["target"].get("peer"),
        "efa": spec["target"].get("efa"),
        "type": spec["type"],
        "effect": spec.get("effect") or (FAULT_KINDS[spec["type"]].effect if spec["type"] in FAULT_KINDS else None),
        "active": active.get("status", "Unknown"),
        "since": status.get("activeSince"),
        "next": status.get("nextChange"),
        "why": why_not(active),
    }


@dataclass(frozen=True, slots=True)
class Place:
    """What of a node is broken; nothing of it: the whole node."""

    chip: int | None = None
    core: int | None = None
    peer: int | None = None
    efa: int | None = None


@dataclass(frozen=True, slots=True)
class Times:
    """When it is broken, as the schedule of a NeuronFault has it."""

    start_after: str | None = None
    end_after: str | None = None
    duration: str | None = None
    repeat_every: str | None = None
    repeats: int | None = None
    mean_time_between: str | None = None
    mean_duration: str | None = None
    seed: int = 0

    def schedule(self) -> dict[str, Any]:
        """For the spec; empty: until it is deleted."""
        random = {"meanTimeBetween": self.mean_time_between, "meanDuration": self.mean_duration}
        return _given(
            startAfter=self.start_after,
            endAfter=self.end_after,
            duration=self.duration,
            repeatEvery=self.repeat_every,
            repeats=self.repeats,
            random={"seed": self.seed, **_given(**random)} if any(random.values()) else None,
        )


def manifest(
    name: str,
    *,
    node: str,
    kind: str,
    place: Place = Place(),
    effect: str | None = None,
    message: str | None = None,
    events_per_minute: int | None = None,
    percent: int | None = None,
    times: Times = Times(),
) -> dict[str, Any]:
    """A NeuronFault to create; what fits the node is the operator's to judge."""
    for what, word, known in (("type", kind, FAULT_TYPES), ("effect", effect or "None", EFFECTS)):
        if word not in known:
            raise UnknownWord(f"there is no {what} {word!r}: choose one of {', '.join(known)}")
    return {
        "apiVersion": API_VERSION,
        "kind": "NeuronFault",
        "metadata": {"name": name},
        "spec": {
            "target": {"nodeName": node, **_given(**asdict(place))},
            "type": kind,
            **_given(
                effect=effect,
                message=message,
                eventsPerMinute=events_per_minute,
                percent=percent,
                schedule=times.schedule() or None,
            ),
        },
    }


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
