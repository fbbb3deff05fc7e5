"""What the operator answers over HTTP: ``/healthz`` and, on a port of its own, ``/metrics``.

kopf has a liveness endpoint, but only while it runs, and a replica that waits for the Lease is as alive as the
one that leads.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest


async def _healthz(_: web.Request) -> web.Response:
    return web.Response(text="ok\n")


async def _metrics(_: web.Request) -> web.Response:
    return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})


@asynccontextmanager
async def serve(*, health_port: int, metrics_port: int) -> AsyncIterator[None]:
    """Answer on all addresses while the block runs; port 0 leaves an endpoint out."""
    runners = []
    try:
        for port, path, answer in ((health_port, "/healthz", _healthz), (metrics_port, "/metrics", _metrics)):
            if port:
                app = web.Application()
                app.router.add_get(path, answer)
                runners.append(web.AppRunner(app, access_log=None))
                await runners[-1].setup()
                await web.TCPSite(runners[-1], port=port).start()
        yield
    finally:
        for runner in runners:
            await runner.cleanup()
