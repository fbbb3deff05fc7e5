"""What a plugin tells the kubelet: its devices, and what a container gets with them.

The two functions that a plugin implements are `Allocate` and `Prefer`. The kubelet calls them while it admits a pod,
which is the one thing that it does at a time: an answer that takes long holds up every other pod of the node.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

MAX_DEVICE_ID = 63


class AllocationRefused(Exception):
    """Says in a sentence why a container does not get its devices; the pod fails with it and is not tried again."""


@dataclass(frozen=True, slots=True)
class Device:
    """One unit of the resource. An unhealthy one is not given to new pods."""

    id: str
    healthy: bool = True
    numa_nodes: tuple[int, ...] = ()
    """For the kubelet's topology manager; empty: no preference."""

    def __post_init__(self) -> None:
        if not 0 < len(self.id) <= MAX_DEVICE_ID:
            raise ValueError(f"a device id has 1 to {MAX_DEVICE_ID} characters, not {len(self.id)}: {self.id!r}")


@dataclass(frozen=True, slots=True)
class Mount:
    """A file or folder of the host."""

    container_path: str
    host_path: str
    read_only: bool = True


@dataclass(frozen=True, slots=True)
class DeviceNode:
    """A device file of the host."""

    container_path: str
    host_path: str
    permissions: str = "rw"


@dataclass(frozen=True, slots=True)
class ContainerAllocation:
    """What a container gets. The kubelet keeps it and uses it for every start of the container."""

    environment: Mapping[str, str] = field(default_factory=dict)
    mounts: Sequence[Mount] = ()
    devices: Sequence[DeviceNode] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)
    cdi_devices: Sequence[str] = ()
    """Qualified names, `<vendor>/<class>=<name>`."""


Allocate: TypeAlias = Callable[[Sequence[str]], Awaitable[ContainerAllocation]]
"""Device ids of one container → what it gets. Any exception fails the pod, and its text is what the user reads;
`AllocationRefused` is logged without a traceback.

The kubelet does not say whose container it is. It gives the same devices to an init container and then to containers of
the same pod, and devices of pods that are over to new ones, without a word in between. After its own restart it does
not call again for what it has given already. A call is not cancelled when the kubelet goes away in the middle of it,
only when the plugin stops and its grace is over."""

Prefer: TypeAlias = Callable[[Sequence[str], Sequence[str], int], Awaitable[Sequence[str]]]
"""Available ids, those of them that must be in the answer, and how many in all → the ids that would be best.

A wish: too few, none or an exception leave the choice to the kubelet."""
