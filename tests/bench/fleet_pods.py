"""Pods on a fleet of virtual nodes: gangs from submit to Ready, and what kube-scheduler makes of our slices.

Used by `fleet.py`. KWOK plays the pods, the real kube-scheduler and kube-controller-manager do the rest.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from neuron_dra_driver.api_server.kube import Kube
from neuron_dra_driver.kubeletplugin import ApiError

Json = dict[str, Any]

NAMESPACE = "bench-fleet"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
GANGS = f"/apis/neuron-sim.dev/v1alpha1/namespaces/{NAMESPACE}/neurongangs"
RESOURCE = "/apis/resource.k8s.io/v1"
PLAIN_DRIVER = "plain.example.com"
CONNECTIONS = 16


class Pods:
    """A watch on the pods of the namespace: who is bound, who is ready, and since when."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self.there: set[str] = set()
        self.bound: dict[str, float] = {}
        self.ready: dict[str, float] = {}
        self._told = asyncio.Event()

    async def follow(self) -> None:
        """For as long as the watch lasts."""
        found = await self._kube.request("GET", PODS)
        params = {"resourceVersion": found["metadata"]["resourceVersion"]}
        async for kind, pod in self._kube.watch(PODS, params=params):
            if kind not in ("ADDED", "MODIFIED", "DELETED"):
                continue
            now, name = time.perf_counter(), pod["metadata"]["name"]
            if kind == "DELETED":
                self.there.discard(name)
            else:
                self.there.add(name)
                if pod["spec"].get("nodeName"):
                    self.bound.setdefault(name, now)
                conditions = (pod.get("status") or {}).get("conditions") or ()
                if any(found["type"] == "Ready" and found["status"] == "True" for found in conditions):
                    self.ready.setdefault(name, now)
            self._told.set()

    async def until(self, holds: Callable[[], bool], *, seconds: float) -> None:
        """Wait until what was seen is so."""
        async with asyncio.timeout(seconds):
            while not holds():
                self._told.clear()
                await self._told.wait()


@asynccontextmanager
async def a_namespace(kube: Kube) -> AsyncIterator[None]:
    """The namespace of the pods, with a template for one chip of each kind of slice."""
    await kube.request("POST", "/api/v1/namespaces", body={"metadata": {"name": NAMESPACE}})
    cel = {"cel": {"expression": f"device.driver == '{PLAIN_DRIVER}'"}}
    await kube.request(
        "POST", f"{RESOURCE}/deviceclasses", body={"metadata": {"name": PLAIN_DRIVER}, "spec": {"selectors": [cel]}}
    )
    for name in ("neuron.aws.com", PLAIN_DRIVER):
        request = {"name": "chip", "exactly": {"deviceClassName": name, "allocationMode": "ExactCount", "count": 1}}
        template = {"metadata": {"name": name}, "spec": {"spec": {"devices": {"requests": [request]}}}}
        path = f"{RESOURCE}/namespaces/{NAMESPACE}/resourceclaimtemplates"
        await kube.request("POST", path, body=template)
    await asyncio.sleep(2)  # the service account that pods are made with
    try:
        yield
    finally:
        for path in (f"/api/v1/namespaces/{NAMESPACE}", f"{RESOURCE}/deviceclasses/{PLAIN_DRIVER}"):
            with suppress(ApiError):
                await kube.request("DELETE", path, body={})


def pod(name: str, spec: Json, *, labels: Json | None = None) -> Json:
    """A pod for virtual nodes; `spec`: what its one container's and its own are beside that."""
    container = {"name": "worker", "image": "busybox", **spec.pop("container", {})}
    return {
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {
            "nodeSelector": {"neuron-sim.dev/virtual": "true"},
            "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}],
            "terminationGracePeriodSeconds": 0,
            "containers": [container],
            **spec,
        },
    }


async def gangs(kube: Kube, pods: Pods, count: int) -> list[float]:
    """Milliseconds from the submit of a gang of four pods, of sixteen chips each, to the last one's being Ready."""
    took = []
    for number in range(count):
        name = f"gang-{number}"
        labels = {
            "neuron-sim.dev/gang": name,
            "neuron-sim.dev/gang-size": "4",
            "neuron-sim.dev/topology": "ultraserver",
        }
        members = [f"{name}-{rank}" for rank in range(4)]
        container = {"container": {"resources": {"limits": {"aws.amazon.com/neuron": "16"}}}}
        gate = {"schedulingGates": [{"name": "neuron-sim.dev/gang"}]}
        bodies = [pod(member, {**container, **gate}, labels=labels) for member in members]
        began = time.perf_counter()
        await asyncio.gather(*(kube.request("POST", PODS, body=body, harmless_twice=True) for body in bodies))
        await pods.until(lambda members=members: pods.ready.keys() >= set(members), seconds=120)
        took.append(1000 * (max(pods.ready[member] for member in members) - began))
        await remove(kube, pods)
    while (await kube.request("GET", GANGS))["items"]:  # noqa: ASYNC110, and with them the nodes' reservations
        await asyncio.sleep(0.1)
    return took


async def throughput(kube: Kube, pods: Pods, count: int, *, template: str | None, run: str) -> float:
    """Pods bound a second, from the first to the last of so many, each with a chip of the template."""
    names = [f"{run}-{number}" for number in range(count)]
    spec: Json = {}
    if template is not None:
        spec["resourceClaims"] = [{"name": "chip", "resourceClaimTemplateName": template}]
        spec["container"] = {"resources": {"claims": [{"name": "chip"}]}}
    await at_once([_posting(kube, pod(name, dict(spec))) for name in names])
    await pods.until(lambda: pods.bound.keys() >= set(names), seconds=600)
    times = sorted(pods.bound[name] for name in names)
    await remove(kube, pods)
    return (count - 1) / (times[-1] - times[0])


async def remove(kube: Kube, pods: Pods) -> None:
    """All pods, and wait until their claims are gone."""
    await kube.request("DELETE", PODS, body={})
    await pods.until(lambda: not pods.there, seconds=120)
    claims = f"{RESOURCE}/namespaces/{NAMESPACE}/resourceclaims"
    while (await kube.request("GET", claims, params={"limit": "1"}))["items"]:  # noqa: ASYNC110, nobody watches them
        await asyncio.sleep(0.1)


def plain(body: Json) -> Json:
    """A slice of sixteen devices that say nothing, of the node of one of ours."""
    node = body["spec"]["nodeName"]
    return {
        "apiVersion": body["apiVersion"],
        "kind": body["kind"],
        "metadata": {"name": f"{node}-{PLAIN_DRIVER}"},
        "spec": {
            "driver": PLAIN_DRIVER,
            "nodeName": node,
            "pool": {"name": node, "generation": 1, "resourceSliceCount": 1},
            "devices": [{"name": device["name"]} for device in body["spec"]["devices"]],
        },
    }


def _posting(kube: Kube, body: Json) -> Callable[[], Awaitable[object]]:
    return lambda: kube.request("POST", PODS, body=body, harmless_twice=True)


async def at_once(jobs: Sequence[Callable[[], Awaitable[object]]], *, connections: int = CONNECTIONS) -> None:
    """So many at a time."""
    waiting = iter(jobs)

    async def worker() -> None:
        for job in waiting:
            await job()

    await asyncio.gather(*(worker() for _ in range(connections)))
