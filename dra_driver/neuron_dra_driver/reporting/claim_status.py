"""What users see of their devices in `kubectl get resourceclaim -o yaml`: conditions in `status.devices`.

`Ready` is true once a claim is prepared; `Healthy` tells of faults of what it holds. There is neither `data` nor
`networkData`: no standard says what to put there, and what a device is stands in its ResourceSlice.

Never on the kubelet's way. The prepared claims are looked at a moment after they changed, and what is missing is
written, one claim after the other with a pause between them: a claim that lives for less than that moment costs
nothing, and a burst is spread out. What cannot be written is tried again, ever more slowly, and what has gone is
forgotten, so there is never more to do than claims are prepared. A new process writes only what differs.

Written as a JSON Patch of our conditions alone: the entries of other drivers are theirs, and conditions that others add
to ours stay. Server-side apply and merge patches would sort the keys of what others have as `data`, and the API server
refuses that as a change of what is not ours (so does 1.36). The API server removes entries of devices that are
deallocated.

The ClusterRole needs `patch` on `resourceclaims/status`, and since Kubernetes 1.36 the verb `associated-node:patch` on
`resourceclaims/driver` with the drivers' names as resourceNames.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from neuron_device_model.faults import Fault

from ..allocations.allocation import Claim
from ..claims.driver import ReadClaim
from ..kubeletplugin import ApiError
from ..node import SimulatedNode
from .device_health import explain
from .prepared_claims import PreparedClaim, Source, prepared_claims

STATUS = "/apis/resource.k8s.io/v1/namespaces/{namespace}/resourceclaims/{name}/status"

SETTLE = 3.0
"""Seconds after which a claim counts as one that stays."""
SWARM = 0.5
"""Seconds in which changes come together."""
PAUSE = 0.1
"""Seconds between two claims. A write costs the API server as much as several prepares."""
RETRY_FIRST, RETRY_MOST = 1.0, 300.0

Object = dict[str, Any]

log = logging.getLogger(__name__)


class Request(Protocol):
    """`Kube.request`."""

    def __call__(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> Awaitable[Object]:
        """One call, one answer; raises ApiError when the server refuses, anything else is an outage."""
        ...


def device_statuses(claim: Claim, prepared: PreparedClaim, *, now: str) -> list[Object]:
    """The entries of `status.devices` for what is prepared of a claim; conditions that hold on keep their time."""
    status = claim.get("status") or {}
    earlier = {_key(found): found.get("conditions") or [] for found in status.get("devices") or []}
    results = ((status.get("allocation") or {}).get("devices") or {}).get("results") or []
    entries: dict[tuple[str, ...], Object] = {}
    for result in results:
        faults = prepared.devices.get((result["driver"], result["pool"], result["device"]))
        if faults is not None:
            key = _key(result)
            identity = {name: result[name] for name in _KEYS if result.get(name)}
            before = {condition["type"]: condition for condition in earlier.get(key, [])}
            entries[key] = {**identity, "conditions": _conditions(faults, before, now)}
    return list(entries.values())


def patch(claim: Claim, entries: Sequence[Object]) -> list[Object]:
    """The JSON Patch after which a claim's status says this; empty when it does."""
    found = (claim.get("status") or {}).get("devices") or []
    places = {_key(one): place for place, one in enumerate(found)}
    operations: list[Object] = []
    for entry in entries:
        place = places.get(_key(entry))
        path = f"/status/devices/{place}/conditions"
        if place is None:
            operations.append(_add("/status/devices/-", entry))
        elif not (conditions := found[place].get("conditions")):
            operations.append(_add(path, entry["conditions"]))
        else:
            types = [condition["type"] for condition in conditions]
            for condition in entry["conditions"]:
                if condition["type"] not in types:
                    operations.append(_add(f"{path}/-", condition))
                elif condition not in conditions:
                    there = f"{path}/{types.index(condition['type'])}"
                    operations.append({"op": "replace", "path": there, "value": condition})
    if operations and not found:
        operations = [_add("/status/devices", list(entries))]
    if operations:
        # The places are those of this version of this claim.
        metadata = claim["metadata"]
        operations[:0] = [
            {"op": "test", "path": "/metadata/uid", "value": metadata["uid"]},
            {"op": "replace", "path": "/metadata/resourceVersion", "value": metadata["resourceVersion"]},
        ]
    return operations


def _add(path: str, value: object) -> Object:
    return {"op": "add", "path": path, "value": value}


_KEYS = ("driver", "pool", "device", "shareID")


def _key(device: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(device.get(name) or "" for name in _KEYS)


def _conditions(faults: Sequence[Fault], before: Mapping[str, Object], now: str) -> list[Object]:
    conditions = [
        {"type": "Ready", "status": "True", "reason": "Prepared", "message": "containers can use the device"},
        {"type": "Healthy", "status": "False", "reason": faults[0].type, "message": explain(faults)}
        if faults
        else {"type": "Healthy", "status": "True", "reason": "NoFault", "message": "no fault is known"},
    ]
    for condition in conditions:
        was = before.get(condition["type"], {})
        same = was.get("status") == condition["status"]
        condition["lastTransitionTime"] = was.get("lastTransitionTime", now) if same else now
    return conditions


@dataclass(slots=True)
class _Progress:
    """How far it is with a prepared claim."""

    due: float
    written: PreparedClaim | None = None
    """What the status was made from when it was right last."""
    failures: int = 0


class ClaimStatus:
    """Keeps `status.devices` of the prepared claims; `wake` says that something changed, `run` does the work."""

    def __init__(
        self,
        *,
        field_manager: str,
        request: Request,
        read_claim: ReadClaim,
        sources: Sequence[Source],
        node: Callable[[], SimulatedNode | None],
    ) -> None:
        """`node`: what the node is, None while nothing is known of its devices."""
        self._field_manager = field_manager
        self._request = request
        self._read_claim = read_claim
        self._sources = sources
        self._node = node
        self._claims: dict[str, _Progress] = {}
        self._failing = False
        self._changed = asyncio.Event()

    def wake(self) -> None:
        """Claims were prepared or unprepared, or what the node is changed. Costs nothing."""
        self._changed.set()

    async def run(self) -> None:
        """Work until cancelled. An error of the API server never ends it."""
        clock = asyncio.get_running_loop().time
        while True:
            self._changed.clear()
            due, later = self._look(clock())
            for claim in due:
                await self._bring(claim)
                await asyncio.sleep(PAUSE)
            if due:
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout_at(later):
                    await self._changed.wait()
                    await asyncio.sleep(SWARM)

    def _look(self, now: float) -> tuple[list[PreparedClaim], float | None]:
        """What has to be written now, and when to look again if nothing happens."""
        node = self._node()
        if node is None:
            return [], None
        prepared = prepared_claims(self._sources, node)
        self._claims = {uid: known for uid, known in self._claims.items() if uid in prepared}
        due: list[PreparedClaim] = []
        later = None
        for uid, claim in prepared.items():
            progress = self._claims.setdefault(uid, _Progress(now + SETTLE))
            if progress.written == claim:
                continue
            if progress.due <= now:
                due.append(claim)
            else:
                later = progress.due if later is None else min(later, progress.due)
        return due, later

    async def _bring(self, prepared: PreparedClaim) -> None:
        progress = self._claims[prepared.uid]
        try:
            await self._write(prepared)
        except Exception as error:
            if not (isinstance(error, ApiError) and error.status == 404):
                self._failed(progress, prepared, error)
                return
        else:
            self._failing = False
        progress.written = prepared
        progress.failures = 0

    async def _write(self, prepared: PreparedClaim) -> None:
        claim = await self._read_claim(prepared.namespace, prepared.name)
        if claim is None or claim["metadata"]["uid"] != prepared.uid:
            return
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        operations = patch(claim, device_statuses(claim, prepared, now=now))
        if operations:
            await self._request(
                "PATCH",
                STATUS.format(namespace=prepared.namespace, name=prepared.name),
                params={"fieldManager": self._field_manager},
                body=operations,
                content_type="application/json-patch+json",
            )

    def _failed(self, progress: _Progress, prepared: PreparedClaim, error: Exception) -> None:
        pause = min(RETRY_FIRST * 2**progress.failures, RETRY_MOST)
        progress.failures += 1
        progress.due = asyncio.get_running_loop().time() + pause
        # One word of it until it works again, not one for each claim and try.
        log.log(
            logging.DEBUG if self._failing else logging.WARNING,
            "cannot write the status of claim %s, trying again: %s", prepared, error or type(error).__name__,
            extra={"claim_uid": prepared.uid},
        )  # fmt: skip
        self._failing = True
