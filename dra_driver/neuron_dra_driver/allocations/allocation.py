"""What of a ResourceClaim this node has to prepare. Pure: a claim in, an allocation or a sentence out.

A claim is read as the API server gives it (`resource.k8s.io/v1`, a plain dict). Only results of our driver in this
node's pool count: a claim may also hold devices of other drivers, which are theirs to prepare. What the names of the
devices mean is not asked here but in `grants`, because it depends on what the node is.

Whoever gives devices away by another road than claims makes an allocation, too, under a uid of its own making.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ClaimError
from ..names import EXTENDED_RESOURCE_CLAIM, POD_CLAIM_NAME, WORKLOAD_ID
from ..records.checkpoint import Origin
from .config import UNCONFIGURED, RequestConfig, configurations, for_request

Claim = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class AllocatedDevice:
    """One result of an allocation."""

    name: str
    request: str
    """As in the result: `main/sub` when the request has alternatives (firstAvailable)."""
    admin_access: bool = False
    share_id: str | None = None


@dataclass(frozen=True, slots=True)
class AllocatedRequest:
    """The devices that one request of a claim got: chips, cores or the whole node, in any order."""

    name: str
    """The request's base name, without the chosen alternative: what containers refer to."""
    devices: tuple[AllocatedDevice, ...]
    config: RequestConfig = UNCONFIGURED
    user: str = ""
    """Requests of one user number their devices on; every other user's numbers begin at 0."""


@dataclass(frozen=True, slots=True)
class Allocation:
    """Everything of a claim that this node has to prepare."""

    namespace: str
    name: str
    uid: str
    pool: str
    requests: tuple[AllocatedRequest, ...]
    pod_claim_name: str | None = None
    """The entry of `pod.spec.resourceClaims` when the claim was made from a template."""
    workload_id: str | None = None
    """The NeuronUltraServerWorkload whose nodes the claim is for."""
    origin: Origin = "claim"
    kubelet_ids: tuple[str, ...] = ()
    """On the device-plugin road: the ids that the kubelet handed out, to know them by when they are free again."""

    def __str__(self) -> str:
        return f"{'claim ' if self.origin == 'claim' else ''}{self.namespace}/{self.name}"

    @property
    def devices(self) -> tuple[AllocatedDevice, ...]:
        """All devices, request after request."""
        return tuple(device for request in self.requests for device in request.devices)


def allocation_on(claim: Claim, *, uid: str, driver: str, pool: str) -> Allocation:
    """Read the allocation that the kubelet (which knows names and uids only) asks this node to prepare."""
    metadata = claim["metadata"]
    what = f"claim {metadata['namespace']}/{metadata['name']}"
    if metadata["uid"] != uid:
        raise ClaimError(
            f"{what} was deleted and made anew (its uid is {metadata['uid']} now, this pod was scheduled with {uid}): "
            "delete the pod, so that it is scheduled with the new claim"
        )
    allocated = (claim.get("status") or {}).get("allocation")
    if not allocated:
        raise ClaimError(f"{what} is not allocated (any more): delete the pod, so that it is scheduled again")
    devices = allocated.get("devices") or {}
    ours = [result for result in devices.get("results") or [] if result["driver"] == driver]
    if not ours:
        raise ClaimError(f"{what} holds no device of driver {driver}: there is nothing to prepare for it")
    here = [result for result in ours if result["pool"] == pool]
    if not here:
        pools = ", ".join(sorted({result["pool"] for result in ours}))
        raise ClaimError(
            f"{what} is allocated in pool {pools} and not on node {pool}: delete the pod, so that it is scheduled "
            "where its devices are"
        )
    try:
        requests = _requests(claim, here, driver=driver)
    except ClaimError as error:
        raise ClaimError(f"{what}: {error}") from error
    return Allocation(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=uid,
        pool=pool,
        requests=requests,
        pod_claim_name=(metadata.get("annotations") or {}).get(POD_CLAIM_NAME),
        workload_id=(metadata.get("annotations") or {}).get(WORKLOAD_ID),
    )


def base_name(request: str) -> str:
    """`main/sub` names an alternative of request `main`."""
    return request.partition("/")[0]


def _requests(claim: Claim, results: list[Mapping[str, Any]], *, driver: str) -> tuple[AllocatedRequest, ...]:
    configured = configurations(claim, driver=driver)
    granted: dict[str, list[AllocatedDevice]] = {}
    for name in (request["name"] for request in claim["spec"]["devices"].get("requests") or []):
        granted[name] = []
    for result in results:
        device = AllocatedDevice(
            name=result["device"],
            request=result["request"],
            admin_access=bool(result.get("adminAccess")),
            share_id=result.get("shareID"),
        )
        granted.setdefault(base_name(device.request), []).append(device)
    extended = EXTENDED_RESOURCE_CLAIM in (claim["metadata"].get("annotations") or {})
    return tuple(
        AllocatedRequest(
            name=name,
            devices=tuple(devices),
            config=for_request(devices[0].request, configured),
            user=_container(name) if extended else "",
        )
        for name, devices in granted.items()
        if devices
    )


def _container(request: str) -> str:
    """Whom a request of a claim for extended resources is for: the scheduler calls it `container-0-request-1`."""
    return request.partition("-request-")[0]


def still_holds(claim: Claim | None, *, uid: str, driver: str, pool: str, devices: frozenset[str]) -> bool:
    """Whether a claim, as the API server has it now (None: not at all), is still given all of these devices."""
    if claim is None or claim["metadata"]["uid"] != uid:
        return False
    allocated = (claim.get("status") or {}).get("allocation") or {}
    results = (allocated.get("devices") or {}).get("results") or []
    return devices <= {r["device"] for r in results if r["driver"] == driver and r["pool"] == pool}
