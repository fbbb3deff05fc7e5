"""A DRA kubelet-plugin library: everything between a kubelet and a driver that is the same for every driver.

* `KubeletPlugin` serves a `DRADriver` to the kubelet and registers it.
* `SliceController` keeps what the driver offers published as ResourceSlices.

It knows nothing of any hardware and imports nothing of this project, the Python sibling of
k8s.io/dynamic-resource-allocation/kubeletplugin. Only `resource.k8s.io/v1` and the kubelet's v1 services.
"""

from .api import ClaimRef, DRADriver, PreparedDevice, PrepareResult, UnprepareResult
from .plugin import KUBELET_PLUGINS_DIR, KUBELET_REGISTRY_DIR, KubeletPlugin
from .registration import Registration
from .slice_client import ApiError, SliceClient
from .slice_controller import SliceController, SliceStatus, Timing
from .slices import Pool, Slice, SliceObject

__all__ = [
    "KUBELET_PLUGINS_DIR",
    "KUBELET_REGISTRY_DIR",
    "ApiError",
    "ClaimRef",
    "DRADriver",
    "KubeletPlugin",
    "Pool",
    "PrepareResult",
    "PreparedDevice",
    "Registration",
    "Slice",
    "SliceClient",
    "SliceController",
    "SliceObject",
    "SliceStatus",
    "Timing",
    "UnprepareResult",
]
