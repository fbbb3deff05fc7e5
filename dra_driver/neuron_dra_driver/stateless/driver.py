"""A driver's answers to the kubelet: a CDI file for each claim, and no other state.

All that a container gets follows from the claim's allocation and from what the node is, so a claim is prepared anew by
writing the same file again, and an agent that was restarted has nothing to remember. That a device is in one claim only
is the scheduler's doing.

A file whose claim is gone was left by a kill, or by a kubelet that forgot the claim; `reconcile` removes it. It leaves
alone the file of a claim that exists and is not allocated: at that moment it may be allocated and prepared again,
while a uid that is gone never comes back.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from ..allocations.config import SIMULATED_VARIABLE
from ..errors import AgentError
from ..kubeletplugin import (
    AllocatedDevice,
    ClaimNotUsable,
    ClaimRef,
    PreparedDevice,
    PrepareResult,
    UnprepareResult,
)
from ..names import SIMULATED
from ..node import SimulatedNode
from ..prepared.cdi import CLAIM, VERSION, CdiFolder, kind

log = logging.getLogger(__name__)

ReadClaim = Callable[[str, str], Awaitable[Mapping[str, Any] | None]]
"""Namespace and name → the claim as it is now, None when there is none; raises when the API server does not tell."""


class StatelessDriver(ABC):
    """Implements `kubeletplugin.DRADriver`; what a claim brings is a subclass's to say."""

    driver_name: str

    def __init__(
        self,
        *,
        pool: str,
        read_claim: ReadClaim,
        cdi: CdiFolder,
        node: Callable[[], Awaitable[SimulatedNode]],
        changed: Callable[[], None],
    ) -> None:
        """`pool` is the node's name. `node` raises an AgentError while this node offers nothing; `changed` is told
        when files may have gone.
        """
        self._pool = pool
        self._read_claim = read_claim
        self._cdi = cdi
        self._node = node
        self._changed = changed

    @abstractmethod
    def devices(self, claim: Mapping[str, Any] | None, ref: ClaimRef, node: SimulatedNode) -> Sequence[AllocatedDevice]:
        """The devices of a claim that are this node's to prepare; raises ClaimNotUsable or an AgentError."""

    @abstractmethod
    def edits(self, device: str, node: SimulatedNode) -> Mapping[str, Any]:
        """What a device brings to a container, as CDI's containerEdits."""

    async def prepare(self, claims: Sequence[ClaimRef]) -> Mapping[str, PrepareResult]:
        """Prepare the claims of one pod."""
        try:
            node = await self._node()
        except AgentError as error:
            return dict.fromkeys((claim.uid for claim in claims), error)
        results = await asyncio.gather(*(self._prepare(claim, node) for claim in claims))
        return {claim.uid: result for claim, result in zip(claims, results, strict=True)}

    async def unprepare(self, claims: Sequence[ClaimRef]) -> Mapping[str, UnprepareResult]:
        """Forget claims, whether or not they (still) exist."""
        results: dict[str, UnprepareResult] = {}
        for claim in claims:
            try:
                self._cdi.remove(claim.uid)
                results[claim.uid] = None
            except AgentError as error:
                results[claim.uid] = error
        self._changed()
        return results

    async def reconcile(self) -> None:
        """Remove the files of claims that are gone. While the API server does not answer, everything stays."""
        for uid in sorted(self._cdi.claims()):
            namespace, _, name = (self._cdi.annotation(uid, CLAIM) or "").partition("/")
            if name:
                claim = await self._read_claim(namespace, name)
                if claim is not None and claim["metadata"]["uid"] == uid:
                    continue
            self._cdi.remove(uid)
            log.info("removed what was left of claim %s", uid, extra={"claim_uid": uid})
        self._changed()

    async def _prepare(self, ref: ClaimRef, node: SimulatedNode) -> PrepareResult:
        try:
            claim = await self._read_claim(ref.namespace, ref.name)
        except Exception as error:
            return AgentError(
                f"claim {ref} cannot be read from the API server ({error or type(error).__name__}); "
                "the kubelet tries again"
            )
        try:
            devices = self.devices(claim, ref, node)
            self._cdi.write(ref.uid, self._cdi_spec(ref, devices, node))
        except (ClaimNotUsable, AgentError) as error:
            return error
        return [self._answer(ref, device) for device in devices]

    def _cdi_spec(self, ref: ClaimRef, devices: Sequence[AllocatedDevice], node: SimulatedNode) -> dict[str, Any]:
        return {
            "cdiVersion": VERSION,
            "kind": kind(self.driver_name),
            "annotations": {SIMULATED: "true", CLAIM: str(ref)},
            "devices": [
                {
                    "name": f"{ref.uid}_{name}",
                    "containerEdits": {"env": [f"{SIMULATED_VARIABLE}=true"], **self.edits(name, node)},
                }
                # With admin access one device may be in several requests.
                for name in dict.fromkeys(device.device for device in devices)
            ],
        }

    def _answer(self, ref: ClaimRef, device: AllocatedDevice) -> PreparedDevice:
        return PreparedDevice(
            requests=(device.request,),
            pool=device.pool,
            device=device.device,
            cdi_device_ids=(f"{kind(self.driver_name)}={ref.uid}_{device.device}",),
            share_id=device.share_id,
        )
