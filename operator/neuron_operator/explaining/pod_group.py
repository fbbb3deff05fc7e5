"""What kube-scheduler waits for with a pod of a PodGroup, which it places as a whole."""

from collections.abc import Mapping, Sequence
from typing import Any

Json = Mapping[str, Any]


def named(pod: Json) -> str:
    """The PodGroup of a pod; empty if it is in none."""
    return str(((pod.get("spec") or {}).get("schedulingGroup") or {}).get("podGroupName") or "")


def waits(name: str, group: Json | None, pods: Sequence[Json]) -> str:
    """Why a pod of a PodGroup waits, as far as others are the cause; empty if the group is large enough and nothing is
    said of it. `pods`: all of the namespace; None: there is no such PodGroup.
    """
    if group is None:
        return f"The pod is of PodGroup {name}, which does not exist: kube-scheduler waits until somebody makes it"
    spec = group.get("spec") or {}
    gang = (spec.get("schedulingPolicy") or {}).get("gang")
    if gang is None:
        return ""
    there = [pod for pod in pods if named(pod) == name and _alive(pod)]
    held = [pod for pod in there if pod["spec"].get("schedulingGates")]
    least, keys = int(gang.get("minCount") or 1), (spec.get("schedulingConstraints") or {}).get("topology") or ()
    where = "".join(f" in one {each['key']}" for each in keys)
    text = f"Kube-scheduler places PodGroup {name} as a whole, at least {least} pods{where}"
    if len(there) - len(held) < least:
        gated = f", and {len(held)} of these have scheduling gates" if held else ""
        return f"{text}, and waits for {least - len(there) + len(held)} more: {len(there)} of {least} exist{gated}"
    words = next(
        (
            str(found.get("message") or found.get("reason") or "")
            for found in (group.get("status") or {}).get("conditions") or ()
            if found["type"] == "PodGroupScheduled" and found["status"] == "False"
        ),
        "",
    )
    return f"{text}, and finds no room: {words}" if words else ""


def _alive(pod: Json) -> bool:
    over = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
    return not over and "deletionTimestamp" not in pod["metadata"]
