"""An UltraServer as one DRA device that all of its nodes can reach. Pure.

A ResourceClaim for it that several pods share pins all of them to one UltraServer, by upstream's means alone: the
allocation has the slice's node selector. Each UltraServer is a pool of one slice, which is complete whenever it is
there, and bears a name that follows from the UltraServer: whoever writes it twice writes the same object. Any change is
a new generation of the pool.

With the commit barrier of gangs (`gangs.barrier`) the slice has a second device, which any number of claims may have.

For every node that it tries, for every pod with a claim, kube-scheduler looks at every slice that is not bound to one
node, some microseconds each. So UltraServers are devices in small fleets only (`most`).
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from neuron_device_model.advertise import SIMULATED_ATTRIBUTE
from neuron_device_model.faults import TAINT_KEY

from neuron_operator import names
from neuron_operator.ultraservers.members import Member

Json = dict[str, Any]

DEVICE = "ultraserver"
_BARRIER: Json = {
    "name": names.BARRIER_DEVICE,
    "attributes": {"gangBarrier": {"bool": True}, SIMULATED_ATTRIBUTE: {"bool": True}},
    "allowMultipleAllocations": True,
    "bindingConditions": [names.CONDITION_COMPLETE],
    "bindingFailureConditions": [names.CONDITION_GIVEN_UP],
}
_GATED = ("taints", "allowMultipleAllocations", "bindingConditions", "bindingFailureConditions")
"""Fields that an API server drops whose gates are off."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What to write for the slices to be right."""

    deletions: tuple[Json, ...] = ()
    writes: tuple[Json, ...] = ()
    """With a resource version where the slice is there already, and has to be replaced."""


def changes(
    ultraservers: Mapping[str, Sequence[Member]], slices: Iterable[Mapping[str, Any]], *, most: int, barrier: bool
) -> Changes:
    """What is to be written for the UltraServers to be devices, all of them or, where there are too many, none.

    `slices` are those of our driver's name; what somebody else has put there under other names stays.
    """
    existing = {item["metadata"]["name"]: item for item in slices}
    offered = ultraservers.values() if len(ultraservers) <= most else ()
    wished = {item["metadata"]["name"]: item for item in (_slice(nodes, barrier=barrier) for nodes in offered)}
    return Changes(
        deletions=tuple(dict(item) for name, item in sorted(existing.items()) if name not in wished and _is_ours(item)),
        writes=tuple(
            _next(item, existing.get(name))
            for name, item in wished.items()
            if name not in existing or not _is_right(existing[name], item)
        ),
    )


def _slice(nodes: Sequence[Member], *, barrier: bool) -> Json:
    first = nodes[0]
    device: Json = {
        "name": DEVICE,
        "attributes": {
            "ultraserverId": {"string": first.seat.id},
            "capacityBlockId": {"string": first.ultraserver},
            "instanceType": {"string": first.instance_type},
            "size": {"int": first.seat.size},
            # of an UltraServer that is not complete, those that are there: selectors can ask for as many as they need
            "nodes": {"int": len(nodes)},
            "chips": {"int": len(nodes) * first.chips},
            SIMULATED_ATTRIBUTE: {"bool": True},
        },
    }
    if any(node.broken for node in nodes):
        # those who run there may go on: what is broken has a taint of its own, with the effect that was asked for
        device["taints"] = [{"key": TAINT_KEY, "value": "NodeBroken", "effect": "NoSchedule"}]
    spec: Json = {
        "driver": names.ULTRASERVER_DRIVER_NAME,
        "nodeSelector": {
            "nodeSelectorTerms": [
                {"matchExpressions": [{"key": names.LABEL_ULTRASERVER, "operator": "In", "values": [first.seat.id]}]}
            ]
        },
        "pool": {"name": first.seat.id, "generation": 1, "resourceSliceCount": 1},
        "devices": [device, _BARRIER] if barrier else [device],
    }
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceSlice",
        "metadata": {
            "name": f"{first.seat.id}-{names.ULTRASERVER_DRIVER_NAME}",
            "labels": {names.LABEL_SIMULATED: "true"},
            # of what was sent: an API server whose gate is off drops the taints, and is not to be sent them for ever
            "annotations": {names.ANNOTATION_DIGEST: hashlib.sha256(json.dumps(spec).encode()).hexdigest()[:16]},
        },
        "spec": spec,
    }


def _next(wished: Json, existing: Mapping[str, Any] | None) -> Json:
    if existing is None:
        return wished
    pool = {**wished["spec"]["pool"], "generation": existing["spec"]["pool"]["generation"] + 1}
    version = {key: existing["metadata"][key] for key in ("uid", "resourceVersion")}
    return {**wished, "metadata": {**wished["metadata"], **version}, "spec": {**wished["spec"], "pool": pool}}


def _is_ours(item: Mapping[str, Any]) -> bool:
    return (item["metadata"].get("labels") or {}).get(names.LABEL_SIMULATED) == "true"


def _is_right(existing: Mapping[str, Any], wished: Json) -> bool:
    digests = [(each["metadata"].get("annotations") or {}).get(names.ANNOTATION_DIGEST) for each in (existing, wished)]
    return (
        digests[0] == digests[1]
        and _is_ours(existing)
        and _content(existing) == _content(wished)
        and _gated(existing, wished)
    )


def _content(item: Mapping[str, Any]) -> Json:
    """All of a slice's spec but the pool's generation and what is behind gates."""
    spec = item["spec"]
    pool = {key: value for key, value in spec["pool"].items() if key != "generation"}
    devices = [
        {key: value for key, value in device.items() if key not in _GATED} for device in spec.get("devices") or ()
    ]
    return {**spec, "pool": pool, "devices": devices}


def _gated(existing: Mapping[str, Any], wished: Json) -> bool:
    """Whether what is behind gates is as it was sent, as far as it was kept."""
    pairs = zip(existing["spec"].get("devices") or (), wished["spec"]["devices"], strict=True)
    return all(not there.get(key) or _untimed(there[key]) == sent.get(key) for there, sent in pairs for key in _GATED)


def _untimed(value: Any) -> Any:
    """Taints without the time that the API server adds."""
    if not isinstance(value, list):
        return value
    return [
        {key: each[key] for key in each if key != "timeAdded"} if isinstance(each, dict) else each for each in value
    ]
