"""Traces of gangs that arrive and leave: on the whole never worse than first-fit and best-fit, and near the bound."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

from placement_traces import IN_ULTRASERVERS, Outcome, fleet, ours, outcomes, repacking, trace

ULTRASERVERS, GANGS, SEEDS = 64, 250, 2


def test_fewer_gangs_are_refused_and_shorter_ways_needed_than_with_simple_rules() -> None:
    total: dict[str, Outcome] = {}
    for load in (0.8, 1.0, 1.2):
        for seed in range(SEEDS):
            arrivals = trace(seed, gangs=GANGS, ultraservers=ULTRASERVERS, load=load)
            for name, outcome in outcomes(fleet(ULTRASERVERS), arrivals):
                total[name] = total.get(name, Outcome()) + outcome
    mine = total.pop("ours")
    for simple in total.values():
        assert mine.refused < simple.refused
        assert mine.ways / mine.least_ways < simple.ways / simple.least_ways


def test_few_gangs_are_refused_that_would_fit_if_all_could_move() -> None:
    mine, moving = Outcome(), Outcome()
    for seed in range(SEEDS):
        arrivals = trace(seed, gangs=GANGS, ultraservers=ULTRASERVERS, load=0.9, mix=IN_ULTRASERVERS)
        mine += ours(fleet(ULTRASERVERS), arrivals)
        moving += repacking(arrivals, ultraservers=ULTRASERVERS)
    assert mine.refused - moving.refused <= 0.02 * mine.gangs
    assert mine.ways <= 1.02 * mine.least_ways
