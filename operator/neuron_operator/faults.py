"""NeuronFaults: which of them are active, and what each node's NeuronNode says of them.

A fault that names nothing that exists is no error of ours to guess about: it stays inactive and says in its
condition what is wrong, and becomes active by itself when the node joins a pool or changes its type.

What a NeuronNode carries depends on the faults alone and is in the order of their names, so that the same faults
always make the same object.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from neuron_device_model import catalog
from pydantic import ValidationError

from neuron_operator.conditions import Judgement
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


def judge(faults: Sequence[Json], *, nodes: Collection[str], specs: Mapping[str, Mapping[str, Any]]) -> Verdicts:
    """Judge the faults against the nodes of the cluster and the specs of those that are Neuron nodes."""
    by_node: dict[str, list[Json]] = {}
    conditions: dict[str, Judgement] = {}
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
        problem = _problem(spec.target, nodes=nodes, spec=specs.get(node))
        if problem is None and len(by_node.get(node, ())) >= PER_NODE:
            problem = _inactive(
                "TooManyFaults", f"Node {node} has {PER_NODE} older faults, which is all that it can show: delete some"
            )
        if problem is None:
            by_node.setdefault(node, []).append(_entry(name, spec, since=fault["metadata"]["creationTimestamp"]))
        conditions[name] = problem or _active(spec)
    return Verdicts(
        {node: sorted(entries, key=lambda entry: str(entry["name"])) for node, entries in by_node.items()}, conditions
    )


def _age(fault: Json) -> tuple[str, str]:
    return fault["metadata"].get("creationTimestamp") or "", fault["metadata"]["name"]


def _problem(target: FaultTarget, *, nodes: Collection[str], spec: Mapping[str, Any] | None) -> Judgement | None:
    node = target.node_name
    if node not in nodes:
        return _inactive("UnknownNode", f"There is no node {node}: see `kubectl get neuronnodes`")
    if spec is None:
        return _inactive(
            "NotANeuronNode", f"Node {node} is in no NeuronNodePool: name one of `kubectl get neuronnodes`"
        )
    if target.core is not None and target.chip is None:
        return _inactive("InvalidSpec", "spec.target.core is a core of a chip: add spec.target.chip")
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
    return None


def _numbers(count: int, what: str) -> str:
    return f"{what} 0 only" if count == 1 else f"{what}s 0 to {count - 1}"


def _inactive(reason: str, message: str) -> Judgement:
    return Judgement("Active", "False", reason, message, good=False)


def _active(spec: NeuronFaultSpec) -> Judgement:
    taint = "shown by a taint of effect None" if spec.effect == "None" else f"tainted {spec.effect}"
    text = f"Every device with {_hardware(spec.target)} is unhealthy and {taint}; delete this NeuronFault to heal it"
    return Judgement("Active", "True", "FaultActive", text, good=True, announce=True)


def _hardware(target: FaultTarget) -> str:
    if target.chip is None:
        return f"a chip of node {target.node_name}"
    chip = f"chip {target.chip} of node {target.node_name}"
    return chip if target.core is None else f"physical core {target.core} of {chip}"


def _entry(name: str, spec: NeuronFaultSpec, *, since: str) -> Json:
    target = spec.target
    place = {key: value for key, value in (("chip", target.chip), ("core", target.core)) if value is not None}
    return {
        "name": name,
        "type": spec.type,
        **place,
        "effect": spec.effect,
        "message": spec.message or f"{spec.type} on {_hardware(target)} (NeuronFault {name})"[:1024],
        "since": since,
    }
