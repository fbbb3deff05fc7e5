"""Whether pods can use this node's devices, judged from all that has to be in place. Pure.

The first thing that is missing is told, in the order in which things become true.
"""

from ..device_plugin_road.road import DEVICE_PLUGIN, RoadStatus
from ..errors import NodeError
from ..kubeletplugin import Registration, SliceStatus
from ..node import SimulatedNode
from .status import Readiness


def readiness(
    *,
    obstacle: NodeError | None,
    registration: Registration | None,
    slices: SliceStatus,
    node: SimulatedNode | None,
    road: RoadStatus,
    counters: bool,
) -> Readiness:
    """What the NeuronNode's condition Ready says. `counters`: whether the API server keeps them."""
    if obstacle:
        return Readiness(False, obstacle.reason, str(obstacle))
    if registration is None or not registration.registered:
        said = f"the kubelet refused the driver: {registration.error}" if registration else "not seen yet"
        return Readiness(False, "NotRegistered", f"the kubelet has not registered the driver: {said}")
    if not slices.synced:
        return Readiness(False, "Publishing", slices.error or "the ResourceSlices are being written")
    if slices.dropped_fields:
        return Readiness(
            True, "Serving", f"the API server dropped fields of the slices: {', '.join(slices.dropped_fields)}"
        )
    if node and node.resources == DEVICE_PLUGIN:
        if not road.registered:
            said = road.message or "not seen yet"
            return Readiness(False, "NotRegistered", f"the kubelet has not registered the device plugins: {said}")
        return Readiness(True, "Serving", "the kubelet has registered the device plugins")
    if node and node.offer.counter_sets and not counters:
        return Readiness(
            True,
            "Serving",
            "whole devices only: the API server drops counters, without which cores, chips and the node would be given "
            "twice; that needs Kubernetes 1.36 or the feature gate DRAPartitionableDevices",
        )
    return Readiness(True, "Serving", "the kubelet has registered the driver and the devices are published")
