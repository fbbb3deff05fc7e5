"""Time the collectives' cost model, and print published beside modelled figures.

`make bench` runs this. It needs no cluster. Times are of the CPU, so that a busy machine changes them less. A group's
stages are made when it is first asked about; after that only size, type and traffic are priced.
"""

import statistics
import time
from collections.abc import Callable

from neuron_device_model.collectives import plans
from neuron_device_model.collectives.fabric import Core, Fabric, Node, single_node
from neuron_device_model.collectives.measurements import measurements
from neuron_device_model.collectives.model import estimate

SIZES = {"mesh": 64 << 10, "rdh": 32 << 20, "kangaring": 1 << 30}
RUNS = 200


def microseconds(work: Callable[[], object]) -> float:
    begin = time.process_time_ns()
    work()
    return (time.process_time_ns() - begin) / 1000


def ultraserver() -> tuple[Fabric, tuple[Core, ...]]:
    fabric = Fabric("trn2u.48xlarge", 1, tuple(Node(f"node-{seat}", "us", seat) for seat in range(4)))
    return fabric, tuple(core for node in range(4) for core in fabric.cores(node))


def print_times() -> None:
    print("| ranks | algorithm | first time, µs | again, p50 µs | worst |\n| --- | --- | --- | --- | --- |")
    board = single_node("trn2.48xlarge")
    for fabric, ranks in ((board, board.cores()), ultraserver()):
        for size in SIZES.values():
            plans.forget()

            def ask(fabric: Fabric = fabric, ranks: tuple[Core, ...] = ranks, size: int = size) -> str:
                return estimate(fabric, ranks, "all_reduce", size, "bf16").algorithm

            first = microseconds(ask)
            times = [microseconds(ask) for _ in range(RUNS)]
            print(f"| {len(ranks)} | {ask()} | {first:.0f} | {statistics.median(times):.0f} | {max(times):.0f} |")


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
