"""AWS's annotations on nodes: which chips and cores are in use, for people and dashboards.

AWS's extension reads them back as its memory, and they are what goes stale there. Here they are only written, from
the same picture that decisions are made from, and whoever removes them gets them again.
"""

import asyncio
import logging
from collections.abc import Mapping

from neuron_operator.extender import names
from neuron_operator.extender.state import State
from neuron_operator.kube import ApiError, Kube, NotFound

_TOGETHER = 0.2
_RETRY = 5.0

logger = logging.getLogger(__name__)


class UsageMaps:
    """Keeps the annotations of all nodes right."""

    def __init__(self, api: Kube, state: State, changed: asyncio.Event) -> None:
        self._api = api
        self._state = state
        self._changed = changed

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._changed.wait()
            await asyncio.sleep(_TOGETHER)  # pods come in swarms
            self._changed.clear()
            if self._state.complete and not await self.write():
                await asyncio.sleep(_RETRY)
                self._changed.set()

    async def write(self) -> bool:
        """Write what is not right; whether all of it could be written."""
        done = True
        for node in list(self._state.nodes):
            patch = self._patch(node)
            if patch:
                try:
                    await self._api.annotate_node(node, patch, manager=names.FIELD_MANAGER)
                except NotFound:
                    continue
                except ApiError as error:
                    logger.warning("annotations of node %s not written, will be tried again: %s", node, error)
                    done = False
        return done

    def _patch(self, node: str) -> Mapping[str, str | None]:
        facts = self._state.nodes.get(node)
        if facts is None:
            return {}
        wanted = self._state.usage_maps(node)
        if wanted is None:
            return dict.fromkeys(facts.usage_maps, None) if facts.ours else {}
        return {key: value for key, value in wanted.items() if facts.usage_maps.get(key) != value}
