"""Python's garbage collector, in a process that knows a large fleet.

A full collection looks at every object: half a second at 5,000 nodes, in which nothing else happens. By itself it
begins whenever enough objects were made, in the middle of a gang. What is known of a fleet has no cycles and is freed
without it. So what has lived for a minute is frozen, which takes it out of the collector's sight. Full collections
are made here only: every minute of what is new since, and once an hour of everything, as cycles may have been frozen.
"""

import asyncio
import gc
import itertools

_PERIOD = 60.0
_EVERYTHING = 60
"""Every so many times."""
_NEVER = 1_000_000_000


async def collect() -> None:
    """See to it until cancelled."""
    young, middle, old = gc.get_threshold()
    gc.set_threshold(young, middle, _NEVER)
    try:
        for times in itertools.count(1):
            await asyncio.sleep(_PERIOD)
            collect_and_freeze(everything=times % _EVERYTHING == 0)
    finally:
        gc.set_threshold(young, middle, old)
        gc.unfreeze()


def collect_and_freeze(*, everything: bool) -> None:
    """Free what is garbage, of everything or of what was made since the last time, and freeze what is left."""
    if everything:
        gc.unfreeze()
    gc.collect()
    gc.freeze()
