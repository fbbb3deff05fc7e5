"""Which containers are over, of those that got devices from the device plugin: nobody tells it. Pure.

The kubelet lists what its pods have (PodResources), and what is in that list is in use. What is not may still be: the
kubelet leaves out init containers, containers that it is just admitting, and, for a while after its own restart,
everything. So an entry goes only if, by the word of the API server, no pod of the node could be its owner. A pod of
which the kubelet lists all that it asks for cannot: what is listed is all that it has.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TypeAlias

from ..deviceplugin import GivenDevices
from ..records.checkpoint import Entry
from .pod_annotations import CHIPS, CORES, Pod, wishes

Owner: TypeAlias = tuple[str, str]
"""A pod's namespace and name."""

PREFIX = "dp-"


def uid_for(pod_uid: str, container: str) -> str:
    """The uid, in the checkpoint, of what a container of a known pod has."""
    return f"{PREFIX}{pod_uid}.{container}"


def pod_uid_of(uid: str) -> str | None:
    """The pod in such a uid; None: it was not known."""
    pod_uid, dot, _ = uid.removeprefix(PREFIX).partition(".")
    return pod_uid if dot else None


def listed_owners(entries: Iterable[Entry], given: Iterable[GivenDevices]) -> dict[str, Owner]:
    """By entry, the pod that has its devices, as the kubelet lists it."""
    owners = {device: (one.namespace, one.pod) for one in given for device in one.device_ids}
    found = {}
    for entry in entries:
        owner = next((owners[id_] for id_ in entry.kubelet_ids if id_ in owners), None)
        if owner:
            found[entry.uid] = owner
    return found


def over(
    unlisted: Iterable[Entry],
    *,
    given: Sequence[GivenDevices],
    pods: Collection[Pod],
    owners: Mapping[str, Owner],
    young: Collection[str],
    admitting: bool = False,
) -> list[Entry]:
    """Of the entries that the kubelet does not list, those that nobody can have any more.

    `pods`: the node's, without those that ended. `owners`: as listed earlier. `young`: entries that the kubelet may be
    about to list, if nothing is known about their owner; a static pod is not in the API server yet. `admitting`: the
    kubelet asks for a container just now. It admits one pod at a time, so one that it never started has nothing yet.
    """
    may_own = [pod for pod in pods if _may_have_more(pod, given) and not (admitting and _never_started(pod))]
    uids = {pod["metadata"]["uid"] for pod in may_own}
    names = {(pod["metadata"]["namespace"], pod["metadata"]["name"]) for pod in may_own}
    found = []
    for entry in unlisted:
        pod_uid, owner = pod_uid_of(entry.uid), owners.get(entry.uid)
        if pod_uid:
            used = pod_uid in uids
        elif owner:
            used = owner in names
        else:
            used = bool(may_own) or entry.uid in young
        if not used:
            found.append(entry)
    return found


def _never_started(pod: Pod) -> bool:
    return not (pod.get("status") or {}).get("startTime")


def _may_have_more(pod: Pod, given: Sequence[GivenDevices]) -> bool:
    """Whether a pod asks for devices that the kubelet does not list."""
    listed: dict[tuple[str, str], int] = {}
    for one in given:
        if (one.namespace, one.pod) == (pod["metadata"]["namespace"], pod["metadata"]["name"]):
            listed[one.container, one.resource] = len(one.device_ids)
    for resource in (CHIPS, CORES):
        asked = wishes(pod, resource)
        told = [wish for wish in asked if wish.role != "init"]
        if any(listed.get((wish.container, resource), 0) < wish.count for wish in told) or (asked and not told):
            return True
    return False
