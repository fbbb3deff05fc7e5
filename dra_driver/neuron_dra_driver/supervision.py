"""Work that lasts as long as the process: begun again whenever it ends or fails, less often the more it does.

A watch ends every few minutes and an API server is away now and then, and none of that is a reason to take the other
work of the process down. What is not expected is logged with its traceback, and tried again all the same.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NoReturn

from .errors import AgentError
from .kubeletplugin import ApiError
from .kubeletplugin.backoff import Backoff

_RETRY, _RETRY_MAX, _CALM = 1.0, 30.0, 30.0
_TOO_OLD = 410
"""A watch has to begin with a list again, which nobody has to know."""

log = logging.getLogger(__name__)


async def forever(
    what: str, work: Callable[[], Awaitable[None]], *, failed: Callable[[], None] | None = None
) -> NoReturn:
    """Do a piece of work again and again; `failed` is called after each failure, before the pause."""
    retry = Backoff(_RETRY, _RETRY_MAX, calm=_CALM)
    while True:
        started = time.monotonic()
        try:
            await work()
        except Exception as error:
            if not (isinstance(error, ApiError) and error.status == _TOO_OLD):
                reason = f"{type(error).__name__}: {error}"
                log.warning("%s: %s; trying again", what, reason, exc_info=_unexpected(error), extra={"work": what})
            if failed is not None:
                failed()
        await asyncio.sleep(retry.next(lasted=time.monotonic() - started))


async def cancel(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """End tasks, and wait until they have."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _unexpected(error: Exception) -> bool:
    """Neither said in a sentence, nor an outage."""
    return not isinstance(error, AgentError | ApiError | OSError)
