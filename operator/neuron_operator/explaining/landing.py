"""On which nodes pods would land that nobody has made yet, and how many of them on each.

The scheduler chooses by scores that change with every pod, so the nodes that could take some are told and not the one
that it would choose. What is taken by one workload is gone for the next, from the first of these nodes onwards.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from neuron_operator.explaining.demand import Known, of_pod
from neuron_operator.explaining.explanation import Explanation, Facts, explain_pod, judge, plugin_room
from neuron_operator.explaining.fitting import Fit, Lack, fit, with_given
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
    shared = _shared(pod, facts.known)
    if shared and wanted > 1:
        return _together(pod, wanted, facts)
    why = explain_pod(pod, facts)
    demand = of_pod(pod, facts.known)
    who = f"{pod['metadata'].get('namespace') or 'default'}/{pod['metadata']['name']} (of the manifest)"
    nodes: dict[str, int] = {}
    chosen: dict[str, int] = {}
    supplies, bound, known = dict(facts.supplies), list(facts.bound), facts.known
    left = wanted
    for name, each in ({} if why.problems else judge(demand, facts, pod=pod)).items():
        if each.rules or each.devices:
            continue
        room = min(wanted, plugin_room(demand, each.plugin, each.bound)) if each.plugin else wanted
        supply = each.supply or Supply(name)
        room, there = _fill(supply, each.claims, room, who) if each.claims else (room, supply)
        nodes[name] = room
        take = min(room, left)
        if not take:
            continue
        left -= take
        chosen[name] = take
        if each.claims:
            supplies[name] = there if take == room else _fill(supply, each.claims, take, who)[1]
            known = _allocated(known, shared, fit(supply, each.claims), node=name)
        if each.plugin:
            bound += [{**pod, "spec": {**pod["spec"], "nodeName": name}}] * take
    return Landing(wanted, nodes, chosen, why), replace(facts, supplies=supplies, bound=bound, known=known)


def _together(pod: Json, wanted: int, facts: Facts) -> tuple[Landing, Facts]:
    """Pods that share claims: the first one's devices tie the others to its node."""
    first, facts = land(pod, 1, facts)
    if not first.room:
        return replace(first, wanted=wanted), facts
    rest, facts = land(pod, wanted - 1, facts)
    chosen = dict(Counter(first.chosen) + Counter(rest.chosen))
    return Landing(wanted, chosen, chosen, rest.why), facts


def _shared(pod: Json, known: Known) -> list[tuple[str, str]]:
    """Namespaces and names of the claims without devices that a pod names: each is one for all pods that name it."""
    namespace = pod["metadata"].get("namespace") or "default"
    entries = (pod.get("spec") or {}).get("resourceClaims") or ()
    found = [(namespace, entry["resourceClaimName"]) for entry in entries if entry.get("resourceClaimName")]
    return [key for key in found if key in known.claims and not _has_devices(known.claims[key])]


def _has_devices(claim: Json) -> bool:
    return bool((claim.get("status") or {}).get("allocation"))


def _allocated(known: Known, claims: Sequence[tuple[str, str]], fitted: Fit | Lack, *, node: str) -> Known:
    """The same with these claims allocated as the pod's claims fit on a node."""
    if not claims or not isinstance(fitted, Fit):
        return known
    term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
    found = dict(known.claims)
    for key in claims:
        results = [
            {"request": given.request, "driver": device.driver, "pool": device.pool, "device": device.name}
            for given in fitted.given
            if given.claim == f"claim {key[1]}"
            for device in given.devices
        ]
        allocation = {"devices": {"results": results}, "nodeSelector": {"nodeSelectorTerms": [term]}}
        found[key] = {**found[key], "status": {"allocation": allocation}}
    return replace(known, claims=found)


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
