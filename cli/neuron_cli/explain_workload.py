"""``neuron-sim explain deployment/NAME`` and the like: how many of a workload's pods have a node, and why not the rest.

Pods of a workload are alike, so the first that waits is explained, or its gang. Where there are no pods at all, the
words of the controller that should have made them are all that is known.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from neuron_operator.explaining.explanation import Explanation, explain_pod
from neuron_operator.gangs.names import LABEL_GANG

from neuron_cli import reading, what_if
from neuron_cli.cluster import Cluster, ClusterError, Refused
from neuron_cli.explain_gang import explain_gang

Object = dict[str, Any]

_TELLING = ("ReplicaFailure", "Failed", "FailureTarget", "Suspended", "Progressing")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of workload, and how its pods are found."""

    path: str
    """What the API server has it under, with the namespace to fill in."""
    label: str = ""
    """Of its pods, with its name as value; else its own selector tells them."""


def explain_workload(cluster: Cluster, kind: Kind, word: str, namespace: str, name: str) -> Explanation:
    """How far a workload's pods are; raises ``ClusterError`` where it is not there."""
    try:
        item = cluster.get(f"{kind.path.format(namespace)}/{name}")
    except Refused as refused:
        if refused.status == 404:
            raise ClusterError(
                f"there is no {word} {name} in namespace {namespace}: name another one with -n"
            ) from None
        raise
    selector = f"{kind.label}={name}" if kind.label else _selector(item["spec"].get("selector") or {})
    pods = cluster.items(f"/api/v1/namespaces/{namespace}/pods", labelSelector=selector) if selector else []
    wanted = sum(each.count for each in what_if.pods_of(item))
    subject = f"{word} {namespace}/{name}"
    current = sorted(
        (pod for pod in pods if "deletionTimestamp" not in pod["metadata"]),
        key=lambda pod: str(pod["metadata"]["name"]),
    )
    placed = [pod for pod in current if pod["spec"].get("nodeName")]
    waiting = [pod for pod in current if not pod["spec"].get("nodeName")]
    if not waiting:
        said = (*_conditions(item), *_warnings(cluster, namespace, item))
        return _without_waiting(subject, placed, wanted=wanted, said=said)
    gang = (waiting[0]["metadata"].get("labels") or {}).get(LABEL_GANG)
    if gang:
        found = explain_gang(cluster, namespace, gang)
        first = f"gang {gang}"
    else:
        uid = waiting[0]["metadata"].get("uid", "")
        found = explain_pod(waiting[0], reading.facts(cluster, namespace, pods=True, about=uid))
        first = f"pod {waiting[0]['metadata']['name']}"
    missing = f" and {wanted - len(current)} are not made yet" if wanted > len(current) else ""
    text = f"{len(placed)} of {wanted} pods have a node, {len(waiting)} wait{missing}. Of {first}: {found.summary}"
    return replace(found, subject=subject, state="fits" if found.state == "fits" else "waiting", summary=text)


def _without_waiting(subject: str, placed: Sequence[Object], *, wanted: int, said: tuple[str, ...]) -> Explanation:
    if len(placed) >= wanted:
        text = f"All {wanted} pods have a node" if wanted else "It is to have no pods"
        return Explanation(subject=subject, state="placed", summary=text)
    text = (
        f"{len(placed)} of {wanted} pods exist, and have a node; the others were not made: see what its controller says"
        if placed
        else f"None of {wanted} pods exists: see what its controller says"
    )
    return Explanation(subject=subject, state="waiting", summary=text, problems=(text,), said=said)


def _selector(selector: Object) -> str:
    return ",".join(f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items())


def _conditions(item: Object) -> Iterator[str]:
    for condition in (item.get("status") or {}).get("conditions") or ():
        if condition["type"] in _TELLING and condition.get("message"):
            yield f"{condition['type']}: {condition['message']}"


def _warnings(cluster: Cluster, namespace: str, item: Object) -> Iterator[str]:
    uid = item["metadata"].get("uid", "")
    nothing: list[Object] = []
    events = reading.allowed(lambda: reading.events(cluster, namespace, uid), nothing)
    for event in events[-3:]:
        if event.get("type") == "Warning":
            yield f"{event.get('reason')}: {event.get('message')}"
