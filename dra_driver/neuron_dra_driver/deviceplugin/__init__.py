"""A library for device plugins (v1beta1): everything between a kubelet and a plugin that is the same for every plugin.

* `DevicePlugin` serves one extended resource: sockets, registration, the kubelet's restarts, the calls.
* `given_devices` asks the kubelet who has which devices, since nobody tells a device plugin of releases.

It knows nothing of any hardware and imports nothing of this project. docs/device-plugin-library.md walks through it.
"""

from .api import AllocationRefused, ContainerAllocation, Device, DeviceNode, Mount
from .plugin import KUBELET_DEVICE_PLUGINS_DIR, DevicePlugin, PluginStatus
from .pod_resources import KUBELET_POD_RESOURCES_SOCKET, GivenDevices, PodResourcesError, given_devices

__all__ = [
    "KUBELET_DEVICE_PLUGINS_DIR",
    "KUBELET_POD_RESOURCES_SOCKET",
    "AllocationRefused",
    "ContainerAllocation",
    "Device",
    "DeviceNode",
    "DevicePlugin",
    "GivenDevices",
    "Mount",
    "PluginStatus",
    "PodResourcesError",
    "given_devices",
]
