"""On which nodes pods would land that nobody has made yet, and how many of them on each.

The scheduler chooses by scores that change with every pod, so the nodes that could take some are told and not the one
that it would choose. What is taken by one workload is gone for the next, from the first of these nodes onwards.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from neuron_operator.explaining.demand import of_pod
from neuron_operator.explaining.explanation import Explanation, Facts, explain_pod, judge, plugin_room
from neuron_operator.explaining.fitting import Fit, fit, with_given
from neuron_operator.explaining.supply import Supply

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Landing:
    """Where pods that are alike would land."""

    wanted: int
    nodes: Mapping[str, int]
    """The nodes that could take some of them now, and how many, at most as many as are wanted."""
    chosen: Mapping[str, int]
    """How many are counted on which node for what comes after."""
    why: Explanation
    """What the nodes lack for one of the pods."""

    @property
    def room(self) -> int:
        """How many of them would find a node."""
        return sum(self.chosen.values())


def land(pod: Json, wanted: int, facts: Facts) -> tuple[Landing, Facts]:
    """Where so many pods would land, and the cluster with them."""
    why = explain_pod(pod, facts)
    demand = of_pod(pod, facts.known)
    nodes: dict[str, int] = {}
    chosen: dict[str, int] = {}
    supplies = dict(facts.supplies)
    bound = list(facts.bound)
    left = wanted
    who = f"{pod['metadata'].get('namespace') or 'default'}/{pod['metadata']['name']} (of the manifest)"
    # a claim that is named, and not made from a template, is one for all of the pods
    shared = any(entry.get("resourceClaimName") for entry in (pod.get("spec") or {}).get("resourceClaims") or ())
    judged = {} if why.problems else judge(demand, facts, pod=pod)
    for name, each in judged.items():
        if each.rules or each.devices:
            continue
        room = min(wanted, plugin_room(demand, each.plugin, each.bound)) if each.plugin else wanted
        supply = each.supply or Supply(name)
        room, there = (room, supply) if shared or not each.claims else _fill(supply, each.claims, room, who)
        nodes[name] = room
        take = min(room, left)
        if not take:
            continue
        left -= take
        chosen[name] = take
        if each.claims:
            supplies[name] = (
                there if take == room and not shared else _fill(supply, each.claims, 1 if shared else take, who)[1]
            )
        if each.plugin:
            bound += [{**pod, "spec": {**pod["spec"], "nodeName": name}}] * take
        if shared:
            break
    return Landing(wanted, nodes, chosen, why), replace(facts, supplies=supplies, bound=bound)


def _fill(supply: Supply, claims: Any, limit: int, who: str) -> tuple[int, Supply]:
    """How many times claims of a pod fit on a node, and the node after that."""
    count = 0
    while count < limit:
        found = fit(supply, claims)
        if not isinstance(found, Fit):
            break
        count += 1
        supply = with_given(supply, found, claim=f"what-if/{count}", pod=who)
    return count, supply
