"""The life of the extender's process: serve at once, be ready when all is listed, finish bindings at the end."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from neuron_operator import kube
from neuron_operator.extender.binding import Binder
from neuron_operator.extender.server import application
from neuron_operator.extender.state import State
from neuron_operator.extender.usage_maps import UsageMaps
from neuron_operator.extender.watching import follow
from neuron_operator.kube import Kube

_PODS_THAT_RUN = "status.phase!=Succeeded,status.phase!=Failed"


async def run(*, port: int, kubeconfig: str | None) -> int:
    """Run until a signal; returns an exit code."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with kube.connect(kubeconfig) as api, serving(api, port=port) as working:
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait([working, stopped], return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if working.done():
            working.result()  # a fault of ours: end with it, and start from nothing
    return 0


@asynccontextmanager
async def serving(api: Kube, *, port: int, host: str | None = None) -> AsyncIterator[asyncio.Task[None]]:
    """Answer kube-scheduler while the block runs; yields what feeds the answers, which never ends by itself."""
    changed = asyncio.Event()
    state = State(changed.set)
    runner = web.AppRunner(application(state, Binder(api, state)), access_log=None)
    await runner.setup()
    working = asyncio.create_task(_work(api, state, changed))
    try:
        await web.TCPSite(runner, host=host, port=port).start()
        yield working
    finally:
        await runner.cleanup()  # waits for bindings that are under way
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await working


async def _work(api: Kube, state: State, changed: asyncio.Event) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(follow(api, kube.NODES, listed=state.list_nodes, seen=state.see_node))
        group.create_task(follow(api, kube.NEURON_NODES, listed=state.list_neuron_nodes, seen=state.see_neuron_node))
        group.create_task(follow(api, kube.PODS, listed=state.list_pods, seen=state.see_pod, fields=_PODS_THAT_RUN))
        group.create_task(UsageMaps(api, state, changed).run())
