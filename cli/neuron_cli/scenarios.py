"""Scenarios of faults: a whole bad day as a file, and what it comes to. Pure.

    name: bad-day
    length: 24h
    faults:
      - {type: HBMUncorrectable, at: 9h15m, for: 40m, node: any, chip: any}
      - {type: HBMCorrectable, every: 2h, for: 10m, node: any, chip: any, eventsPerMinute: 60}

A timeline follows from the scenario, a seed and the nodes' names and types alone: `any` and the times of `every` (the
mean of a random process) are drawn from the seed; `any:NAME` is the same node wherever it stands. It is replayed by
making one NeuronFault for each occurrence, with its begin and its end in the schedule, so that the operator plays it
though nobody waits for it.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from neuron_device_model.catalog import InstanceType, instance_type
from neuron_device_model.efa import efa_devices
from neuron_device_model.faults import FAULT_KINDS, GRADED, RATED
from neuron_operator.faults.schedule import SHORTEST_MEAN, seconds, spans
from neuron_operator.names import API_VERSION, LABEL_SCENARIO
from neuron_operator.resources import Duration, FaultEffect, FaultRandom, FaultSchedule, FaultType
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

MOST = 1000
"""Occurrences of a scenario: a replay makes an object of each."""

Number = Annotated[int, Field(ge=0, le=127)]
Chosen = Number | Literal["any"]


class BadScenario(ValueError):
    """No scenario, or none for these nodes; the message says what to change."""


class _Model(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="forbid")


class ScenarioFault(_Model):
    """What breaks in it, once or by chance."""

    type: FaultType
    at: Duration | None = None
    every: Duration | None = None
    for_: Duration | None = Field(default=None, alias="for")
    node: str = "any"
    chip: Chosen | None = None
    core: Chosen | None = None
    peer: Chosen | None = None
    efa: Chosen | None = None
    effect: FaultEffect | None = None
    message: str | None = None
    events_per_minute: int | None = Field(default=None, ge=1, le=6000)
    percent: int | None = Field(default=None, ge=1, le=99)


class Scenario(_Model):
    """The whole file."""

    name: str = Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$")
    length: Duration
    faults: list[ScenarioFault] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Occurrence:
    """Something breaks; times are seconds from the scenario's begin."""

    begin: int
    end: int
    fault: ScenarioFault
    target: Mapping[str, Any]
    """Of the NeuronFault."""


def read(source: str) -> Scenario:
    """The scenario of a file; raises BadScenario."""
    try:
        document = yaml.safe_load(Path(source).read_text(encoding="utf-8"))
    except OSError as error:
        raise BadScenario(f"{source} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadScenario(f"{source} is no YAML: {' '.join(str(error).split())}") from None
    return parse(document)


def parse(document: object) -> Scenario:
    """A scenario, checked; raises BadScenario."""
    try:
        scenario = Scenario.model_validate(document)
        seconds(scenario.length)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the scenario"
        raise BadScenario(f"{field}: {first['msg']}") from None
    except ValueError as error:
        raise BadScenario(f"length: {error}") from None
    for number, fault in enumerate(scenario.faults):
        if wrong := _wrong(fault):
            raise BadScenario(f"faults.{number}: {wrong}")
    return scenario


def _wrong(fault: ScenarioFault) -> str | None:
    places = FAULT_KINDS[fault.type].places
    if (fault.at is None) == (fault.every is None):
        return "give either at, when it breaks, or every, the mean time between two breaks by chance"
    if fault.every is not None and (fault.for_ is None or seconds(fault.every) < SHORTEST_MEAN):
        return f"every is at least {SHORTEST_MEAN}s, and needs for, the mean time until it is whole again"
    if fault.core is not None and (fault.chip is None or "core" not in places):
        return "core is a core of a chip: add chip, or leave core out"
    if ("link" in places) != (fault.peer is not None and fault.chip is not None):
        return "LinkDown has chip and peer, and no other type has a peer"
    if fault.chip is not None and not places & {"chip", "link"}:
        return f"{fault.type} is not of a chip: leave chip out"
    if fault.efa is not None and "efa" not in places:
        return "efa is for EFADown: leave it out"
    if fault.events_per_minute is not None and fault.type not in RATED:
        return f"eventsPerMinute is for {' and '.join(RATED)}: leave it out"
    if fault.percent is not None and fault.type not in GRADED:
        return f"percent is for {' and '.join(GRADED)}: leave it out"
    return None


def timeline(scenario: Scenario, *, seed: int, nodes: Mapping[str, InstanceType]) -> list[Occurrence]:
    """What breaks when and where, in order; raises BadScenario."""
    if not nodes:
        raise BadScenario("there is no node to break: name one with --node, or let a NeuronNodePool select some")
    length = seconds(scenario.length)
    found: list[Occurrence] = []
    for number, fault in enumerate(scenario.faults):
        for time, (begin, end) in enumerate(_times(fault, f"{seed}/{number}", length)):
            draw = _Draw(f"{seed}/{number}/{time}")
            found.append(Occurrence(begin, end, fault, _target(fault, _node(fault, nodes, draw, seed), nodes, draw)))
            if len(found) > MOST:
                raise BadScenario(f"more than {MOST} faults: make length shorter, or every longer")
    return sorted(found, key=lambda one: (one.begin, one.fault.type, one.target["nodeName"]))


def typed(nodes: Mapping[str, str]) -> dict[str, InstanceType]:
    """Nodes with their types; raises UnknownInstanceType."""
    return {name: instance_type(kind) for name, kind in nodes.items()}


def manifests(
    scenario: Scenario, occurrences: Iterable[Occurrence], *, start: datetime, speed: float
) -> list[dict[str, Any]]:
    """The NeuronFaults that replay a timeline from `start` on, `speed` times as fast."""
    return [
        {
            "apiVersion": API_VERSION,
            "kind": "NeuronFault",
            "metadata": {
                "name": f"{scenario.name}-{number:03}-{kebab(one.fault.type)}",
                "labels": {LABEL_SCENARIO: scenario.name},
            },
            "spec": {
                "target": dict(one.target),
                "type": one.fault.type,
                **one.fault.model_dump(
                    by_alias=True, exclude_none=True, include={"effect", "message", "events_per_minute", "percent"}
                ),
                "schedule": {
                    "startTime": _stamp(start, one.begin / speed),
                    # no fault is shorter than what an object can say
                    "endTime": _stamp(start, max(one.end / speed, one.begin / speed + 1)),
                },
            },
        }
        for number, one in enumerate(occurrences)
    ]


def row(one: Occurrence, *, speed: float) -> dict[str, object]:
    """A line of the timeline."""
    return {
        "at": _clock(one.begin / speed),
        "until": _clock(one.end / speed),
        "type": one.fault.type,
        "node": one.target["nodeName"],
        **{place: one.target.get(place) for place in ("chip", "core", "peer", "efa")},
    }


def kebab(fault_type: str) -> str:
    """HBMUncorrectable as hbm-uncorrectable: its name in docs/faults.md."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", fault_type).lower()


def _times(fault: ScenarioFault, seed: str, length: int) -> list[tuple[int, int]]:
    if fault.at is not None:
        begin = seconds(fault.at)
        end = begin + seconds(fault.for_) if fault.for_ else length
        return [(begin, min(end, length))] if begin < length else []
    number = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:3])
    assert fault.every
    assert fault.for_
    drawn = FaultRandom(seed=number, mean_time_between=fault.every, mean_duration=fault.for_)
    found = spans(FaultSchedule(random=drawn), created=0, until=length)
    return [(span.begin, min(span.end or length, length)) for span in found]


class _Draw:
    """Choices that follow from a text."""

    def __init__(self, seed: str) -> None:
        self._seed = seed

    def of(self, what: str, choices: Sequence[Any]) -> Any:
        """One of them."""
        digest = hashlib.sha256(f"{self._seed}/{what}".encode()).digest()
        return choices[int.from_bytes(digest[:7]) % len(choices)]


def _node(fault: ScenarioFault, nodes: Mapping[str, InstanceType], draw: _Draw, seed: int) -> str:
    word, _, alias = fault.node.partition(":")
    if word == "any":
        return str((_Draw(f"{seed}/{alias}") if alias else draw).of("node", sorted(nodes)))
    if fault.node not in nodes:
        raise BadScenario(f"there is no node {fault.node}: name one of {', '.join(sorted(nodes)[:5])}, or any")
    return fault.node


def _target(fault: ScenarioFault, node: str, nodes: Mapping[str, InstanceType], draw: _Draw) -> dict[str, Any]:
    kind = nodes[node]
    target: dict[str, Any] = {"nodeName": node}
    if fault.chip is not None:
        target["chip"] = draw.of("chip", range(kind.chips)) if fault.chip == "any" else fault.chip
    if fault.core is not None:
        target["core"] = draw.of("core", range(kind.chip.physical_cores)) if fault.core == "any" else fault.core
    if fault.peer is not None:
        linked = kind.devices[target["chip"]].connected if target["chip"] < kind.chips else ()
        if fault.peer == "any" and not linked:
            raise BadScenario(f"chip {target['chip']} of {node} ({kind.name}) has no links: choose another node")
        target["peer"] = draw.of("peer", linked) if fault.peer == "any" else fault.peer
    if fault.efa is not None:
        cards = len(efa_devices(kind))
        if fault.efa == "any" and not cards:
            raise BadScenario(f"{node} ({kind.name}) has no EFA card that is known: choose another node")
        target["efa"] = draw.of("efa", range(cards)) if fault.efa == "any" else fault.efa
    return target


def _stamp(start: datetime, after: float) -> str:
    return (start + timedelta(seconds=after)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _clock(passed: float) -> str:
    minutes, rest = divmod(int(passed), 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest:02}"
