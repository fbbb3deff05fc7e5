"""The short way of a fault to its node: beside the ``Reconciler``, which looks at the whole fleet.

A fault changes one NeuronNode, and who rehearses failures wants to see it in milliseconds. What the node is to carry
follows from the faults of that node alone (``faults``), so it is written as soon as the fault is seen. Everything that
looks further (conditions, UltraServers, a fault that names nothing) is the plan's, as is whatever is missed here: a
write that fails, and faults that were made while nobody watched.
"""

import asyncio
import logging
from datetime import UTC, datetime
from typing import Any, NoReturn

from neuron_operator import faults, kube, names
from neuron_operator.expansion import unchanged
from neuron_operator.fleet import Fleet
from neuron_operator.kube import Api, ApiError
from neuron_operator.planning import with_faults

Json = dict[str, Any]

logger = logging.getLogger(__name__)


class Breaking:
    """Brings faults to their nodes."""

    def __init__(self, *, api: Api, fleet: Fleet) -> None:
        self._api = api
        self._fleet = fleet
        self._hit: dict[str, None] = {}
        """Names of nodes, in the order in which they were hit."""
        self._changed = asyncio.Event()

    def seen(self, fault: Json) -> None:
        """A fault came, changed or went, and the fleet state knows."""
        name = fault["metadata"]["name"]
        hit = [(fault["spec"].get("target") or {}).get("nodeName")]
        hit += [item["metadata"]["name"] for item in self._fleet.neuron_nodes.where(lambda item: _carries(item, name))]
        self._hit.update(dict.fromkeys(filter(None, hit)))
        self._changed.set()

    async def run(self) -> NoReturn:
        """Go on until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            while self._hit:
                node = next(iter(self._hit))
                del self._hit[node]
                await self._bring(node)

    async def _bring(self, node: str) -> None:
        wished = broken(self._fleet, node, now=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
        if wished is None:
            return
        try:
            self._fleet.neuron_nodes.observe(await self._api.apply(kube.NEURON_NODES, wished, force=True))
        except ApiError as error:
            logger.warning("faults of node %s are not told yet, the next plan will: %s", node, error)


def broken(fleet: Fleet, node: str, *, now: str) -> Json | None:
    """A node's NeuronNode with its faults at this time, RFC 3339; None where there is none, or it says so already."""
    item = fleet.neuron_nodes.get(node)
    if item is None or names.LABEL_POOL not in (item["metadata"].get("labels") or {}):
        return None
    on_it = fleet.faults.where(
        lambda fault: (
            (fault["spec"].get("target") or {}).get("nodeName") == node and "deletionTimestamp" not in fault["metadata"]
        )
    )
    verdicts = faults.judge(on_it, nodes={node}, specs={node: item["spec"]}, now=now)
    wished = with_faults(unchanged(item), verdicts.by_node.get(node, ()))
    return None if wished["spec"] == item["spec"] or "deletionTimestamp" in item["metadata"] else wished


def _carries(item: Json, fault: str) -> bool:
    return any(found["name"] == fault for found in item["spec"].get("faults") or ())
