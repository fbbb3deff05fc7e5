"""ResourceClaims as decisions need them: who has devices of which node, and whose pods they are."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from neuron_operator import names


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod that holds a claim."""

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim that has devices of our driver, or was made from a workload's template."""

    namespace: str
    name: str
    workload: str | None
    """UID of the workload that it was made for."""
    nodes: frozenset[str]
    """The nodes whose devices it has; none while it is not allocated."""
    pods: tuple[Pod, ...]


def read(items: Iterable[Mapping[str, Any]], *, driver_name: str) -> list[Claim]:
    """The claims that matter here."""
    found = []
    for item in items:
        metadata, status = item["metadata"], item.get("status") or {}
        results = ((status.get("allocation") or {}).get("devices") or {}).get("results") or ()
        # the pool of our agents is their node
        nodes = frozenset(result["pool"] for result in results if result["driver"] == driver_name)
        workload = (metadata.get("labels") or {}).get(names.LABEL_WORKLOAD)
        if nodes or workload:
            found.append(Claim(metadata["namespace"], metadata["name"], workload, nodes, _pods(metadata, status)))
    return found


def claimed(claims: Iterable[Claim]) -> dict[str, str]:
    """Nodes that somebody has devices of, and one claim that has them."""
    return {node: f"{claim.namespace}/{claim.name}" for claim in claims for node in claim.nodes}


def _pods(metadata: Mapping[str, Any], status: Mapping[str, Any]) -> tuple[Pod, ...]:
    """The pod that a claim was made for, or those that may use it."""
    namespace = metadata["namespace"]
    owners = [owner for owner in metadata.get("ownerReferences") or () if owner["kind"] == "Pod"]
    consumers = [user for user in status.get("reservedFor") or () if user["resource"] == "pods"]
    return tuple(Pod(namespace, each["name"], each["uid"]) for each in owners or consumers)
