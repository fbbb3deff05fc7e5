"""The plan: all that has to be written to make the cluster what the pools wish. A pure function.

``plan`` looks at a complete snapshot and names the differences only, so a plan for a cluster that is right
is empty, and a plan that was carried out in part (the operator was killed) leads to a plan for the rest.

Deletions and labels carry the UID of the object that was judged, so that the API server refuses them if it is
another one by now. A NeuronNode whose node was replaced under the same name is deleted first and
made again by the next plan: the new node must not inherit the old one's status.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from neuron_device_model import catalog

from neuron_operator import conditions, faults, foreign, names, virtual_nodes
from neuron_operator.conditions import Judgement, listing
from neuron_operator.expansion import Share, neuron_node, placed, share_out, unchanged
from neuron_operator.faults import node_health
from neuron_operator.foreign import Finding
from neuron_operator.labels import KeptLabel, label_change, lingering_labels, wished_labels
from neuron_operator.nodes import NodeFacts
from neuron_operator.roads import Choice, PlainPods, choose, keep
from neuron_operator.topology import UltraServer, is_ready, ultraservers

Json = dict[str, Any]

# kube-scheduler 1.36: 0.3 s of CPU a pod at 60 nodes with counters and nearly 8 s at 500, where it binds 40 pods a
# second without (docs/fidelity.md)
AFFORDABLE_NODES = 50

# of a plan: what nodes become is planned meanwhile, and a pool can be edited
NEW_NODES_AT_ONCE = 500

_SHOWN_ULTRASERVERS = 3


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The cluster at one moment, complete as far as the operator's kinds go."""

    pools: Sequence[Json]
    nodes: Sequence[NodeFacts]
    neuron_nodes: Sequence[Json]
    driver_name: str = names.AWS_DRIVER_NAME
    foreign: Sequence[Finding] = ()
    """What was found outside of the nodes; the nodes are judged here."""
    plain_pods: PlainPods | None = None
    """What our DeviceClass says; None while that is not known."""
    faults: Sequence[Json] = ()
    workload_ids: Mapping[str, str] = field(default_factory=dict)
    """Nodes that are allocated to a NeuronUltraServerWorkload, and its workload id."""
    virtual_nodes: bool = True
    """Whether pools may make nodes."""


@dataclass(frozen=True, slots=True)
class Deletion:
    """A NeuronNode, or a virtual Node, to delete."""

    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class NodeLabels:
    """The complete set of labels that we apply to a node."""

    node: str
    uid: str
    labels: Mapping[str, str]
    gone: tuple[str, ...] | None = None
    """Labels that go from a virtual node, which has them from us by its creation; None: they go by the apply."""


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """A pool's new status."""

    pool: str
    status: Json


@dataclass(frozen=True, slots=True)
class FaultStatus:
    """A fault's new status."""

    fault: str
    status: Json


@dataclass(frozen=True, slots=True)
class NodeHealth:
    """Conditions of a node, as a strategic merge patch has them."""

    node: str
    conditions: Sequence[Json]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to write, in this order."""

    deletions: tuple[Deletion, ...] = ()
    node_deletions: tuple[Deletion, ...] = ()
    new_nodes: tuple[Json, ...] = ()
    neuron_nodes: tuple[Json, ...] = ()
    labels: tuple[NodeLabels, ...] = ()
    events: tuple[Json, ...] = ()
    statuses: tuple[PoolStatus, ...] = ()
    fault_statuses: tuple[FaultStatus, ...] = ()
    node_health: tuple[NodeHealth, ...] = ()
    refusal: tuple[Finding, ...] = ()
    """Findings that keep all pools from growing. Not something to write."""
    next_change: int | None = None
    """When the next plan is due though nothing happens, in seconds since the epoch. Not something to write."""

    @property
    def empty(self) -> bool:
        """Whether there is nothing to write."""
        statuses = self.statuses or self.fault_statuses or self.node_health
        nodes = self.node_deletions or self.new_nodes
        return not (self.deletions or nodes or self.neuron_nodes or self.labels or self.events or statuses)


def plan(snapshot: Snapshot, *, now: str) -> Plan:
    """What has to be written; ``now`` is an RFC 3339 time for conditions and Events."""
    existing = {item["metadata"]["name"]: item for item in snapshot.neuron_nodes if _is_ours(item)}
    on_nodes = {
        node.name: finding
        for node in snapshot.nodes
        if (finding := foreign.on_node(node, our_plugin=_road(existing.get(node.name)) == "DevicePlugin"))
    }
    findings = tuple(snapshot.foreign) + tuple(on_nodes.values())
    refusal = findings if snapshot.driver_name == names.AWS_DRIVER_NAME else ()

    pools = [pool for pool in snapshot.pools if "deletionTimestamp" not in pool["metadata"]]
    broken = [fault for fault in snapshot.faults if "deletionTimestamp" not in fault["metadata"]]
    members = {name: item["spec"]["pool"] for name, item in existing.items()}
    shares = share_out(pools, snapshot.nodes, members=members, virtual=snapshot.virtual_nodes)

    choices = {
        share.wish.name: _choice(share, existing=existing, plain_pods=snapshot.plain_pods, frozen=bool(refusal))
        for share in shares
    }
    healthy = {
        item["metadata"]["name"]: item
        for share in shares
        for item in _wished(
            share, choice=choices[share.wish.name], existing=existing, on_nodes=on_nodes, frozen=bool(refusal)
        )
    }
    verdicts = faults.judge(
        broken,
        nodes={node.name for node in snapshot.nodes},
        specs={name: item["spec"] for name, item in healthy.items()},
        now=now,
    )
    wished = {
        name: _with_workload(with_faults(item, verdicts.by_node.get(name, ())), snapshot.workload_ids.get(name))
        for name, item in healthy.items()
    }
    deletions = [
        Deletion(name, item["metadata"]["uid"])
        for name, item in sorted(existing.items())
        if (name not in wished or _owner(wished[name]) != _owner(item)) and "deletionTimestamp" not in item["metadata"]
    ]
    applies = [
        item
        for name, item in wished.items()
        if name not in existing or (_owner(item) == _owner(existing[name]) and not _as_wished(existing[name], item))
    ]
    placed_nodes = {node.name for share in shares for node in share.nodes}
    surplus = [node for node in snapshot.nodes if node.made_for is not None and node.name not in placed_nodes]
    there = {node.name: node for node in snapshot.nodes}
    new_nodes = [
        node
        for share in shares
        if not (refusal or share.wish.problem)
        for node in _new_nodes(share, choice=choices[share.wish.name], existing=existing, there=there, now=now)
    ]
    leaving = {node.name for node in surplus}
    changes = {
        node.name: label_change(node, _labels(node, wished.get(node.name)))
        for node in snapshot.nodes
        if node.name not in leaving
    }
    labels = [
        NodeLabels(
            name,
            there[name].uid,
            change.apply,
            None if there[name].made_for is None else tuple(sorted(there[name].own_labels - change.apply.keys())),
        )
        for name, change in changes.items()
        if change.apply is not None
    ]

    events: list[Json] = []
    statuses: list[PoolStatus] = []
    changing = {item["metadata"]["name"] for item in applies}
    counted = sum(map(_has_counters, wished.values()))
    for share in shares:
        pool, choice = share.wish.pool, choices[share.wish.name]
        served = [existing[node.name] for node in share.nodes if node.name in existing]
        serving = {item["metadata"]["name"] for item in served if _serves(item)} - changing
        judgements = [
            *_judge(share, serving=serving, refusal=refusal, on_nodes=on_nodes),
            _labels_complete([label for node in share.nodes for label in changes[node.name].kept]),
            _resources_settled(choice, served=served),
            _plain_pods(choice, snapshot.plain_pods),
            _partitions_affordable(
                sum(_has_counters(wished[node.name]) for node in share.nodes if node.name in wished), counted
            ),
        ]
        if share.wish.count is not None:
            judgements.append(_nodes_made(share, there=there))
        joined = _joined(share, wished=wished, existing=existing)
        if joined:
            judgements.append(_ultraservers_complete(joined))
        status = _status(
            share, choice=choice, served=served, serving=serving, joined=joined, judgements=judgements, now=now
        )
        if status != (pool.get("status") or {}):
            statuses.append(PoolStatus(share.wish.name, status))
            events += conditions.transition_events(judgements, of=pool, kind="NeuronNodePool", now=now)
    fault_statuses: list[FaultStatus] = []
    for fault in broken:
        name = fault["metadata"]["name"]
        judgement = verdicts.conditions[name]
        old = fault.get("status") or {}
        status = _fault_status(fault, judgement, verdicts.times.get(name, {}), now=now)
        if status != old:
            # what is left out of a merge stays
            fault_statuses.append(FaultStatus(name, {**dict.fromkeys(old.keys() - status.keys()), **status}))
            events += conditions.transition_events([judgement], of=fault, kind="NeuronFault", now=now)
    healths: list[NodeHealth] = []
    for node in snapshot.nodes:
        if node.name in leaving:
            continue
        known = node_health.health(wished[node.name]["spec"], node=node.name) if node.name in wished else ()
        if entries := node_health.patch(node, known, now=now):
            healths.append(NodeHealth(node.name, entries))
            events += node_health.events(node, entries, now=now)
    return Plan(
        deletions=tuple(deletions),
        node_deletions=tuple(Deletion(node.name, node.uid) for node in surplus),
        new_nodes=tuple(new_nodes[:NEW_NODES_AT_ONCE]),
        neuron_nodes=tuple(applies),
        labels=tuple(labels),
        events=tuple(events),
        statuses=tuple(statuses),
        fault_statuses=tuple(fault_statuses),
        node_health=tuple(healths),
        refusal=refusal,
        next_change=verdicts.next_change,
    )


def _is_ours(item: Json) -> bool:
    return names.LABEL_POOL in (item["metadata"].get("labels") or {})


def _road(item: Json | None) -> str | None:
    return None if item is None else item["spec"].get("resources")


def _owner(item: Json) -> str | None:
    owners = item["metadata"].get("ownerReferences") or ()
    return next((owner["uid"] for owner in owners if owner["kind"] == "Node"), None)


def _as_wished(item: Json, wished: Json) -> bool:
    labels = item["metadata"].get("labels") or {}
    return bool(item["spec"] == wished["spec"]) and all(
        labels.get(key) == value for key, value in wished["metadata"]["labels"].items()
    )


def _choice(share: Share, *, existing: Mapping[str, Json], plain_pods: PlainPods | None, frozen: bool) -> Choice:
    members = [existing.get(node.name) for node in share.nodes]
    held = [str(_road(item)) for item in members if item and item["spec"]["pool"] == share.wish.name]
    if share.wish.spec is None or share.wish.problem or frozen:
        return keep(held, "NotAccepted", "the pool is not accepted (see the condition Accepted)")
    if share.wish.count is not None:
        return Choice("DRA", "VirtualNodes", "virtual nodes have no kubelet that device plugins could serve")
    return choose(share.wish.spec.resources, plain_pods=plain_pods, held=held)


def _new_nodes(
    share: Share, *, choice: Choice, existing: Mapping[str, Json], there: Mapping[str, NodeFacts], now: str
) -> Iterable[Json]:
    """The virtual nodes that a pool lacks, each where it will be found once it is there."""
    wish = share.wish
    lacking = [name for name in virtual_nodes.node_names(wish.name, wish.count or 0) if name not in there]
    if not lacking or wish.spec is None:
        return
    to_be = {name: virtual_nodes.to_be(name) for name in lacking[:NEW_NODES_AT_ONCE]}
    specs = {node.name: existing[node.name]["spec"] for node in share.nodes if node.name in existing}
    places = placed(wish, [*share.nodes, *to_be.values()], specs=specs)
    taints = wish.spec.taints
    for name, facts in to_be.items():
        spec = neuron_node(wish, facts, road=choice.road, place=places[name])["spec"]
        yield virtual_nodes.node(
            name,
            pool=wish.pool,
            labels=wished_labels(spec),
            taints=[
                {"key": names.TAINT_KWOK, "value": "fake", "effect": "NoSchedule"},
            ]
            if taints is None
            else [taint.model_dump(exclude_none=True) for taint in taints],
            instance_type=catalog.instance_type(wish.spec.instance_type),
            health=node_health.health(spec, node=name),
            now=now,
        )


def _labels(node: NodeFacts, neuron_node: Json | None) -> dict[str, str]:
    """The labels that a node is to have from us."""
    base = {} if node.made_for is None else virtual_nodes.base_labels(node.name)
    return base | (wished_labels(neuron_node["spec"]) if neuron_node else {}) | lingering_labels(node)


def with_faults(item: Json, entries: Sequence[Json]) -> Json:
    """A NeuronNode with these faults; without any it has no such field, as one that never had any."""
    spec = {key: value for key, value in item["spec"].items() if key != "faults"}
    return {**item, "spec": {**spec, "faults": list(entries)} if entries else spec}


def _with_workload(item: Json, workload_id: str | None) -> Json:
    """A NeuronNode with this workload id, or with none."""
    spec = {key: value for key, value in item["spec"].items() if key != "workloadID"}
    return {**item, "spec": {**spec, "workloadID": workload_id} if workload_id else spec}


def _has_counters(item: Json) -> bool:
    spec = item["spec"]
    return bool(spec["resources"] == "DRA" and (spec["partitions"] != "none" or spec.get("devices") == "both"))


def _wished(
    share: Share, *, choice: Choice, existing: Mapping[str, Json], on_nodes: Mapping[str, Finding], frozen: bool
) -> Iterable[Json]:
    """The NeuronNodes that a pool is to have; a frozen pool, or a real node, is to have what it has."""
    kept = {
        node.name: item
        for node in share.nodes
        if (item := existing.get(node.name)) and item["spec"]["pool"] == share.wish.name and _owner(item) == node.uid
    }
    if frozen or share.wish.problem:
        yield from map(unchanged, kept.values())
        return
    seated = [node for node in share.nodes if node.name in kept or node.name not in on_nodes]
    places = placed(share.wish, seated, specs={name: item["spec"] for name, item in kept.items()})
    for node in seated:
        if node.name in on_nodes:
            yield unchanged(kept[node.name])
        else:
            yield neuron_node(share.wish, node, road=choice.road, place=places[node.name])


def _judge(
    share: Share, *, serving: Collection[str], refusal: Sequence[Finding], on_nodes: Mapping[str, Finding]
) -> list[Judgement]:
    accepted = _accepted(share, refusal=refusal)
    return [
        accepted,
        _ready(share, serving=serving, accepted=accepted, avoided=[n.name for n in share.nodes if n.name in on_nodes]),
        _overlapping(share),
    ]


def _accepted(share: Share, *, refusal: Sequence[Finding]) -> Judgement:
    if refusal:
        text = f"Real AWS Neuron in this cluster, the pool is not expanded: {foreign.summary(refusal)}"
        return Judgement("Accepted", "False", "RealNeuronFound", text, good=False)
    if problem := share.wish.problem:
        return Judgement("Accepted", "False", problem.reason, problem.message, good=False)
    return Judgement("Accepted", "True", "Accepted", "The pool is expanded", good=True, announce=True)


def _serves(item: Json) -> bool:
    """Whether a node's agent serves what its NeuronNode says now: what it reported of an earlier one does not count."""
    seen = (item.get("status") or {}).get("observedGeneration") or 0
    return is_ready(item) and seen >= (item["metadata"].get("generation") or 0)


def _ready(share: Share, *, serving: Collection[str], accepted: Judgement, avoided: Sequence[str]) -> Judgement:
    waiting = {node.name for node in share.nodes}.difference(serving)
    if accepted.status == "False":
        return Judgement("Ready", "False", "NotAccepted", "See the condition Accepted", good=False)
    if not share.nodes:
        if share.wish.count is not None:
            text = "The pool has no virtual nodes yet" if share.wish.count else "count is 0"
        elif share.overlaps:
            text = "All nodes that nodeSelector selects belong to older pools: see the condition Overlapping"
        else:
            text = "No node matches: compare nodeSelector with `kubectl get nodes --show-labels`"
        return Judgement("Ready", "False", "NoNodes", text, good=False)
    if avoided:
        text = f"Real Neuron nodes are left alone: {listing(avoided)}; exclude them in nodeSelector"
        return Judgement("Ready", "False", "RealNodesSelected", text, good=False)
    if waiting:
        text = f"Waiting for the agent on {listing(sorted(waiting))}: see `kubectl get neuronnodes`"
        # the ordinary state of a young pool, not worth a warning
        return Judgement("Ready", "False", "NodesNotReady", text, good=True)
    return Judgement("Ready", "True", "Ready", "Every node serves its devices", good=True)


def _overlapping(share: Share) -> Judgement:
    if not share.overlaps:
        return Judgement("Overlapping", "False", "NoOverlap", "No older pool selects the same nodes", good=True)
    lost = listing([f"{overlap.node} (pool {overlap.winner})" for overlap in share.overlaps])
    text = f"Older pools have these nodes already: {lost}. Change nodeSelector in one of the pools"
    return Judgement("Overlapping", "True", "OlderPoolWins", text, good=False)


def _nodes_made(share: Share, *, there: Mapping[str, NodeFacts]) -> Judgement:
    kind, count = "NodesMade", share.wish.count or 0
    ours = {node.name for node in share.nodes}
    lacking = [name for name in virtual_nodes.node_names(share.wish.name, count) if name not in ours]
    taken = [name for name in lacking if name in there and there[name].made_for is None]
    if taken:
        text = (
            f"Nodes of others have the names of virtual nodes: {listing(taken)}. They are left alone; remove them, or"
            " make a pool with another name"
        )
        return Judgement(kind, "False", "NamesTaken", text, good=False)
    if lacking:
        text = f"{len(lacking)} of {count} virtual nodes are still to be made"
        return Judgement(kind, "False", "Making", text, good=True)
    return Judgement(kind, "True", "Made", "Every virtual node is there", good=True)


def _labels_complete(kept: Sequence[KeptLabel]) -> Judgement:
    if not kept:
        return Judgement("LabelsComplete", "True", "Written", "Nodes carry the labels of their type", good=True)
    details = listing([f"{item.node}: {item.label}={item.value} (not {item.wished})" for item in kept])
    text = f"Labels that somebody else wrote stay as they are: {details}. Remove them to get the simulated ones"
    return Judgement("LabelsComplete", "False", "ForeignLabelsKept", text, good=False)


def _resources_settled(choice: Choice, *, served: Sequence[Json]) -> Judgement:
    text = f"Pods get devices by {choice.road}: {choice.why}"
    left = {item["metadata"]["name"]: (item.get("status") or {}).get("otherRoadClaims") or 0 for item in served}
    if count := sum(left.values()):
        where = listing(sorted(name for name, number in left.items() if number))
        text += (
            f". {count} allocations on {where} are from before that changed: these pods keep their devices until they"
            " end, and nobody else gets those meanwhile"
        )
        return Judgement("ResourcesSettled", "False", "PodsOfTheOtherRoad", text, good=True)
    return Judgement("ResourcesSettled", "True" if choice.known else "Unknown", choice.reason, text, good=True)


def _plain_pods(choice: Choice, found: PlainPods | None) -> Judgement:
    if choice.road == "DevicePlugin":
        text = (
            f"Device plugins serve pods that ask for {names.EXTENDED_RESOURCE} or {names.CORE_EXTENDED_RESOURCE};"
            " ResourceClaims find no device on these nodes"
        )
        return Judgement("PlainPods", "True", "DevicePluginServed", text, good=True)
    if found is None:
        text = f"DeviceClass {names.DEVICE_CLASS} could not be read"
        return Judgement("PlainPods", "Unknown", "NotKnown", text, good=True)
    if found.kept:
        text = f"Pods may ask for {found.resource} and {found.core_resource} without a ResourceClaim"
        return Judgement("PlainPods", "True", "ExtendedResourceServed", text, good=True)
    if not found.resource:
        text = "The chart's extendedResourceName is empty, so pods need ResourceClaims"
        return Judgement("PlainPods", "False", "PlainPodsNotWished", text, good=True)
    text = (
        f"DeviceClass {names.DEVICE_CLASS} has no extendedResourceName: pods that ask for"
        f" {found.resource} stay Pending. That needs Kubernetes 1.36 or newer (or the feature gate"
        " DRAExtendedResource) and, after an upgrade of the cluster, `helm upgrade`; ResourceClaims work, and with"
        " resources: Auto or DevicePlugin so do plain pods"
    )
    return Judgement("PlainPods", "False", "ExtendedResourceNameDropped", text, good=False)


def _partitions_affordable(own: int, all_pools: int) -> Judgement:
    if not own or all_pools <= AFFORDABLE_NODES:
        text = "Few enough nodes of the cluster offer devices that share hardware"
        return Judgement("PartitionsAffordable", "True", "FewNodes", text, good=True)
    text = (
        f"{all_pools} nodes of the cluster offer devices that share hardware, {own} of them in this pool: from some"
        f" {AFFORDABLE_NODES} on kube-scheduler takes seconds for each pod, because its work grows with the square of"
        " their number. Set partitions: none (and devices: chips or node) where whole chips are enough"
    )
    return Judgement("PartitionsAffordable", "False", "TooManyNodesWithPartitions", text, good=False)


def _joined(share: Share, *, wished: Mapping[str, Json], existing: Mapping[str, Json]) -> list[UltraServer]:
    """The pool's UltraServers as they are to be, with what the agents say of their members."""
    members = [
        {**wished[node.name], "status": (existing.get(node.name) or {}).get("status")}
        for node in share.nodes
        if node.name in wished
    ]
    return ultraservers(members, not_ready={node.name for node in share.nodes if not node.ready})


def _ultraservers_complete(joined: Sequence[UltraServer]) -> Judgement:
    kind = "UltraServersComplete"
    degraded = [ultraserver for ultraserver in joined if ultraserver.state == "Degraded"]
    if not degraded:
        return Judgement(kind, "True", "AllComplete", "Every UltraServer has all of its servers, ready", good=True)
    details = "; ".join(f"{found.id}: {listing(found.lacks)}" for found in degraded[:_SHOWN_ULTRASERVERS])
    text = f"{len(degraded)} of {len(joined)} UltraServers are degraded: {details}"
    if len(degraded) > _SHOWN_ULTRASERVERS:
        text += f"; and {len(degraded) - _SHOWN_ULTRASERVERS} more (kubectl get neuronnodes -o wide)"
    if any(ultraserver.broken for ultraserver in degraded):
        return Judgement(kind, "False", "ServersBroken", text, good=False)
    if any(ultraserver.missing for ultraserver in degraded):
        return Judgement(kind, "False", "ServersMissing", text, good=True)
    return Judgement(kind, "False", "ServersNotReady", text, good=True)


def _status(
    share: Share,
    *,
    choice: Choice,
    served: Sequence[Json],
    serving: Collection[str],
    joined: Sequence[UltraServer],
    judgements: Sequence[Judgement],
    now: str,
) -> Json:
    metadata = share.wish.pool["metadata"]
    old = share.wish.pool.get("status") or {}
    generation = metadata.get("generation", 1)
    return {
        "observedGeneration": generation,
        "nodes": len(share.nodes),
        "readyNodes": len(serving),
        "devices": sum((item.get("status") or {}).get("devices") or 0 for item in served),
        "resources": choice.road,
        "ultraServers": len(joined),
        "readyUltraServers": sum(ultraserver.state == "Ready" for ultraserver in joined),
        "conditions": conditions.merge(judgements, old=old.get("conditions") or [], generation=generation, now=now),
    }


def _fault_status(fault: Json, judgement: Judgement, times: Mapping[str, str], *, now: str) -> Json:
    old = (fault.get("status") or {}).get("conditions") or []
    generation = fault["metadata"].get("generation", 1)
    return {
        "observedGeneration": generation,
        "conditions": conditions.merge([judgement], old=old, generation=generation, now=now),
        **times,
    }
