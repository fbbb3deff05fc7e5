"""An API server on a socket, with what the extender relies on, and the extender in front of it."""

import asyncio
import copy
import itertools
import json
import ssl
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import ClientSession, web
from neuron_operator import kube
from neuron_operator.extender import running, usage_maps

Json = dict[str, Any]

KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: c
contexts: [{{name: c, context: {{cluster: c, user: u}}}}]
clusters: [{{name: c, cluster: {{server: "http://127.0.0.1:{port}"}}}}]
users: [{{name: u, user: {{token: secret}}}}]
"""


class Cluster:
    """Pods, nodes and NeuronNodes; lists, watches, bindings and merge patches as Kubernetes does them."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Json]] = {"pods": {}, "nodes": {}, "neuronnodes": {}}
        self.events: list[tuple[str, str, Json]] = []
        self.changed = asyncio.Condition()
        self.watches_flow = asyncio.Event()
        self.watches_flow.set()
        self.lists_flow = asyncio.Event()
        self.lists_flow.set()
        self.before_binding: Callable[[], Any] | None = None
        self.after_binding: Callable[[], web.Response] | None = None
        self.unreadable = False
        self.expired = 0
        self.missing: set[str] = set()
        self._versions = itertools.count(1)
        self.version = 0

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/api/v1/{kind:pods|nodes}", self._collection)
        app.router.add_get("/apis/neuron-sim.dev/v1alpha1/{kind:neuronnodes}", self._collection)
        app.router.add_get("/api/v1/namespaces/{namespace}/pods/{name}", self._get_pod)
        app.router.add_post("/api/v1/namespaces/{namespace}/pods/{name}/binding", self._bind)
        app.router.add_patch("/api/v1/nodes/{name}/status", self._patch_node)
        return app

    # --- what a test does to it

    async def put(self, kind: str, item: Json) -> Json:
        item = copy.deepcopy(item)
        item["metadata"].setdefault("uid", f"uid-of-{item['metadata']['name']}")
        key = _key(item)
        await self._record("MODIFIED" if key in self.objects[kind] else "ADDED", kind, item)
        self.objects[kind][key] = item
        return item

    async def drop(self, kind: str, key: str) -> None:
        await self._record("DELETED", kind, copy.deepcopy(self.objects[kind].pop(key)))

    async def change(self, kind: str, key: str, change: Callable[[Json], Any]) -> None:
        item = copy.deepcopy(self.objects[kind][key])
        change(item)
        await self.put(kind, item)

    def pod(self, name: str) -> Json:
        return self.objects["pods"][f"default/{name}"]

    def ids(self, name: str) -> list[int]:
        return [int(part) for part in self.pod(name)["metadata"]["annotations"]["AWS_NEURON_IDS"].split(",")]

    async def _record(self, event: str, kind: str, item: Json) -> None:
        async with self.changed:
            self.version = next(self._versions)
            item["metadata"]["resourceVersion"] = str(self.version)
            self.events.append((event, kind, copy.deepcopy(item)))
            self.changed.notify_all()

    # --- what it answers

    async def _collection(self, request: web.Request) -> web.StreamResponse:
        kind = request.match_info["kind"]
        if kind in self.missing:
            return _failure(404, "NotFound", "the server could not find the requested resource")
        if "watch" in request.query:
            return await self._watch(request, kind)
        await self.lists_flow.wait()
        items = [item for item in self.objects[kind].values() if _runs(item) or "fieldSelector" not in request.query]
        return web.json_response({"metadata": {"resourceVersion": str(self.version)}, "items": items})

    async def _watch(self, request: web.Request, kind: str) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        since = int(request.query["resourceVersion"])
        if self.expired:
            self.expired -= 1
            status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
            await response.write(json.dumps({"type": "ERROR", "object": status}).encode() + b"\n")
            return response
        told = 0
        while True:
            await self.watches_flow.wait()
            for event, of, item in self.events[told:]:
                told += 1
                version = int(item["metadata"]["resourceVersion"])
                if of == kind and version > since:
                    if not _runs(item) and "fieldSelector" in request.query:
                        event = "DELETED"
                    await response.write(json.dumps({"type": event, "object": item}).encode() + b"\n")
            async with self.changed:
                while len(self.events) == told:
                    await self.changed.wait()

    async def _get_pod(self, request: web.Request) -> web.Response:
        if self.unreadable:
            return _failure(500, "InternalError", "etcd is away")
        pod = self.objects["pods"].get("{namespace}/{name}".format(**request.match_info))
        return web.json_response(pod) if pod else _failure(404, "NotFound", "pods not found")

    async def _bind(self, request: web.Request) -> web.Response:
        if self.before_binding:
            await self.before_binding()
        binding = await request.json()
        key = "{namespace}/{name}".format(**request.match_info)
        pod = copy.deepcopy(self.objects["pods"].get(key))
        if pod is None:
            return _failure(404, "NotFound", f"pods {key} not found")
        metadata = pod["metadata"]
        if binding["metadata"]["uid"] != metadata["uid"]:
            return _failure(409, "Conflict", "Precondition failed: UID in precondition")
        if metadata.get("deletionTimestamp"):
            return _failure(409, "Conflict", "pod is being deleted, cannot be assigned to a host")
        if pod["spec"].get("nodeName"):
            return _failure(409, "Conflict", f"pod is already assigned to node {pod['spec']['nodeName']}")
        pod["spec"]["nodeName"] = binding["target"]["name"]
        metadata["annotations"] = metadata.get("annotations", {}) | binding["metadata"].get("annotations", {})
        await self.put("pods", pod)
        return self.after_binding() if self.after_binding else web.json_response({"kind": "Status"}, status=201)

    async def _patch_node(self, request: web.Request) -> web.Response:
        assert request.content_type == "application/merge-patch+json"
        node = copy.deepcopy(self.objects["nodes"][request.match_info["name"]])
        patch = await request.json()
        annotations = node["metadata"].setdefault("annotations", {})
        for key, value in patch["metadata"]["annotations"].items():
            if value is None:
                annotations.pop(key, None)
            else:
                annotations[key] = value
        fields = {"f:metadata": {"f:annotations": {f"f:{key}": {} for key in annotations}}}
        node["metadata"]["managedFields"] = [{"manager": request.query["fieldManager"], "fieldsV1": fields}]
        return web.json_response(await self.put("nodes", node))


class Scheduler:
    """kube-scheduler's side of the protocol, as its Go code writes it."""

    def __init__(self, session: ClientSession, url: str) -> None:
        self._session = session
        self.url = url

    async def filter(self, pod: Json, *nodes: str) -> Json:
        return await self.post("filter", {"Pod": pod, "Nodes": None, "NodeNames": list(nodes)})

    async def bind(self, pod: Json, node: str) -> str:
        """Returns the error, empty if there is none."""
        metadata = pod["metadata"]
        answer = await self.post(
            "bind",
            {
                "PodName": metadata["name"],
                "PodNamespace": metadata["namespace"],
                "PodUID": metadata["uid"],
                "Node": node,
            },
        )
        return answer["Error"]

    async def post(self, verb: str, body: Json) -> Json:
        async with self._session.post(f"{self.url}/{verb}", json=body) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def get(self, path: str) -> tuple[int, str]:
        async with self._session.get(f"{self.url}/{path}") as answer:
            return answer.status, await answer.text()

    async def fits(self, pod: Json, node: str) -> bool:
        return (await self.filter(pod, node))["NodeNames"] == [node]


def _key(item: Json) -> str:
    metadata = item["metadata"]
    return f"{metadata['namespace']}/{metadata['name']}" if "namespace" in metadata else metadata["name"]


def _runs(item: Json) -> bool:
    return (item.get("status") or {}).get("phase") not in ("Succeeded", "Failed")


def _failure(status: int, reason: str, message: str) -> web.Response:
    return web.json_response({"kind": "Status", "code": status, "reason": reason, "message": message}, status=status)


def make_pod(name: str = "p", *, chips: int = 0, cores: int = 0, **more: Any) -> Json:
    """A pod with one container."""
    requests = {"aws.amazon.com/neuron": str(chips)} if chips else {}
    requests |= {"aws.amazon.com/neuroncore": str(cores)} if cores else {}
    return {
        "metadata": {"name": name, "namespace": "default", "uid": f"uid-of-{name}", **more.pop("metadata", {})},
        "spec": {"containers": [{"name": "c", "resources": {"requests": requests}}], **more.pop("spec", {})},
        "status": more.pop("status", {}),
    }


def make_neuron_node(
    name: str = "n", instance_type: str = "trn1.32xlarge", *, lnc: int = 1, resources: str = "DevicePlugin", **spec: Any
) -> Json:
    """A NeuronNode as the operator writes it."""
    return {
        "metadata": {"name": name},
        "spec": {"instanceType": instance_type, "logicalNeuronCore": lnc, "resources": resources, **spec},
    }


async def eventually(condition: Callable[[], Any]) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(10):
        while True:
            found = condition()
            if await found if asyncio.iscoroutine(found) else found:
                return
            await asyncio.sleep(0.002)


@pytest.fixture(scope="session")
def pod() -> Callable[..., Json]:
    return make_pod


@pytest.fixture(scope="session")
def neuron_node() -> Callable[..., Json]:
    return make_neuron_node


@pytest.fixture(scope="session")
def until() -> Callable[..., Any]:
    return eventually


@pytest.fixture
async def cluster() -> Cluster:
    """One device-plugin node `n`, a trn1.32xlarge."""
    cluster = Cluster()
    await cluster.put("nodes", {"metadata": {"name": "n"}})
    await cluster.put("neuronnodes", make_neuron_node())
    return cluster


@pytest.fixture
async def kubeconfig(cluster, tmp_path):
    runner = web.AppRunner(cluster.app(), handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    path = tmp_path / "kubeconfig"
    path.write_text(KUBECONFIG.format(port=runner.addresses[0][1]))
    yield str(path)
    await runner.cleanup()


@pytest.fixture
async def api(kubeconfig, monkeypatch):
    # the machine's CA bundle takes longer to read than a test, and nothing here is encrypted
    monkeypatch.setattr(ssl.SSLContext, "load_default_certs", lambda *_: None)
    monkeypatch.setattr(usage_maps, "_TOGETHER", 0.0)
    async with kube.connect(kubeconfig) as api:
        yield api


@pytest.fixture
def extender(api, unused_tcp_port_factory):
    """Starts an extender; the block's value is kube-scheduler's side of it."""

    @asynccontextmanager
    async def start(*, wait: bool = True):
        port = unused_tcp_port_factory()
        async with running.serving(api, port=port, host="127.0.0.1"), ClientSession() as session:
            scheduler = Scheduler(session, f"http://127.0.0.1:{port}")

            async def ready():
                return (await scheduler.get("readyz"))[0] == 200

            if wait:
                await eventually(ready)
            yield scheduler

    return start


@pytest.fixture
async def scheduler(extender):
    async with extender() as scheduler:
        yield scheduler
