"""The taint of a node that is reserved for gangs: set, changed or taken away, and nobody else's touched."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from neuron_operator import kube
from neuron_operator.gangs import names
from neuron_operator.kube import Api, Conflict

Json = dict[str, Any]


def taints(node: Mapping[str, Any], value: str | None) -> Sequence[Json] | None:
    """All taints that a node should have; None if it has them."""
    there = (node.get("spec") or {}).get("taints") or []
    wished = [taint for taint in there if taint["key"] != names.TAINT]
    if value is not None:
        wished.append({"key": names.TAINT, "value": value, "effect": "NoSchedule"})
    return None if wished == there else wished


async def reserve(api: Api, name: str, value: str | None, *, known: Mapping[str, Any] | None = None) -> Json:
    """Reserve a node, or end its reservation; returns the node. One that is `known` (uid, resource version and all
    taints) is not read before, unless it has changed since.
    """
    if known is not None and (wished := taints(known, value)) is not None:
        with suppress(Conflict):
            return await _write(api, known, wished)
    node = await api.get(kube.NODES, name)
    wished = taints(node, value)
    return node if wished is None else await _write(api, node, wished)


async def _write(api: Api, node: Mapping[str, Any], wished: Sequence[Json]) -> Json:
    metadata = node["metadata"]
    # the list can only be replaced as a whole, so it has to be the one that was read
    version = {key: metadata[key] for key in ("uid", "resourceVersion")}
    body = {"metadata": version, "spec": {"taints": list(wished) or None}}
    return await api.merge(kube.NODES, metadata["name"], body)
