"""Gangs of four pods from submit to Ready.

    tests/bench/gangs.sh                                  # makes a cluster of four workers, and takes it down again
    python tests/bench/gangs.py [--kubeconfig FILE]       # on one that is there: four nodes of one UltraServer

With real kubelets, as here, in turn with four pods that nobody gates and that ask for the same devices by claims of the
same template. `fleet.py` has gangs on virtual nodes.
"""

import argparse
import asyncio
import math
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuron_dra_driver.api_server.kube import Kube
from neuron_dra_driver.names import DRIVER_NAME
from pod_watch import NAMESPACE, PODS, RESOURCE, Pods, a_namespace, following, remove

Json = dict[str, Any]

SIZE = 4
CHIPS = 16
LABELS = {"neuron-sim.dev/gang-size": str(SIZE), "neuron-sim.dev/topology": "ultraserver"}


@dataclass(frozen=True, slots=True)
class Took:
    """Milliseconds from the submit until the last of the pods was ..."""

    let_go: float
    bound: float
    ready: float


def members(gang: str, spec: Json) -> list[Json]:
    """The pods of a gang, each with this spec and the gate."""
    gated = {**spec, "schedulingGates": [{"name": "neuron-sim.dev/gang"}]}
    labels = {**LABELS, "neuron-sim.dev/gang": gang}
    return [{"metadata": {"name": f"{gang}-{rank}", "labels": labels}, "spec": gated} for rank in range(SIZE)]


async def together(kube: Kube, pods: Pods, bodies: Sequence[Json]) -> Took:
    """Submit these pods at once, wait until all are ready, and remove them."""
    pods.forget()
    names = [body["metadata"]["name"] for body in bodies]
    began = time.perf_counter()
    await asyncio.gather(*(kube.request("POST", PODS, body=body, harmless_twice=True) for body in bodies))
    await pods.until(lambda: pods.ready.keys() >= set(names), seconds=120)
    last = [max(seen[name] for name in names) for seen in (pods.let_go, pods.bound, pods.ready)]
    await remove(kube, pods)
    return Took(*(1000 * (at - began) for at in last))


def template() -> Json:
    """Claims of all chips of a node."""
    request = {"name": "chips", "exactly": {"deviceClassName": DRIVER_NAME, "count": CHIPS}}
    return {"metadata": {"name": "chips"}, "spec": {"spec": {"devices": {"requests": [request]}}}}


def worker() -> Json:
    """The spec of a pod with such a claim."""
    container = {
        "name": "worker",
        "image": "busybox",
        "command": ["sleep", "infinity"],
        "resources": {"claims": [{"name": "chips"}]},
    }
    return {
        "terminationGracePeriodSeconds": 0,
        "containers": [container],
        "resourceClaims": [{"name": "chips", "resourceClaimTemplateName": "chips"}],
    }


async def measure(kubeconfig: Path, rounds: int) -> None:
    async with Kube(kubeconfig) as kube, a_namespace(kube):
        await kube.request("POST", f"{RESOURCE}/namespaces/{NAMESPACE}/resourceclaimtemplates", body=template())
        pods = Pods(kube)
        async with following(pods.follow):
            await in_turn(kube, pods, 2)  # images, compiled expressions
            print_table(*await in_turn(kube, pods, rounds))


async def in_turn(kube: Kube, pods: Pods, rounds: int) -> tuple[list[Took], list[Took]]:
    """Single pods and gangs; who comes first changes from round to round."""
    single: list[Took] = []
    gangs: list[Took] = []
    for number in range(rounds):
        alone = [{"metadata": {"name": f"single-{number}-{rank}"}, "spec": worker()} for rank in range(SIZE)]
        turns = [(single, alone), (gangs, members(f"gang-{number}", worker()))]
        for took, bodies in turns if number % 2 else reversed(turns):
            took.append(await together(kube, pods, bodies))
    return single, gangs


def print_table(single: Sequence[Took], gangs: Sequence[Took]) -> None:
    print(f"\n{SIZE} pods with a claim of {CHIPS} chips each, {len(gangs)} times, ms until the last is ...\n")
    print("| p50 / p99 | four single pods | gang of four | ratio of each, p50 |\n| --- | --- | --- | --- |")
    for what in Took.__slots__:
        mine, theirs = ([getattr(each, what) for each in taken] for taken in (gangs, single))
        ratio = statistics.median(ours / other for ours, other in zip(mine, theirs, strict=True))
        print(f"| {what} | {spread(theirs)} | {spread(mine)} | {ratio:.2f} |")


def spread(values: Sequence[float]) -> str:
    return " / ".join(f"{value:.0f}" for value in p50_p99(values))


def p50_p99(values: Sequence[float]) -> tuple[float, float]:
    """The median, and the smallest value that 99 % of all do not exceed."""
    ordered = sorted(values)
    return statistics.median(ordered), ordered[math.ceil(0.99 * len(ordered)) - 1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--kubeconfig", type=Path, default=os.environ.get("KUBECONFIG"))
    options = parser.parse_args()
    if options.kubeconfig is None:
        parser.error("which cluster? give --kubeconfig or set KUBECONFIG")
    asyncio.run(measure(options.kubeconfig, options.rounds))


if __name__ == "__main__":
    main()
