"""Gangs by kube-scheduler itself: a PodGroup with a topology key for each gang, where the cluster's gates are on.

Another way to the same labels (chart value ``gangs.podGroups``), for clusters whose feature gates can be chosen: a
policy writes the name of the gang's PodGroup on each pod, and the scheduler finds one domain for all of them, or none.
There is no reservation, no taint, no gate and no NeuronGang, and the operator writes no pods. It makes the PodGroup,
for which the scheduler waits, when it sees the first pod, and deletes it after the last one. A PodGroup of that name
that somebody else made is used as it is.

Kubernetes 1.36 serves `scheduling.k8s.io/v1alpha2`, behind the gates GenericWorkload, GangScheduling and
TopologyAwareWorkloadScheduling, all alpha.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from neuron_operator import kube, metrics, names
from neuron_operator.extender.watching import follow
from neuron_operator.gangs import names as gang_names
from neuron_operator.gangs import pods
from neuron_operator.gangs.pods import Member, Terms
from neuron_operator.gangs.records import Key
from neuron_operator.kept import Kept
from neuron_operator.kube import Api, ApiError, Conflict, Kube, NotFound
from neuron_operator.placement import Level

Json = Mapping[str, Any]

KEYS: Final[dict[Level, str]] = {
    "node": gang_names.HOSTNAME,
    # rows of chips are no labels of nodes: the node is as close as the scheduler can tell
    "row": gang_names.HOSTNAME,
    "ultraserver-2": names.LABELS_ULTRASERVER_SETS[2][0],
    "ultraserver": names.LABEL_ULTRASERVER,
    "network-3": names.LABELS_NETWORK[2],
    "network-2": names.LABELS_NETWORK[1],
    "network-1": names.LABELS_NETWORK[0],
}
"""The label of nodes that all nodes of a domain have alike, by level."""

_AGAIN = 2.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Group:
    """A PodGroup."""

    key: Key
    uid: str
    ours: bool
    leaving: bool


@dataclass(frozen=True, slots=True)
class Changes:
    """What makes PodGroups right."""

    made: tuple[dict[str, Any], ...]
    removed: tuple[Group, ...]


def group(item: Json) -> Group:
    """The projection of a PodGroup."""
    metadata = item["metadata"]
    return Group(
        key=(metadata["namespace"], metadata["name"]),
        uid=metadata["uid"],
        ours=(metadata.get("labels") or {}).get(names.LABEL_SIMULATED) == "true",
        leaving="deletionTimestamp" in metadata,
    )


def manifest(key: Key, terms: Terms) -> dict[str, Any]:
    """A new PodGroup."""
    namespace, name = key
    return {
        "apiVersion": f"{kube.POD_GROUPS.group}/{kube.POD_GROUPS.version}",
        "kind": "PodGroup",
        "metadata": {"name": name, "namespace": namespace, "labels": {names.LABEL_SIMULATED: "true"}},
        "spec": {
            "schedulingPolicy": {"gang": {"minCount": terms.size}},
            "schedulingConstraints": {"topology": [{"key": KEYS[terms.level]}]},
        },
    }


def changes(members: Iterable[Member], groups: Mapping[Key, Group]) -> Changes:
    """What is to be written; labels that make no sense were refused with their pod."""
    wanted: dict[Key, Terms] = {}
    there: set[Key] = set()
    for member in sorted(members, key=lambda member: (member.created, member.order)):
        if member.alive or member.leaving:
            there.add(member.key)
        if member.alive and isinstance(member.terms, Terms):
            wanted.setdefault(member.key, member.terms)
    return Changes(
        made=tuple(manifest(key, terms) for key, terms in wanted.items() if key not in groups),
        removed=tuple(found for key, found in groups.items() if key not in there and found.ours and not found.leaving),
    )


class PodGroups:
    """Makes them and takes them away."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._changed = asyncio.Event()
        self.pods: Kept[Member] = Kept(pods.member, lambda *_: self._changed.set(), self._changed.set)
        self.groups: Kept[Group] = Kept(group, lambda *_: self._changed.set(), self._changed.set)

    async def run(self, api: Kube) -> NoReturn:
        """Watch and write until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for resource, kept, labels in (
                (kube.PODS, self.pods, gang_names.LABEL_GANG),
                (kube.POD_GROUPS, self.groups, ""),
            ):
                tasks.create_task(follow(api, resource, listed=kept.listed, seen=kept.seen, labels=labels))
            tasks.create_task(self._work())
        raise AssertionError("the watches never end")

    async def _work(self) -> NoReturn:
        while True:
            self._changed.clear()
            done = not (self.pods.complete and self.groups.complete) or await self.step()
            with suppress(TimeoutError):
                async with asyncio.timeout(None if done else _AGAIN):
                    await self._changed.wait()

    async def step(self) -> bool:
        """Write what is to be written; whether all of it was."""
        due = changes(self.pods.values.values(), {found.key: found for found in self.groups.values.values()})
        results = await asyncio.gather(*map(self._make, due.made), *map(self._remove, due.removed))
        return all(results)

    async def _make(self, body: dict[str, Any]) -> bool:
        metadata = body["metadata"]
        try:
            try:
                made = await self._api.create(kube.POD_GROUPS, body)
            except Conflict:
                made = await self._api.get(kube.POD_GROUPS, metadata["name"], namespace=metadata["namespace"])
        except ApiError as error:
            return _failed("create", error)
        metrics.WRITES.labels("PodGroup", "create", "done").inc()
        self.groups.seen(made, False)
        return True

    async def _remove(self, found: Group) -> bool:
        namespace, name = found.key
        try:
            with suppress(NotFound):
                await self._api.delete(kube.POD_GROUPS, name, namespace=namespace, uid=found.uid)
        except ApiError as error:
            return _failed("delete", error)
        metrics.WRITES.labels("PodGroup", "delete", "done").inc()
        return True


def _failed(verb: str, error: ApiError) -> bool:
    metrics.WRITES.labels("PodGroup", verb, "failed").inc()
    logger.warning("%s of a PodGroup failed, will be tried again: %s", verb, error)
    return False
