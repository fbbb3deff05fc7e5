"""The NeuronUltraServers: one for each UltraServer of the fleet, with who has what of it. Pure.

They are tables for people and programs: nothing is decided by them, so whatever happens to them is put right.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from neuron_device_model import catalog

from neuron_operator import names
from neuron_operator.conditions import Judgement, merge
from neuron_operator.ultraservers.members import Member
from neuron_operator.ultraservers.room import Room
from neuron_operator.ultraservers.workloads import Workload

Json = dict[str, Any]

API_VERSION = f"{names.AWS_GROUP}/{names.AWS_VERSION}"
KIND = "NeuronUltraServer"


def by_ultraserver(members: Iterable[Member]) -> dict[str, list[Member]]:
    """The members of each UltraServer, in the order of their numbers."""
    found: dict[str, list[Member]] = {}
    for member in members:
        found.setdefault(member.ultraserver, []).append(member)
    return {name: sorted(each, key=lambda member: member.seat.node) for name, each in sorted(found.items())}


def wished(name: str, nodes: list[Member], *, namespace: str) -> Json:
    """The NeuronUltraServer of these nodes, without its status."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": name, "namespace": namespace, "labels": {names.LABEL_SIMULATED: "true"}},
        "spec": {
            "ultraserverId": name,
            "instanceType": nodes[0].instance_type,
            "size": nodes[0].seat.size,
            "nodes": [{"name": node.name, "nodeID": node.seat.node} for node in nodes],
        },
    }


def judge(nodes: list[Member]) -> Judgement:
    """Whether an UltraServer is whole."""
    there = {node.seat.node for node in nodes}
    lacks = [f"node {number} is missing" for number in range(nodes[0].seat.size) if number not in there]
    lacks += [f"{node.name} is {node.broken}" for node in nodes if node.broken]
    if lacks:
        return Judgement("Ready", "False", "Degraded", "; ".join(lacks), good=False)
    return Judgement("Ready", "True", "Ready", "All of its nodes are there and work", good=True)


def status(
    existing: Mapping[str, Any],
    nodes: list[Member],
    judgement: Judgement,
    *,
    room: Room,
    held: Mapping[str, Workload],
    now: str,
) -> Json:
    """The status of a NeuronUltraServer."""
    available = room.available(node.name for node in nodes)
    old = (existing.get("status") or {}).get("conditions") or []
    generation = existing["metadata"].get("generation", 1)
    return {
        "state": judgement.reason,
        "topology": {"mode": nodes[0].seat.modes, "links": _links(nodes)},
        "availableConfigurations": {
            "oneNode": available[1],
            "twoNodes": available[2],
            "fourNodes": available[4],
        },
        "allocations": _allocations(nodes, held),
        "conditions": merge([judgement], old=old, generation=generation, now=now),
    }


def _links(nodes: list[Member]) -> list[Json]:
    kind = catalog.instance_type(nodes[0].instance_type).ultraserver
    links = next((each.server_links for each in catalog.ultraserver_types() if each.name == kind), ())
    works = {node.seat.node for node in nodes if not node.broken}
    size = nodes[0].seat.size
    return [
        {"nodeIDs": list(pair), "state": "Up" if works.issuperset(pair) else "Down"}
        for pair in links
        if max(pair) < size
    ]


def _allocations(nodes: list[Member], held: Mapping[str, Workload]) -> list[Json]:
    found: dict[str, Json] = {}
    for node in nodes:
        if (workload := held.get(node.name)) is not None:
            entry = {"workloadRef": workload.ref, "workloadId": workload.id or "", "nodes": []}
            found.setdefault(workload.ref, entry)["nodes"].append(node.name)
    return [entry for _, entry in sorted(found.items())]
