"""Time the collectives' cost model, and print published beside modelled figures.

`make bench` runs this. It needs no cluster. Times are of the CPU, so that a busy machine changes them less. A group's
stages are made when it is first asked about; after that only size, type and traffic are priced.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial

from neuron_device_model.collectives.fabric import Core, Fabric, Node
from neuron_device_model.collectives.measurements import measurements
from neuron_device_model.collectives.model import estimate

SIZES = (64 << 10, 32 << 20, 1 << 30)
RUNS = 200


def microseconds(work: Callable[[], object]) -> float:
    begin = time.process_time_ns()
    work()
    return (time.process_time_ns() - begin) / 1000


def board(name: str) -> Fabric:
    return Fabric("trn2.48xlarge", 2, (Node(name),))


def ultraserver(name: str) -> Fabric:
    return Fabric("trn2u.48xlarge", 1, tuple(Node(f"{name}-{seat}", name, seat) for seat in range(4)))


def all_cores(fabric: Fabric) -> tuple[Core, ...]:
    return tuple(core for node in range(len(fabric.nodes)) for core in fabric.cores(node))


def print_times() -> None:
    print("| ranks | algorithm | first time, µs | again, p50 µs | worst |\n| --- | --- | --- | --- | --- |")
    for place in (board, ultraserver):
        for size in SIZES:
            fabric = place(f"us-{size}")  # nothing is known of it
            ask = partial(estimate, fabric, all_cores(fabric), "all_reduce", size, "bf16")
            first = microseconds(ask)
            times = [microseconds(ask) for _ in range(RUNS)]
            answer = ask()
            print(
                f"| {answer.ranks} | {answer.algorithm} | {first:.0f} | {statistics.median(times):.0f} "
                f"| {max(times):.0f} |"
            )


def print_comparison() -> None:
    print("\n| curve | size | published µs | modelled µs | | algorithm |\n| --- | --- | --- | --- | --- | --- |")
    for row in measurements():
        if row.use in ("fit", "check"):
            answer = row.modelled()
            print(
                f"| {row.curve} | {row.size} | {row.seconds * 1e6:.1f} | {answer.time_us:.1f} | {row.error():+.0%} "
                f"| {answer.algorithm} |"
            )


if __name__ == "__main__":
    print_times()
    print_comparison()
