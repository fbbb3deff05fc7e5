"""What runs in the process: two watches, some writers, one page of metrics."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from ..agent import http_server
from ..api_server.counter_support import keeps_counters
from ..api_server.kube import Kube
from ..kubeletplugin import ApiError
from ..kubeletplugin.backoff import Backoff
from ..names import VIRTUAL
from .metrics import FleetMetrics
from .publisher import WRITERS, Publisher
from .slices_api import SlicesApi

_PROBE = "neuron-sim-probe"
_RETRY, _RETRY_MAX, _CALM = 0.5, 30.0, 60.0
_GONE = 410

log = logging.getLogger(__name__)


async def run(kube: Kube, *, driver: str, efa: bool, metrics_port: int | None, stop: asyncio.Event) -> None:
    """Publish until stopped; what is published stays."""
    metrics = FleetMetrics()

    async def counters() -> bool:
        return await keeps_counters(kube.request, driver=driver, node=_PROBE, labels={VIRTUAL: "true"})

    publisher = Publisher(SlicesApi(kube), driver=driver, efa=efa, counters=counters, metrics=metrics)

    async def metrics_page() -> tuple[int, bytes]:
        return 200, metrics.render()

    async def health_page() -> tuple[int, bytes]:
        return (200, b"ok\n") if publisher.known else (503, b"the API server has not told what there is yet\n")

    server = None
    if metrics_port is not None:
        server = await http_server.serve({"/metrics": metrics_page, "/healthz": health_page}, port=metrics_port)
    work = [
        _forever("NeuronNodes", publisher.follow_neuron_nodes),
        _forever("slices", publisher.follow_slices),
        *(publisher.write() for _ in range(WRITERS)),
    ]
    tasks: list[asyncio.Task[Any]] = [asyncio.create_task(each) for each in (stop.wait(), *work)]
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            task.result()
        log.info("stopping; what is published stays")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if server is not None:
            server.close()


async def _forever(what: str, follow: Callable[[], Awaitable[None]]) -> None:
    retry = Backoff(_RETRY, _RETRY_MAX, calm=_CALM)
    while True:
        started = time.monotonic()
        try:
            await follow()
        except (ApiError, OSError) as error:
            if not (isinstance(error, ApiError) and error.status == _GONE):
                log.warning("%s: %s; beginning again", what, error or type(error).__name__)
        await asyncio.sleep(retry.next(lasted=time.monotonic() - started))
