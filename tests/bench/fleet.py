"""What a fleet of virtual nodes costs, on a cluster with the chart's virtual nodes, whose operator and agent are away.

    tests/bench/fleet.sh --nodes 500                                  # makes such a cluster, and takes it down again
    python tests/bench/fleet.py --nodes 500 [--kubeconfig FILE]

Operator and agent of virtual nodes run here as processes, so that their CPU can be told from everybody else's. In one
run are measured: a pool from its creation to its last slice; publishing alone, in turn with a bare loop that POSTs the
very same bodies over as many connections; both processes at rest, and whether every node stays ready; a chip that
breaks and heals, from the NeuronFault to a foreign watch on the slices; gangs of four from submit to Ready.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn
from urllib.request import urlopen

import gangs
from neuron_dra_driver.api_server import kube as kube_module
from neuron_dra_driver.api_server.kube import METADATA, METADATA_LIST, NEURON_NODES, SLICES, Kube
from neuron_dra_driver.kubeletplugin import ApiError
from neuron_dra_driver.names import API_GROUP, API_VERSION, VIRTUAL
from neuron_dra_driver.virtual_nodes.publisher import WRITERS
from pod_watch import Pods, a_namespace, following
from prometheus_client.parser import text_string_to_metric_families

Json = dict[str, Any]

POOL = "bench-fleet"
POOLS = f"/apis/{API_GROUP}/{API_VERSION}/neuronnodepools"
FAULTS = f"/apis/{API_GROUP}/{API_VERSION}/neuronfaults"
SELECTOR = {"labelSelector": f"{VIRTUAL}=true"}
NODES = "/api/v1/nodes"
OTHERS = ("etcd", "kube-apiserver", "kube-controller", "kube-scheduler", "kwok")
TICK = os.sysconf("SC_CLK_TCK")


class Process:
    """One of ours, as a child."""

    def __init__(self, *command: str, log: Path) -> None:
        with log.open("ab") as out:
            self._child = subprocess.Popen([sys.executable, "-m", *command], stdout=out, stderr=out)

    def cpu(self) -> float:
        """Seconds of processor time so far."""
        fields = Path(f"/proc/{self._child.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def memory(self) -> int:
        """MiB that are resident."""
        status = Path(f"/proc/{self._child.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) // 1024

    @property
    def ended(self) -> bool:
        return self._child.poll() is not None

    def stop(self) -> None:
        """As Kubernetes does."""
        self._child.terminate()
        self._child.wait(timeout=30)


class Fleet:
    """A foreign watch on the metadata of the slices of virtual nodes."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self.there: set[str] = set()
        self.first = self.last = 0.0
        """When the first and the last of them came."""
        self._told = asyncio.Event()
        self.changes: asyncio.Queue[tuple[str, float]] = asyncio.Queue()

    async def follow(self) -> None:
        while True:  # the API server ends a watch whose reader is too slow for a burst
            found = await self._kube.request("GET", SLICES, params=SELECTOR, accept=METADATA_LIST)
            there = {item["metadata"]["name"] for item in found.get("items") or ()}
            if there - self.there:
                self._came()
            self.there = there
            self._told.set()
            params = {**SELECTOR, "resourceVersion": found["metadata"]["resourceVersion"]}
            async for kind, item in self._kube.watch(SLICES, params=params, accept=METADATA):
                self._event(kind, item["metadata"].get("name", ""))

    def _event(self, kind: str, name: str) -> None:
        if kind == "ADDED":
            self._came()
            self.there.add(name)
        elif kind == "DELETED":
            self.there.discard(name)
        elif kind == "MODIFIED":
            self.changes.put_nowait((name, time.perf_counter()))
        self._told.set()

    def _came(self) -> None:
        self.last = time.perf_counter()
        self.first = self.last if not self.there else self.first

    async def until(self, count: int, *, seconds: float) -> None:
        """Wait for so many slices."""
        async with asyncio.timeout(seconds):
            while len(self.there) != count:
                self._told.clear()
                await self._told.wait()


async def guard(running: Sequence[Process], log: Path) -> NoReturn:
    """An operator that cannot renew its Lease in time ends, and nothing would ever come of what is waited for."""
    while True:
        await asyncio.sleep(1)
        if any(process.ended for process in running):
            raise SystemExit(f"one of the processes has ended: see {log}")


async def at_once(jobs: Sequence[Callable[[], Awaitable[object]]], *, connections: int) -> None:
    """So many at a time."""
    waiting = iter(jobs)

    async def worker() -> None:
        for job in waiting:
            await job()

    await asyncio.gather(*(worker() for _ in range(connections)))


async def names(kube: Kube, path: str) -> list[str]:
    found = await kube.request("GET", path, params=SELECTOR, accept=METADATA_LIST)
    return [item["metadata"]["name"] for item in found.get("items") or ()]


async def delete_slices(kube: Kube) -> None:
    await at_once([_deleting(kube, name) for name in await names(kube, SLICES)], connections=WRITERS)


async def bodies(kube: Kube) -> list[Json]:
    """What is published, as it was sent."""
    made: list[Json] = []
    params = {**SELECTOR, "limit": "500"}
    while True:
        page = await kube.request("GET", SLICES, params=params)
        for item in page["items"]:
            metadata = item["metadata"]
            sent = {key: metadata[key] for key in ("name", "labels", "annotations", "ownerReferences")}
            made.append({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", **item, "metadata": sent})
        if not page["metadata"].get("continue"):
            return made
        params["continue"] = page["metadata"]["continue"]


async def post_all(kube: Kube, sent: Sequence[Json]) -> None:
    def post(body: Json) -> Callable[[], Awaitable[object]]:
        return lambda: kube.request("POST", SLICES, body=body, harmless_twice=True)

    await at_once([post(body) for body in sent], connections=WRITERS)


async def break_chips(kube: Kube, fleet: Fleet, nodes: int, rounds: int) -> tuple[list[float], list[float]]:
    """Milliseconds from a NeuronFault, and from the NeuronNode that carries it, to the slice at a foreign watch."""
    decided: dict[str, float] = {}
    version = (await kube.request("GET", NEURON_NODES, params={"limit": "1"}))["metadata"]["resourceVersion"]

    async def watch_nodes() -> None:
        params = {**SELECTOR, "resourceVersion": version}
        async for kind, item in kube.watch(NEURON_NODES, params=params, accept=METADATA):
            generation = item["metadata"].get("generation")
            if kind == "MODIFIED":
                decided.setdefault(f"{item['metadata']['name']}/{generation}", time.perf_counter())

    whole: list[float] = []
    own: list[float] = []
    async with following(watch_nodes):
        for number in range(rounds):
            node = f"{POOL}-{number * 7 % nodes}"
            body = {
                "apiVersion": f"{API_GROUP}/{API_VERSION}",
                "kind": "NeuronFault",
                "metadata": {"name": f"{POOL}-{number}"},
                "spec": {"target": {"nodeName": node, "chip": number % 16}, "type": "HBMUncorrectable"},
            }
            for call in (
                lambda body=body: kube.request("POST", FAULTS, body=body),
                lambda body=body: kube.request("DELETE", f"{FAULTS}/{body['metadata']['name']}", body={}),
            ):
                while not fleet.changes.empty():
                    fleet.changes.get_nowait()
                decided.clear()
                began = time.perf_counter()
                await call()
                async with asyncio.timeout(60):
                    while True:
                        name, seen = await fleet.changes.get()
                        if name.startswith(f"{node}-"):
                            break
                whole.append(1000 * (seen - began))
                own += [1000 * (seen - at) for key, at in decided.items() if key.startswith(f"{node}/")]
                await asyncio.sleep(0.3)  # statuses are written: one change at a time is measured
    return whole, own


def spread(values: Sequence[float]) -> str:
    return "p50 {:.1f} ms, p99 {:.1f} ms".format(*gangs.p50_p99(values))


async def measure(options: argparse.Namespace, folder: Path) -> None:
    count, kubeconfig = options.nodes, str(options.kubeconfig)
    log = folder / "processes.log"
    print(f"log of the processes: {log}", flush=True)

    def operator() -> Process:
        os.environ["KUBECONFIG"] = kubeconfig
        return Process(
            *("neuron_operator", "run", "--virtual-nodes", "--namespace=default", "--log-format=plain"),
            *("--health-port=0", f"--metrics-port={options.port + 1}", f"--kubeconfig={kubeconfig}"),
            log=log,
        )

    def agent() -> Process:
        return Process(
            "neuron_dra_driver.virtual_nodes", f"--kubeconfig={kubeconfig}", f"--metrics-port={options.port}", log=log
        )

    kube_module.TIMEOUT = 60  # here; what is measured are other processes
    running: list[Process] = []
    async with Kube(Path(kubeconfig), kept=WRITERS) as kube:
        fleet = Fleet(kube)
        async with following(fleet.follow):
            running = [operator(), agent()]
            guarding = asyncio.create_task(guard(running, log))
            try:
                while "leading as" not in log.read_text():  # noqa: ASYNC110, another process says so
                    await asyncio.sleep(0.5)
                await asyncio.sleep(3)  # and then it watches
                before = [process.cpu() for process in running]
                began = time.perf_counter()
                spec = {"instanceType": options.instance_type, "count": count}
                kind = {"apiVersion": f"{API_GROUP}/{API_VERSION}", "kind": "NeuronNodePool"}
                await kube.request("POST", POOLS, body={**kind, "metadata": {"name": POOL}, "spec": spec})
                await fleet.until(count, seconds=60 + count)
                print(f"pool of {count} nodes, from its creation to its last slice: {fleet.last - began:.1f} s")
                await settled(running)
                spent = [process.cpu() - cpu for process, cpu in zip(running, before, strict=True)]
                print(f"  and to the end: CPU operator {spent[0]:.1f} s, agent {spent[1]:.1f} s")
                print(f"  the operator's writes: {operator_writes(options.port + 1)}", flush=True)

                sent = await bodies(kube)
                for _ in range(options.rounds):
                    running.pop().stop()
                    await delete_slices(kube)
                    await fleet.until(0, seconds=60 + count)
                    running.append(agent())
                    await fleet.until(count, seconds=60 + count)
                    own, cpu = fleet.last - fleet.first, running[-1].cpu()
                    running.pop().stop()
                    await delete_slices(kube)
                    await fleet.until(0, seconds=60 + count)
                    await post_all(kube, sent)
                    await fleet.until(count, seconds=60 + count)
                    bare = fleet.last - fleet.first
                    print(
                        f"publish: agent {own:.1f} s ({cpu:.1f} s of its CPU since it started), bare loop {bare:.1f} s,"
                        f" ratio {own / bare:.2f}",
                        flush=True,
                    )
                    running.append(agent())
                await settled(running)
                restarted = running[-1]
                cpu = restarted.cpu()
                print(f"restart of the agent: {cpu:.1f} s of CPU, slices rewritten: {fleet.changes.qsize()}")
                await at_rest(kube, running, options.rest, container=options.container)
                before = [process.cpu() for process in running]
                whole, own_part = await break_chips(kube, fleet, count, options.faults)
                changes = 2 * options.faults
                spent = [1000 * (process.cpu() - cpu) / changes for process, cpu in zip(running, before, strict=True)]
                print(f"a chip breaks or heals, {changes} times: NeuronFault to foreign watch {spread(whole)}")
                print(f"  NeuronNode at a watch, to the slice at another: {spread(own_part)}")
                print(f"  CPU for each: operator {spent[0]:.0f} ms, agent {spent[1]:.1f} ms", flush=True)
                if options.gangs:
                    await with_gangs(kube, options.gangs)
                began = time.perf_counter()
                await kube.request("DELETE", f"{POOLS}/{POOL}", body={})
                await fleet.until(0, seconds=60 + count)
                print(f"pool deleted, to the last slice: {time.perf_counter() - began:.1f} s")
                while await names(kube, NODES):  # noqa: ASYNC110, nobody here watches nodes
                    await asyncio.sleep(0.5)
                print(f"  and to the last Node: {time.perf_counter() - began:.1f} s")
            finally:
                guarding.cancel()
                with suppress(ApiError):
                    await kube.request("DELETE", f"{POOLS}/{POOL}", body={})
                for process in running:
                    process.stop()


def operator_writes(port: int) -> str:
    """What it wrote so far, by kind and verb."""
    with urlopen(f"http://127.0.0.1:{port}/metrics") as page:
        families = text_string_to_metric_families(page.read().decode())
    samples = [each for family in families if family.name == "neuron_sim_operator_writes" for each in family.samples]
    counts = [each for each in samples if each.name.endswith("_total")]
    return ", ".join("{kind} {verb} {result}".format(**each.labels) + f" {each.value:.0f}" for each in counts)


async def at_rest(kube: Kube, running: Sequence[Process], seconds: int, *, container: str) -> None:
    """What everybody costs while nothing happens, and who loses readiness meanwhile."""
    found = await kube.request("GET", NODES, params={**SELECTOR, "resourceVersion": "0"})
    lost = {item["metadata"]["name"] for item in found["items"] if not is_ready(item)}
    version = found["metadata"]["resourceVersion"]
    del found

    async def watch_nodes() -> None:
        async for kind, item in kube.watch(NODES, params={**SELECTOR, "resourceVersion": version}):
            if kind == "MODIFIED" and not is_ready(item):
                lost.add(item["metadata"]["name"])

    async with following(watch_nodes):
        before, others = [process.cpu() for process in running], cpu_of_others(container)
        await asyncio.sleep(seconds)
        for name, process, cpu in zip(("operator", "agent"), running, before, strict=True):
            share = 100 * (process.cpu() - cpu) / seconds
            print(f"at rest for {seconds} s: {name} {share:.1f} % of a core, {process.memory()} MiB", flush=True)
        after = cpu_of_others(container)
        shares = {name: 100 * (cpu - others.get(name, cpu)) / seconds for name, cpu in after.items()}
        print("  others: " + ", ".join(f"{name} {share:.1f} %" for name, share in sorted(shares.items())))
    print(f"  nodes that were not ready at any time: {len(lost)}", flush=True)


def is_ready(node: Json) -> bool:
    return any(found["type"] == "Ready" and found["status"] == "True" for found in node["status"]["conditions"])


def cpu_of_others(container: str) -> dict[str, float]:
    """Seconds of processor time so far, by program, of what runs in a container; "" is all of this machine."""
    spent: dict[str, float] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            head, _, tail = stat.read_text().rpartition(")")
            name, fields = head.partition("(")[2], tail.split()
            if name in OTHERS and container in stat.with_name("cgroup").read_text():
                spent[name] = spent.get(name, 0) + (int(fields[11]) + int(fields[12])) / TICK
    return spent


def virtual_worker() -> Json:
    """The spec of a pod of a gang; KWOK plays it, kube-scheduler and kube-controller-manager do the rest."""
    return {
        "nodeSelector": {"neuron-sim.dev/virtual": "true"},
        "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}],
        "terminationGracePeriodSeconds": 0,
        "containers": [
            {"name": "worker", "image": "busybox", "resources": {"limits": {"aws.amazon.com/neuron": "16"}}}
        ],
    }


async def with_gangs(kube: Kube, count: int) -> None:
    """Gangs on the fleet, one after the other."""
    async with a_namespace(kube):
        pods = Pods(kube)
        async with following(pods.follow):
            for number in range(2):  # watches, images, compiled expressions
                await gangs.together(kube, pods, gangs.members(f"first-{number}", virtual_worker()))
            took = [
                await gangs.together(kube, pods, gangs.members(f"gang-{number}", virtual_worker()))
                for number in range(count)
            ]
            print(f"gang of four, submit to all Ready, {count} times: {spread([each.ready for each in took])}")
            print(f"  to the last one let go: {spread([each.let_go for each in took])}")
            print(f"  to the last one bound: {spread([each.bound for each in took])}", flush=True)


def _deleting(kube: Kube, name: str) -> Callable[[], Awaitable[object]]:
    return lambda: kube.request("DELETE", f"{SLICES}/{name}", body={}, accept=METADATA)


async def settled(running: Sequence[Process]) -> None:
    """Until the processes hardly use the processor any more."""
    calm = 0
    while calm < 3:
        before = sum(process.cpu() for process in running)
        await asyncio.sleep(2)
        calm = calm + 1 if sum(process.cpu() for process in running) - before < 0.3 else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=500)
    parser.add_argument("--instance-type", default="trn2u.48xlarge")
    parser.add_argument("--rounds", type=int, default=2, help="of publishing, each in turn with the bare loop")
    parser.add_argument("--faults", type=int, default=50)
    parser.add_argument("--gangs", type=int, default=0, help="of four pods, one after the other; they need KWOK")
    parser.add_argument("--rest", type=int, default=60, help="seconds at rest")
    parser.add_argument("--container", default="", help="id of the one with the control plane, to tell its CPU")
    parser.add_argument("--port", type=int, default=18001, help="of the agent's metrics; the operator's: the next")
    parser.add_argument("--kubeconfig", type=Path, default=os.environ.get("KUBECONFIG"))
    options = parser.parse_args()
    if options.kubeconfig is None:
        parser.error("which cluster? give --kubeconfig or set KUBECONFIG")
    asyncio.run(measure(options, Path(tempfile.mkdtemp(prefix="neuron-sim-fleet-"))))


if __name__ == "__main__":
    main()
