"""The Events of gangs: one for each pod and turn of things, never the same twice.

An Event's name is made from what it tells, so an operator that was killed and tells it again is told that it is there.
"""

from collections.abc import Collection
from typing import Literal

from neuron_operator import conditions
from neuron_operator.gangs import names
from neuron_operator.gangs.pods import Member
from neuron_operator.gangs.records import CONDITION, Record
from neuron_operator.gangs.writes import Json, Tell


def about(
    pod: Member, *, reason: str, note: str, cause: str, now: str, kind: Literal["Normal", "Warning"] = "Warning"
) -> Tell:
    """An Event on a pod."""
    return _event(pod.namespace, pod.name, pod.uid, reason=reason, note=note, cause=cause, now=now, kind=kind)


def refused(pod: Member, record: Record, *, now: str, told: Collection[str] = ()) -> Tell | None:
    """Why the gang has no place, once for each time that it began to wait; None if that was told."""
    said = record.said
    reason, cause = str(said.get("reason")), f"{CONDITION}/{said.get('lastTransitionTime')}/{record.attempts}"
    if _key(pod.uid, reason, cause) in told:
        return None
    return about(pod, reason=reason, note=str(said.get("message")), cause=cause, now=now)


def not_gated(pod: Member, *, now: str) -> Tell:
    """The pod has the label, and nobody can hold it back any more."""
    note = (
        f"The pod has the label {names.LABEL_GANG} but not the scheduling gate {names.GATE}, so it is scheduled alone:"
        " add the gate to spec.schedulingGates, or turn on gangs.addGate of the chart"
    )
    return about(pod, reason="GangWithoutGate", note=note, cause="gate", now=now)


def made_anew(pod: Json, *, old: str, now: str) -> Tell:
    """A bare pod came again, with another UID."""
    metadata = pod["metadata"]
    note = (
        "The gang was rolled back. A gate cannot be put back, and this pod has no controller, so it was deleted and"
        f" made anew: its UID was {old} and is {metadata['uid']} now"
    )
    return _event(
        metadata["namespace"],
        metadata["name"],
        metadata["uid"],
        reason="GangPodMadeAnew",
        note=note,
        cause=old,
        now=now,
        kind="Normal",
    )


def _event(
    namespace: str,
    name: str,
    uid: str,
    *,
    reason: str,
    note: str,
    cause: str,
    now: str,
    kind: Literal["Normal", "Warning"],
) -> Tell:
    return Tell(
        _key(uid, reason, cause),
        conditions.event(
            regarding={"apiVersion": "v1", "kind": "Pod", "name": name, "namespace": namespace, "uid": uid},
            kind=kind,
            reason=reason,
            note=note,
            action="PlaceGang",
            cause=cause,
            now=now,
            namespace=namespace,
        ),
    )


def _key(uid: str, reason: str, cause: str) -> str:
    return f"{uid}/{reason}/{cause}"
