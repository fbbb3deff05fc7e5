"""What runs on virtual nodes: which claims have their devices, and which pods use these, as the API server tells. Pure.

Nothing is prepared on a virtual node, so what an agent reads from its checkpoint is read from allocations here. Of the
pods of a cluster only those are kept that run and ask for an activity profile: of others there is nothing to show.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..activity.pods import Pod, Wish, strange_profile, wish_of
from ..allocations.allocation import Allocation, allocation_on
from ..allocations.config import RequestConfig
from ..allocations.grants import grant
from ..errors import ClaimError
from ..node import SimulatedNode

Object = Mapping[str, Any]


@dataclass(slots=True)
class Use:
    """A claim that has devices of a node and that pods use."""

    allocation: Allocation
    pods: tuple[str, ...]
    """Their uids."""
    views: tuple[Object, ...] = field(default=())
    """What a container of each request would see; empty: not known yet, or nobody could use these devices."""

    def see(self, node: SimulatedNode) -> tuple[Object, ...]:
        """The views. What a node is at first is what its devices mean for as long as the claim is allocated."""
        if not self.views:
            try:
                granted = grant(_meaning(self.allocation), node)
            except ClaimError:  # of devices that the node has no more; the scheduler has not seen that yet
                return ()
            self.views = tuple(
                request.view
                for request in granted.requests
                if not any(device.admin_access for device in request.devices)
            )
        return self.views


def _meaning(allocation: Allocation) -> Allocation:
    """What decides which cores it is: the same for nodes that are alike, which then share one answer."""
    requests = tuple(
        replace(request, config=RequestConfig(neuron=request.config.neuron)) for request in allocation.requests
    )
    return replace(allocation, pool="", workload_id=None, requests=requests)


class Workloads:
    """See the module."""

    def __init__(self, *, driver: str) -> None:
        self._driver = driver
        self._uses: dict[str, Use] = {}
        """By the claim's uid."""
        self._on: dict[str, dict[str, Use]] = {}
        """The same, by node."""
        self._pods: dict[str, Pod] = {}
        """By uid."""
        self._wishes: dict[str, Wish] = {}
        self._listed = {"claims": False, "pods": False}
        """Whether all of them have been seen once."""

    # --- what there is

    def on(self, node: str) -> Iterable[Use]:
        """The claims that have devices of a node and are used."""
        return self._on.get(node, {}).values()

    def pods_of(self, use: Use) -> list[Pod]:
        """The pods that use a claim, as far as they have a profile."""
        return [self._pods[uid] for uid in use.pods if uid in self._pods]

    def wish_of(self, use: Use) -> Wish | None:
        """The profile that they ask for; the first one's."""
        return next((self._wishes[uid] for uid in use.pods if uid in self._wishes), None)

    def oldest(self, node: str) -> float:
        """When the oldest job on a node began, in seconds since the epoch; infinity: there is none."""
        if not all(self._listed.values()):
            return 0
        wishes = (self.wish_of(use) for use in self.on(node))
        return min((wish.since for wish in wishes if wish), default=math.inf)

    # --- what becomes of it

    def claim(self, claim: Object) -> None:
        """A claim as it is now."""
        uid = claim["metadata"]["uid"]
        use, before = self._read(claim), self._uses.get(uid)
        if use and before and before.allocation == use.allocation:
            before.pods = use.pods
            return
        self.claim_is_gone(uid)
        if use:
            self._uses[uid] = use
            self._on.setdefault(use.allocation.pool, {})[uid] = use

    def claim_is_gone(self, uid: str) -> None:
        """A claim was deleted, or is not used any more."""
        use = self._uses.pop(uid, None)
        if use:
            of_node = self._on[use.allocation.pool]
            del of_node[uid]
            if not of_node:
                del self._on[use.allocation.pool]

    def claims_are(self, uids: Iterable[str]) -> None:
        """There are no other claims."""
        for uid in self._uses.keys() - set(uids):
            self.claim_is_gone(uid)
        self._listed["claims"] = True

    def pod(self, pod: Object) -> str | None:
        """A pod as it is now. Gives the sentence about a profile that nobody knows."""
        uid = pod["metadata"]["uid"]
        wish = wish_of(pod) if (pod.get("status") or {}).get("phase") == "Running" else None
        if wish is None:
            self.pod_is_gone(uid)
            return strange_profile(pod)
        self._pods[uid] = _kept(pod)
        self._wishes[uid] = wish
        return None

    def pod_is_gone(self, uid: str) -> None:
        """A pod was deleted, or has ended."""
        self._pods.pop(uid, None)
        self._wishes.pop(uid, None)

    def pods_are(self, uids: Iterable[str]) -> None:
        """There are no other pods."""
        for uid in self._pods.keys() - set(uids):
            self.pod_is_gone(uid)
        self._listed["pods"] = True

    def _read(self, claim: Object) -> Use | None:
        status = claim.get("status") or {}
        users = tuple(one["uid"] for one in status.get("reservedFor") or () if one.get("resource") == "pods")
        results = ((status.get("allocation") or {}).get("devices") or {}).get("results") or ()
        pool = next((result["pool"] for result in results if result["driver"] == self._driver), None)
        if not users or pool is None:
            return None
        try:
            uid = claim["metadata"]["uid"]
            return Use(allocation_on(claim, uid=uid, driver=self._driver, pool=pool), users)
        except ClaimError:  # a configuration with which no pod could start
            return None


def _kept(pod: Object) -> Pod:
    """What of a pod is needed for the labels of its series."""
    metadata, spec, status = pod["metadata"], pod["spec"], pod.get("status") or {}
    return {
        "metadata": {"namespace": metadata["namespace"], "name": metadata["name"]},
        "spec": {
            "resourceClaims": spec.get("resourceClaims"),
            "containers": [
                {"name": container["name"], "resources": container.get("resources")}
                for container in spec.get("containers") or ()
            ],
        },
        "status": {
            key: status[key] for key in ("resourceClaimStatuses", "extendedResourceClaimStatus") if key in status
        },
    }
