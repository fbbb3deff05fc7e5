"""What a step takes where a gang or a pod would land, and where it would take least. Pure.

Pods say their parallel layout and their model by annotations, or the command line does. So do those that run already,
and what these move over links that they share with it is taken from it. The best place is looked for as if nothing were
used: at each level up to the gang's own, the place that the operator would choose.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from neuron_device_model.catalog import UnknownInstanceType, instance_type
from neuron_device_model.collectives.errors import UnsupportedCollective
from neuron_device_model.collectives.fabric import Core, Fabric, Node
from neuron_device_model.collectives.layouts import Layout
from neuron_device_model.collectives.model import Traffic
from neuron_device_model.cores import visible_cores
from neuron_device_model.partitions import part
from neuron_device_model.steps.errors import WrongStep
from neuron_device_model.steps.text import parse_layout, parse_transformer
from neuron_device_model.steps.training import Step, step
from neuron_device_model.steps.transformer import Transformer
from neuron_operator.conditions import listing
from neuron_operator.explaining.supply import Holder, Supply
from neuron_operator.gangs.names import LABEL_GANG
from neuron_operator.gangs.pods import member
from neuron_operator.placement import LEVELS, Gang, Level, NodeState, Placement, place

ANNOTATION_LAYOUT = "neuron-sim.dev/layout"
ANNOTATION_MODEL = "neuron-sim.dev/model"

_NETWORK: tuple[Level, ...] = ("network-1", "network-2", "network-3")


@dataclass(frozen=True, slots=True)
class Training:
    """What a gang's pods do together."""

    layout: Layout
    model: Transformer


@dataclass(frozen=True, slots=True)
class Job:
    """Training that runs, or that would by then."""

    name: str
    """As in `gang team/ring`."""
    traffic: Traffic


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
    alone_seconds: float
    """Without the other jobs on the same links."""
    beside: tuple[str, ...]
    """These jobs, as far as they slow it down."""
    best_seconds: float
    best_place: str

    def __str__(self) -> str:
        """A sentence."""
        parts = f"compute {_ms(self.compute)}, bubble {_ms(self.bubble)}, tensor {_ms(self.tensor)}"
        parts += f", pipeline {_ms(self.pipeline)}, data {_ms(self.data)} of which {_ms(self.hidden)} are hidden"
        least = "which is the least possible" if self.seconds <= self.best_seconds else self._better()
        shared = f"{_ms(self.seconds - self.alone_seconds)} of it for links shared with {listing(self.beside)}, "
        return f"A step takes {_ms(self.seconds)} there ({parts}), {shared if self.beside else ''}{least}"

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


def running(
    pods: Iterable[Mapping[str, Any]], supplies: Mapping[str, Supply], fleet: Sequence[NodeState], *, driver: str
) -> Iterator[Job]:
    """The jobs of pods that run and say their layout and their model: a gang's pods together, others each alone.

    Left out are those with parts of chips, or whose layout is not that of their cores: nobody knows what they move.
    """
    given = {
        pod: (node, [device for holder in holders for of, _, device in holder.devices if of == driver])
        for node, supply in supplies.items()
        for pod, holders in _by_pod(supply).items()
    }
    jobs: dict[str, list[Mapping[str, Any]]] = {}
    for pod in pods:
        metadata = pod["metadata"]
        if {ANNOTATION_LAYOUT, ANNOTATION_MODEL} <= (metadata.get("annotations") or {}).keys():
            gang = (metadata.get("labels") or {}).get(LABEL_GANG)
            name = f"gang {metadata['namespace']}/{gang}" if gang else f"pod {_named(pod)}"
            jobs.setdefault(name, []).append(pod)
    for name, together in jobs.items():
        there = [_named(pod) for pod in sorted(together, key=lambda pod: member(pod).order)]
        parts = [given[pod] for pod in there if pod in given]
        with suppress(WrongStep, UnsupportedCollective, UnknownInstanceType):
            wanted = training(together[0], layout=None, model=None)
            if wanted:
                yield Job(name, _step(fleet, _placement(fleet, name, parts), wanted).traffic())


def step_of_pod(
    fleet: Sequence[NodeState],
    name: str,
    node: str,
    devices: Sequence[str],
    wanted: Training,
    others: Sequence[Job],
) -> tuple[StepTime, Traffic]:
    """The step of one pod with these devices of a node. Raises as `step_time` does; WrongStep for parts of chips."""
    placement = _placement(fleet, name, [(node, devices)])
    alone = Gang(name, size=1, level="row", chips=len(placement.chips[0]))
    return step_time(fleet, alone, placement, wanted, others)


def step_time(
    fleet: Sequence[NodeState], gang: Gang, placement: Placement, wanted: Training, others: Sequence[Job]
) -> tuple[StepTime, Traffic]:
    """The step of a gang in this place beside other jobs, and what it moves there.

    Raises WrongStep, UnsupportedCollective and UnknownInstanceType.
    """
    alone = _step(fleet, placement, wanted)
    links = alone.traffic().keys()
    near = [other for other in others if other.traffic.keys() & links]
    here = _step(fleet, placement, wanted, [other.traffic for other in near])
    best, where = alone, placement.domain
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
        alone_seconds=alone.seconds,
        beside=tuple(other.name for other in near) if here.seconds > alone.seconds else (),
        best_seconds=best.seconds,
        best_place=where,
    ), here.traffic()


def _named(pod: Mapping[str, Any]) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"


def _by_pod(supply: Supply) -> dict[str, list[Holder]]:
    found: dict[str, list[Holder]] = {}
    for holder in supply.holders:
        for pod in holder.pods:
            found.setdefault(pod, []).append(holder)
    return found


def _placement(fleet: Sequence[NodeState], name: str, pods: Sequence[tuple[str, Sequence[str]]]) -> Placement:
    """What pods have, by node and devices, as if it had been placed. Raises WrongStep for parts of chips."""
    types = {state.name: state.instance_type for state in fleet}
    found = [(node, _chips(types[node], devices)) for node, devices in pods if node in types]
    if not any(chips for _, chips in found):
        raise WrongStep("the pod would get no chips by claims")
    nodes, chips = zip(*found, strict=True)
    return Placement(name, nodes, 0, nodes[0], chips)


def _chips(type_name: str, devices: Sequence[str]) -> tuple[int, ...]:
    kind = instance_type(type_name)
    chips: set[int] = set()
    for device in devices:
        given = part(device, kind, logical_neuron_core=kind.chip.default_logical_neuron_core)
        if given.kind not in ("chip", "node"):
            raise WrongStep(f"the pod would get {device}: it is told for whole chips and nodes")
        chips |= set(given.chips)
    return tuple(sorted(chips))


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


def _step(fleet: Sequence[NodeState], placement: Placement, wanted: Training, others: Sequence[Traffic] = ()) -> Step:
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
    return step(fabric, ranks, wanted.layout, wanted.model, others=others)


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
