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
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import orjson

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
from ..prepared.cdi import CLAIM, RECORD, VERSION, CdiFolder, kind
from ..records.checkpoint import Entry
from ..records.holdings import HeldDevice

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
        when files may have come or gone.
        """
        self._pool = pool
        self._read_claim = read_claim
        self._cdi = cdi
        self._node = node
        self._changed = changed
        self._prepares = 0
        self._entries: dict[str, Entry] | None = None
        """What the files say; None: look again."""

    def prepared(self) -> Iterable[Entry]:
        """The claims that are prepared, also by an earlier process."""
        return self._known().values()

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
        self._changed()
        return {claim.uid: result for claim, result in zip(claims, results, strict=True)}

    async def unprepare(self, claims: Sequence[ClaimRef]) -> Mapping[str, UnprepareResult]:
        """Forget claims, whether or not they (still) exist."""
        results: dict[str, UnprepareResult] = {}
        for claim in claims:
            try:
                self._remove(claim.uid)
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
            self._remove(uid)
            log.info("removed what was left of claim %s", uid, extra={"claim_uid": uid})
        self._entries = None  # what another agent did in an update
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
            entry = self._entry(ref, devices)
            self._cdi.write(ref.uid, self._cdi_spec(entry, devices, node))
        except (ClaimNotUsable, AgentError) as error:
            return error
        self._known()[ref.uid] = entry
        return [self._answer(ref, device) for device in devices]

    def _known(self) -> dict[str, Entry]:
        if self._entries is None:
            found = {uid: self._cdi.entry(uid) for uid in sorted(self._cdi.claims())}
            self._entries = {uid: entry for uid, entry in found.items() if entry}
        return self._entries

    def _remove(self, uid: str) -> None:
        self._cdi.remove(uid)
        self._known().pop(uid, None)

    def _entry(self, ref: ClaimRef, devices: Sequence[AllocatedDevice]) -> Entry:
        self._prepares += 1
        held = tuple(HeldDevice(device.request, device.pool, device.device) for device in devices)
        return Entry(ref.uid, ref.namespace, ref.name, held, runtime="", serial=self._prepares)

    def _cdi_spec(self, entry: Entry, devices: Sequence[AllocatedDevice], node: SimulatedNode) -> dict[str, Any]:
        return {
            "cdiVersion": VERSION,
            "kind": kind(self.driver_name),
            "annotations": {
                SIMULATED: "true",
                CLAIM: str(entry),
                RECORD: orjson.dumps(entry.as_record()).decode(),
            },
            "devices": [
                {
                    "name": f"{entry.uid}_{name}",
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
