"""Time placement, and say how good it is beside first-fit, best-fit and what is possible.

`make bench` runs this. It needs no cluster. Times are of the CPU, so that a busy machine changes them less. The exact
optimum of small traces is computed if OR-tools is there (`pip install ortools`); the project does not need it.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.util import find_spec

from neuron_operator.placement import Board, Gang, Placement, place, place_all
from placement_traces import IN_ULTRASERVERS, MIX, Outcome, fleet, gang_of, ours, outcomes, repacking, trace

ULTRASERVERS = 1250
GANGS = 2000
SMALL, SMALL_GANGS = 4, 40
"""Of the traces that the exact solver is asked about."""

HEADER = "| load | | refused | nodes that they asked for | ways, 1 = shortest |\n| --- | --- | --- | --- | --- |"


def milliseconds(work: Callable[[], object]) -> float:
    begin = time.process_time()
    work()
    return (time.process_time() - begin) * 1000


def print_times(runs: int) -> None:
    nodes = fleet(ULTRASERVERS)
    nothing_free = [replace(node, free=()) for node in nodes]
    gangs = [arrival.gang for arrival in trace(0, gangs=1000, ultraservers=ULTRASERVERS, load=1, warm=False)]
    board = Board(nodes)

    def place_and_take(gang: Gang) -> None:
        answer = board.place(gang)
        if isinstance(answer, Placement):
            board.take(answer)

    kinds = [gang_of("g", size, level, chips) for _, size, level, chips in MIX]
    alone = [milliseconds(partial(place, nodes, kind)) for kind in kinds for _ in range(runs)]
    refused = [milliseconds(partial(place, nothing_free, kind)) for kind in kinds for _ in range(runs)]
    kept = [milliseconds(partial(place_and_take, gang)) for gang in gangs]
    rows = (
        ("`place`: one gang, the index made for it", alone),
        ("the same, and nothing is free", refused),
        ("`Board`: one of 1,000 gangs, the index kept", kept),
        ("`place_all`: 1,000 gangs", [milliseconds(partial(place_all, nodes, gangs)) for _ in range(runs)]),
        ("the same, and nothing is free", [milliseconds(partial(place_all, nothing_free, gangs)) for _ in range(runs)]),
    )
    print(f"{ULTRASERVERS} UltraServers, {len(nodes)} nodes:\n")
    print("| what | p50 ms of CPU | worst |\n| --- | --- | --- |")
    for name, figures in rows:
        print(f"| {name} | {statistics.median(figures):.1f} | {max(figures):.1f} |")


def print_quality(seeds: int) -> None:
    print(f"\n{GANGS} gangs that count, {seeds} seeds, {ULTRASERVERS} UltraServers:\n")
    print(HEADER)
    for load in (0.95, 1.05, 1.2):
        total: dict[str, Outcome] = {}
        for seed in range(seeds):
            arrivals = trace(seed, gangs=GANGS, ultraservers=ULTRASERVERS, load=load)
            for name, outcome in outcomes(fleet(ULTRASERVERS), arrivals):
                total[name] = total.get(name, Outcome()) + outcome
        for name, outcome in total.items():
            print(f"| {load} | {name} | {_figures(outcome)} |")


def print_bound(seeds: int) -> None:
    print("\nWhole nodes in UltraServers only; beside a scheduler that may move all gangs at each arrival:\n")
    print(HEADER)
    for load in (0.95, 1.0, 1.05):
        mine, moving = Outcome(), Outcome()
        for seed in range(seeds):
            arrivals = trace(seed, gangs=GANGS, ultraservers=ULTRASERVERS, load=load, mix=IN_ULTRASERVERS)
            mine += ours(fleet(ULTRASERVERS), arrivals)
            moving += repacking(arrivals, ultraservers=ULTRASERVERS)
        print(f"| {load} | ours | {_figures(mine)} |\n| {load} | all may move | {_figures(moving)} |")


def print_exact(seeds: int, seconds: float) -> None:
    if find_spec("ortools") is None:
        print("\nOR-tools is not installed: no exact optimum")
        return
    from placement_exact import optimum

    total: dict[str, Outcome] = {}
    refused = ways = proven = 0
    for seed in range(seeds):
        arrivals = trace(seed, gangs=SMALL_GANGS, ultraservers=SMALL, load=0.6, mix=IN_ULTRASERVERS, warm=False)
        of_seed = optimum(arrivals, ultraservers=SMALL, seconds=seconds)
        if of_seed is None:
            continue
        proven += 1
        refused, ways = refused + of_seed[0], ways + of_seed[1]
        for name, outcome in outcomes(fleet(SMALL), arrivals):
            total[name] = total.get(name, Outcome()) + outcome
    print(
        f"\n{proven} of {seeds} traces of {SMALL_GANGS} gangs on {SMALL} UltraServers, those with a proven optimum:\n"
    )
    print(f"| | refused of {proven * SMALL_GANGS} | ways of those placed, ms |\n| --- | --- | --- |")
    print(f"| optimum, all known before | {refused} | {ways / 1e6:.3f} |")
    for name, outcome in total.items():
        print(f"| {name} | {outcome.refused} | {outcome.ways / 1e6:.3f} |")


def _figures(outcome: Outcome) -> str:
    share = outcome.refused / outcome.gangs
    return (
        f"{outcome.refused} ({share:.2%}) | {outcome.refused_nodes:.0f} ({outcome.refused_nodes / outcome.nodes:.2%}) "
        f"| {outcome.ways / outcome.least_ways:.3f}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="of each timing")
    parser.add_argument("--seeds", type=int, default=2, help="traces for each load")
    parser.add_argument("--exact", type=int, default=20, help="traces for the exact solver")
    parser.add_argument("--seconds", type=float, default=5, help="for the exact solver, each trace")
    options = parser.parse_args()
    print_times(options.runs)
    print_quality(options.seeds)
    print_bound(options.seeds)
    print_exact(options.exact, options.seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
