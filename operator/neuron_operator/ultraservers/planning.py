"""The plan: what has to be written for the workloads to have what they ask for. A pure function.

A workload's status is the commitment, and everything else follows from statuses that were read, never from ones that
this pass is about to write: claim templates, which pods have to leave, when a workload may go. So a kill between any
two writes leads to a plan for the rest, and a status that could not be written has no consequences. Nodes that a pass
gives back are not given away in the same pass.

A pod has to leave when its claim, made from the workload's template, has a node that the workload does not have. That
one rule is what a restart, a migration and a deletion have in common. A deleted workload loses its template first, so
that no new claims come after; then its pods; and only when they are gone, or on nodes that failed, itself.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from neuron_operator import conditions, names
from neuron_operator.nodes import NodeFacts
from neuron_operator.ultraservers import claims as claiming
from neuron_operator.ultraservers import devices, tables, templates
from neuron_operator.ultraservers.claims import Claim, Pod
from neuron_operator.ultraservers.deciding import Decision, TemplateState, decide, wants_room
from neuron_operator.ultraservers.members import Member, members
from neuron_operator.ultraservers.room import Room
from neuron_operator.ultraservers.workloads import Workload, holders, new_id, read

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class World:
    """The cluster at one moment."""

    namespace: str
    """Where NeuronUltraServers live."""
    driver_name: str
    nodes: Sequence[NodeFacts]
    neuron_nodes: Sequence[Json]
    workloads: Sequence[Json]
    ultraservers: Sequence[Json]
    claims: Sequence[Json]
    """Those that were made from workloads' templates, or all."""
    all_claims: bool
    templates: Sequence[Json]
    """Those of the workloads, and whatever else has such a name."""
    asked: Collection[str] = ()
    """UIDs of pods that were asked to go already."""
    promised: Mapping[str, str] = field(default_factory=dict)
    """Nodes that are promised to others than workloads, and who they are."""
    slices: Sequence[Json] | None = None
    """The ResourceSlices of UltraServers as devices; None while they are not known."""
    most_devices: int = 0
    """How many UltraServers there may be for them to be devices."""
    barrier: bool = False
    """Whether each of these has the commit barrier of gangs, too."""


@dataclass(frozen=True, slots=True)
class Finalizers:
    """The finalizers that a workload is to have."""

    namespace: str
    name: str
    version: str
    finalizers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Status:
    """A new status; None removes a field."""

    namespace: str
    name: str
    version: str | None
    """The version that was judged; None where nobody else decides anything."""
    status: Json


@dataclass(frozen=True, slots=True)
class Named:
    """An object to delete."""

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What to write, in this order."""

    pods: tuple[Pod, ...] = ()
    """To delete."""
    removals: tuple[Finalizers, ...] = ()
    """Not before all of the pods were deleted."""
    additions: tuple[Finalizers, ...] = ()
    template_deletions: tuple[Named, ...] = ()
    templates: tuple[Json, ...] = ()
    events: tuple[Json, ...] = ()
    statuses: tuple[Status, ...] = ()
    table_deletions: tuple[Named, ...] = ()
    tables: tuple[Json, ...] = ()
    table_statuses: tuple[Status, ...] = ()
    slices: devices.Changes = field(default_factory=devices.Changes)
    crowded: bool = False
    """Somebody waits for nodes: every look lists all claims."""
    incomplete: bool = False
    """Nothing could be planned without knowing all claims."""
    unsettled: bool = False
    """Pods are going, or nodes are being prepared: worth another look soon."""


def plan(world: World, *, now: datetime, with_tables: bool = True) -> Plan:
    """What has to be written now; `with_tables`: for the NeuronUltraServers, too."""
    stamp = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    nodes = members(world.neuron_nodes, world.nodes, now=now)
    workloads = sorted(map(read, world.workloads), key=_age)
    held = holders(workloads)
    if not world.all_claims and any(wants_room(workload, nodes, held) for workload in workloads):
        return Plan(incomplete=True)
    claims = claiming.read(world.claims, driver_name=world.driver_name)
    room = Room(nodes, held=held, promised=world.promised, claimed=claiming.claimed(claims))
    found = {(each["metadata"]["namespace"], each["metadata"]["name"]): each for each in world.templates}
    ids = {workload.id: workload.uid for workload in workloads if workload.id}
    done = _Workloads(world, nodes, held, room, found, claims, ids, stamp)
    for workload in workloads:
        done.add(workload)
    made = _Tables(world, nodes if with_tables else None, held, room, stamp)
    return Plan(
        pods=tuple(dict.fromkeys(done.pods)),
        removals=tuple(done.removals),
        additions=tuple(done.additions),
        template_deletions=tuple(done.template_deletions),
        templates=tuple(done.templates),
        events=(*done.events, *made.events),
        statuses=tuple(done.statuses),
        table_deletions=tuple(made.deletions),
        tables=tuple(made.applies),
        table_statuses=tuple(made.statuses),
        slices=made.slices,
        crowded=bool(workloads) and world.all_claims,
        unsettled=done.unsettled,
    )


class _Workloads:
    """Collects what follows for each workload."""

    def __init__(
        self,
        world: World,
        nodes: Mapping[str, Member],
        held: Mapping[str, Workload],
        room: Room,
        found: Mapping[tuple[str, str], Json],
        claims: Sequence[Claim],
        ids: dict[str, str],
        now: str,
    ) -> None:
        self._nodes, self._held, self._room, self._found = nodes, held, room, found
        self._claims: dict[tuple[str, str], list[Claim]] = {}
        for claim in claims:
            if claim.workload is not None:
                self._claims.setdefault((claim.namespace, claim.workload), []).append(claim)
        self._ids = ids
        self._driver_name, self._asked, self._now = world.driver_name, world.asked, now
        self.pods: list[Pod] = []
        self.removals: list[Finalizers] = []
        self.additions: list[Finalizers] = []
        self.template_deletions: list[Named] = []
        self.templates: list[Json] = []
        self.events: list[Json] = []
        self.statuses: list[Status] = []
        self.unsettled = False

    def add(self, workload: Workload) -> None:
        """Plan for one workload; those before it come first."""
        if not workload.finalized:
            if not workload.deleting:
                self.additions.append(_finalizers(workload, add=True))
            return
        claims = self._claims.get((workload.namespace, workload.uid), [])
        template = self._template(workload)
        leaving = self._leaving(workload, claims)
        ask = [pod for pod in leaving if pod.uid not in self._asked]
        self.pods += ask
        self.events += [_leave(pod, workload, self._now) for pod in ask]
        if workload.deleting and self._may_go(workload, claims):
            self.removals.append(_finalizers(workload, add=False))
            return
        decision = decide(
            workload, members=self._nodes, held=self._held, room=self._room, template=template, leaving=len(leaving)
        )
        self._commit(decision)
        self.unsettled = self.unsettled or decision.state in ("Allocating", "Deallocating") or bool(leaving)

    def _template(self, workload: Workload) -> TemplateState:
        """See to the workload's template, and say how it is."""
        existing = self._found.get((workload.namespace, workload.template))
        if existing is not None and not templates.is_of(existing, workload):
            return "taken"
        known = [self._nodes[node] for node in workload.nodes if node in self._nodes]
        if workload.deleting:
            if existing is not None:
                self.template_deletions.append(_named(existing))
            return "missing"
        if not known or not workload.id or workload.problem:
            return "missing" if existing is None else "right"
        wished = templates.template(workload, driver_name=self._driver_name, whole=all(each.whole for each in known))
        if existing is None:
            self.templates.append(wished)
        elif templates.is_right(existing, wished):
            return "right"
        else:
            self.template_deletions.append(_named(existing))
        return "missing"

    def _leaving(self, workload: Workload, claims: Sequence[Claim]) -> list[Pod]:
        """The pods that have to go."""
        if workload.deleting:
            existing = self._found.get((workload.namespace, workload.template))
            if existing is not None and templates.is_of(existing, workload):
                return []  # claims could still be made from it
            return [pod for claim in claims for pod in claim.pods]
        mine = {node for node in workload.nodes if self._held[node].uid == workload.uid}
        return [pod for claim in claims if claim.nodes - mine for pod in claim.pods]

    def _may_go(self, workload: Workload, claims: Sequence[Claim]) -> bool:
        existing = self._found.get((workload.namespace, workload.template))
        if existing is not None and templates.is_of(existing, workload):
            return False
        return not any(claim.pods and not self._unreachable(claim) for claim in claims)

    def _unreachable(self, claim: Claim) -> bool:
        """Whether nobody can tell when a claim's pods end. Its node is given to nobody meanwhile."""
        known = [self._nodes.get(node) for node in claim.nodes]
        return bool(known) and all(each is None or each.broken for each in known)

    def _commit(self, decision: Decision) -> None:
        workload = decision.workload
        status = self._status(decision)
        current = workload.status
        if {key: value for key, value in status.items() if value is not None} == current:
            return
        self.events += conditions.transition_events(
            [decision.judgement],
            of=workload.item,
            kind="NeuronUltraServerWorkload",
            now=self._now,
            api_version=tables.API_VERSION,
        )
        metadata = workload.item["metadata"]
        self.statuses.append(Status(workload.namespace, workload.name, metadata["resourceVersion"], status))

    def _status(self, decision: Decision) -> Json:
        workload, sets = decision.workload, decision.sets
        metadata, old = workload.item["metadata"], workload.status
        generation = metadata.get("generation", 1)
        workload_id = workload.id
        if workload_id is None and sets:
            workload_id = new_id(workload, self._ids)
            self._ids[workload_id] = workload.uid
        nodes = [self._nodes.get(node) for each in sets for node in each.nodes]
        return {
            "observedGeneration": generation,
            "state": decision.state,
            "workloadId": workload_id,
            "allocatedUltraServers": list(dict.fromkeys(each.ultraserver for each in sets)) or None,
            "totalNodesAllocated": sum(node is not None and not node.broken for node in nodes),
            "allocationTime": (old.get("allocationTime") or self._now) if sets else None,
            "sets": [{"ultraServer": each.ultraserver, "nodes": list(each.nodes)} for each in sets] or None,
            "conditions": conditions.merge(
                [decision.judgement], old=old.get("conditions") or [], generation=generation, now=self._now
            ),
        }


class _Tables:
    """Collects what follows for the NeuronUltraServers."""

    def __init__(
        self, world: World, nodes: Mapping[str, Member] | None, held: Mapping[str, Workload], room: Room, now: str
    ) -> None:
        self.events: list[Json] = []
        self.applies: list[Json] = []
        self.statuses: list[Status] = []
        self.deletions: list[Named] = []
        self.slices = devices.Changes()
        if nodes is None:
            return
        groups = tables.by_ultraserver(nodes.values())
        if world.slices is not None:
            self.slices = devices.changes(groups, world.slices, most=world.most_devices, barrier=world.barrier)
        existing = {
            item["metadata"]["name"]: item
            for item in world.ultraservers
            if item["metadata"]["namespace"] == world.namespace
        }
        self.deletions += [
            _named(item) for item in world.ultraservers if _is_superfluous(item, groups, world.namespace)
        ]
        for name, group in groups.items():
            item = existing.get(name)
            wished = tables.wished(name, group, namespace=world.namespace)
            if item is None or item["spec"] != wished["spec"]:
                self.applies.append(wished)
            if item is None:
                continue
            judgement = tables.judge(group)
            status = tables.status(item, group, judgement, room=room, held=held, now=now)
            if status != (item.get("status") or {}):
                self.statuses.append(Status(world.namespace, name, None, status))
                self.events += conditions.transition_events(
                    [judgement], of=item, kind=tables.KIND, now=now, api_version=tables.API_VERSION
                )


def _is_superfluous(item: Json, groups: Mapping[str, object], namespace: str) -> bool:
    metadata = item["metadata"]
    ours = (metadata.get("labels") or {}).get(names.LABEL_SIMULATED) == "true"
    here = metadata["namespace"] == namespace and "deletionTimestamp" not in metadata
    return ours and here and metadata["name"] not in groups


def _finalizers(workload: Workload, *, add: bool) -> Finalizers:
    metadata = workload.item["metadata"]
    others = tuple(each for each in metadata.get("finalizers") or () if each != names.FINALIZER_ULTRASERVERS)
    finalizers = (*others, names.FINALIZER_ULTRASERVERS) if add else others
    return Finalizers(workload.namespace, workload.name, metadata["resourceVersion"], finalizers)


def _named(item: Json) -> Named:
    metadata = item["metadata"]
    return Named(metadata["namespace"], metadata["name"], metadata["uid"])


def _leave(pod: Pod, workload: Workload, now: str) -> Json:
    regarding = {"apiVersion": "v1", "kind": "Pod", "namespace": pod.namespace, "name": pod.name, "uid": pod.uid}
    why = "is being deleted" if workload.deleting else "does not have this pod's node any more"
    return conditions.event(
        regarding=regarding,
        kind="Warning",
        reason="UltraServerReleased",
        note=f"Deleted: NeuronUltraServerWorkload {workload.ref} {why}",
        action="Delete",
        cause=workload.uid,
        now=now,
        namespace=pod.namespace,
    )


def _age(workload: Workload) -> tuple[str, str]:
    return workload.item["metadata"].get("creationTimestamp") or "", workload.ref
