"""The best that could have been done with a trace, had all of it been known before: by OR-tools' CP-SAT.

For gangs of whole nodes in UltraServers: the fewest gangs refused, then the shortest ways of those that were placed. No
gang moves once it is placed, as with ours; but ours has to answer at each arrival, and may not refuse a large gang
that fits so that two small ones can come. So the distance is more than what a better rule could gain.
"""

from collections.abc import Sequence
from itertools import combinations

from neuron_operator.placement.ways import between_servers
from ortools.sat.python import cp_model
from placement_traces import NODES, Arrival

_TYPE = "trn2u.48xlarge"


def optimum(arrivals: Sequence[Arrival], *, ultraservers: int, seconds: float) -> tuple[int, int] | None:
    """Gangs refused and nanoseconds of the rings of the others; None: not proven in that time."""
    model = cp_model.CpModel()
    on_node: dict[tuple[int, int], list[tuple[int, cp_model.IntVar]]] = {}
    refused, ways = [], []
    for number, arrival in enumerate(arrivals):
        options = []
        for server in range(ultraservers):
            for nodes in _sets(arrival):
                option = model.new_bool_var("")
                options.append(option)
                ways.append(_cost(nodes) * option)
                for node in nodes:
                    on_node.setdefault((server, node), []).append((number, option))
        placed = model.new_bool_var("")
        model.add(sum(options) == placed)
        refused.append(1 - placed)
    for held in on_node.values():
        for now in arrivals:
            # only an arrival can be one too many
            there = [option for which, option in held if arrivals[which].comes <= now.comes < arrivals[which].leaves]
            model.add_at_most_one(there)
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = seconds
    solver.parameters.num_workers = 2
    model.minimize(sum(refused) * 1_000_000_000 + sum(ways))
    status = solver.solve(model)
    if status != cp_model.OPTIMAL:
        return None
    return sum(map(solver.value, refused)), sum(map(solver.value, ways))


def _sets(arrival: Arrival) -> list[tuple[int, ...]]:
    if arrival.gang.level == "ultraserver-2":
        return [(0, 1), (2, 3)]
    return list(combinations(range(NODES), arrival.gang.size))


def _cost(nodes: Sequence[int]) -> int:
    return sum(between_servers(_TYPE, node, nodes[index - 1]) for index, node in enumerate(nodes))
