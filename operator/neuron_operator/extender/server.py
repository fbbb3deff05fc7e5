"""The HTTP side: `filter` and `bind` of kube-scheduler's extender API v1, `/healthz`, `/readyz` and `/metrics`.

The API's Go types carry no JSON names, so fields are called like the Go fields, and Go reads them in any case; so
does this. A pod that fits nowhere and a binding that failed are answers, not HTTP errors: kube-scheduler puts their
sentences into the pod's Event.
"""

import logging
import time
from collections.abc import Mapping
from typing import Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from neuron_operator.conditions import listing
from neuron_operator.extender import metrics
from neuron_operator.extender.binding import Binder, NotBound
from neuron_operator.extender.demand import demand
from neuron_operator.extender.occupancy import Refusal, place
from neuron_operator.extender.state import State

Json = dict[str, Any]

# node names, or with nodeCacheCapable: false whole nodes
_LARGEST_BODY = 256 * 1024 * 1024

logger = logging.getLogger(__name__)


def application(state: State, binder: Binder) -> web.Application:
    """The extender as an aiohttp application."""
    server = _Server(state, binder)
    app = web.Application(client_max_size=_LARGEST_BODY)
    app.router.add_post("/filter", server.filter)
    app.router.add_post("/bind", server.bind)
    app.router.add_get("/healthz", server.healthz)
    app.router.add_get("/readyz", server.readyz)
    app.router.add_get("/metrics", server.metrics)
    return app


class _Server:
    def __init__(self, state: State, binder: Binder) -> None:
        self._state = state
        self._binder = binder

    async def filter(self, request: web.Request) -> web.Response:
        began = time.monotonic()
        arguments = await _arguments(request, "pod")
        result = self._filter(arguments)
        error, fitting = result["Error"], result["NodeNames"] or (result["Nodes"] or {}).get("items")
        _count("filter", began, "error" if error else "done" if fitting else "refused")
        return web.json_response(result)

    def _filter(self, arguments: Json) -> Json:
        pod, nodes = arguments["pod"], arguments.get("nodes")
        names = [node["metadata"]["name"] for node in nodes["items"]] if nodes else arguments.get("nodenames") or []
        result: Json = {
            "Nodes": None,
            "NodeNames": None,
            "FailedNodes": {},
            "FailedAndUnresolvableNodes": {},
            "Error": "",
        }
        if not self._state.complete:
            result["Error"] = "the scheduler extension has just started and does not know all pods yet"
            return result
        fitting = []
        for name in names:
            refusal = self._refusal(pod, name)
            if refusal is None:
                fitting.append(name)
            else:
                result["FailedAndUnresolvableNodes" if refusal.final else "FailedNodes"][name] = refusal.reason
        if nodes:
            kept = set(fitting)
            result["Nodes"] = {"items": [node for node in nodes["items"] if node["metadata"]["name"] in kept]}
        else:
            result["NodeNames"] = fitting
        _log_filter(pod, fitting, result)
        return result

    def _refusal(self, pod: Json, node: str) -> Refusal | None:
        served = self._state.served(node)
        wanted = demand(pod)
        if served is None or not wanted:
            return None
        found = place(self._state.occupancy(served, but=pod["metadata"].get("uid", "")), wanted)
        return found if isinstance(found, Refusal) else None

    async def bind(self, request: web.Request) -> web.Response:
        began = time.monotonic()
        arguments = await _arguments(request, "podname", "podnamespace", "poduid", "node")
        namespace, name, node = (arguments[key] for key in ("podnamespace", "podname", "node"))
        logger.info("Executing Bind Request!", extra={"pod": f"{namespace}/{name}", "node": node})
        error = ""
        try:
            await self._binder.bind(namespace=namespace, name=name, uid=arguments["poduid"], node=node)
        except NotBound as refused:
            error = str(refused)
            logger.warning("POD %s/%s is not bound: %s", namespace, name, error, extra={"node": node})
        metrics.ASSUMED.set(self._state.assumed)
        _count("bind", began, "refused" if error else "done")
        logger.info("Finished executing Bind Request...", extra={"pod": f"{namespace}/{name}", "node": node})
        return web.json_response({"Error": error})

    async def healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(self, _: web.Request) -> web.Response:
        if self._state.complete:
            return web.Response(text="ok\n")
        return web.Response(status=503, text="nodes and pods are not read completely yet\n")

    async def metrics(self, _: web.Request) -> web.Response:
        metrics.ASSUMED.set(self._state.assumed)
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})


async def _arguments(request: web.Request, *needed: str) -> Json:
    try:
        body = await request.json()
        found = {key.lower(): value for key, value in body.items()}
    except (ValueError, AttributeError):
        raise web.HTTPBadRequest(text="the body has to be a JSON object of kube-scheduler's extender API\n") from None
    missing = [key for key in needed if not found.get(key)]
    if missing:
        raise web.HTTPBadRequest(text=f"missing in the body: {', '.join(missing)}\n")
    return found


def _log_filter(pod: Json, fitting: list[str], result: Mapping[str, Any]) -> None:
    metadata = pod["metadata"]
    name = f"{metadata.get('namespace', 'default')}/{metadata['name']}"
    failed = result["FailedNodes"] | result["FailedAndUnresolvableNodes"]
    for node in fitting[:5]:
        logger.info("POD %s fits in Node:%s", name, node)
    logger.info("Filtered nodes: [%s]", listing(fitting), extra={"pod": name})
    logger.info("Failed nodes: map[%s]", listing([f"{node}:{reason}" for node, reason in failed.items()]))
    logger.info("Finished Processing Filter Request...", extra={"pod": name})


def _count(verb: str, began: float, result: str) -> None:
    metrics.SECONDS.labels(verb).observe(time.monotonic() - began)
    metrics.REQUESTS.labels(verb, result).inc()
