"""From a NeuronFault to the taint in the slice and to the pod's status, beside a stub driver that reports at once.

    tests/bench/fault_delays.sh                               # makes a cluster with the chart, and takes it down again
    python tests/bench/fault_delays.py [--kubeconfig FILE]    # on one that is there

In one run and in turn: a NeuronFault breaks a chip that a pod has, and is deleted; a ConfigMap says that the device of
the stub (`stub_driver.py`) is broken, and that it is whole. Both ways begin with the write and end where a watch shows
what came of it. What the kubelet takes is in both, so the difference is what operator and agent take.
"""

import argparse
import asyncio
import os
import statistics
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from neuron_dra_driver.api_server.kube import CLAIMS, SLICES, Kube
from neuron_dra_driver.kubeletplugin import ApiError
from neuron_dra_driver.names import API_GROUP, API_VERSION, DRIVER_NAME

Json = dict[str, Any]

STUB, DEVICE = "stub.neuron-sim.dev", "stub-0"
CORE = "/api/v1/namespaces/default"
PODS, CONFIGMAPS = f"{CORE}/pods", f"{CORE}/configmaps"
CLAIMS_HERE = CLAIMS.replace("resourceclaims", "namespaces/default/resourceclaims")
CLASSES = "/apis/resource.k8s.io/v1/deviceclasses"
BINDINGS = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
FAULTS = f"/apis/{API_GROUP}/{API_VERSION}/neuronfaults"
DAEMONSETS = "/apis/apps/v1/namespaces/neuron-sim-system/daemonsets"
PATIENCE = 60.0
KUBELET = "/var/lib/kubelet/plugins"


class Watched:
    """What a watch shows of one object."""

    def __init__(self, kube: Kube, path: str, name: str, read: Callable[[Json], str]) -> None:
        self._kube = kube
        self._path = path
        self._params = {"fieldSelector": f"metadata.name={name}"}
        self._read = read
        self._said = ""
        self._news = asyncio.Event()

    async def follow(self) -> None:
        while True:
            async for kind, item in self._kube.watch(self._path, params=self._params):
                if kind in ("ADDED", "MODIFIED"):
                    self._said = self._read(item)
                    self._news.set()

    async def until(self, wanted: str) -> float:
        """When it says so."""
        async with asyncio.timeout(PATIENCE):
            while self._said != wanted:
                self._news.clear()
                await self._news.wait()
        return time.perf_counter()


def health_in(pod: Json) -> str:
    """Of the one device that a pod has."""
    statuses = pod["status"].get("containerStatuses") or ()
    found = [resource for status in statuses for resource in status.get("allocatedResourcesStatus") or ()]
    return next((one["health"] for resource in found for one in resource["resources"]), "")


def claim(name: str, device_class: str) -> Json:
    request = {"name": "device", "exactly": {"deviceClassName": device_class}}
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {"name": name},
        "spec": {"devices": {"requests": [request]}},
    }


def user_of(name: str, node: str) -> Json:
    """A pod that has the device of the claim of its name."""
    container = {
        "name": "c",
        "image": "busybox",
        "command": ["sleep", "infinity"],
        "resources": {"claims": [{"name": "device"}]},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "nodeSelector": {"kubernetes.io/hostname": node},
            "containers": [container],
            "resourceClaims": [{"name": "device", "resourceClaimName": name}],
        },
    }


def stub_pod(node: str, image: str) -> Json:
    volumes = {"code": {"configMap": {"name": "stub-code"}}}
    mounts = [{"name": "code", "mountPath": "/stub"}]
    for name, path in (("plugins", KUBELET), ("registry", f"{KUBELET}_registry")):
        volumes[name] = {"hostPath": {"path": path}}
        mounts.append({"name": name, "mountPath": path})
    container = {
        "name": "stub",
        "image": image,
        "command": ["python", "/stub/stub_driver.py", STUB, node, DEVICE, "stub"],
        "securityContext": {"runAsUser": 0},
        "volumeMounts": mounts,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "stub-driver"},
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 1,
            "containers": [container],
            "volumes": [{"name": name, **volume} for name, volume in volumes.items()],
        },
    }


def objects(node: str, image: str) -> list[tuple[str, Json]]:
    """Everything that is made, by the path where it is made, in this order."""
    code = Path(__file__).with_name("stub_driver.py").read_text()
    device_class = {"selectors": [{"cel": {"expression": f"device.driver == '{STUB}'"}}]}
    resource = {"apiVersion": "resource.k8s.io/v1"}
    account = {"kind": "ServiceAccount", "name": "default", "namespace": "default"}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    config = {"apiVersion": "v1", "kind": "ConfigMap"}
    return [
        (
            BINDINGS,
            {"kind": "ClusterRoleBinding", "metadata": {"name": "stub"}, "roleRef": role, "subjects": [account]},
        ),
        (CONFIGMAPS, {**config, "metadata": {"name": "stub-code"}, "data": {"stub_driver.py": code}}),
        (CONFIGMAPS, {**config, "metadata": {"name": "stub"}, "data": {"broken": "false"}}),
        (PODS, stub_pod(node, image)),
        (CLASSES, {**resource, "kind": "DeviceClass", "metadata": {"name": STUB}, "spec": device_class}),
        (CLAIMS_HERE, claim("stubbed", STUB)),
        (PODS, user_of("stubbed", node)),
        (CLAIMS_HERE, claim("simulated", DRIVER_NAME)),
        (PODS, user_of("simulated", node)),
    ]


@asynccontextmanager
async def made(kube: Kube, what: Sequence[tuple[str, Json]]) -> AsyncIterator[None]:
    """For as long as it is needed."""
    try:
        for path, item in what:
            await kube.request("POST", path, body=item)
        yield
    finally:
        for path, item in reversed(what):
            with suppress(ApiError):
                await kube.request("DELETE", f"{path}/{item['metadata']['name']}", body={})
        with suppress(ApiError):  # the stub's own
            await kube.request("DELETE", f"{SLICES}/stub", body={})


@asynccontextmanager
async def following(*watched: Watched) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(one.follow()) for one in watched]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def row(what: str, taken: Sequence[float], goal: str = "") -> str:
    ordered = sorted(taken)
    return f"| {what}, p50 / worst ms | {statistics.median(ordered):.0f} / {ordered[-1]:.0f} | {goal} |"


async def measure(args: argparse.Namespace) -> None:
    async with Kube(args.kubeconfig) as kube:
        slices = (await kube.request("GET", SLICES))["items"]
        node = next(one["spec"]["nodeName"] for one in slices if one["spec"]["driver"] == DRIVER_NAME)
        agent = await kube.request("GET", f"{DAEMONSETS}/neuron-sim-agent")
        image = agent["spec"]["template"]["spec"]["containers"][0]["image"]
        async with made(kube, objects(node, image)):
            simulated, stubbed = (Watched(kube, PODS, name, health_in) for name in ("simulated", "stubbed"))
            async with following(simulated, stubbed):
                await asyncio.gather(simulated.until("Healthy"), stubbed.until("Healthy"))
                await rounds(kube, args.rounds, simulated, stubbed)


async def rounds(kube: Kube, count: int, simulated: Watched, stubbed: Watched) -> None:
    status = (await kube.request("GET", f"{CLAIMS_HERE}/simulated"))["status"]
    (result,) = status["allocation"]["devices"]["results"]
    node, device = result["pool"], result["device"]
    slices = (await kube.request("GET", SLICES))["items"]
    own = next(
        one["metadata"]["name"]
        for one in slices
        if one["spec"]["driver"] == DRIVER_NAME
        and one["spec"]["pool"]["name"] == node
        and any(found["name"] == device for found in one["spec"].get("devices") or ())
    )

    def taints_in(found: Json) -> str:
        (mine,) = (one for one in found["spec"]["devices"] if one["name"] == device)
        return "tainted" if mine.get("taints") else "clean"

    fault = {
        "apiVersion": f"{API_GROUP}/{API_VERSION}",
        "kind": "NeuronFault",
        "metadata": {"name": "bench"},
        "spec": {"target": {"nodeName": node, "chip": int(device.rpartition("-")[2])}, "type": "HBMUncorrectable"},
    }
    published = Watched(kube, SLICES, own, taints_in)
    taken: dict[str, list[float]] = {key: [] for key in ("taint", "pod", "stub", "clean", "healed", "stub healed")}

    async def timed(**awaited: tuple[Watched, str]) -> None:
        began = time.perf_counter()
        seen = await asyncio.gather(*(watched.until(said) for watched, said in awaited.values()))
        for key, at in zip(awaited, seen, strict=True):
            taken[key.replace("_", " ")].append(1000 * (at - began))

    async def stub_says(broken: str) -> None:
        patch = {"data": {"broken": broken}}
        await kube.request("PATCH", f"{CONFIGMAPS}/stub", body=patch, content_type="application/merge-patch+json")

    async with following(published):
        await published.until("clean")
        for _ in range(count):
            await asyncio.gather(
                timed(taint=(published, "tainted"), pod=(simulated, "Unhealthy")),
                kube.request("POST", FAULTS, body=fault),
            )
            await asyncio.gather(
                timed(clean=(published, "clean"), healed=(simulated, "Healthy")),
                kube.request("DELETE", f"{FAULTS}/bench", body={}),
            )
            await asyncio.gather(timed(stub=(stubbed, "Unhealthy")), stub_says("true"))
            await asyncio.gather(timed(stub_healed=(stubbed, "Healthy")), stub_says("false"))
            await asyncio.sleep(1)  # what follows of it is written: conditions, Events, statuses
    later = statistics.median(taken["pod"]) - statistics.median(taken["stub"])
    print(f"| {count} times | | goal |\n| --- | --- | --- |")
    print(row("NeuronFault to the taint in the slice", taken["taint"], "< 1000"))
    print(row("NeuronFault to the pod's status", taken["pod"]))
    print(row("stub driver: ConfigMap to the pod's status", taken["stub"]))
    print(f"| NeuronFault beside the stub, p50 ms | {later:+.0f} | ≤ 1000 |")
    print(row("NeuronFault deleted, to the slice without taint", taken["clean"]))
    print(row("NeuronFault deleted, to the pod's status", taken["healed"]))
    print(row("stub driver healed, to the pod's status", taken["stub healed"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kubeconfig", type=Path, default=os.environ.get("KUBECONFIG"))
    parser.add_argument("--rounds", type=int, default=20)
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
