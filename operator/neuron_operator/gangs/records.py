"""A NeuronGang object as decisions need it, and the statuses that they lead to.

The status is the reservation: one write of it promises all nodes or none. A status is always written as a whole, with
null for what it no longer has, and only onto the version of the object that was judged.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, cast, get_args

from neuron_operator import conditions, names
from neuron_operator.conditions import Judgement
from neuron_operator.gangs.demand import Needs
from neuron_operator.gangs.pods import Terms
from neuron_operator.placement import LEVELS, Level

Json = Mapping[str, Any]
Key = tuple[str, str]
"""Namespace and name of a gang."""
Phase = Literal["Pending", "Reserved", "Bound", "RollingBack"]

CONDITION = "Placed"
_PHASES = get_args(Phase)


@dataclass(frozen=True, slots=True)
class Record:
    """A NeuronGang."""

    namespace: str
    name: str
    uid: str
    version: str
    generation: int
    created: str
    size: int
    level: Level
    timeout: int
    needs: Needs
    phase: Phase = "Pending"
    serial: int = 0
    """Reservations made so far, of which the last is the current one."""
    nodes: tuple[str, ...] = ()
    """The promised place of each pod."""
    domain: str = ""
    deadline: datetime | None = None
    attempts: int = 0
    """Reservations that were rolled back since the gang last ran."""
    retry_at: datetime | None = None
    remake: tuple[str, ...] = ()
    """Bare pods that are made anew, as JSON."""
    conditions: tuple[Json, ...] = ()

    @property
    def key(self) -> Key:
        """Namespace and name."""
        return self.namespace, self.name

    @property
    def reservation(self) -> str:
        """The id of the current reservation."""
        return f"{hashlib.sha256(self.uid.encode()).hexdigest()[:8]}-{self.serial}"

    @property
    def said(self) -> Json:
        """The condition, as it was last written."""
        return next((found for found in self.conditions if found["type"] == CONDITION), {})


def record(item: Json) -> Record:
    """The projection of a NeuronGang; what cannot be understood counts as absent."""
    metadata, spec, status = item["metadata"], item.get("spec") or {}, item.get("status") or {}
    level = spec.get("topology")
    return Record(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        version=metadata["resourceVersion"],
        generation=metadata.get("generation", 1),
        created=metadata.get("creationTimestamp") or "",
        size=spec.get("size") or 1,
        level=cast(Level, level) if level in LEVELS else "ultraserver",
        timeout=spec.get("timeoutSeconds") or 300,
        needs=Needs(spec.get("chips") or 0, bool(spec.get("wholeNodes")), bool(spec.get("efa"))),
        phase=status["phase"] if status.get("phase") in _PHASES else "Pending",
        serial=status.get("serial") or 0,
        nodes=tuple(status.get("nodes") or ()),
        domain=status.get("domain") or "",
        deadline=_parsed(status.get("deadline")),
        attempts=status.get("attempts") or 0,
        retry_at=_parsed(status.get("retryAt")),
        remake=tuple(status.get("remake") or ()),
        conditions=tuple(status.get("conditions") or ()),
    )


def spec(terms: Terms, needs: Needs) -> dict[str, Any]:
    """The spec of a gang."""
    return {
        "size": terms.size,
        "topology": terms.level,
        "timeoutSeconds": terms.timeout,
        "chips": needs.chips,
        "wholeNodes": needs.whole_node,
        "efa": needs.efa,
    }


def spec_of(record: Record) -> dict[str, Any]:
    """The spec that a NeuronGang has."""
    return spec(Terms(record.size, record.level, record.timeout), record.needs)


def manifest(key: Key, spec: Json) -> dict[str, Any]:
    """A new NeuronGang."""
    namespace, name = key
    return {
        "apiVersion": names.API_VERSION,
        "kind": "NeuronGang",
        "metadata": {"name": name, "namespace": namespace, "labels": {names.LABEL_SIMULATED: "true"}},
        "spec": dict(spec),
    }


def status(record: Record, *, reason: str, message: str, good: bool, now: datetime) -> dict[str, Any]:
    """The whole status of a record, with its one condition."""
    judgement = Judgement(CONDITION, "True" if good else "False", reason, message, good=good)
    old = [dict(found) for found in record.conditions]
    return {
        "observedGeneration": record.generation,
        "phase": record.phase,
        "serial": record.serial,
        "nodes": list(record.nodes) or None,
        "domain": record.domain or None,
        "deadline": stamp(record.deadline) if record.deadline else None,
        "attempts": record.attempts,
        "retryAt": stamp(record.retry_at) if record.retry_at else None,
        "remake": list(record.remake) or None,
        "conditions": conditions.merge([judgement], old=old, generation=record.generation, now=stamp(now)),
    }


def stamp(moment: datetime) -> str:
    """A time as Kubernetes writes it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _parsed(text: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class Saved:
    """A bare pod that is to be made anew."""

    name: str
    uid: str
    """Of the pod that was deleted."""
    pod: Json


def saved(text: str) -> Saved:
    """Read what `save` wrote."""
    content = json.loads(text)
    return Saved(content["pod"]["metadata"]["name"], content["uid"], content["pod"])


def save(*, uid: str, pod: Json) -> str:
    """A bare pod in the status of its gang."""
    return json.dumps({"uid": uid, "pod": pod}, separators=(",", ":"))


def without(record: Record, uids: Sequence[str]) -> tuple[str, ...]:
    """What is left of `remake` without some pods."""
    return tuple(text for text in record.remake if saved(text).uid not in uids)
