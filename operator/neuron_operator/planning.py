"""The plan: all that has to be written to make the cluster what the pools wish. A pure function.

``plan`` looks at a complete snapshot and names the differences only, so a plan for a cluster that is right
is empty, and a plan that was carried out in part (the operator was killed) leads to a plan for the rest.

Deletions and labels carry the UID of the object that was judged, so that the API server refuses them if it is
another one by now. A NeuronNode whose node was replaced under the same name is deleted first and
made again by the next plan: the new node must not inherit the old one's status.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from neuron_operator import conditions, foreign, names
from neuron_operator.conditions import Judgement, listing
from neuron_operator.expansion import Share, neuron_node, share_out
from neuron_operator.foreign import Finding
from neuron_operator.labels import KeptLabel, label_change, wished_labels
from neuron_operator.nodes import NodeFacts

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The cluster at one moment, complete as far as the operator's kinds go."""

    pools: Sequence[Json]
    nodes: Sequence[NodeFacts]
    neuron_nodes: Sequence[Json]
    driver_name: str = names.AWS_DRIVER_NAME
    foreign: Sequence[Finding] = ()
    """What was found outside of the nodes; the nodes are judged here."""
    plain_pods: bool | None = None
    """Whether our DeviceClass carries the extended resource's name; None while that is not known."""


@dataclass(frozen=True, slots=True)
class Deletion:
    """A NeuronNode to delete."""

    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class NodeLabels:
    """The complete set of labels that we apply to a node."""

    node: str
    uid: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """A pool's new status."""

    pool: str
    status: Json


@dataclass(frozen=True, slots=True)
class Plan:
    """What to write, in this order."""

    deletions: tuple[Deletion, ...] = ()
    neuron_nodes: tuple[Json, ...] = ()
    labels: tuple[NodeLabels, ...] = ()
    events: tuple[Json, ...] = ()
    statuses: tuple[PoolStatus, ...] = ()
    refusal: tuple[Finding, ...] = ()
    """Findings that keep all pools from growing. Not something to write."""

    @property
    def empty(self) -> bool:
        """Whether there is nothing to write."""
        return not (self.deletions or self.neuron_nodes or self.labels or self.events or self.statuses)


def plan(snapshot: Snapshot, *, now: str) -> Plan:
    """What has to be written; ``now`` is an RFC 3339 time for conditions and Events."""
    on_nodes = {node.name: finding for node in snapshot.nodes if (finding := foreign.on_node(node))}
    findings = tuple(snapshot.foreign) + tuple(on_nodes.values())
    refusal = findings if snapshot.driver_name == names.AWS_DRIVER_NAME else ()

    existing = {item["metadata"]["name"]: item for item in snapshot.neuron_nodes if _is_ours(item)}
    pools = [pool for pool in snapshot.pools if "deletionTimestamp" not in pool["metadata"]]
    members = {name: item["spec"]["pool"] for name, item in existing.items()}
    shares = share_out(pools, snapshot.nodes, members=members)

    wished = {
        item["metadata"]["name"]: item
        for share in shares
        for item in _wished(share, existing=existing, on_nodes=on_nodes, frozen=bool(refusal))
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
    changes = {
        node.name: label_change(node, wished_labels(wished[node.name]["spec"]) if node.name in wished else {})
        for node in snapshot.nodes
    }
    labels = [
        NodeLabels(node.name, node.uid, changes[node.name].apply or {})
        for node in snapshot.nodes
        if changes[node.name].apply is not None
    ]

    events: list[Json] = []
    statuses: list[PoolStatus] = []
    for share in shares:
        kept = [label for node in share.nodes for label in changes[node.name].kept]
        served = [existing[node.name] for node in share.nodes if node.name in existing]
        judgements = _judge(share, served=served, kept=kept, refusal=refusal, on_nodes=on_nodes, snapshot=snapshot)
        status = _status(share, served=served, judgements=judgements, now=now)
        old = share.wish.pool.get("status") or {}
        if status != old:
            statuses.append(PoolStatus(share.wish.name, status))
            events += conditions.transition_events(
                judgements, old=old.get("conditions") or [], pool=share.wish.pool, now=now
            )
    return Plan(
        deletions=tuple(deletions),
        neuron_nodes=tuple(applies),
        labels=tuple(labels),
        events=tuple(events),
        statuses=tuple(statuses),
        refusal=refusal,
    )


def _is_ours(item: Json) -> bool:
    return names.LABEL_POOL in (item["metadata"].get("labels") or {})


def _owner(item: Json) -> str | None:
    owners = item["metadata"].get("ownerReferences") or ()
    return next((owner["uid"] for owner in owners if owner["kind"] == "Node"), None)


def _as_wished(item: Json, wished: Json) -> bool:
    labels = item["metadata"].get("labels") or {}
    return bool(item["spec"] == wished["spec"]) and all(
        labels.get(key) == value for key, value in wished["metadata"]["labels"].items()
    )


def _wished(
    share: Share, *, existing: Mapping[str, Json], on_nodes: Mapping[str, Finding], frozen: bool
) -> Iterable[Json]:
    """The NeuronNodes that a pool is to have; a frozen pool, or a real node, is to have what it has."""
    for node in share.nodes:
        if frozen or share.wish.problem or node.name in on_nodes:
            item = existing.get(node.name)
            if item and item["spec"]["pool"] == share.wish.name and _owner(item) == node.uid:
                yield item
        else:
            yield neuron_node(share.wish, node)


def _judge(
    share: Share,
    *,
    served: Sequence[Json],
    kept: Sequence[KeptLabel],
    refusal: Sequence[Finding],
    on_nodes: Mapping[str, Finding],
    snapshot: Snapshot,
) -> list[Judgement]:
    accepted = _accepted(share, refusal=refusal)
    return [
        accepted,
        _ready(share, served=served, accepted=accepted, avoided=[n.name for n in share.nodes if n.name in on_nodes]),
        _overlapping(share),
        _labels_complete(kept),
        _plain_pods(snapshot.plain_pods),
    ]


def _accepted(share: Share, *, refusal: Sequence[Finding]) -> Judgement:
    if refusal:
        text = f"Real AWS Neuron in this cluster, the pool is not expanded: {foreign.summary(refusal)}"
        return Judgement("Accepted", "False", "RealNeuronFound", text, good=False)
    if problem := share.wish.problem:
        return Judgement("Accepted", "False", problem.reason, problem.message, good=False)
    return Judgement("Accepted", "True", "Accepted", "The pool is expanded", good=True, announce=True)


def _ready(share: Share, *, served: Sequence[Json], accepted: Judgement, avoided: Sequence[str]) -> Judgement:
    waiting = {node.name for node in share.nodes} - {item["metadata"]["name"] for item in served if _is_ready(item)}
    if accepted.status == "False":
        return Judgement("Ready", "False", "NotAccepted", "See the condition Accepted", good=False)
    if not share.nodes:
        if share.overlaps:
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


def _is_ready(item: Json) -> bool:
    status = item.get("status") or {}
    return any(
        condition["type"] == "Ready" and condition["status"] == "True" for condition in status.get("conditions") or ()
    )


def _overlapping(share: Share) -> Judgement:
    if not share.overlaps:
        return Judgement("Overlapping", "False", "NoOverlap", "No older pool selects the same nodes", good=True)
    lost = listing([f"{overlap.node} (pool {overlap.winner})" for overlap in share.overlaps])
    text = f"Older pools have these nodes already: {lost}. Change nodeSelector in one of the pools"
    return Judgement("Overlapping", "True", "OlderPoolWins", text, good=False)


def _labels_complete(kept: Sequence[KeptLabel]) -> Judgement:
    if not kept:
        return Judgement("LabelsComplete", "True", "Written", "Nodes carry the labels of their type", good=True)
    details = listing([f"{item.node}: {item.label}={item.value} (not {item.wished})" for item in kept])
    text = f"Labels that somebody else wrote stay as they are: {details}. Remove them to get the simulated ones"
    return Judgement("LabelsComplete", "False", "ForeignLabelsKept", text, good=False)


def _plain_pods(kept: bool | None) -> Judgement:
    if kept is None:
        text = f"DeviceClass {names.DEVICE_CLASS} could not be read"
        return Judgement("PlainPods", "Unknown", "NotKnown", text, good=True)
    if kept:
        text = f"Pods may ask for {names.EXTENDED_RESOURCE} without a ResourceClaim"
        return Judgement("PlainPods", "True", "ExtendedResourceServed", text, good=True)
    text = (
        f"DeviceClass {names.DEVICE_CLASS} has no extendedResourceName: pods that ask for"
        f" {names.EXTENDED_RESOURCE} stay Pending. That needs Kubernetes 1.36 or newer (or the feature gate"
        " DRAExtendedResource) and, after an upgrade of the cluster, `helm upgrade`; ResourceClaims work"
    )
    return Judgement("PlainPods", "False", "ExtendedResourceNameDropped", text, good=False)


def _status(share: Share, *, served: Sequence[Json], judgements: Sequence[Judgement], now: str) -> Json:
    metadata = share.wish.pool["metadata"]
    old = share.wish.pool.get("status") or {}
    generation = metadata.get("generation", 1)
    return {
        "observedGeneration": generation,
        "nodes": len(share.nodes),
        "readyNodes": sum(map(_is_ready, served)),
        "devices": sum((item.get("status") or {}).get("devices") or 0 for item in served),
        "resources": "DRA",
        "conditions": conditions.merge(judgements, old=old.get("conditions") or [], generation=generation, now=now),
    }
