"""The simulated nodes as rows. Pure: NeuronNode objects in, rows out."""

from collections.abc import Mapping
from typing import Any

Object = Mapping[str, Any]


def row(node: Object) -> dict[str, object]:
    """One NeuronNode."""
    spec, status = node.get("spec", {}), node.get("status", {})
    ready = condition(node, "Ready")
    return {
        "node": node["metadata"]["name"],
        "pool": spec.get("pool"),
        "type": spec.get("instanceType"),
        "lnc": spec.get("logicalNeuronCore"),
        "sdk": spec.get("sdkVersion"),
        "resources": spec.get("resources"),
        "partitions": spec.get("partitions"),
        "devices": status.get("devices"),
        "claims": status.get("preparedClaims"),
        "faults": len(spec.get("faults", [])),
        "ready": ready.get("status", "Unknown"),
        "why": why_not(ready),
    }


def condition(thing: Object, kind: str) -> Object:
    """The condition of this type; empty when nobody has written it yet."""
    conditions = thing.get("status", {}).get("conditions", [])
    return next((found for found in conditions if found["type"] == kind), {})


def why_not(condition: Object) -> str:
    """Why a condition is not True, in its own words; empty when it is."""
    if condition.get("status") == "True":
        return ""
    if not condition:
        return "nothing reported yet"
    return said(condition)


def said(condition: Object) -> str:
    """What a condition says, the word for programs first."""
    return ": ".join(part for part in (condition.get("reason"), condition.get("message")) if part)
