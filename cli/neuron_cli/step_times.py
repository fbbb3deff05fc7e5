"""What a step takes where a gang or a pod would land, and where it would take least. Pure.

Pods say their parallel layout and their model by annotations, or the command line does. The best place is looked for as
if nothing were used: at each level up to the gang's own, the place that the operator would choose.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from neuron_device_model.catalog import UnknownInstanceType, instance_type
from neuron_device_model.collectives.errors import UnsupportedCollective
from neuron_device_model.collectives.fabric import Core, Fabric, Node
from neuron_device_model.collectives.layouts import Layout
from neuron_device_model.cores import visible_cores
from neuron_device_model.partitions import part
from neuron_device_model.steps.errors import WrongStep
from neuron_device_model.steps.text import parse_layout, parse_transformer
from neuron_device_model.steps.training import Step, step
from neuron_device_model.steps.transformer import Transformer
from neuron_operator.placement import LEVELS, Gang, Level, NodeState, Placement, place

ANNOTATION_LAYOUT = "neuron-sim.dev/layout"
ANNOTATION_MODEL = "neuron-sim.dev/model"

_NETWORK: tuple[Level, ...] = ("network-1", "network-2", "network-3")


@dataclass(frozen=True, slots=True)
class Training:
    """What a gang's pods do together."""

    layout: Layout
    model: Transformer


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """Seconds of a step in the place where its pods would land."""

    seconds: float
    compute: float
    bubble: float
    tensor: float
    pipeline: float
    data: float
    hidden: float
    best_seconds: float
    best_place: str

    def __str__(self) -> str:
        """A sentence."""
        parts = f"compute {_ms(self.compute)}, bubble {_ms(self.bubble)}, tensor {_ms(self.tensor)}"
        parts += f", pipeline {_ms(self.pipeline)}, data {_ms(self.data)} of which {_ms(self.hidden)} are hidden"
        least = "which is the least possible" if self.seconds <= self.best_seconds else self._better()
        return f"A step takes {_ms(self.seconds)} there ({parts}), {least}"

    def _better(self) -> str:
        return f"and {_ms(self.best_seconds)} at best, in {self.best_place}, if it were free"


def training(pod: Mapping[str, Any], *, layout: str | None, model: str | None) -> Training | None:
    """What a pod is annotated with, unless told otherwise; None if neither. Raises WrongStep."""
    annotations = pod["metadata"].get("annotations") or {}
    layout, model = layout or annotations.get(ANNOTATION_LAYOUT), model or annotations.get(ANNOTATION_MODEL)
    if layout is None and model is None:
        return None
    if layout is None or model is None:
        lacks = ANNOTATION_MODEL if model is None else ANNOTATION_LAYOUT
        raise WrongStep(f"a step's time needs both a layout and a model: add the annotation {lacks}, or the option")
    return Training(parse_layout(layout), parse_transformer(model))


def step_of_pod(fleet: Sequence[NodeState], name: str, node: str, devices: Sequence[str], wanted: Training) -> StepTime:
    """The step of one pod with these devices of a node. Raises as `step_time` does; WrongStep for parts of chips."""
    if not devices:
        raise WrongStep("the pod would get no chips by claims")
    (state,) = (each for each in fleet if each.name == node)
    kind = instance_type(state.instance_type)
    chips: set[int] = set()
    for device in devices:
        given = part(device, kind, logical_neuron_core=kind.chip.default_logical_neuron_core)
        if given.kind not in ("chip", "node"):
            raise WrongStep(f"the pod would get {device}: it is told for whole chips and nodes")
        chips |= set(given.chips)
    alone = Gang(name, size=1, level="row", chips=len(chips))
    return step_time(fleet, alone, Placement(name, (node,), 0, node, (tuple(sorted(chips)),)), wanted)


def step_time(fleet: Sequence[NodeState], gang: Gang, placement: Placement, wanted: Training) -> StepTime:
    """The step of a gang in this place. Raises WrongStep, UnsupportedCollective and UnknownInstanceType."""
    here = _step(fleet, placement, wanted)
    best, where = here, placement.domain
    for found, name in _if_empty(fleet, gang, wanted):
        if found.seconds < best.seconds:
            best, where = found, name
    return StepTime(
        seconds=here.seconds,
        compute=here.compute_s,
        bubble=here.bubble_s,
        tensor=here.tensor_s,
        pipeline=here.pipeline_s,
        data=here.data_s,
        hidden=here.hidden_s,
        best_seconds=best.seconds,
        best_place=where,
    )


def _if_empty(fleet: Sequence[NodeState], gang: Gang, wanted: Training) -> Iterator[tuple[Step, str]]:
    """A step in each place that the gang would get if nothing were used: one at each level."""
    empty = [replace(node, free=tuple(range(node.chips)), closed=None) for node in fleet]
    for level in LEVELS[: LEVELS.index(gang.level) + 1]:
        found = place(empty, replace(gang, level=level))
        if isinstance(found, Placement):
            try:
                done = _step(empty, found, wanted)
            except (UnsupportedCollective, WrongStep, UnknownInstanceType):
                continue  # the runtime does not take the groups there
            yield done, f"{level} {found.domain}"


def _step(fleet: Sequence[NodeState], placement: Placement, wanted: Training) -> Step:
    states = {node.name: node for node in fleet}
    names = list(dict.fromkeys(placement.nodes))
    kind = instance_type(states[names[0]].instance_type)
    lnc = kind.chip.default_logical_neuron_core
    fabric = Fabric(kind.name, lnc, _nodes([states[name] for name in names]))
    ranks = [
        Core(names.index(name), chip, core)
        for name, chips in zip(placement.nodes, placement.chips, strict=True)
        for chip in chips
        for core in range(visible_cores(kind.chip, lnc))
    ]
    return step(fabric, ranks, wanted.layout, wanted.model)


def _nodes(states: Sequence[NodeState]) -> tuple[Node, ...]:
    """As the runtime joins them: by UltraServers, if it has as many of each, in places alike; else by the network."""
    seats: dict[str | None, list[int]] = {}
    for state in states:
        domain = None if state.position is None else state.domains.get("ultraserver")
        seats.setdefault(domain, []).append(state.position or 0)
    alike = {tuple(seat - min(taken) for seat in sorted(taken)) for taken in seats.values()}
    joined = None not in seats and len(alike) == 1
    return tuple(
        Node(
            state.name,
            state.domains.get("ultraserver") if joined else None,
            state.position or 0,
            tuple(state.domains[level] for level in _NETWORK if level in state.domains),
        )
        for state in states
    )


def _ms(seconds: float) -> str:
    return f"{seconds:.3f} s" if seconds >= 1 else f"{seconds * 1e3:.1f} ms"
