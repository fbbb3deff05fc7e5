"""Plain Kubernetes objects to make plans from, and a cluster in memory to carry them out on."""

import asyncio
import copy
import heapq
import itertools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from neuron_operator import applying, kube, names, pending, survey
from neuron_operator.fleet import Fleet
from neuron_operator.kube import Conflict, Listing, NotFound, Resource
from neuron_operator.planning import Plan, plan

Json = dict[str, Any]


class Cluster:
    """An API server in memory: UIDs, resource versions, field owners of labels, preconditions, Events.

    Only what the operator relies on. `faults` are raised by the next writes, one each.
    """

    def __init__(self) -> None:
        self.objects: dict[Resource, dict[str, Json]] = {}
        self.writes: list[str] = []
        self.faults: list[Exception] = []
        self.missing: set[Resource] = set()
        self._versions = itertools.count(1)
        self.version = 0

    # --- what a test does to the cluster

    def put(self, resource: Resource, body: Json) -> Json:
        item = copy.deepcopy(body)
        self.version = next(self._versions)
        item["metadata"].setdefault("uid", f"uid-{self.version}")
        item["metadata"].setdefault("creationTimestamp", "2026-01-01T00:00:00Z")
        item["metadata"]["resourceVersion"] = str(self.version)
        self.objects.setdefault(resource, {})[_key(item)] = item
        return copy.deepcopy(item)

    def drop(self, resource: Resource, name: str) -> Json:
        self.version = next(self._versions)
        item = self.objects[resource].pop(name)
        return {**item, "metadata": {**item["metadata"], "resourceVersion": str(self.version)}}

    def of(self, resource: Resource) -> dict[str, Json]:
        return self.objects.get(resource, {})

    # --- what the operator does

    async def list(self, resource: Resource, *, labels: str = "", fields: str = "") -> Listing:
        if resource in self.missing:
            raise NotFound(404, "NotFound", "the server could not find the requested resource")
        found = [copy.deepcopy(item) for item in self.of(resource).values() if _selected(item, labels, fields)]
        return Listing(found, self.version)

    async def get(self, resource: Resource, name: str, *, namespace: str | None = None) -> Json:
        key = f"{namespace}/{name}" if namespace else name
        if key not in self.of(resource):
            raise NotFound(404, "NotFound", f"{resource.plural} {key} not found")
        return copy.deepcopy(self.of(resource)[key])

    async def create(self, resource: Resource, body: Json) -> Json:
        self._write("create", resource, body["metadata"]["name"])
        if _key(body) in self.of(resource):
            raise Conflict(409, "AlreadyExists", f"{_key(body)} already exists")
        return self.put(resource, body)

    async def replace(self, resource: Resource, body: Json) -> Json:
        self._write("replace", resource, body["metadata"]["name"])
        current = self.of(resource).get(_key(body))
        if current is None:
            raise NotFound(404, "NotFound", _key(body))
        if body["metadata"].get("resourceVersion") not in (None, current["metadata"]["resourceVersion"]):
            raise Conflict(409, "Conflict", "the object has been modified")
        return self.put(resource, body)

    async def apply(self, resource: Resource, body: Json, *, force: bool) -> Json:
        name = _key(body)
        self._write("apply", resource, name)
        current = self.of(resource).get(name)
        uid = body["metadata"].get("uid")
        if uid is not None and (current is None or current["metadata"]["uid"] != uid):
            raise Conflict(409, "Conflict", "uid mismatch")
        if resource == kube.NODES:
            assert current is not None, "an apply must never create a node"
            return self.put(resource, _apply_labels(current, body["metadata"].get("labels", {}), force=force))
        merged = {**(current or {}), **body}
        merged["metadata"] = {**(current or {}).get("metadata", {}), **body["metadata"]}
        return self.put(resource, merged)

    async def merge(self, resource: Resource, name: str, body: Json, *, namespace: str | None = None) -> Json:
        name = f"{namespace}/{name}" if namespace else name
        self._write("merge", resource, name)
        current = self._current(resource, name, body.get("metadata", {}))
        merged = self.put(resource, _merged(current, body))
        if "deletionTimestamp" in current["metadata"] and not merged["metadata"].get("finalizers"):
            self.drop(resource, name)
        return merged

    async def merge_status(
        self, resource: Resource, name: str, status: Json, *, namespace: str | None = None, version: str | None = None
    ) -> Json:
        name = f"{namespace}/{name}" if namespace else name
        self._write("status", resource, name)
        current = self._current(resource, name, {"resourceVersion": version} if version else {})
        return self.put(resource, _merged(current, {"status": status}))

    async def patch_conditions(self, node: str, conditions: Sequence[Json]) -> Json:
        self._write("conditions", kube.NODES, node)
        current = self._current(kube.NODES, node, {})
        by_type = {found["type"]: found for found in current.get("status", {}).get("conditions", [])}
        for condition in conditions:
            if condition.get("$patch") == "delete":
                by_type.pop(condition["type"], None)
            else:
                by_type[condition["type"]] = {**by_type.get(condition["type"], {}), **condition}
        return self.put(kube.NODES, _merged(current, {"status": {"conditions": list(by_type.values())}}))

    async def delete(
        self, resource: Resource, name: str, *, namespace: str | None = None, uid: str | None = None
    ) -> None:
        name = f"{namespace}/{name}" if namespace else name
        self._write("delete", resource, name)
        current = self._current(resource, name, {"uid": uid} if uid else {})
        if current["metadata"].get("finalizers"):
            self.put(resource, _merged(current, {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}))
        else:
            self.drop(resource, name)

    def _current(self, resource: Resource, name: str, expected: Json) -> Json:
        current = self.of(resource).get(name)
        if current is None:
            raise NotFound(404, "NotFound", name)
        for field in expected.keys() & {"uid", "resourceVersion"}:
            if current["metadata"][field] != expected[field]:
                raise Conflict(409, "Conflict", f"{field} mismatch")
        return current

    def _write(self, verb: str, resource: Resource, name: str) -> None:
        if self.faults:
            raise self.faults.pop(0)
        self.writes.append(f"{verb} {resource.plural}/{name}")


def _key(item: Json) -> str:
    namespace = item["metadata"].get("namespace")
    return f"{namespace}/{item['metadata']['name']}" if namespace else str(item["metadata"]["name"])


def _merged(current: Json, patch: Json) -> Json:
    """A JSON merge patch: null removes, objects are merged, all else is replaced."""
    merged = {key: value for key, value in current.items() if patch.get(key, key) is not None}
    for key, value in patch.items():
        if value is not None:
            merged[key] = _merged(current.get(key) or {}, value) if isinstance(value, dict) else value
    return merged


def _selected(item: Json, labels: str, fields: str) -> bool:
    have = item["metadata"].get("labels") or {}
    marked = have.get(names.LABEL_SIMULATED) == "true"
    if labels and "=" not in labels and labels not in have:
        return False
    if labels == f"{names.LABEL_SIMULATED}!=true" and marked:
        return False
    if labels == f"{names.LABEL_SIMULATED}=true" and not marked:
        return False
    if fields == pending.UNSCHEDULED:
        return item["status"]["phase"] == "Pending" and not item["spec"].get("nodeName")
    return not fields or fields == f"spec.driver={item['spec']['driver']}"


def _apply_labels(node: Json, labels: Json, *, force: bool) -> Json:
    """Server-side apply, as far as labels go."""
    assert not force
    node = copy.deepcopy(node)
    metadata = node["metadata"]
    have = metadata.setdefault("labels", {})
    entries = metadata.setdefault("managedFields", [])
    ours = next((entry for entry in entries if entry["operation"] == "Apply"), None)
    owned = _labels_of(ours) if ours else set()
    others = set().union(*(_labels_of(entry) for entry in entries if entry is not ours))
    for key, value in labels.items():
        if key in others and have.get(key) != value:
            raise Conflict(409, "Conflict", f"conflict with another manager: .metadata.labels.{key}")
    for key in owned - labels.keys() - others:
        have.pop(key, None)
    have.update(labels)
    metadata["managedFields"] = [entry for entry in entries if entry is not ours]
    if labels:
        metadata["managedFields"].append(managed(names.FIELD_MANAGER, labels, operation="Apply"))
    return node


def _labels_of(entry: Json) -> set[str]:
    return {key.removeprefix("f:") for key in entry["fieldsV1"]["f:metadata"]["f:labels"]}


def managed(manager: str, labels: Any, *, operation: str = "Update") -> Json:
    """An entry of managedFields that owns labels."""
    fields = {"f:metadata": {"f:labels": {f"f:{key}": {} for key in labels}}}
    return {"manager": manager, "operation": operation, "fieldsType": "FieldsV1", "fieldsV1": fields}


def make_node(name: str, *, labels: Json | None = None, taints: list[Json] | None = None, **more: Any) -> Json:
    """A Node whose labels the kubelet wrote."""
    labels = labels or {}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": dict(labels), "managedFields": [managed("kubelet", labels)]},
        "spec": {"taints": taints or [], **more.get("spec", {})},
        "status": {"capacity": {"cpu": "4", **more.get("capacity", {})}, "allocatable": more.get("allocatable", {})},
    }


def make_pool(name: str = "default", *, created: str = "2026-01-01T00:00:00Z", **spec: Any) -> Json:
    """A NeuronNodePool as the API server returns it."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": "NeuronNodePool",
        "metadata": {"name": name, "generation": 1, "creationTimestamp": created},
        "spec": {"instanceType": "trn2.48xlarge", "resources": "Auto", **spec},
    }


def make_fault(name: str, node: str, *, created: str = "2026-01-01T00:00:00Z", **more: Any) -> Json:
    """A NeuronFault as the API server returns it."""
    target = {"nodeName": node} | {key: more.pop(key) for key in ("chip", "core") if key in more}
    return {
        "apiVersion": names.API_VERSION,
        "kind": "NeuronFault",
        "metadata": {"name": name, "generation": 1, "creationTimestamp": created},
        "spec": {"target": target, "type": "HBMUncorrectable", "effect": "NoSchedule", **more},
    }


def make_device_class(wished: str = names.EXTENDED_RESOURCE, *, kept: bool = True) -> Json:
    """The DeviceClass of the chart, as an API server stores it that keeps or drops what is behind a gate."""
    annotations = {names.ANNOTATION_EXTENDED_RESOURCE: wished} if wished else {}
    spec = {"extendedResourceName": wished} if wished and kept else {}
    return {"metadata": {"name": names.DEVICE_CLASS, "annotations": annotations}, "spec": spec}


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def fleet() -> Fleet:
    return Fleet(driver_name=names.AWS_DRIVER_NAME)


# Session-scoped: hypothesis wants fixtures that do not change between its examples.


@pytest.fixture(scope="session")
def new_cluster() -> Callable[[], Cluster]:
    return Cluster


@pytest.fixture(scope="session")
def node() -> Callable[..., Json]:
    return make_node


@pytest.fixture(scope="session")
def pool() -> Callable[..., Json]:
    return make_pool


@pytest.fixture(scope="session")
def fault() -> Callable[..., Json]:
    return make_fault


@pytest.fixture(scope="session")
def managed_fields() -> Callable[..., Json]:
    return managed


@pytest.fixture(scope="session")
def device_class() -> Callable[..., Json]:
    return make_device_class


@pytest.fixture(scope="session")
def settle() -> Callable[..., Awaitable[Plan]]:
    """Plan and apply until a plan is empty; returns the first plan."""

    async def settle(cluster: Cluster, *, driver_name: str = names.AWS_DRIVER_NAME) -> Plan:
        fleet = Fleet(driver_name=driver_name)
        first = None
        for second in range(10):
            await survey.list_objects(fleet, cluster)
            await survey.look_around(fleet, cluster, driver_name=driver_name)
            snapshot = fleet.snapshot()
            assert snapshot is not None
            planned = plan(snapshot, now=f"2026-11-21T00:00:{second:02d}Z")
            first = first or planned
            if planned.empty:
                return first
            assert await applying.apply(planned, api=cluster, fleet=fleet) == 0
        raise AssertionError(f"does not settle: {planned}")

    return settle


class VirtualTime(asyncio.SelectorEventLoop):
    """A loop that never waits: when nothing is ready, its clock moves to the next timer."""

    now = 1000.0

    def time(self):
        return self.now

    def _run_once(self):
        while self._scheduled and self._scheduled[0]._cancelled:
            heapq.heappop(self._scheduled)._scheduled = False
            self._timer_cancelled_count -= 1
        if not self._ready and self._scheduled:
            self.now = max(self.now, self._scheduled[0]._when)
        super()._run_once()


@pytest.fixture
def live():
    """Runs a coroutine in virtual time."""

    def live(coroutine):
        with asyncio.Runner(loop_factory=VirtualTime) as runner:
            return runner.run(coroutine)

    return live
