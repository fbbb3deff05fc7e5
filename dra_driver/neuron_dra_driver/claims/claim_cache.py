"""Claims that are allocated to this node, known before the kubelet asks: a watch instead of a read for each prepare.

Reading a claim from the API server is two thirds of a prepare's time, and the allocation has passed by in a watch
before the pod was even bound. But a watch tells what was, and preparing from an allocation that has ended gives a pod
devices that are another's. So the cache can only say yes, once, to something new, and is silent in any doubt; who gets
no answer asks the API server. Whatever is refused, is refused by the API server's word.

What `take` gives is an allocation that came **as an event of a living watch**, of a claim that nobody here prepared
since. In doubt is therefore

* every claim that the watch has not (yet) shown as allocated here, with the uid asked for: the event is late, the
  claim was made anew under its name, or it is allocated elsewhere by now;
* every claim that a watch begins with, hence all that were allocated before this process began or while it missed
  something: between such an allocation and now anything may have happened;
* every claim from its first prepare or unprepare on, by whatever road and however that ends, to its deletion
  (`_spent`). Its uid may be allocated twice in a row, the second time with other devices: between two pods the old
  allocation may be all that a late watch has shown, and which one a pod had, or gave back, the order of events does
  not say. A claim that several pods have one after the other is read for each but the first, then; those of templates
  have one;
* every claim that another process prepared or unprepared, which the checkpoint tells (`used_elsewhere`): in a rolling
  update the one agent's watch may be late by a whole pod that the other one served. And everything until a watch
  begins, where the other one wrote the checkpoint anew, and what it did before cannot be told any more;
* everything while there is no watch, in the first second of one, which may be filled with the past, while bytes
  of it wait to be read (a process that was stopped for a while), and when the allocation came long ago.

Above that the driver does not use the answer when a checkpoint record of the claim or another holder of one of its
devices is there, and nothing but a success of it. It looks at that under the node's lock, and has to ask there whether
the answer still `stands`. `reconcile`, and asking whether a holder is gone, never come here.

What is left is a claim that was allocated here, never prepared, deallocated, and allocated here again with other
devices, all while the watch is alive and shows the first and not the end of it. The second allocation needs a scheduler
that sees that end *by a watch of its own*, two writes, and a kubelet that sees the pod: our watch must be behind
theirs by all of that. It is noticed when the watch goes on (`announced`), and the claim is prepared anew; the names
that the kubelet was given then bring the right devices: before its containers start, unless the watch was late by as
long as they need. The checkpoint never has a device twice even then, because the prepare of the device's new owner
finds it held and asks the API server.

Memory: a watch begins by telling all claims one by one (`sendInitialEvents`); a list of some thousands would double
the agent. Those of other nodes are dropped as they are read, those of this node when they are given out.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from ..allocations.allocation import Claim
from ..api_server.http_client import Stream
from ..api_server.kube import Kube
from ..kubeletplugin import ApiError

SETTLE = 1.0
"""Seconds after the beginning of a watch in which it may still tell about the past."""
FRESH = 60.0
"""Seconds between an allocation's event and its prepare; more than a pod takes to start."""
SILENCE = 150.0
"""Seconds without a word, not even a bookmark (one a minute), after which a watch is dead."""

MANY = 4096
"""Remembered claims after which the next watch begins anew, to sort out those of claims that are gone."""
REFUSED = 600.0
INITIAL_END = "k8s.io/initial-events-end"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Announced:
    claim: Claim
    at: float


class ClaimCache:
    """See the module. `follow` is to be run again whenever it ends."""

    def __init__(self, kube: Kube, *, driver: str, pool: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.announced: Callable[[Claim], None] = lambda claim: None
        """Called with each claim that the watch shows as allocated here."""
        self._kube = kube
        self._driver = driver
        self._pool = pool
        self._clock = clock
        self._version = ""
        """Where the watch is; empty: nowhere, it has to begin with all that there is."""
        self._stream: Stream | None = None
        self._unseen: set[str] | None = None
        """While a watch tells what there is: what is remembered of claims that it has not told of."""
        self._trusted_from = 0.0
        self._waiting: dict[str, _Announced] = {}
        """By uid, in the order of their events: allocated here and not asked for yet."""
        self._spent: set[str] = set()
        """UIDs of claims that are not given out (any more)."""
        self._given: set[str] = set()
        """UIDs of those that were, and whose end nobody has told since."""
        self._in_doubt = False
        """Another process may have used any claim; until a watch begins with all that there is."""

    async def follow(self) -> None:
        """Watch for as long as a watch lasts. Raises what goes wrong."""
        if self._in_doubt or len(self._spent) > MANY:
            self._version = ""
        self._in_doubt = False
        self._unseen = None if self._version else set(self._spent)
        self._trusted_from = self._clock() + SETTLE
        try:
            async with self._kube.follow_claims(self._version) as self._stream:
                await self._stream.each(self._event, silence=SILENCE)
        except ApiError as error:
            if error.status not in (429, 503):  # those are only busy
                self._version = ""
            if error.status == 422:
                log.warning("claims are read one by one, as the API server streams no lists (WatchList): %s", error)
                await asyncio.sleep(REFUSED)
            elif error.status != 410:  # 410: too long away, its past is forgotten
                raise
        finally:
            self._stream = None
            self._waiting.clear()

    async def take(self, uid: str) -> Claim | None:
        """The claim, if it is beyond doubt, and only once; None: ask the API server."""
        for _ in range(3):
            if not self._behind():
                break
            await asyncio.sleep(0)  # lets the watch be read
        else:
            return None
        found = self._waiting.pop(uid, None)
        if found is None:
            return None
        self._spent.add(uid)
        self._given.add(uid)
        return found.claim if self._clock() - found.at < FRESH else None

    def asked(self, uid: str) -> None:
        """The API server is asked for a claim, whatever its answer will be."""
        self._spend(uid)

    def unprepared(self, uid: str) -> None:
        """A claim was unprepared."""
        self._spend(uid)
        self._given.discard(uid)

    def stands(self, uid: str) -> bool:
        """Whether what `take` gave is still beyond doubt. Under the node's lock, when the checkpoint was read."""
        return not self._in_doubt and uid in self._given

    def used_elsewhere(self, uid: str | None) -> None:
        """Another process prepared or unprepared a claim, or (None) maybe any."""
        if uid is None:
            self._waiting.clear()
            self._in_doubt = True
        else:
            shown = self._waiting.pop(uid, None)
            self._spent.add(uid)
            self._given.discard(uid)
            if shown:  # the other one's watch may not have shown it that yet, and it may end before
                self.announced(shown.claim)

    def _spend(self, uid: str) -> None:
        self._waiting.pop(uid, None)
        self._spent.add(uid)

    def _behind(self) -> bool:
        return (
            self._stream is None
            or self._in_doubt
            or self._unseen is not None
            or self._clock() < self._trusted_from
            or self._stream.waiting()
        )

    def _event(self, line: bytes) -> None:
        if self._in_doubt:
            raise ApiError(410, "the checkpoint was written anew, and so the watch begins anew")
        event = orjson.loads(line)
        kind, claim = event["type"], event["object"]
        if kind == "ERROR":
            raise ApiError(int(claim.get("code") or 500), str(claim.get("message") or claim))
        metadata = claim["metadata"]
        if kind == "BOOKMARK":
            if self._unseen is not None and INITIAL_END in (metadata.get("annotations") or {}):
                self._begun(self._unseen)
            if self._unseen is None:
                self._version = metadata["resourceVersion"]
            return
        uid = metadata["uid"]
        here = self._here(claim)
        if self._unseen is not None:
            self._unseen.discard(uid)
            if here:  # who knows what was before
                self._spend(uid)
                self.announced(claim)
            return
        self._version = metadata["resourceVersion"]
        if kind == "DELETED":  # a uid does not come again
            self._waiting.pop(uid, None)
            self._spent.discard(uid)
            self._given.discard(uid)
        elif not here:
            self._waiting.pop(uid, None)
            self._given.discard(uid)
        else:
            if uid not in self._spent:
                self._announce(uid, claim)
            self.announced(claim)

    def _begun(self, unseen: set[str]) -> None:
        """All that there is has been told."""
        self._spent -= unseen
        self._given -= unseen
        self._unseen = None
        self._trusted_from = self._clock() + SETTLE

    def _announce(self, uid: str, claim: dict[str, Any]) -> None:
        now = self._clock()
        while self._waiting and now - next(iter(self._waiting.values())).at >= FRESH:
            del self._waiting[next(iter(self._waiting))]
        claim["metadata"].pop("managedFields", None)
        self._waiting.pop(uid, None)
        self._waiting[uid] = _Announced(claim, now)

    def _here(self, claim: Claim) -> bool:
        allocated = (claim.get("status") or {}).get("allocation") or {}
        results = (allocated.get("devices") or {}).get("results") or []
        return any(result["driver"] == self._driver and result["pool"] == self._pool for result in results)
