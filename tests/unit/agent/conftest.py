"""A small API server over real HTTP, a node's folders, and claims as the scheduler leaves them."""

import asyncio
import json
import os
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from neuron_dra_driver.agent.settings import Settings
from neuron_dra_driver.allocations.allocation import Allocation, allocation_on
from neuron_dra_driver.api_server.kube import Kube
from neuron_dra_driver.node import SimulatedNode, standalone
from neuron_dra_driver.prepared.runtime_tree import RuntimeTrees
from neuron_dra_driver.prepared.store import ClaimStore
from neuron_dra_driver.records.checkpoint import Checkpoint

Object = dict[str, Any]

DRIVER = "neuron.aws.com"
NODE = "worker-1"
NAMESPACED = {"resourceclaims"}


def claim(
    name: str = "mine",
    *,
    uid: str = "",
    devices: Mapping[str, Sequence[int | str]] | None = None,
    pool: str = NODE,
    annotations: dict[str, str] | None = None,
    admin: bool = False,
    results: list[Object] | None = None,
    config: Sequence[Object] = (),
) -> Object:
    """An allocated ResourceClaim; `devices`: numbers of chips, or names, by request; `config`: see `opaque`."""
    granted = {"neurons": [0]} if devices is None else devices
    if results is None:
        results = [
            {
                "request": request,
                "driver": DRIVER,
                "pool": pool,
                "device": device if isinstance(device, str) else f"neuron-device-{device}",
            }
            | ({"adminAccess": True} if admin else {})
            for request, given in granted.items()
            for device in given
        ]
    names = dict.fromkeys(result["request"].partition("/")[0] for result in results)
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {
            "namespace": "team",
            "name": name,
            "uid": uid or f"uid-of-{name}",
            "annotations": annotations or {},
        },
        "spec": {
            "devices": {
                "requests": [{"name": request, "exactly": {"deviceClassName": "some.class"}} for request in names],
                "config": [
                    {key: value for key, value in entry.items() if key != "source"}
                    for entry in config
                    if entry["source"] == "FromClaim"
                ],
            }
        },
        "status": {"allocation": {"devices": {"results": results, "config": list(config)}}},
    }


def opaque(parameters: Any, *, source: str = "FromClaim", requests: Sequence[str] = (), driver: str = DRIVER) -> Object:
    """An entry of an allocation's configuration, as the scheduler writes it."""
    return {"source": source, "requests": list(requests), "opaque": {"driver": driver, "parameters": parameters}}


def lnc(value: Any, **entry: Any) -> Object:
    """A NeuronConfig."""
    return opaque({"apiVersion": "neuron.aws.com/v1", "kind": "NeuronConfig", "logicalNeuronCore": value}, **entry)


@dataclass
class FakeApi:
    """Stores objects, lists, watches with field selectors, patches: as much as the agent asks for."""

    url: str = ""
    away: bool = False
    keeps_counters: bool = True
    objects: dict[tuple[str, str, str], Object] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    version: int = 100
    _watchers: list[tuple[str, str, asyncio.Queue[Object | None]]] = field(default_factory=list)
    _history: list[tuple[str, str, Object]] = field(default_factory=list)

    def put(self, plural: str, obj: Object) -> Object:
        """Create or replace an object as some other client would."""
        self.version += 1
        metadata = obj["metadata"]
        key = (plural, metadata.get("namespace", ""), metadata["name"])
        metadata.setdefault("uid", f"uid-{self.version}")
        metadata["resourceVersion"] = str(self.version)
        kind = "MODIFIED" if key in self.objects else "ADDED"
        self.objects[key] = json.loads(json.dumps(obj))
        self._tell(kind, plural, self.objects[key])
        return self.objects[key]

    def delete(self, plural: str, name: str, namespace: str = "") -> None:
        self.version += 1
        gone = json.loads(json.dumps(self.objects.pop((plural, namespace, name))))
        gone["metadata"]["resourceVersion"] = str(self.version)
        self._tell("DELETED", plural, gone)

    def items(self, plural: str) -> list[Object]:
        return [obj for (p, _, _), obj in self.objects.items() if p == plural]

    def end_watches(self) -> None:
        for _, _, queue in self._watchers:
            queue.put_nowait(None)

    def _tell(self, kind: str, plural: str, obj: Object) -> None:
        self._history.append((kind, plural, obj))
        for watched, selector, queue in self._watchers:
            if watched == plural and _selected(obj, selector):
                queue.put_nowait({"type": kind, "object": obj})

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.method, request.path))
        if self.away:
            return web.Response(status=503, text="no API server here")
        if request.headers.get("Authorization") != "Bearer a-token":
            return _status(401, "Unauthorized")
        parts = request.path.strip("/").split("/")
        parts = parts[2:] if parts[0] == "api" else parts[3:]
        namespace = ""
        if parts[0] == "namespaces":
            namespace, parts = parts[1], parts[2:]
        plural, name, sub = (*parts, "", "")[:3]
        if not name:
            selector = request.query.get("fieldSelector", "")
            if request.query.get("watch"):
                return await self._watch(request, plural, selector)
            if request.method == "POST":
                body = await request.json()
                if not self.keeps_counters:
                    body["spec"].pop("sharedCounters", None)
                if "dryRun" in request.query:
                    return web.json_response(body, status=201)
                body["metadata"].setdefault("name", f"{body['metadata'].get('generateName', '')}{self.version}")
                return web.json_response(self.put(plural, body), status=201)
            items = [obj for obj in self.items(plural) if _selected(obj, selector)]
            return web.json_response({"items": items, "metadata": {"resourceVersion": str(self.version)}})
        found = self.objects.get((plural, namespace, name))
        if found is None:
            return _status(404, f'{plural} "{name}" not found')
        if request.method == "PUT":
            return web.json_response(self.put(plural, await request.json()))
        if request.method == "PATCH":
            if plural == "resourceclaims":  # its conditions, which test_claim_status is about
                assert (request.content_type, sub) == ("application/json-patch+json", "status")
                return web.json_response(found)
            assert request.content_type == "application/merge-patch+json"
            if plural == "pods":
                return self._annotate(found, await request.json())
            assert sub == "status"
            status = (await request.json())["status"]
            found = self.objects[plural, namespace, name]
            changed = {**found, "metadata": dict(found["metadata"])}
            changed["status"] = {**changed.get("status", {}), **status}
            return web.json_response(self.put(plural, changed))
        if request.method == "DELETE":
            self.delete(plural, name, namespace)
        return web.json_response(found)

    def _annotate(self, pod: Object, patch: Object) -> web.Response:
        assert patch.keys() == {"metadata"}
        assert patch["metadata"].keys() == {"uid", "annotations"}
        if patch["metadata"]["uid"] != pod["metadata"]["uid"]:
            return _status(409, "the uid in the precondition is another")
        annotations = pod["metadata"].get("annotations", {}) | patch["metadata"]["annotations"]
        return web.json_response(self.put("pods", {**pod, "metadata": {**pod["metadata"], "annotations": annotations}}))

    async def _watch(self, request: web.Request, plural: str, selector: str) -> web.StreamResponse:
        assert request.query["allowWatchBookmarks"] == "true"
        response = web.StreamResponse()
        queue: asyncio.Queue[Object | None] = asyncio.Queue()
        watcher = (plural, selector, queue)
        if request.query.get("sendInitialEvents") == "true":
            assert request.query["resourceVersionMatch"] == "NotOlderThan"
            end = {"resourceVersion": str(self.version), "annotations": {"k8s.io/initial-events-end": "true"}}
            past = [{"type": "ADDED", "object": obj} for obj in self.items(plural) if _selected(obj, selector)]
            past.append({"type": "BOOKMARK", "object": {"metadata": end}})
        else:
            since = int(request.query["resourceVersion"])
            past = [
                {"type": kind, "object": obj}
                for kind, changed, obj in self._history
                if changed == plural and int(obj["metadata"]["resourceVersion"]) > since and _selected(obj, selector)
            ]
        for event in past:
            queue.put_nowait(event)
        self._watchers.append(watcher)
        try:
            await response.prepare(request)
            while (event := await queue.get()) is not None:
                await response.write(json.dumps(event).encode() + b"\n")
        finally:
            self._watchers.remove(watcher)
        return response


def _selected(obj: Object, selector: str) -> bool:
    for term in filter(None, selector.split(",")):
        path, _, value = term.partition("=")
        found: Any = obj
        for part in path.rstrip("!").split("."):
            found = found.get(part, {})
        if (found != value.lstrip("=")) != path.endswith("!"):
            return False
    return True


def _status(code: int, message: str) -> web.Response:
    return web.json_response({"kind": "Status", "code": code, "message": message}, status=code)


@pytest.fixture
async def api() -> AsyncIterator[FakeApi]:
    fake = FakeApi()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", fake.handle)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    fake.put("nodes", {"metadata": {"name": NODE, "uid": "uid-of-the-node"}})
    yield fake
    fake.end_watches()
    await runner.cleanup()


@pytest.fixture
async def kube(api: FakeApi, tmp_path: Path) -> AsyncIterator[Kube]:
    async with Kube(kubeconfig(tmp_path, api.url)) as client:
        yield client


def kubeconfig(folder: Path, url: str) -> Path:
    path = folder / "kubeconfig"
    named = {"name": "test"}
    path.write_text(
        json.dumps(
            {
                "current-context": "test",
                "clusters": [named | {"cluster": {"server": url}}],
                "users": [named | {"user": {"token": "a-token"}}],
                "contexts": [named | {"context": {"cluster": "test", "user": "test"}}],
            }
        )
    )
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A runtime tree as the image carries it."""
    source = tmp_path / "image"
    (source / "bin").mkdir(parents=True)
    for tool in ("neuron-ls", "neuron-top"):
        (source / "bin" / tool).write_text("#!/bin/false\n")
        (source / "bin" / tool).chmod(0o755)
    (source / "lib").symlink_to("bin")
    return source


@pytest.fixture(scope="session")
def trn2() -> SimulatedNode:
    return standalone(name=NODE, type_name="trn2.48xlarge")


@pytest.fixture(scope="session")
def cut() -> SimulatedNode:
    """A trn2.48xlarge that offers chips, logical cores (2 physical ones each) and physical cores."""
    return standalone(name=NODE, type_name="trn2.48xlarge", partitions="physical")


@dataclass(frozen=True)
class Host:
    """A node's folders, and a fresh process's look at them."""

    root: Path
    tree: Path

    @property
    def cdi(self) -> Path:
        return self.root / "cdi"

    @property
    def views(self) -> Path:
        return self.root / "run" / DRIVER

    @property
    def runtimes(self) -> Path:
        return self.root / "state" / DRIVER

    @property
    def journal(self) -> Path:
        return self.root / "plugins" / DRIVER / "checkpoint.jsonl"

    def store(self) -> ClaimStore:
        """The store as a process that just started has it."""
        return ClaimStore(
            driver=DRIVER,
            cdi_directory=self.cdi,
            run_directory=self.views,
            checkpoint=Checkpoint(self.root / "plugins" / DRIVER),
            trees=RuntimeTrees(self.tree, self.runtimes),
        )

    def opened(self) -> ClaimStore:
        """The same, with what is there read."""
        store = self.store()
        store.refresh()
        return store

    def leftovers(self) -> list[str]:
        """Everything on the node that belongs to some claim."""
        found = [path.name for folder in (self.cdi, self.views) if folder.exists() for path in folder.iterdir()]
        store = self.store()
        store.refresh()
        found += [f"entry {entry}" for entry in store.prepared()]
        store.close()
        return found

    def settings(self, *, kubelet_patience: float = 0, **changes: Any) -> Settings:
        registry = self.root / "registry"
        registry.mkdir(exist_ok=True)
        return Settings(
            kubelet_patience=kubelet_patience,
            node_name=NODE,
            driver_name=DRIVER,
            plugins_dir=self.root / "plugins",
            registry_dir=registry,
            device_plugins_dir=self.root / "device-plugins",
            pod_resources_dir=self.root / "pod-resources",
            cdi_dir=self.cdi,
            state_dir=self.root / "state",
            run_dir=self.root / "run",
            runtime_tree=self.tree,
            metrics_port=0,
            status_interval=0.01,
            **changes,
        )


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder where a sync costs nothing, so that a thousand deaths take seconds; any folder where there is none."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else None) as folder:
        yield Path(folder)


@pytest.fixture
def host(memory: Path, tree: Path) -> Host:
    return Host(memory, tree)


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with hardly any room."""
    if os.geteuid():
        pytest.skip("mounting needs root")
    mounted = tmp_path / "full"
    mounted.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", mounted], check=False).returncode:
        pytest.skip("mounting is not allowed here")
    yield mounted
    subprocess.run(["umount", mounted], check=True)


def allocation(obj: Object) -> Allocation:
    """What of a claim this node prepares."""
    return allocation_on(obj, uid=obj["metadata"]["uid"], driver=DRIVER, pool=NODE)


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """The builders above, for tests: `make.claim(…)`, `make.allocation(…)`, `make.kubeconfig(…)`."""
    return SimpleNamespace(claim=claim, allocation=allocation, kubeconfig=kubeconfig, opaque=opaque, lnc=lnc)


@pytest.fixture
def eventually() -> Callable[..., Any]:
    """Wait for a condition without a fixed pause."""

    async def wait(condition: Callable[[], Any], what: str = "") -> Any:
        async with asyncio.timeout(30):
            while not (answer := condition()):  # noqa: ASYNC110 - the agent signals nobody when it is done
                await asyncio.sleep(0.005)
        return answer

    return wait
