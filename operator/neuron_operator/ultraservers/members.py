"""The nodes of UltraServers, and what each is fit for. Pure.

A node can be *broken*: no workload can stay there, and the failure strategy of the one that has it is due. Or it is
*closed* only: nobody new is sent there. A node whose kubelet misses a few reports is closed at once and broken
after half a minute, so that a restart of a kubelet does not restart a training job.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from neuron_device_model import catalog
from neuron_device_model.ultraserver import Seat

from neuron_operator import names
from neuron_operator.conditions import listing
from neuron_operator.nodes import NodeFacts
from neuron_operator.topology import is_ready, seat

Json = dict[str, Any]

PATIENCE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Member:
    """A node of an UltraServer."""

    name: str
    ultraserver: str
    """Name of its NeuronUltraServer, which is the capacity block."""
    seat: Seat
    instance_type: str
    chips: int
    whole: bool
    """Whether the node is offered as one device."""
    tagged: str | None
    """The workload id that it carries, once its agent has seen it."""
    broken: str | None = None
    """Why no workload can stay here, as the end of "node X is …"."""
    closed: str | None = None
    """Why nobody new is sent here, in the same form."""


def members(neuron_nodes: Iterable[Json], nodes: Iterable[NodeFacts], *, now: datetime) -> dict[str, Member]:
    """The nodes of all UltraServers, by name."""
    facts = {node.name: node for node in nodes}
    found = {}
    for item in neuron_nodes:
        name, spec = item["metadata"]["name"], item["spec"]
        sits = seat(spec)
        if sits is None or "deletionTimestamp" in item["metadata"]:
            continue
        broken = _broken(item, facts.get(name), now)
        found[name] = Member(
            name=name,
            ultraserver=spec["capacityBlockID"],
            seat=sits,
            instance_type=spec["instanceType"],
            chips=catalog.instance_type(spec["instanceType"]).chips,
            whole=(spec.get("devices") or "chips") != "chips",
            tagged=_tagged(item),
            broken=broken,
            closed=broken or _closed(item, facts[name]),
        )
    return found


def _broken(item: Json, node: NodeFacts | None, now: datetime) -> str | None:
    if node is None:
        return "gone"
    if node.not_ready_since and (now - _time(node.not_ready_since)).total_seconds() > PATIENCE_SECONDS:
        return f"not Ready since {node.not_ready_since}"
    faults = [f for f in item["spec"].get("faults") or () if f["effect"] != "None" and f["type"] != "EFADown"]
    if hits := [f"{fault['name']} ({fault['type']})" for fault in faults]:
        return f"broken: NeuronFault {listing(hits)}"
    if item["spec"]["resources"] != "DRA":
        return "serving device plugins, and a workload needs resources: DRA in the NeuronNodePool"
    return None


def _closed(item: Json, node: NodeFacts) -> str | None:
    if not node.ready or not is_ready(item):
        return "not ready"
    if node.unschedulable:
        return "cordoned"
    for key, value, _ in node.taints:
        if key == names.TAINT_RESERVED:
            return f"reserved for the gang {value}"
    prepared = (item.get("status") or {}).get("preparedClaims") or 0
    return f"in use ({prepared} claims are prepared there)" if prepared else None


def _tagged(item: Json) -> str | None:
    seen = (item.get("status") or {}).get("observedGeneration") or 0
    return item["spec"].get("workloadID") if seen >= (item["metadata"].get("generation") or 0) else None


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
