"""Tells pods that wait in vain why they do (``pending``), now and then, and each once.

Pods are listed, not watched: a watch would bring every pod of the cluster through here twice, to find the few that
were written for another road. The API server selects those that wait for a node, and where many do, they are looked at
less often.
"""

import asyncio
import logging
from datetime import UTC, datetime
from typing import NoReturn

from neuron_operator import kube
from neuron_operator.fleet import Fleet
from neuron_operator.kube import Api, ApiError, Conflict
from neuron_operator.pending import UNSCHEDULED, Oversized, event, oversized, served_resources

_EVERY = 10.0
_EVERY_IF_MANY = 60.0
_MANY = 200
# The API server drops Events after an hour.
_TELL_AGAIN = 3000.0

logger = logging.getLogger(__name__)


class PendingPods:
    """The pods that wait, and which of them were told."""

    def __init__(self, api: Api, fleet: Fleet) -> None:
        self._api = api
        self._fleet = fleet
        self._told: dict[str, float] = {}

    async def run(self) -> NoReturn:
        """Look until cancelled."""
        while True:
            pause = await self.look(datetime.now(UTC))
            await asyncio.sleep(pause)

    async def look(self, now: datetime) -> float:
        """Tell the pods that were not told yet; returns in how many seconds to look again."""
        snapshot = self._fleet.snapshot()
        resources = served_resources(snapshot.neuron_nodes, snapshot.plain_pods) if snapshot else ()
        if not resources:
            return _EVERY
        try:
            waiting = (await self._api.list(kube.PODS, fields=UNSCHEDULED)).items
        except ApiError as error:
            logger.warning("pods that wait for a node cannot be listed: %s", error)
            return _EVERY
        found = {each.uid: each for pod in waiting if (each := oversized(pod, resources=resources))}
        still = now.timestamp() - _TELL_AGAIN
        self._told = {uid: told for uid, told in self._told.items() if uid in found and told > still}
        for uid, each in found.items():
            if uid not in self._told and await self._tell(each, now=now.strftime("%Y-%m-%dT%H:%M:%SZ")):
                self._told[uid] = now.timestamp()
        return _EVERY_IF_MANY if len(waiting) > _MANY else _EVERY

    async def _tell(self, found: Oversized, *, now: str) -> bool:
        try:
            await self._api.create(kube.EVENTS, event(found, now=now))
        except Conflict:  # told before we were started
            return True
        except ApiError as error:
            logger.warning("Event not written: %s", error, extra={"pod": f"{found.namespace}/{found.name}"})
            return False
        return True
