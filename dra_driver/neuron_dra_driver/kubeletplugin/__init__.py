"""A DRA kubelet-plugin library: everything between a kubelet and a driver that is the same for every driver.

* `KubeletPlugin` serves a `DRADriver` to the kubelet and registers it.
* `SliceController` keeps what the driver offers published as ResourceSlices.
* `HealthMonitor` tells the kubelet how the devices are, which shows in the status of pods.
* `allocated_devices` reads what was allocated to a claim, with the checks that every driver owes.
* `CDIFolder` writes the files by which devices get into containers.
* `RestSlices`, `read_claim` and `node_uid` are the calls to the API server, over any `ApiServer`; module `http_api`
  has one that needs aiohttp.

A walk-through is in docs/kubelet-plugin-library.md. The library knows nothing of any hardware and imports nothing of
this project; it is the Python sibling of k8s.io/dynamic-resource-allocation/kubeletplugin. It needs Python 3.11,
grpcio and protobuf, and speaks `resource.k8s.io/v1` and the kubelet's v1 services: Kubernetes 1.34 and newer.
"""

from .api import ClaimRef, DRADriver, PreparedDevice, PrepareResult, UnprepareResult
from .cdi import CDI_DIR, CDIFolder
from .claims import AllocatedDevice, ClaimNotUsable, allocated_devices
from .health import Health, HealthMonitor, HealthStatus
from .plugin import KUBELET_PLUGINS_DIR, KUBELET_REGISTRY_DIR, KubeletPlugin
from .registration import Registration
from .rest import ApiServer, RestSlices, node_uid, read_claim
from .slice_client import ApiError, SliceClient
from .slice_controller import SliceController, SliceStatus, Timing
from .slices import Pool, Slice, SliceObject

__all__ = [
    "CDI_DIR",
    "KUBELET_PLUGINS_DIR",
    "KUBELET_REGISTRY_DIR",
    "AllocatedDevice",
    "ApiError",
    "ApiServer",
    "CDIFolder",
    "ClaimNotUsable",
    "ClaimRef",
    "DRADriver",
    "Health",
    "HealthMonitor",
    "HealthStatus",
    "KubeletPlugin",
    "Pool",
    "PrepareResult",
    "PreparedDevice",
    "Registration",
    "RestSlices",
    "Slice",
    "SliceClient",
    "SliceController",
    "SliceObject",
    "SliceStatus",
    "Timing",
    "UnprepareResult",
    "allocated_devices",
    "node_uid",
    "read_claim",
]
