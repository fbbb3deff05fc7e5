"""Chips, instance types, UltraServers and SDK releases, as reviewed data.

The facts live in TOML files, each with its source beside it, and are compiled into one JSON file
(`documents`); the classes are frozen, slotted dataclasses and the loader is a page of code. No pydantic
and no YAML: importing them costs the node agent, which runs on every node, more memory than all the rest
of it, and the in-pod runtime has the standard library only. They are read on first use and kept: a
catalogue is small and never changes under a running process.

Grades used in the comments of the data files: [D] AWS documentation, [S] AWS source code, [R] output of
real hardware, [I] inferred by us. A field that no public source gives is named in the row's `chosen`.
"""

from neuron_device_model.catalog.chips import Chip
from neuron_device_model.catalog.instances import (
    DeviceSlot,
    InstanceType,
    UnknownInstanceType,
    instance_type,
    instance_types,
)
from neuron_device_model.catalog.rows import CatalogError
from neuron_device_model.catalog.sdk import (
    DEFAULT_SDK_VERSION,
    SdkRelease,
    UnknownSdkRelease,
    sdk_release,
    sdk_releases,
)
from neuron_device_model.catalog.ultraservers import UltraServerType, ultraserver_type, ultraserver_types

__all__ = [
    "DEFAULT_SDK_VERSION",
    "CatalogError",
    "Chip",
    "DeviceSlot",
    "InstanceType",
    "SdkRelease",
    "UltraServerType",
    "UnknownInstanceType",
    "UnknownSdkRelease",
    "instance_type",
    "instance_types",
    "sdk_release",
    "sdk_releases",
    "ultraserver_type",
    "ultraserver_types",
]
