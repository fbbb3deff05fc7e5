"""What of a ResourceClaim this node has to prepare. Pure: a claim in, an allocation or a sentence out.

A claim is read as the API server gives it (`resource.k8s.io/v1`, a plain dict). Only results of our driver in this
node's pool count: a claim may also hold devices of other drivers, which are theirs to prepare.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from neuron_device_model.advertise import device_index

from .errors import ClaimError
from .names import EXTENDED_RESOURCE_CLAIM, POD_CLAIM_NAME

Claim = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class AllocatedDevice:
    """One result of an allocation."""

    name: str
    request: str
    """As in the result: `main/sub` when the request has alternatives (firstAvailable)."""
    admin_access: bool = False
    share_id: str | None = None

    @property
    def index(self) -> int:
        """The device's number on its host."""
        return device_index(self.name)


@dataclass(frozen=True, slots=True)
class AllocatedRequest:
    """The devices that one request of a claim got, in the order of their host numbers."""

    name: str
    """The request's base name, without the chosen alternative: what containers refer to."""
    first_index: int
    """The number in the container of its first device."""
    devices: tuple[AllocatedDevice, ...]


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
    _refuse_configuration(devices, what=what, driver=driver)
    return Allocation(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=uid,
        pool=pool,
        requests=_requests(claim, here),
        pod_claim_name=(metadata.get("annotations") or {}).get(POD_CLAIM_NAME),
    )


def base_name(request: str) -> str:
    """`main/sub` names an alternative of request `main`."""
    return request.partition("/")[0]


def _refuse_configuration(devices: Mapping[str, Any], *, what: str, driver: str) -> None:
    for config in devices.get("config") or []:
        opaque = config.get("opaque") or {}
        if opaque.get("driver") == driver:
            kind = (opaque.get("parameters") or {}).get("kind", "opaque parameters")
            where = "its DeviceClass" if config.get("source") == "FromClass" else "its spec.devices.config"
            raise ClaimError(
                f"{what} carries {kind} for driver {driver}, which this version of the simulated driver does not "
                f"support yet: remove the entry from {where}"
            )


def _requests(claim: Claim, results: list[Mapping[str, Any]]) -> tuple[AllocatedRequest, ...]:
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
    restart = EXTENDED_RESOURCE_CLAIM in (claim["metadata"].get("annotations") or {})
    requests: list[AllocatedRequest] = []
    following = 0
    for name, devices in granted.items():
        if devices:
            devices.sort(key=_host_index)
            # A claim that the scheduler made for a pod's extended resources has a request per container.
            first = 0 if restart else following
            requests.append(AllocatedRequest(name=name, first_index=first, devices=tuple(devices)))
            following += len(devices)
    return tuple(requests)


def _host_index(device: AllocatedDevice) -> int:
    try:
        return device.index
    except ValueError as error:
        raise ClaimError(
            f"device {device.name} is not one that this driver offers: delete the pod, so that it is scheduled again"
        ) from error


def still_holds(claim: Claim | None, *, uid: str, driver: str, pool: str, devices: frozenset[str]) -> bool:
    """Whether a claim, as the API server has it now (None: not at all), is still given all of these devices."""
    if claim is None or claim["metadata"]["uid"] != uid:
        return False
    allocated = (claim.get("status") or {}).get("allocation") or {}
    results = (allocated.get("devices") or {}).get("results") or []
    return devices <= {r["device"] for r in results if r["driver"] == driver and r["pool"] == pool}
