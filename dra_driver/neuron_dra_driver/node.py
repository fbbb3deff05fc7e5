"""What this node is at the moment: resolved from its NeuronNode, or from flags when the agent runs alone.

Everything that publishing and preparing need is computed once per change and then only read.
"""

import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from neuron_device_model import identity
from neuron_device_model.advertise import Offer, broken, offer
from neuron_device_model.catalog import (
    DEFAULT_SDK_VERSION,
    InstanceType,
    SdkRelease,
    UnknownInstanceType,
    UnknownSdkRelease,
    instance_type,
    sdk_release,
)
from neuron_device_model.faults import Fault, read
from neuron_device_model.partitions import Part, part
from neuron_device_model.ultraserver import Seat

from .errors import NodeError
from .names import version


@dataclass(frozen=True)
class SimulatedNode:
    """A node with Neuron devices."""

    name: str
    instance_type: InstanceType
    logical_neuron_core: int
    sdk: SdkRelease
    driver_version: str
    instance_id: str
    created: float
    """When this hardware came to be, in seconds since the epoch: its counters begin then. 0: nobody said."""
    partitions: str
    """Which cores are devices of their own: none, logical or physical."""
    devices_offered: str
    """chips, node or both."""
    resources: str
    """By which road they are given away: DRA or DevicePlugin."""
    network_nodes: tuple[str, ...]
    """Above it in the network, the spine first."""
    seat: Seat | None
    """Its place in an UltraServer."""
    workload_id: str | None
    """Whose it is while it is allocated to a NeuronUltraServerWorkload."""
    faults: tuple[Fault, ...]
    """What is broken; the devices that it hits carry its taint."""
    offer: Offer
    devices: Mapping[str, Mapping[str, Any]]
    """The offer's devices (resource.k8s.io/v1) by name, in their order."""
    parts: Mapping[str, Part]
    """The hardware behind each of them."""
    grants: dict[Hashable, Any] = field(default_factory=dict, init=False, compare=False, repr=False)
    """For `allocations.grants`: what was worked out, and holds for as long as this is what the node is."""

    def part(self, name: str) -> Part:
        """What a device's name means here, whether or not it is offered; raises UnknownDevice."""
        return self.parts.get(name) or part(name, self.instance_type, logical_neuron_core=self.logical_neuron_core)

    def broken(self, faults: tuple[Fault, ...]) -> "SimulatedNode":
        """What a node that is whole becomes by faults, without what is the same being worked out again."""
        assert not self.faults
        offered = broken(self.offer, faults, self.parts, self.instance_type)
        return replace(
            self, faults=faults, offer=offered, devices={device["name"]: device for device in offered.devices}
        )


def from_neuron_node(neuron_node: Mapping[str, Any]) -> SimulatedNode:
    """What the operator decided for this node. Objects of earlier operators have whole chips, over DRA."""
    spec, created = neuron_node["spec"], neuron_node["metadata"].get("creationTimestamp")
    return _resolve(
        name=neuron_node["metadata"]["name"],
        type_name=spec["instanceType"],
        logical_neuron_core=spec.get("logicalNeuronCore"),
        sdk_version=spec.get("sdkVersion") or DEFAULT_SDK_VERSION,
        driver_version=spec.get("driverVersion"),
        instance_id=spec.get("instanceID"),
        created=datetime.fromisoformat(created).timestamp() if created else 0,
        network_nodes=spec.get("networkNodes") or (),
        seat=seat(spec.get("ultraServer")),
        capacity_block=spec.get("capacityBlockID"),
        workload_id=spec.get("workloadID"),
        partitions=spec.get("partitions") or "none",
        devices=spec.get("devices") or "chips",
        resources=spec.get("resources") or "DRA",
        faults=tuple(read(fault) for fault in spec.get("faults") or ()),
    )


def seat(found: Mapping[str, Any] | None) -> Seat | None:
    """A NeuronNode's place in its UltraServer, from `spec.ultraServer`."""
    return Seat(found["id"], found["size"], found["node"]) if found else None


def standalone(
    *,
    name: str,
    type_name: str,
    logical_neuron_core: int | None = None,
    sdk_version: str | None = None,
    partitions: str = "none",
    devices: str = "chips",
) -> SimulatedNode:
    """A node without an operator; its identity follows from its name, so that restarts do not change it."""
    return _resolve(
        name=name,
        type_name=type_name,
        logical_neuron_core=logical_neuron_core,
        sdk_version=sdk_version or DEFAULT_SDK_VERSION,
        driver_version=None,
        instance_id=None,
        created=time.time(),
        network_nodes=[identity.network_node(f"layer {layer}") for layer in (1, 2, 3)],
        seat=None,
        capacity_block=None,
        workload_id=None,
        partitions=partitions,
        devices=devices,
        resources="DRA",
        faults=(),
    )


def _resolve(
    *,
    name: str,
    type_name: str,
    logical_neuron_core: int | None,
    sdk_version: str,
    driver_version: str | None,
    instance_id: str | None,
    created: float,
    network_nodes: Sequence[str],
    seat: Seat | None,
    capacity_block: str | None,
    workload_id: str | None,
    partitions: str,
    devices: str,
    resources: str,
    faults: tuple[Fault, ...],
) -> SimulatedNode:
    try:
        kind = instance_type(type_name)
    except UnknownInstanceType as error:
        raise NodeError("UnknownInstanceType", str(error)) from error
    try:
        sdk = sdk_release(sdk_version)
    except UnknownSdkRelease as error:
        raise NodeError("UnknownSdkVersion", str(error)) from error
    lnc = logical_neuron_core or kind.chip.default_logical_neuron_core
    if lnc not in kind.chip.logical_neuron_core_values:
        allowed = " or ".join(str(value) for value in kind.chip.logical_neuron_core_values)
        raise NodeError(
            "InvalidLogicalNeuronCore", f"logicalNeuronCore {lnc} is not possible on {type_name}: set it to {allowed}"
        )
    driver = driver_version or sdk.driver_version
    try:
        offered = offer(
            kind,
            sdk=sdk,
            driver_version=driver,
            dra_driver_version=version(),
            network_nodes=network_nodes,
            capacity_block=capacity_block,
            workload_id=workload_id,
            logical_neuron_core=lnc,
            partitions=partitions,
            devices=devices,
            faults=faults,
        )
    except ValueError as error:
        raise NodeError("InvalidOffer", str(error)) from error
    return SimulatedNode(
        name=name,
        instance_type=kind,
        logical_neuron_core=lnc,
        sdk=sdk,
        driver_version=driver,
        instance_id=instance_id or identity.instance_id(name),
        created=created,
        partitions=partitions,
        devices_offered=devices,
        resources=resources,
        network_nodes=tuple(network_nodes),
        seat=seat,
        workload_id=workload_id,
        faults=faults,
        offer=offered,
        devices={device["name"]: device for device in offered.devices},
        parts={device["name"]: part(device["name"], kind, logical_neuron_core=lnc) for device in offered.devices},
    )
