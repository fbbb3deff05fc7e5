"""Whether the API server keeps counters (DRAPartitionableDevices), asked before anything is offered that needs them.

A server without the feature drops `sharedCounters` and `consumesCounters` and stores the rest. Cores, chips and the
node would then be offered as if they had nothing to do with one another, so it is not enough to notice afterwards.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from ..names import SIMULATED
from .kube import SLICES

Object = dict[str, Any]


async def keeps_counters(
    request: Callable[..., Awaitable[Object]], *, driver: str, node: str, labels: Mapping[str, str] | None = None
) -> bool:
    """Send a slice that is not stored (a dry run), and look what came of it. `request`: `Kube.request`."""
    spec = {
        "driver": driver,
        "nodeName": node,
        "pool": {"name": node, "generation": 1, "resourceSliceCount": 1},
        "sharedCounters": [{"name": "probe", "counters": {"probe": {"value": "1"}}}],
    }
    probe = {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceSlice",
        "metadata": {"generateName": f"{node}-probe-", "labels": {SIMULATED: "true", **(labels or {})}},
        "spec": spec,
    }
    stored = await request("POST", SLICES, params={"dryRun": "All"}, body=probe)
    return "sharedCounters" in stored["spec"]
