"""List, watch, and list again whenever the watch may have missed something."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable

from neuron_operator.kube import ApiError, Json, Kube, NotFound, Resource

_PAUSE = 1.0
_LONGEST_PAUSE = 30.0

logger = logging.getLogger(__name__)


async def follow(
    api: Kube,
    resource: Resource,
    *,
    listed: Callable[[Iterable[Json], float], None],
    seen: Callable[[Json, bool], None],
    labels: str = "",
    fields: str = "",
) -> None:
    """Tell of all objects of a kind: ``listed(objects, when they were asked for)``, then ``seen(object, deleted)``.

    A kind that the API server does not serve has no objects.
    """
    pause = _PAUSE
    while True:
        asked = time.monotonic()
        try:
            listing = await api.list(resource, labels=labels, fields=fields)
            listed(listing.items, asked)
            version = str(listing.version)
            while True:
                began = time.monotonic()
                async for kind, item in api.watch(resource, version=version, labels=labels, fields=fields):
                    version = item["metadata"]["resourceVersion"]
                    if kind != "BOOKMARK":
                        seen(item, kind == "DELETED")
                    pause = _PAUSE
                if time.monotonic() - began < _PAUSE:  # something in between that does not let watches live
                    await asyncio.sleep(_PAUSE)
        except NotFound:
            listed([], asked)
            await asyncio.sleep(_LONGEST_PAUSE)
        except ApiError as error:
            # 410: the version that we had is too old to go on from
            if error.status != 410:
                logger.warning("watch of %s broke off, listing again: %s", resource.plural, error)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
