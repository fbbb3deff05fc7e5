"""The claims that are prepared on this node: their files, CDI files and checkpoint entries, always together.

The order of writing makes a kill at any instruction harmless. Preparing writes the files, then the CDI file, then the
checkpoint, and answers last; unpreparing goes the same way. Whatever a kill leaves is a trace (an entry, a CDI file or
a folder with the claim's uid in its name) that the next try, or `reconcile`, finds and completes or removes.

All methods are called under the node's lock, `refresh` first. No waiting for anything but the local disk.
"""

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from ..allocations.allocation import Allocation, base_name
from ..allocations.grants import Grant, grant, is_of
from ..errors import AgentError, ClaimError, DeviceHeld, DiskError
from ..kubeletplugin import PreparedDevice
from ..node import SimulatedNode
from ..records.checkpoint import Checkpoint, Entry
from ..records.holdings import shares
from .cdi import CdiFolder
from .claim_folders import ClaimFolders
from .rendering import render
from .runtime_tree import RuntimeTrees

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Trace:
    """Something of a claim that is on this node."""

    uid: str
    entry: Entry | None
    """None: a kill left it before the claim was prepared, or a hand damaged it."""


class ClaimStore:
    """See the module."""

    def __init__(
        self, *, driver: str, cdi_directory: Path, run_directory: Path, checkpoint: Checkpoint, trees: RuntimeTrees
    ) -> None:
        self._driver = driver
        self._cdi = CdiFolder(cdi_directory, driver=driver)
        self._folders = ClaimFolders(run_directory)
        self._checkpoint = checkpoint
        self._trees = trees
        self._anew = False

    def refresh(self) -> None:
        """Learn what another process did, and what there is when the checkpoint begins anew."""
        anew, self._anew = self._anew, True  # until all that follows is done: a full disk may be in the way
        if self._checkpoint.refresh() or anew:
            self._find_again(self._cdi.claims() - self._checkpoint.entries.keys())
        self._anew = False

    def tell_of_others(self, tell: Callable[[str | None], None]) -> None:
        """Have `refresh` tell which claims other processes prepared or unprepared; None: maybe any."""
        self._checkpoint.by_others = tell

    def prepared(self) -> Collection[Entry]:
        """The prepared claims, as of the last refresh."""
        return self._checkpoint.entries.values()

    def quarantined(self) -> list[Path]:
        """Checkpoints that could not be read and were put aside."""
        return self._checkpoint.quarantined()

    def holders(self, allocation: Allocation, node: SimulatedNode) -> list[Entry]:
        """Other prepared claims that stand in this one's way: by a core of it, or by another LNC on one of its chips.

        Only those that the API server knows; it has nothing to say about what was given away by another road.
        """
        try:
            wanted = grant(allocation, node, before=self._same(allocation))
        except ClaimError:
            return []  # `prepare` will say why
        holdings, entries = self._checkpoint.holdings, self._checkpoint.entries
        uids = dict.fromkeys(holdings.with_cores_of(allocation.uid, wanted.shares))
        uids |= dict.fromkeys(holdings.at_odds_with(allocation.uid, wanted.shares))
        return [entries[uid] for uid in uids if entries[uid].origin == "claim"]

    def prepare(
        self, allocation: Allocation, node: SimulatedNode, *, released: Collection[str] = ()
    ) -> tuple[PreparedDevice, ...]:
        """Prepare a claim, or leave nothing of it. `released`: holders that the API server knows to be gone."""
        uid, again = allocation.uid, self._same(allocation)
        before = self._checkpoint.entries.get(uid)
        granted = grant(allocation, node, before=again)
        self._make_way(granted, released)
        rendering = render(
            granted, node, driver=self._driver, folders=self._folders, tree=self._trees.ensure(), before=before
        )
        if before and not again:
            self.unprepare(uid)
        try:
            self._folders.write(uid, rendering.files)
            self._cdi.write(uid, rendering.cdi_spec)
            self._checkpoint.put(rendering.entry)
        except AgentError:
            if not again:  # what a running pod uses stays
                self._undo(uid)
            raise
        return rendering.answer

    def unprepare(self, uid: str) -> bool:
        """Remove everything of a claim, by its uid alone; false when there was no such claim."""
        self._cdi.remove(uid)
        self._folders.remove(uid)
        known = uid in self._checkpoint.entries
        if known:
            self._checkpoint.delete(uid)
        return known

    def trace(self, uid: str) -> Trace:
        """What there is of a claim."""
        return Trace(uid, self._checkpoint.entries.get(uid))

    def traces(self) -> list[Trace]:
        """Every claim that something of is on this node."""
        uids = self._checkpoint.entries.keys() | self._cdi.claims() | self._folders.claims()
        return [self.trace(uid) for uid in sorted(uids)]

    def complete(self, entry: Entry) -> bool:
        """Whether a prepared claim's files are all there."""
        requests = {base_name(held.request) for held in entry.devices}
        return (
            self._trees.has(entry.runtime)
            and self._cdi.has(entry.uid)
            and all(self._folders.has(entry.uid, request) for request in requests)
        )

    def install_runtime(self) -> None:
        """Bring the tools to the node."""
        self._trees.ensure()

    def prune_runtimes(self, *, serving: bool) -> None:
        """Remove the tools that nobody uses, and on a node without Neuron devices this agent's own as well."""
        self._trees.prune(used={entry.runtime for entry in self.prepared()}, keep_own=serving)

    def discard(self) -> None:
        """Leave nothing on a node that is no Neuron node and holds no claim. A checkpoint put aside stays."""
        if not self._checkpoint.entries:
            self._trees.prune(used=(), keep_own=False)
            self._folders.discard()
            self._checkpoint.discard()

    def close(self) -> None:
        """Let go of the checkpoint's file."""
        self._checkpoint.close()

    def _find_again(self, uids: Collection[str]) -> None:
        """Take claims into the checkpoint by their CDI files, but no core twice.

        Of two files with the same core one was left by a kill, and the later prepare is the one that found the core
        free. The other one's file stays, as any trace of a claim that is not prepared, for the kubelet or `reconcile`.
        """
        for uid in sorted(uids, key=lambda uid: (self._cdi.prepared_at(uid), uid), reverse=True):
            entry = self._cdi.entry(uid)
            if entry is None:
                continue
            wanted, holdings = shares(entry.devices), self._checkpoint.holdings
            if others := [*holdings.with_cores_of(uid, wanted), *holdings.at_odds_with(uid, wanted)]:
                log.error(
                    "claim %s is not found again by its CDI file: it names cores that were given to %s (uid %s) later",
                    entry, _owner(self._checkpoint.entries[others[0]]), others[0], extra={"claim_uid": uid},
                )  # fmt: skip
                continue
            log.info("claim %s is found again by its CDI file", entry, extra={"claim_uid": uid})
            self._checkpoint.put(entry)

    def _same(self, allocation: Allocation) -> Entry | None:
        """The record of a claim that is prepared with this allocation already."""
        entry = self._checkpoint.entries.get(allocation.uid)
        return entry if entry and is_of(entry, allocation) else None

    def _make_way(self, granted: Grant, released: Collection[str]) -> None:
        """Unprepare the claims in this one's way that are gone; a ClaimError names one that is not."""
        allocation, entries = granted.allocation, self._checkpoint.entries
        holding = self._checkpoint.holdings.with_cores_of(allocation.uid, granted.shares)
        for holder in [entries[uid] for uid in holding]:
            if holder.uid not in released:
                raise DeviceHeld(
                    f"{allocation} is given devices that are still prepared for {_owner(holder)} (uid {holder.uid}) "
                    "on this node: they are free once its last pod has ended here, and the kubelet then tries again"
                )
            log.info("claim %s is gone and its devices are given anew", holder, extra={"claim_uid": holder.uid})
            self.unprepare(holder.uid)
        for uid, (chip, theirs) in self._checkpoint.holdings.at_odds_with(allocation.uid, granted.shares).items():
            other = entries[uid]
            if uid not in released:
                mine = granted.shares[chip].logical_neuron_core
                raise ClaimError(
                    f"{allocation} is given cores of neuron-device-{chip} with logical NeuronCore configuration "
                    f"{mine}, and {_owner(other)} (uid {uid}) uses other cores of that chip with {theirs}, but a chip "
                    f"has one configuration: write logicalNeuronCore: {theirs} in a NeuronConfig of this claim, or "
                    "ask for whole chips, or end the other's pods, the kubelet then tries again"
                )
            log.info("claim %s is gone and its cores' chip is given anew", other, extra={"claim_uid": uid})
            self.unprepare(uid)

    def _undo(self, uid: str) -> None:
        for undo in (self._cdi.remove, self._folders.remove):
            try:
                undo(uid)
            except DiskError as error:
                log.warning("could not clean up after a failed prepare: %s", error, extra={"claim_uid": uid})


def _owner(entry: Entry) -> str:
    return f"claim {entry}" if entry.origin == "claim" else str(entry)
