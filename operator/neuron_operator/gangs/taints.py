"""The taint of a node that is reserved for gangs: set, changed or taken away, and nobody else's touched."""

from collections.abc import Mapping, Sequence
from typing import Any

from neuron_operator import kube
from neuron_operator.gangs import names
from neuron_operator.kube import Api

Json = dict[str, Any]


def taints(node: Mapping[str, Any], value: str | None) -> Sequence[Json] | None:
    """All taints that a node should have; None if it has them."""
    there = (node.get("spec") or {}).get("taints") or []
    wished = [taint for taint in there if taint["key"] != names.TAINT]
    if value is not None:
        wished.append({"key": names.TAINT, "value": value, "effect": "NoSchedule"})
    return None if wished == there else wished


async def reserve(api: Api, name: str, value: str | None) -> Json:
    """Reserve a node, or end its reservation; returns the node."""
    node = await api.get(kube.NODES, name)
    wished = taints(node, value)
    if wished is None:
        return node
    # the list can only be replaced as a whole, so it has to be the one that was read
    version = {key: node["metadata"][key] for key in ("uid", "resourceVersion")}
    return await api.merge(kube.NODES, name, {"metadata": version, "spec": {"taints": list(wished) or None}})
