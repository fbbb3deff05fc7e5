"""What the operator needs to know of a node, and nothing more.

A Node object weighs 10 to 20 KiB, most of it images and managed fields, and changes every few minutes for
reasons that are none of ours. ``node_facts`` keeps the little that decides anything; two Node objects with
equal facts need no new plan, which is how heartbeats stay free.

Who owns a label is read from ``metadata.managedFields``. It decides two things: a label that is someone
else's is never overwritten, and a selector never sees a label that only we wrote (a pool that selects nodes
*without* our label would otherwise take and release them for ever).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from neuron_operator import names


@dataclass(frozen=True, slots=True)
class HealthCondition:
    """A condition of a node that tells of its Neuron devices."""

    type: str
    status: str
    reason: str
    message: str
    since: str
    """When the status last changed."""


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """One node, as far as pools are concerned."""

    name: str
    uid: str
    labels: Mapping[str, str]
    own_labels: frozenset[str]
    """Labels that were applied by us, whether or not somebody else owns them too."""
    other_labels: frozenset[str]
    """Labels that somebody else owns, whether or not we do too."""
    control_plane: bool
    provider_id: str
    neuron_capacity: tuple[str, ...]
    """Extended resources of a Neuron device plugin that the node has, with more than zero of them. Those of a plugin
    that went (the kubelet remembers them for minutes, as not allocatable) do not count."""
    ready: bool = True
    """Whether the kubelet answers; a node that nobody has judged yet counts as ready."""
    not_ready_since: str | None = None
    unschedulable: bool = False
    taints: tuple[tuple[str, str, str], ...] = ()
    """Key, value and effect of each."""
    made_for: str | None = None
    """UID of the NeuronNodePool that this node was made for; None: nobody's virtual node."""
    health: tuple[HealthCondition, ...] = ()
    """Of the types that are ours to write (`faults.node_health`)."""

    @property
    def natural_labels(self) -> dict[str, str]:
        """The labels that the node would have without us."""
        ours = self.own_labels - self.other_labels
        return {key: value for key, value in self.labels.items() if key not in ours}


def node_facts(node: Mapping[str, Any]) -> NodeFacts:
    """The facts of a Node object."""
    metadata = node["metadata"]
    spec = node.get("spec") or {}
    maker = next(
        (owner for owner in metadata.get("ownerReferences") or () if owner.get("kind") == "NeuronNodePool"), None
    )
    own, other = label_owners(metadata.get("managedFields") or (), created=maker is not None)
    status = node.get("status") or {}
    judged = next((found for found in status.get("conditions") or () if found.get("type") == "Ready"), None)
    ready = judged is None or judged.get("status") == "True"
    present = {**(status.get("capacity") or {}), **(status.get("allocatable") or {})}
    return NodeFacts(
        name=metadata["name"],
        uid=metadata["uid"],
        labels=dict(metadata.get("labels") or {}),
        own_labels=own,
        other_labels=other,
        control_plane=any(
            taint.get("key") == names.TAINT_CONTROL_PLANE and taint.get("effect") == "NoSchedule"
            for taint in spec.get("taints") or ()
        ),
        provider_id=spec.get("providerID") or "",
        neuron_capacity=tuple(
            sorted(
                resource
                for resource, quantity in present.items()
                if resource.startswith(names.EXTENDED_RESOURCE_PREFIX) and str(quantity) != "0"
            )
        ),
        ready=ready,
        not_ready_since=None if ready or judged is None else judged.get("lastTransitionTime"),
        unschedulable=bool(spec.get("unschedulable")),
        taints=tuple(
            (str(taint.get("key", "")), str(taint.get("value", "")), str(taint.get("effect", "")))
            for taint in spec.get("taints") or ()
        ),
        made_for=None if maker is None else str(maker["uid"]),
        health=tuple(
            HealthCondition(
                type=found["type"],
                status=found["status"],
                reason=found.get("reason") or "",
                message=found.get("message") or "",
                since=found.get("lastTransitionTime") or "",
            )
            for found in sorted(status.get("conditions") or (), key=lambda found: str(found.get("type")))
            if found.get("type") in names.CONDITIONS_HEALTH
        ),
    )


def same_but_reserved(one: NodeFacts, other: NodeFacts) -> bool:
    """Whether nothing but the reservation by a gang differs."""
    return replace(one, taints=_not_ours(one)) == replace(other, taints=_not_ours(other))


def _not_ours(node: NodeFacts) -> tuple[tuple[str, str, str], ...]:
    return tuple(taint for taint in node.taints if taint[0] != names.TAINT_RESERVED)


def label_owners(managed_fields: Any, *, created: bool = False) -> tuple[frozenset[str], frozenset[str]]:
    """Labels that are ours, and labels that are somebody else's; a label can be both. `created`: the object is ours."""
    own: set[str] = set()
    other: set[str] = set()
    for entry in managed_fields:
        fields = (entry.get("fieldsV1") or {}).get("f:metadata", {}).get("f:labels", {})
        labels = {key.removeprefix("f:") for key in fields if key.startswith("f:")}
        ours = entry.get("manager") == names.FIELD_MANAGER and (created or entry.get("operation") == "Apply")
        (own if ours else other).update(labels)
    return frozenset(own), frozenset(other)
