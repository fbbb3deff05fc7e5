"""Which NeuronFaults are active, and what each node's NeuronNode says of them. Pure.

A fault that names nothing that exists is no error of ours to guess about: it stays inactive and says in its
condition what is wrong, and becomes active by itself when the node joins a pool or changes its type.

What a NeuronNode carries depends on the faults and the time alone and is in the order of their names, so that the same
faults always make the same object.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from neuron_device_model import catalog
from neuron_device_model.efa import efa_devices
from neuron_device_model.faults import FAULT_KINDS, Place
from pydantic import ValidationError

from neuron_operator.conditions import Judgement
from neuron_operator.faults import schedule
from neuron_operator.faults.schedule import State
from neuron_operator.resources import FaultTarget, NeuronFaultSpec

Json = dict[str, Any]

# NeuronNode.spec.faults has no room for more
PER_NODE = 64


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What all faults come to."""

    by_node: Mapping[str, Sequence[Json]]
    """For NeuronNode.spec.faults; a node without any is not in it."""
    conditions: Mapping[str, Judgement]
    """The condition Active of each fault, by its name."""
    times: Mapping[str, Mapping[str, str]]
    """activeSince and nextChange of each fault that has them, for its status."""
    next_change: int | None
    """When the first of them breaks or heals by its schedule, in seconds since the epoch."""


def judge(
    faults: Sequence[Json], *, nodes: Collection[str], specs: Mapping[str, Mapping[str, Any]], now: str
) -> Verdicts:
    """Judge the faults against the time, the nodes of the cluster and the specs of those that are Neuron nodes."""
    by_node: dict[str, list[Json]] = {}
    conditions: dict[str, Judgement] = {}
    times: dict[str, dict[str, str]] = {}
    changes: list[int] = []
    moment = schedule.epoch(now)
    for fault in sorted(faults, key=_age):
        name = fault["metadata"]["name"]
        try:
            spec = NeuronFaultSpec.model_validate(fault.get("spec") or {})
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            conditions[name] = _inactive("InvalidSpec", f"spec.{field}: {first['msg']}")
            continue
        node = spec.target.node_name
        created = schedule.epoch(fault["metadata"]["creationTimestamp"])
        try:
            state = schedule.at(spec.schedule, created=created, now=moment)
        except ValueError as error:
            conditions[name] = _inactive("InvalidSpec", f"spec.schedule: {error}")
            continue
        problem = _problem(spec, nodes=nodes, spec=specs.get(node)) or _by_schedule(state)
        if problem is None and len(by_node.get(node, ())) >= PER_NODE:
            problem = _inactive(
                "TooManyFaults", f"Node {node} has {PER_NODE} older faults, which is all that it can show: delete some"
            )
        if problem is None:
            since = schedule.stamp(state.span.begin if state.span else moment)
            by_node.setdefault(node, []).append(_entry(name, spec, since=since))
            times.setdefault(name, {})["activeSince"] = since
        if state.next_change is not None:
            changes.append(state.next_change)
            times.setdefault(name, {})["nextChange"] = schedule.stamp(state.next_change)
        conditions[name] = problem or _active(spec, state)
    return Verdicts(
        {node: sorted(entries, key=lambda entry: str(entry["name"])) for node, entries in by_node.items()},
        conditions,
        times,
        min(changes, default=None),
    )


def _age(fault: Json) -> tuple[str, str]:
    return fault["metadata"].get("creationTimestamp") or "", fault["metadata"]["name"]


def _by_schedule(state: State) -> Judgement | None:
    if state.span is not None:
        return None
    if state.next_change is None:
        return Judgement("Active", "False", "Ended", "It is over: delete this NeuronFault", good=True)
    text = f"Whole until {schedule.stamp(state.next_change)}, by its schedule"
    return Judgement("Active", "False", "Scheduled", text, good=True)


def _problem(fault: NeuronFaultSpec, *, nodes: Collection[str], spec: Mapping[str, Any] | None) -> Judgement | None:
    target = fault.target
    node = target.node_name
    if node not in nodes:
        return _inactive("UnknownNode", f"There is no node {node}: see `kubectl get neuronnodes`")
    if spec is None:
        return _inactive(
            "NotANeuronNode", f"Node {node} is in no NeuronNodePool: name one of `kubectl get neuronnodes`"
        )
    if target.core is not None and target.chip is None:
        return _inactive("InvalidSpec", "spec.target.core is a core of a chip: add spec.target.chip")
    if target.peer is not None and target.chip is None:
        return _inactive("InvalidSpec", "spec.target.peer is the other end of a chip's link: add spec.target.chip")
    places = FAULT_KINDS[fault.type].places
    if _place(target) not in places:
        text = f"{fault.type} is of one of {', '.join(sorted(places))}, not of a {_place(target)}: change spec.target"
        return _inactive("InvalidSpec", text)
    try:
        kind = catalog.instance_type(spec["instanceType"])
    except catalog.UnknownInstanceType as error:
        return _inactive("UnknownInstanceType", f"Node {node}: {error}")
    if target.chip is not None and target.chip >= kind.chips:
        there = _numbers(kind.chips, "chip")
        return _inactive("UnknownChip", f"Node {node} is a {kind.name} with {there}: change spec.target.chip")
    if target.core is not None and target.core >= kind.chip.physical_cores:
        there = _numbers(kind.chip.physical_cores, "core")
        return _inactive("UnknownCore", f"A chip of a {kind.name} has physical {there}: change spec.target.core")
    if target.chip is not None and target.peer is not None:
        linked = kind.devices[target.chip].connected
        if target.peer not in linked:
            there = f"to chips {', '.join(map(str, linked))}" if linked else "to no other"
            return _inactive(
                "UnknownLink", f"Chip {target.chip} of a {kind.name} is linked {there}: change spec.target.peer"
            )
    if fault.type == "EFADown" and (target.efa or 0) >= (cards := len(efa_devices(kind))):
        there = (
            f"has EFA {_numbers(cards, 'card')}: change spec.target.efa" if cards else "has no EFA card that is known"
        )
        return _inactive("UnknownCard", f"Node {node} is a {kind.name}, which {there}")
    return None


def _place(target: FaultTarget) -> Place:
    if target.peer is not None:
        return "link"
    if target.efa is not None:
        return "efa"
    if target.core is not None:
        return "core"
    return "node" if target.chip is None else "chip"


def _numbers(count: int, what: str) -> str:
    return f"{what} 0 only" if count == 1 else f"{what}s 0 to {count - 1}"


def _inactive(reason: str, message: str) -> Judgement:
    return Judgement("Active", "False", reason, message, good=False)


def _active(spec: NeuronFaultSpec, state: State) -> Judgement:
    effect = _effect(spec)
    taint = "shown by a taint of effect None" if effect == "None" else f"tainted {effect}"
    health = "unhealthy" if FAULT_KINDS[spec.type].breaks else "healthy, but works worse,"
    end = f"it heals at {schedule.stamp(state.next_change)}, or " if state.next_change is not None else ""
    text = f"Every device with {_hardware(spec)} is {health} and {taint}; {end}delete this NeuronFault to heal it"
    return Judgement("Active", "True", "FaultActive", text, good=True, announce=True)


def _effect(spec: NeuronFaultSpec) -> str:
    return spec.effect or FAULT_KINDS[spec.type].effect


def _hardware(spec: NeuronFaultSpec) -> str:
    target = spec.target
    if spec.type == "EFADown":
        card = "an EFA card" if target.efa is None else f"EFA card {target.efa}"
        return f"{card} of node {target.node_name}"
    if target.peer is not None:
        return f"the link of chips {target.chip} and {target.peer} of node {target.node_name}"
    if target.chip is None:
        return f"a chip of node {target.node_name}"
    chip = f"chip {target.chip} of node {target.node_name}"
    return chip if target.core is None else f"physical core {target.core} of {chip}"


def _entry(name: str, spec: NeuronFaultSpec, *, since: str) -> Json:
    target = spec.target
    more = {
        "chip": target.chip,
        "core": target.core,
        "peer": target.peer,
        "efa": target.efa,
        "eventsPerMinute": spec.events_per_minute,
        "percent": spec.percent,
    }
    return {
        "name": name,
        "type": spec.type,
        **{key: value for key, value in more.items() if value is not None},
        "effect": _effect(spec),
        "message": spec.message or f"{spec.type} on {_hardware(spec)} (NeuronFault {name})"[:1024],
        "since": since,
    }
