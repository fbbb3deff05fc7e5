"""Conditions of pools and faults, and the Events that tell of their changes.

An Event is due when a condition's status or reason changes, and only then. Its name is made from the change
itself (which condition, since when it stood as it stood, what it becomes), and it is created before the
status is written. So a kill between the two leads to the same Event again, which the API server already has:
nothing is lost and nothing told twice.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from neuron_operator import names

Json = dict[str, Any]

# Kubernetes' limits: events.k8s.io/v1 note; metav1.Condition message
_NOTE_LIMIT = 1024
_MESSAGE_LIMIT = 32768
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a condition should say now."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str
    good: bool
    """Whether this is how things should be: Events about it are Normal then, and none is sent at first."""
    announce: bool = False
    """Send an Event even where the condition starts out good."""


def merge(judgements: Iterable[Judgement], *, old: Sequence[Json], generation: int, now: str) -> list[Json]:
    """Conditions for the status: a transition time moves only when the status does."""
    before = {condition["type"]: condition for condition in old}
    merged = []
    for judgement in judgements:
        previous = before.get(judgement.type, {})
        same = previous.get("status") == judgement.status
        merged.append(
            {
                "type": judgement.type,
                "status": judgement.status,
                "reason": judgement.reason,
                "message": judgement.message[:_MESSAGE_LIMIT],
                "lastTransitionTime": previous["lastTransitionTime"] if same else now,
                "observedGeneration": generation,
            }
        )
    return merged


def transition_events(
    judgements: Iterable[Judgement], *, of: Mapping[str, Any], kind: str, now: str, api_version: str = names.API_VERSION
) -> list[Json]:
    """Events for the conditions of one of our objects that change."""
    before = {condition["type"]: condition for condition in (of.get("status") or {}).get("conditions") or ()}
    namespace = of["metadata"].get("namespace")
    events = []
    for judgement in judgements:
        previous = before.get(judgement.type)
        if previous is None and judgement.good and not judgement.announce:
            continue
        if previous is not None and (previous["status"], previous["reason"]) == (judgement.status, judgement.reason):
            continue
        since = "" if previous is None else f"{previous['lastTransitionTime']}/{previous['reason']}"
        events.append(
            event(
                regarding={
                    "apiVersion": api_version,
                    "kind": kind,
                    "name": of["metadata"]["name"],
                    "uid": of["metadata"]["uid"],
                    **({"namespace": namespace} if namespace else {}),
                },
                kind="Normal" if judgement.good else "Warning",
                reason=judgement.reason,
                note=judgement.message,
                action="Reconcile",
                cause=f"{judgement.type}/{since}/{judgement.status}",
                now=now,
                namespace=namespace or "default",
            )
        )
    return events


def event(
    *,
    regarding: Mapping[str, str],
    kind: Literal["Normal", "Warning"],
    reason: str,
    note: str,
    action: str,
    cause: str,
    now: str,
    namespace: str = "default",
) -> Json:
    """An Event of events.k8s.io/v1; the same cause on the same object gives the same name."""
    identity = "/".join((regarding.get("uid", ""), reason, cause))
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        # an Event about a cluster-scoped object lives in `default`, where kubectl describe looks for it
        "metadata": {
            "name": f"{regarding['name'][:200]}.{digest}",
            "namespace": namespace,
            "labels": {names.LABEL_SIMULATED: "true"},
        },
        "regarding": dict(regarding),
        "type": kind,
        "reason": reason,
        "note": note if len(note) <= _NOTE_LIMIT else note[: _NOTE_LIMIT - 1] + "…",
        "action": action,
        "reportingController": f"{names.GROUP}/operator",
        "reportingInstance": names.FIELD_MANAGER,
        # Events want MicroTime
        "eventTime": now.removesuffix("Z") + ".000000Z",
    }


def listing(items: Sequence[str]) -> str:
    """A list that stays readable however long it is."""
    shown = ", ".join(items[:_SHOWN])
    return shown + (f" and {len(items) - _SHOWN} more" if items[_SHOWN:] else "")
