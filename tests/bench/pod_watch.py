"""Pods in a namespace of the benchmarks' own, and when a foreign watch saw each of them let go, bound and ready."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from neuron_dra_driver.api_server.kube import Kube
from neuron_dra_driver.kubeletplugin import ApiError

Json = dict[str, Any]

NAMESPACE = "bench"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
RESOURCE = "/apis/resource.k8s.io/v1"


class Pods:
    """A watch on the pods of the namespace: who is there, and since when each was let go, bound and ready."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self.there: set[str] = set()
        self.let_go: dict[str, float] = {}
        self.bound: dict[str, float] = {}
        self.ready: dict[str, float] = {}
        self._told = asyncio.Event()

    async def follow(self) -> None:
        while True:  # the API server ends watches after a while
            found = await self._kube.request("GET", PODS)
            self.there.clear()
            for pod in found["items"]:
                self._event("ADDED", pod)
            self._told.set()
            params = {"resourceVersion": found["metadata"]["resourceVersion"]}
            async for kind, pod in self._kube.watch(PODS, params=params):
                if kind in ("ADDED", "MODIFIED", "DELETED"):
                    self._event(kind, pod)

    def _event(self, kind: str, pod: Json) -> None:
        now, name = time.perf_counter(), pod["metadata"]["name"]
        if kind == "DELETED":
            self.there.discard(name)
        else:
            self.there.add(name)
            if not pod["spec"].get("schedulingGates"):
                self.let_go.setdefault(name, now)
            if pod["spec"].get("nodeName"):
                self.bound.setdefault(name, now)
            conditions = (pod.get("status") or {}).get("conditions") or ()
            if any(found["type"] == "Ready" and found["status"] == "True" for found in conditions):
                self.ready.setdefault(name, now)
        self._told.set()

    def forget(self) -> None:
        """Names come again: of the pods that had them nothing is remembered."""
        for seen in (self.let_go, self.bound, self.ready):
            seen.clear()

    async def until(self, holds: Callable[[], bool], *, seconds: float) -> None:
        """Wait until what was seen is so."""
        async with asyncio.timeout(seconds):
            while not holds():
                self._told.clear()
                await self._told.wait()


@asynccontextmanager
async def following(work: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """A watch, beside everything else."""

    async def run() -> None:
        await work()

    task = asyncio.create_task(run())
    await asyncio.sleep(1)  # the watch is there
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def a_namespace(kube: Kube) -> AsyncIterator[None]:
    """The namespace of the pods."""
    await kube.request("POST", "/api/v1/namespaces", body={"metadata": {"name": NAMESPACE}})
    await asyncio.sleep(2)  # the service account that pods are made with
    try:
        yield
    finally:
        with suppress(ApiError):
            await kube.request("DELETE", f"/api/v1/namespaces/{NAMESPACE}", body={})


async def remove(kube: Kube, pods: Pods) -> None:
    """All pods, and wait until their claims are gone."""
    await kube.request("DELETE", PODS, body={})
    await pods.until(lambda: not pods.there, seconds=120)
    claims = f"{RESOURCE}/namespaces/{NAMESPACE}/resourceclaims"
    while (await kube.request("GET", claims, params={"limit": "1"}))["items"]:  # noqa: ASYNC110, nobody watches them
        await asyncio.sleep(0.1)
