"""The pace of kube-scheduler with our slices, beside one plain slice a node: ratios, in turn, in one run.

    tests/bench/scheduler.sh --nodes 500                       # makes a cluster for it, and takes it down again
    python tests/bench/scheduler.py --nodes 500 [--kubeconfig FILE]

Nothing of neuron-sim runs. Nodes are Node objects without a machine, slices are the very bodies that the agent of
virtual nodes sends, and classes are the chart's. The plain slice is another driver's, with a class that selects by the
driver's name alone: 16 chips that have AWS's attributes, or none. In each round each layout is published, a burst of
pods is bound, and all of it is removed. Claims are made of templates meanwhile, as users have them made. Pace is pods
a second from the first one's being bound to the last one's; a ratio is that of two layouts in the same round. The
limits on the requests of scheduler and controllers have to be high (`scheduler.sh`), or they are what is measured.
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import yaml
from fleet import at_once, cpu_of_others
from neuron_dra_driver.api_server import kube as kube_module
from neuron_dra_driver.api_server.kube import METADATA, METADATA_LIST, SLICES, Kube
from neuron_dra_driver.kubeletplugin import ApiError
from neuron_dra_driver.virtual_nodes.ledger import plan
from neuron_dra_driver.virtual_nodes.wanted import wanted
from pod_watch import NAMESPACE, PODS, RESOURCE, a_namespace, following

Json = dict[str, Any]

NODES = "/api/v1/nodes"
CLASSES = f"{RESOURCE}/deviceclasses"
CLAIMS = f"{RESOURCE}/namespaces/{NAMESPACE}/resourceclaims"
TEMPLATES = f"{RESOURCE}/namespaces/{NAMESPACE}/resourceclaimtemplates"
TEMPLATE = "chips"
CONNECTIONS = 16
CHIPS = 16

OURS, PLAIN = "neuron.aws.com", "plain.bench.example.com"
RESOURCE_NAME = "aws.amazon.com/neuron"
CLASS_OF_PLAIN_PODS = "neuron-device.neuron-sim.dev"
REPOSITORY = Path(__file__).parents[2]
ROW = "resource.aws.com/devicegroup4_id"


@dataclass(frozen=True, slots=True)
class Layout:
    """What is published, and what each pod asks for."""

    name: str
    slices: Callable[[str, str], Iterable[Json]]
    """Of a node, by its name and uid."""
    devices: Json | None
    """What the claim template of the pods asks for; None: they have none."""
    limits: Mapping[str, str]
    goal: float | None = None
    """Of its pace, as a part of the pace with one plain slice a node."""


def nothing(_node: str, _uid: str) -> Iterable[Json]:
    return ()


def plain(node: str, uid: str, *, attributes: bool = True) -> Iterable[Json]:
    """Another driver's slice, with what AWS's driver says of its chips, or without."""
    (body,) = orjson.loads(orjson.dumps(list(ours(node, uid))))
    for device in body["spec"]["devices"]:
        if attributes:
            del device["attributes"]["neuron-sim.dev/simulated"]
        else:
            del device["attributes"]
    yield {"metadata": {"name": f"{node}-plain"}, "spec": {**body["spec"], "driver": PLAIN}}


def ours(node: str, uid: str, *, partitions: str = "none", faults: Sequence[Json] = ()) -> Iterable[Json]:
    """What the agent of virtual nodes sends for a trn2.48xlarge."""
    spec = {
        "instanceType": "trn2.48xlarge",
        "logicalNeuronCore": 2,
        "resources": "DRA",
        "partitions": partitions,
        "devices": "chips",
        "networkNodes": ["nn-1", "nn-2", "nn-3"],
        "faults": list(faults),
    }
    owner = {"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid}
    item = {"metadata": {"name": node, "ownerReferences": [owner]}, "spec": spec}
    for write in plan(wanted(item, driver=OURS, efa=False, counters=True), {}).writes:
        yield write.body


def asks(device_class: str, *, count: int = 1, match: str = "") -> Json:
    exactly = {"deviceClassName": device_class, "allocationMode": "ExactCount", "count": count}
    constraints = [{"requests": ["chips"], "matchAttribute": match}] if match else []
    return {"requests": [{"name": "chips", "exactly": exactly}], "constraints": constraints}


BROKEN = {
    "name": "broken",
    "type": "HBMUncorrectable",
    "chip": CHIPS - 1,
    "effect": "NoSchedule",
    "message": "",
    "since": "2026-11-21T00:00:00Z",
}
BASE = Layout("one plain slice a node", plain, asks(PLAIN), {})
LAYOUTS = (
    Layout("no claim", nothing, None, {}),
    Layout("one slice of chips without attributes", partial(plain, attributes=False), asks(PLAIN), {}),
    BASE,
    Layout("ours, partitions none", ours, asks(OURS), {}, 0.95),
    Layout("ours, a taint on each node", partial(ours, faults=[BROKEN]), asks(OURS), {}, 0.5),
    Layout("ours, four chips of one row", ours, asks(OURS, count=4, match=ROW), {}, 0.65),
    Layout(f"ours, plain pods ({RESOURCE_NAME}: 1)", ours, None, {RESOURCE_NAME: "1"}, 0.9),
)
PARTITIONED = Layout("ours, partitions logical", partial(ours, partitions="logical"), asks(OURS), {})


class Bound:
    """A watch on the pods of the namespace: when each was seen bound."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self.at: dict[str, float] = {}
        self._told = asyncio.Event()

    async def follow(self) -> None:
        while True:  # the API server ends a watch whose reader is too slow for a burst
            found = await self._kube.request("GET", PODS)
            for pod in found["items"]:
                self._see(pod)
            params = {"resourceVersion": found["metadata"]["resourceVersion"]}
            async for kind, pod in self._kube.watch(PODS, params=params):
                if kind in ("ADDED", "MODIFIED"):
                    self._see(pod)

    def _see(self, pod: Json) -> None:
        if pod["spec"].get("nodeName"):
            self.at.setdefault(pod["metadata"]["name"], time.perf_counter())
            self._told.set()

    async def until(self, names: Sequence[str], *, seconds: float) -> None:
        """Wait until all of them are bound."""
        async with asyncio.timeout(seconds):
            while not self.at.keys() >= set(names):
                self._told.clear()
                await self._told.wait()


def posting(kube: Kube, path: str, body: Json) -> Callable[[], Any]:
    return partial(kube.request, "POST", path, body=body, harmless_twice=True, accept=METADATA)


async def listed(kube: Kube, path: str) -> list[Json]:
    found: list[Json] = (await kube.request("GET", path, accept=METADATA_LIST)).get("items") or []
    return found


async def until_empty(kube: Kube, path: str) -> None:
    async with asyncio.timeout(300):
        while (await kube.request("GET", path, params={"limit": "1"}))["items"]:  # noqa: ASYNC110, nobody watches them
            await asyncio.sleep(0.1)


def a_node(name: str) -> Json:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    amounts = {"cpu": "64", "memory": "512Gi", "pods": "110"}
    ready = {"type": "Ready", "status": "True", "reason": "Bench", "message": "", "lastTransitionTime": now}
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "type": "kwok", "bench": "scheduler"}},
        "status": {"capacity": amounts, "allocatable": amounts, "conditions": [{**ready, "lastHeartbeatTime": now}]},
    }


@asynccontextmanager
async def nodes_there(kube: Kube, count: int) -> AsyncIterator[dict[str, str]]:
    """So many nodes, by their names their uids."""
    names = [f"bench-{number:05d}" for number in range(count)]
    await at_once([posting(kube, NODES, a_node(name)) for name in names], connections=CONNECTIONS)
    try:
        async with asyncio.timeout(300):
            while True:  # the controller manager takes away the taint with which every node begins
                items = (await kube.request("GET", NODES, params={"labelSelector": "bench=scheduler"}))["items"]
                if not any(item["spec"].get("taints") for item in items):
                    break
                await asyncio.sleep(0.5)
        yield {item["metadata"]["name"]: item["metadata"]["uid"] for item in items}
    finally:
        deletes = [partial(kube.request, "DELETE", f"{NODES}/{name}", body={}) for name in names]
        await at_once(deletes, connections=CONNECTIONS)


@asynccontextmanager
async def classes_there(kube: Kube) -> AsyncIterator[None]:
    classes = [*of_the_chart(), {"metadata": {"name": PLAIN}, "spec": {"selectors": [by_driver(PLAIN)]}}]
    for each in classes:
        await kube.request("POST", CLASSES, body=each)
    try:
        yield
    finally:
        for each in classes:
            with suppress(ApiError):
                await kube.request("DELETE", f"{CLASSES}/{each['metadata']['name']}", body={})


def of_the_chart() -> list[Json]:
    """The classes of claims and of plain pods, as the chart has them."""
    render = ("hack/helm", "--existing", "template", "bench", "charts/neuron-sim", "-s", "templates/deviceclasses.yaml")
    text = subprocess.run(render, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout
    found = {each["metadata"]["name"]: each for each in yaml.safe_load_all(text)}
    return [found[OURS], found[CLASS_OF_PLAIN_PODS]]


def by_driver(driver: str) -> Json:
    return {"cel": {"expression": f'device.driver == "{driver}"'}}


def a_pod(name: str, layout: Layout) -> Json:
    container: Json = {"name": "c", "image": "busybox"}
    spec: Json = {"terminationGracePeriodSeconds": 0, "nodeSelector": {"bench": "scheduler"}, "containers": [container]}
    if layout.devices is not None:
        spec["resourceClaims"] = [{"name": "chips", "resourceClaimTemplateName": TEMPLATE}]
        container["resources"] = {"claims": [{"name": "chips"}]}
    elif layout.limits:
        container["resources"] = {"limits": dict(layout.limits)}
    return {"metadata": {"name": name}, "spec": spec}


async def make_pods(kube: Kube, names: Sequence[str], layout: Layout) -> None:
    await at_once([posting(kube, PODS, a_pod(name, layout)) for name in names], connections=CONNECTIONS)


async def measure(
    kube: Kube, bound: Bound, layout: Layout, nodes: Mapping[str, str], *, pods: int, container: str
) -> tuple[float, float]:
    """Pods a second, and the scheduler's CPU for each in ms."""
    bodies = [body for name, uid in nodes.items() for body in layout.slices(name, uid)]
    await at_once([posting(kube, SLICES, body) for body in bodies], connections=CONNECTIONS)
    try:
        if layout.devices is not None:
            template = {"metadata": {"name": TEMPLATE}, "spec": {"spec": {"devices": layout.devices}}}
            await kube.request("POST", TEMPLATES, body=template)
        bound.at.clear()
        await make_pods(kube, ["first"], layout)  # when it is bound, the scheduler knows the slices
        await bound.until(["first"], seconds=300)
        names = [f"pod-{number}" for number in range(pods)]
        before = cpu_of_others(container).get("kube-scheduler", 0.0)
        await make_pods(kube, names, layout)
        await bound.until(names, seconds=60 + 10 * pods)
        spent = cpu_of_others(container).get("kube-scheduler", 0.0) - before
        times = sorted(bound.at[name] for name in names)
        return (pods - 1) / (times[-1] - times[0]), 1000 * spent / pods
    finally:
        for path in (PODS, TEMPLATES):
            await kube.request("DELETE", path, body={})
        for path in (PODS, CLAIMS):
            await until_empty(kube, path)
        deletes = [partial(kube.request, "DELETE", f"{SLICES}/{body['metadata']['name']}", body={}) for body in bodies]
        await at_once(deletes, connections=CONNECTIONS)


async def run(options: argparse.Namespace) -> None:
    kube_module.TIMEOUT = 60
    async with Kube(options.kubeconfig, kept=CONNECTIONS) as kube:
        if found := await listed(kube, SLICES):
            raise SystemExit(f"{len(found)} ResourceSlices are there already: take a cluster without DRA drivers")
        async with classes_there(kube), nodes_there(kube, options.nodes) as nodes, a_namespace(kube):
            bound = Bound(kube)
            async with following(bound.follow):
                paces: dict[str, list[float]] = {layout.name: [] for layout in LAYOUTS}
                spent: dict[str, list[float]] = {layout.name: [] for layout in LAYOUTS}
                for number in range(options.rounds):
                    for layout in LAYOUTS if number % 2 == 0 else reversed(LAYOUTS):
                        pace, cpu = await measure(
                            kube, bound, layout, nodes, pods=options.pods, container=options.container
                        )
                        paces[layout.name].append(pace)
                        spent[layout.name].append(cpu)
                        print(f"round {number + 1}: {layout.name}: {pace:.1f} pods/s", flush=True)
                print_table(options, paces, spent)
                for count in options.partitions:
                    few = dict(list(nodes.items())[:count])
                    pace, cpu = await measure(
                        kube, bound, PARTITIONED, few, pods=options.partition_pods, container=options.container
                    )
                    burst = f"{count} nodes, {options.partition_pods} pods"
                    print(f"| {PARTITIONED.name}, {burst} | {pace:.2f} | {cpu:.0f} | | |")


def print_table(
    options: argparse.Namespace, paces: Mapping[str, Sequence[float]], spent: Mapping[str, Sequence[float]]
) -> None:
    print(f"\n{options.nodes} nodes, bursts of {options.pods} pods, {options.rounds} rounds; medians (from, to):\n")
    print("| layout | pods/s | scheduler's CPU, ms a pod | of one plain slice a node | goal |")
    print("| --- | --- | --- | --- | --- |")
    for layout in LAYOUTS:
        here = paces[layout.name]
        ratios = [mine / base for mine, base in zip(here, paces[BASE.name], strict=True)]
        goal = "" if layout.goal is None else f"≥ {layout.goal}"
        print(
            f"| {layout.name} | {_spread(here, 1)} | {statistics.median(spent[layout.name]):.1f} "
            f"| {_spread(ratios, 2)} | {goal} |"
        )


def _spread(values: Sequence[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=500)
    parser.add_argument("--pods", type=int, default=200, help="of a burst; four chips each have to fit")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--partitions", type=int, nargs="*", default=[], help="numbers of nodes with partitions")
    parser.add_argument("--partition-pods", type=int, default=10)
    parser.add_argument("--container", default="", help="id of the one with the control plane, to tell its CPU")
    parser.add_argument("--kubeconfig", type=Path, default=os.environ.get("KUBECONFIG"))
    options = parser.parse_args()
    if options.kubeconfig is None:
        parser.error("which cluster? give --kubeconfig or set KUBECONFIG")
    if 4 * options.pods > CHIPS * options.nodes:
        parser.error(f"--pods {options.pods} of four chips do not fit: give at most {4 * options.nodes}")
    options.kubeconfig = Path(options.kubeconfig)
    asyncio.run(run(options))


if __name__ == "__main__":
    main()
