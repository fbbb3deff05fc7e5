"""What runs in the process: four watches, some writers, pages of metrics."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any

from ..agent import http_server
from ..api_server.counter_support import keeps_counters
from ..api_server.kube import Kube
from ..clock import SteadyClock
from ..names import VIRTUAL
from ..supervision import cancel, forever
from .device_page import DevicePage
from .metrics import FleetMetrics
from .publisher import WRITERS, Publisher
from .slices_api import SlicesApi
from .workloads import Workloads
from .workloads_api import WorkloadsApi

_PROBE = "neuron-sim-probe"

log = logging.getLogger(__name__)


async def run(
    kube: Kube, *, driver: str, efa: bool, metrics_port: int | None, metrics_pages: int, stop: asyncio.Event
) -> None:
    """Publish until stopped; what is published stays.

    All metrics are at /metrics; of several pages, each with a part of the nodes, the first is at /metrics/1.
    """
    metrics = FleetMetrics()
    workloads = Workloads(driver=driver)
    users = WorkloadsApi(kube, workloads)
    devices = DevicePage(workloads, clock=SteadyClock())

    async def counters() -> bool:
        return await keeps_counters(kube.request, driver=driver, node=_PROBE, labels={VIRTUAL: "true"})

    publisher = Publisher(SlicesApi(kube), driver=driver, efa=efa, counters=counters, metrics=metrics, devices=devices)

    async def metrics_page(part: int, parts: int) -> AsyncGenerator[bytes, None]:
        if part == 0:
            yield metrics.render()
        async for block in devices.blocks(part, parts):
            yield block

    async def health_page() -> tuple[int, bytes]:
        return (200, b"ok\n") if publisher.known else (503, b"the API server has not told what there is yet\n")

    server = None
    if metrics_port is not None:
        streams = {f"/metrics/{part + 1}": partial(metrics_page, part, metrics_pages) for part in range(metrics_pages)}
        streams["/metrics"] = partial(metrics_page, 0, 1)
        server = await http_server.serve({"/healthz": health_page}, streams=streams, port=metrics_port)
    work = [
        forever("NeuronNodes", publisher.follow_neuron_nodes),
        forever("slices", publisher.follow_slices),
        forever("claims", users.follow_claims),
        forever("pods", users.follow_pods),
        *(publisher.write() for _ in range(WRITERS)),
    ]
    tasks: list[asyncio.Task[Any]] = [asyncio.create_task(each) for each in (stop.wait(), *work)]
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            task.result()
        log.info("stopping; what is published stays")
    finally:
        await cancel(tasks)
        if server is not None:
            server.close()
