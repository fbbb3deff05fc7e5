"""The EFA driver's answers to the kubelet: a CDI file for each claim, and no other state.

All that a container gets follows from the claim's allocation, so a claim is prepared anew by writing the same file
again, and an agent that was restarted has nothing to remember. That a card is in one claim only is the scheduler's
doing: what two pods would share is a device that swallows what is written to it, not a core that one of them must own.

A file whose claim is gone was left by a kill, or by a kubelet that forgot the claim; `reconcile` removes it. It leaves
alone the file of a claim that exists and is not allocated: at that moment it may be allocated and prepared again,
while a uid that is gone never comes back.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from neuron_device_model.efa import EfaDevice, efa_devices

from ..allocations.config import SIMULATED_VARIABLE
from ..errors import AgentError, ClaimError
from ..kubeletplugin import (
    AllocatedDevice,
    ClaimNotUsable,
    ClaimRef,
    PreparedDevice,
    PrepareResult,
    UnprepareResult,
    allocated_devices,
)
from ..names import EFA_DRIVER_NAME, SIMULATED
from ..node import SimulatedNode
from ..prepared.cdi import CLAIM, NULL_DEVICE, VERSION, CdiFolder, kind

CONNECTION_MANAGER = "/dev/infiniband/rdma_cm"

log = logging.getLogger(__name__)

ReadClaim = Callable[[str, str], Awaitable[Mapping[str, Any] | None]]
"""Namespace and name → the claim as it is now, None when there is none; raises when the API server does not tell."""


class EfaDriver:
    """Implements `kubeletplugin.DRADriver`."""

    def __init__(
        self,
        *,
        pool: str,
        read_claim: ReadClaim,
        cdi: CdiFolder,
        node: Callable[[], Awaitable[SimulatedNode]],
        changed: Callable[[], None],
    ) -> None:
        """`node` raises an AgentError while this node offers nothing; `changed` is told when files may have gone."""
        self._pool = pool
        self._read_claim = read_claim
        self._cdi = cdi
        self._node = node
        self._changed = changed

    async def prepare(self, claims: Sequence[ClaimRef]) -> Mapping[str, PrepareResult]:
        """Prepare the claims of one pod."""
        try:
            node = await self._node()
        except AgentError as error:
            return dict.fromkeys((claim.uid for claim in claims), error)
        cards = {card.name: card for card in efa_devices(node.instance_type)}
        results = await asyncio.gather(*(self._prepare(claim, cards) for claim in claims))
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

    async def _prepare(self, ref: ClaimRef, cards: Mapping[str, EfaDevice]) -> PrepareResult:
        try:
            claim = await self._read_claim(ref.namespace, ref.name)
        except Exception as error:
            return AgentError(
                f"claim {ref} cannot be read from the API server ({error or type(error).__name__}); "
                "the kubelet tries again"
            )
        try:
            devices = allocated_devices(claim, ref, driver_name=EFA_DRIVER_NAME, pool=self._pool)
            if unknown := sorted({device.device for device in devices} - cards.keys()):
                raise ClaimError(
                    f"claim {ref} holds {', '.join(unknown)}, which node {self._pool} does not have (any more): "
                    "delete the pod, so that it is scheduled again"
                )
            self._cdi.write(ref.uid, cdi_spec(ref, [cards[device.device] for device in devices]))
        except (ClaimNotUsable, AgentError) as error:
            return error
        return [_answer(ref, device) for device in devices]


def cdi_spec(ref: ClaimRef, cards: Sequence[EfaDevice]) -> dict[str, Any]:
    """The CDI file of a claim: for each card what DRANET gives, its verbs device and the connection manager."""
    return {
        "cdiVersion": VERSION,
        "kind": kind(EFA_DRIVER_NAME),
        "annotations": {SIMULATED: "true", CLAIM: str(ref)},
        "devices": [
            {
                "name": f"{ref.uid}_{card.name}",
                "containerEdits": {
                    "env": [f"{SIMULATED_VARIABLE}=true"],
                    "deviceNodes": [
                        {"path": path, **NULL_DEVICE}
                        for path in (f"/dev/infiniband/uverbs{card.verbs}", CONNECTION_MANAGER)
                    ],
                },
            }
            # With admin access one card may be in several requests.
            for card in dict.fromkeys(cards)
        ],
    }


def _answer(ref: ClaimRef, device: AllocatedDevice) -> PreparedDevice:
    return PreparedDevice(
        requests=(device.request,),
        pool=device.pool,
        device=device.device,
        cdi_device_ids=(f"{kind(EFA_DRIVER_NAME)}={ref.uid}_{device.device}",),
        share_id=device.share_id,
    )
