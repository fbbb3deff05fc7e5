"""Tells a pod, by an Event, that what it was given is broken, where the kubelet does not.

The kubelet carries device health into `allocatedResourcesStatus` of a pod's containers if its gate ResourceHealthStatus
is on, which shows as an open stream (`HealthMonitor.watchers`), and then only for claims that the pod's containers name
(as of Kubernetes 1.36). A pod with `aws.amazon.com/neuron` in its limits would learn nothing.

One Event for each pod and fault, whatever devices it hits. Which pods they are is in the claim's `reservedFor`.
Nothing is asked and nothing is written while nothing is broken.
"""

import asyncio
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, TypeAlias

from neuron_device_model.cores import core_list
from neuron_device_model.faults import Fault

from ..allocations.allocation import Claim
from ..claims.driver import ReadClaim
from ..names import EXTENDED_RESOURCE_CLAIM
from ..node import SimulatedNode
from .claim_status import Request
from .device_health import explain
from .pod_warning import PodRef, tell, warning
from .prepared_claims import PreparedClaim, Source, prepared_claims

REASON = "NeuronDeviceUnhealthy"

PATIENCE = 10.0
"""Seconds from the start on in which the kubelet may still open its stream: it tries every five."""
LOOK_AGAIN = 30.0
"""While something is broken: other pods may use a claim that is prepared already."""
SETTLE = 1.0
PAUSE = 0.1

Object = dict[str, Any]

log = logging.getLogger(__name__)


Told: TypeAlias = tuple[PodRef, Fault]


def carried_by_kubelet(claim: Claim) -> bool:
    """Whether a kubelet that listens to device health shows it for this claim."""
    return EXTENDED_RESOURCE_CLAIM not in (claim["metadata"].get("annotations") or {})


def pods_of(claim: Claim) -> list[PodRef]:
    """The pods that use a claim."""
    consumers = (claim.get("status") or {}).get("reservedFor") or []
    namespace = claim["metadata"]["namespace"]
    return [
        PodRef(namespace, consumer["name"], consumer["uid"]) for consumer in consumers if consumer["resource"] == "pods"
    ]


def event(pod: PodRef, fault: Fault, devices: Iterable[str], *, reporter: str, now: datetime) -> Object:
    """The Event (events.k8s.io/v1) of a fault that hits devices of a pod."""
    subject, plural = _subject(devices)
    note = f"{subject} {'are' if plural else 'is'} unhealthy: {explain([fault])}"
    return warning(
        pod,
        reason=REASON,
        action="ReportHealth",
        note=note,
        about=(fault.name, fault.type, fault.since),
        reporter=reporter,
        now=now,
    )


_WORDS = {"device": "Neuron device", "core": "NeuronCore", "physical-core": "physical NeuronCore"}
_NAME = re.compile(r"neuron-(device|core|physical-core)-([0-9]+)")


def _subject(devices: Iterable[str]) -> tuple[str, bool]:
    """`Neuron devices 3-5`, and whether they are several."""
    numbers: dict[str, list[int]] = {}
    others = []
    for name in dict.fromkeys(devices):
        if match := _NAME.fullmatch(name):
            numbers.setdefault(_WORDS[match[1]], []).append(int(match[2]))
        else:
            others.append(f"EFA card {name}" if name.startswith("pci-") else name)
    named = [f"{word}{'s' if len(found) > 1 else ''} {core_list(found)}" for word, found in sorted(numbers.items())]
    return " and ".join([*named, *others]), sum(map(len, numbers.values())) + len(others) > 1


class PodEvents:
    """See the module; `wake` says that something changed, `run` does the work."""

    def __init__(
        self,
        *,
        node_name: str,
        request: Request,
        read_claim: ReadClaim,
        sources: Sequence[Source],
        node: Callable[[], SimulatedNode | None],
        kubelet_listens: Callable[[], bool],
    ) -> None:
        """`kubelet_listens`: whether `HealthMonitor.watchers` is not 0."""
        self._node_name = node_name
        self._request = request
        self._read_claim = read_claim
        self._sources = sources
        self._node = node
        self._kubelet_listens = kubelet_listens
        self._told: set[Told] = set()
        self._changed = asyncio.Event()

    def wake(self) -> None:
        """Claims were prepared, or faults came or went. Costs nothing."""
        self._changed.set()

    async def run(self) -> None:
        """Work until cancelled. An error of the API server never ends it."""
        await asyncio.sleep(PATIENCE)
        while True:
            self._changed.clear()
            broken = self._broken()
            affected = await self._affected(broken)
            # Of pods that are gone and faults that are over, nothing has to be remembered.
            self._told &= affected.keys()
            for (pod, fault), devices in affected.items():
                if (pod, fault) not in self._told:
                    await self._tell(pod, fault, devices)
                    await asyncio.sleep(PAUSE)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_AGAIN if broken else None):
                    await self._changed.wait()
                    await asyncio.sleep(SETTLE)

    def _broken(self) -> list[PreparedClaim]:
        node = self._node()
        if node is None or not node.faults:
            return []
        return [claim for claim in prepared_claims(self._sources, node).values() if any(claim.devices.values())]

    async def _affected(self, broken: Iterable[PreparedClaim]) -> dict[Told, list[str]]:
        """The pods that have to be told of a fault, and which of their devices it hits."""
        affected: dict[Told, list[str]] = {}
        for prepared in broken:
            try:
                claim = await self._read_claim(prepared.namespace, prepared.name)
            except Exception as error:
                log.warning("cannot ask who uses claim %s: %s", prepared, error, extra={"claim_uid": prepared.uid})
                continue
            if claim is None or claim["metadata"]["uid"] != prepared.uid:
                continue
            if self._kubelet_listens() and carried_by_kubelet(claim):
                continue
            for pod in pods_of(claim):
                for (_, _, device), faults in prepared.devices.items():
                    for fault in faults:
                        affected.setdefault((pod, fault), []).append(device)
        return affected

    async def _tell(self, pod: PodRef, fault: Fault, devices: list[str]) -> None:
        body = event(pod, fault, devices, reporter=self._node_name, now=datetime.now(UTC))
        if await tell(self._request, body):
            self._told.add((pod, fault))
