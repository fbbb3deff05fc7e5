"""Kubernetes objects of a small fleet: nodes, their slices as the agents write them, claims and pods."""

from typing import Any

from neuron_device_model.advertise import offer
from neuron_device_model.catalog import DEFAULT_SDK_VERSION, instance_type, sdk_release
from neuron_device_model.faults import Fault

DRIVER = "neuron.aws.com"
Object = dict[str, Any]


def node(name: str, *, labels: Object | None = None, taints: list[Object] | None = None, **allocatable: str) -> Object:
    amounts = {f"aws.amazon.com/{resource}": amount for resource, amount in allocatable.items()}
    return {
        "metadata": {
            "name": name,
            "uid": f"uid-{name}",
            "resourceVersion": "1",
            "labels": {"kubernetes.io/hostname": name, **(labels or {})},
        },
        "spec": {"taints": taints or []},
        "status": {"allocatable": amounts, "capacity": amounts, "conditions": [{"type": "Ready", "status": "True"}]},
    }


def neuron_node(name: str, *, kind: str = "trn2.48xlarge", ready: str = "", **spec: Any) -> Object:
    condition = {"type": "Ready", "status": "True", "reason": "Ready", "message": ""}
    if ready:
        condition |= {"status": "False", "reason": "Publishing", "message": ready}
    lnc = instance_type(kind).chip.default_logical_neuron_core
    return {
        "metadata": {
            "name": name,
            "uid": f"uid-nn-{name}",
            "resourceVersion": "1",
            "labels": {"neuron-sim.dev/pool": "default"},
        },
        "spec": {
            "pool": "default",
            "instanceType": kind,
            "logicalNeuronCore": lnc,
            "resources": "DRA",
            "partitions": "logical",
            "devices": "chips",
            "networkNodes": [],
            **spec,
        },
        "status": {"conditions": [condition]},
    }


def fault(name: str, *, chip: int | None = None, type: str = "DeviceLost", effect: str = "NoSchedule") -> Object:
    return {"name": name, "type": type, "chip": chip, "effect": effect, "message": "", "since": "2026-11-21T00:00:00Z"}


def slices(neuron: Object) -> list[Object]:
    """As the node's agent publishes them."""
    spec, name = neuron["spec"], neuron["metadata"]["name"]
    offered = offer(
        instance_type(spec["instanceType"]),
        sdk=sdk_release(DEFAULT_SDK_VERSION),
        dra_driver_version="0.1.0",
        logical_neuron_core=spec["logicalNeuronCore"],
        partitions=spec["partitions"],
        devices=spec["devices"],
        faults=[Fault(**{"core": None, **each}) for each in spec.get("faults") or ()],
    )
    pages = offered.pages()
    return [
        {
            "metadata": {"name": f"{name}-{number}"},
            "spec": {
                "driver": DRIVER,
                "nodeName": name,
                "pool": {"name": name, "generation": 1, "resourceSliceCount": len(pages)},
                **({"devices": list(page.devices)} if page.devices else {"sharedCounters": list(page.counter_sets)}),
            },
        }
        for number, page in enumerate(pages)
    ]


def device_class(name: str, kind: str, resource: str = "") -> Object:
    expression = (
        f'device.driver == "{DRIVER}" && device.attributes["{DRIVER}"].?resourceType.orValue("") == "{kind}"'
        + (' && device.attributes["neuron-sim.dev"].?partition.orValue("") == "logical"' if "core" in kind else "")
    )
    spec: Object = {"selectors": [{"cel": {"expression": expression}}]}
    return {"metadata": {"name": name}, "spec": spec | ({"extendedResourceName": resource} if resource else {})}


def classes(*, plain: bool = True) -> list[Object]:
    """As the chart makes them."""
    found = [
        device_class("neuron-device.neuron-sim.dev", "neuron_device", "aws.amazon.com/neuron" if plain else ""),
        device_class("neuroncore.neuron-sim.dev", "neuron_core", "aws.amazon.com/neuroncore" if plain else ""),
    ]
    both = f'device.attributes["{DRIVER}"].?resourceType.orValue("") in ["neuron_device", "neuron_node"]'
    aws = {"selectors": [{"cel": {"expression": f'device.driver == "{DRIVER}" &&\n{both}'}}]}
    return [*found, {"metadata": {"name": DRIVER}, "spec": aws}]


def request(name: str = "neurons", *, count: int | str = 1, cel: str = "", kind: str = DRIVER) -> Object:
    exactly: Object = {"deviceClassName": kind}
    exactly |= {"allocationMode": "All"} if count == "All" else {"allocationMode": "ExactCount", "count": count}
    if cel:
        exactly["selectors"] = [{"cel": {"expression": cel}}]
    return {"name": name, "exactly": exactly}


def claim(name: str, *requests: Object, constraints: list[Object] | None = None) -> Object:
    devices = {"requests": list(requests), "constraints": constraints or []}
    return {
        "metadata": {"name": name, "namespace": "team", "uid": f"uid-{name}", "resourceVersion": "1"},
        "spec": {"devices": devices},
        "status": {},
    }


def template(name: str, *requests: Object) -> Object:
    return {"metadata": {"name": name, "namespace": "team"}, "spec": {"spec": claim(name, *requests)["spec"]}}


def held(name: str, node: str, *devices: str, pod: str = "") -> Object:
    """A claim that has devices of a node."""
    found = claim(name, request())
    term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
    found["status"] = {
        "allocation": {
            "devices": {
                "results": [
                    {"request": "neurons", "driver": DRIVER, "pool": node, "device": device} for device in devices
                ]
            },
            "nodeSelector": {"nodeSelectorTerms": [term]},
        },
        "reservedFor": [{"resource": "pods", "name": pod, "uid": f"uid-{pod}"}] if pod else [],
    }
    return found


def chips(*numbers: int) -> list[str]:
    return [f"neuron-device-{number}" for number in numbers]


def pod(name: str, *, claims: list[str] | None = None, templates: list[str] | None = None, **spec: Any) -> Object:
    limits = {
        f"aws.amazon.com/{resource}": str(spec.pop(resource))
        for resource in ("neuron", "neuroncore")
        if resource in spec
    }
    entries = [{"name": each, "resourceClaimName": each} for each in claims or ()]
    entries += [{"name": each, "resourceClaimTemplateName": each} for each in templates or ()]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "team", "uid": f"uid-{name}", "resourceVersion": "1"},
        "spec": {
            "containers": [{"name": "c", "resources": {"limits": limits, "requests": limits}}],
            "resourceClaims": entries,
            **spec,
        },
        "status": {"phase": "Pending"},
    }


def ultraserver(number: int, *, nodes: int = 4, **spec: Any) -> list[Object]:
    """The NeuronNodes of a Trn2 UltraServer."""
    return [
        neuron_node(
            f"u{number}n{seat}",
            kind="trn2u.48xlarge",
            networkNodes=["nn-1", "nn-2", f"nn-3{number}"],
            capacityBlockID="cr-0123456789abcdef0",
            ultraServer={"id": f"abcdefgh0123456{number}", "size": 4, "node": seat},
            **spec,
        )
        for seat in range(nodes)
    ]


def gang_pod(name: str, gang: str = "ring", *, size: int = 4, level: str = "", **spec: Any) -> Object:
    found = pod(name, **spec)
    found["metadata"] |= {
        "labels": {"neuron-sim.dev/gang": gang, "neuron-sim.dev/gang-size": str(size)},
        "annotations": {"neuron-sim.dev/topology": level} if level else {},
    }
    found["spec"]["schedulingGates"] = [{"name": "neuron-sim.dev/gang"}]
    return found
