"""What nodes offer by the device model, for the operator, which does not read ResourceSlices: 12 kB for each node, and
they say what its own NeuronNodes say. Nodes of a kind are computed once.

The command line reads the slices, because it is also asked when an agent does not publish what it should.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from neuron_device_model.advertise import offer, reserved
from neuron_device_model.catalog import DEFAULT_SDK_VERSION, UnknownInstanceType, instance_type, sdk_release
from neuron_device_model.faults import Fault, read

from neuron_operator import topology
from neuron_operator.explaining.supply import Supply, supplies

Json = Mapping[str, Any]

# of the attribute draDriverVersion, which nobody selects by
_VERSION = "0.0.0"


def modelled(neuron_nodes: Sequence[Json], claims: Sequence[Json], *, driver_name: str) -> dict[str, Supply]:
    """The devices of the nodes whose agents say that they serve them to claims, and who holds them."""
    slices = []
    for item in neuron_nodes:
        if item["spec"].get("resources") == "DRA" and topology.is_ready(item):
            slices += _slices(item, driver_name)
    return supplies(slices, claims)


def faults_of(spec: Json) -> tuple[Fault, ...]:
    """What is broken on a node, by the spec of its NeuronNode."""
    return tuple(read(fault) for fault in spec.get("faults") or ())


def _slices(item: Json, driver_name: str) -> list[Json]:
    spec, name = item["spec"], item["metadata"]["name"]
    try:
        pages = _pages(
            spec["instanceType"],
            spec["logicalNeuronCore"],
            spec["partitions"],
            spec.get("devices") or "chips",
            spec.get("driverVersion"),
            faults_of(spec),
        )
    except (UnknownInstanceType, ValueError):  # of another release's catalogue
        return []
    own, closed = _own_attributes(spec), reserved(spec.get("workloadID"))
    return [
        {
            "metadata": {"name": f"{name}-{number:03}"},
            "spec": {
                "driver": driver_name,
                "nodeName": name,
                "pool": {"name": name},
                "sharedCounters": counters,
                "devices": [
                    {
                        **device,
                        "attributes": {**device["attributes"], **own},
                        "taints": [*closed, *(device.get("taints") or ())],
                    }
                    for device in devices
                ],
            },
        }
        for number, (devices, counters) in enumerate(pages)
    ]


@lru_cache(maxsize=256)
def _pages(
    kind: str, lnc: int, partitions: str, devices: str, driver_version: str | None, faults: tuple[Fault, ...]
) -> tuple[tuple[tuple[Json, ...], tuple[Json, ...]], ...]:
    offered = offer(
        instance_type(kind),
        sdk=sdk_release(DEFAULT_SDK_VERSION),
        driver_version=driver_version,
        dra_driver_version=_VERSION,
        logical_neuron_core=lnc,
        partitions=partitions,
        devices=devices,
        faults=faults,
    )
    return tuple((page.devices, page.counter_sets) for page in offered.pages())


def _own_attributes(spec: Json) -> dict[str, Any]:
    """What tells a node from others of its kind."""
    found = {f"networkNodeLayer{layer}": node for layer, node in enumerate(spec.get("networkNodes") or (), start=1)}
    if block := spec.get("capacityBlockID"):
        found |= {"capacityBlockId": block, "ultraserverId": block}
    if workload := spec.get("workloadID"):
        found["workloadId"] = workload
    return {name: {"string": value} for name, value in found.items()}
