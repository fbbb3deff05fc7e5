"""Which pod uses which prepared claim, and the profile that its annotation asks for. Pure."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..names import API_GROUP
from ..records.checkpoint import Entry
from .profiles import PROFILES

PROFILE = f"{API_GROUP}/activity-profile"
SEED = f"{API_GROUP}/activity-seed"
PLAIN = "aws.amazon.com/neuron"
"""How the names of extended resources begin, by which pods ask for devices without a claim of their own."""

Pod = Mapping[str, Any]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wish:
    """A profile, as a pod asks for it."""

    profile: str
    seed: str
    since: float
    """When the pod was made, in seconds since the epoch."""


def wish_of(pod: Pod) -> Wish | None:
    """What a pod's annotations ask for; None without them, or with a profile that nobody knows."""
    metadata = pod["metadata"]
    annotations = metadata.get("annotations") or {}
    profile = annotations.get(PROFILE)
    if profile is None or profile not in PROFILES:
        return None
    name = f"{metadata['namespace']}/{metadata['name']}"
    since = datetime.fromisoformat(metadata["creationTimestamp"]).timestamp()
    return Wish(profile=profile, seed=annotations.get(SEED) or name, since=since)


def strange_profile(pod: Pod) -> str | None:
    """The sentence about a pod's profile that nobody knows."""
    profile = (pod["metadata"].get("annotations") or {}).get(PROFILE)
    if profile is None or profile in PROFILES:
        return None
    return (
        f"pod {pod['metadata']['namespace']}/{pod['metadata']['name']} asks for the activity profile {profile!r}: "
        f"write {', '.join(PROFILES)} in its annotation {PROFILE}"
    )


def claims_of(pod: Pod) -> set[str]:
    """The names of the ResourceClaims that a pod uses, whoever made them."""
    status = pod.get("status") or {}
    named = [claim.get("resourceClaimName") for claim in pod["spec"].get("resourceClaims") or []]
    made = [claim.get("resourceClaimName") for claim in status.get("resourceClaimStatuses") or []]
    extended = (status.get("extendedResourceClaimStatus") or {}).get("resourceClaimName")
    return {name for name in (*named, *made, extended) if name}


def containers_of(pod: Pod, claim: str) -> list[str]:
    """The containers of a pod that use a claim; those that ask for plain devices, where none names it."""
    status = pod.get("status") or {}
    made = {one["name"]: one.get("resourceClaimName") for one in status.get("resourceClaimStatuses") or []}
    names = {
        one["name"]
        for one in pod["spec"].get("resourceClaims") or []
        if claim in (one.get("resourceClaimName"), made.get(one["name"]))
    }
    naming, plain = [], []
    for container in pod["spec"].get("containers") or []:
        resources = container.get("resources") or {}
        if names & {one["name"] for one in resources.get("claims") or []}:
            naming.append(container["name"])
        elif any(resource.startswith(PLAIN) for resource in resources.get("limits") or {}):
            plain.append(container["name"])
    return naming or plain


def users(entries: Iterable[Entry], pods: Iterable[Pod]) -> dict[str, list[Pod]]:
    """The pods of each prepared claim, by its uid, in the order of their names.

    What device plugins gave has its pod's name instead of a claim's, where it is known.
    """
    by_claim: dict[tuple[str, str, str], list[Pod]] = {}
    for pod in sorted(pods, key=lambda pod: (pod["metadata"]["namespace"], pod["metadata"]["name"])):
        namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        for claim in claims_of(pod):
            by_claim.setdefault(("claim", namespace, claim), []).append(pod)
        by_claim.setdefault(("device-plugin", namespace, name), []).append(pod)
    return {entry.uid: by_claim.get((entry.origin, entry.namespace, entry.name), []) for entry in entries}
