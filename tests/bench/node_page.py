"""A node with a pod on each of its chips, all of them busy: what tests and measures of its page have in common."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from neuron_device_model.view import GivenChip, container_view
from neuron_dra_driver.activity import profiles
from neuron_dra_driver.activity.exposition import Shown, System, render
from neuron_dra_driver.activity.reports import Report
from neuron_dra_driver.metrics import Metrics
from neuron_dra_driver.node import SimulatedNode, from_neuron_node

BEGAN = 1_767_300_000.0
MACHINE = System(
    vcpus=192,
    usage={"user": 0.25, "system": 0.05},
    memory={f"{of}_{kind}_bytes": 8 << 30 for of in ("memory", "swap") for kind in ("total", "used")},
)


def busy_node(name: str, *, server: int | None = None, faults: Sequence[Mapping[str, Any]] = ()) -> SimulatedNode:
    """A trn2.48xlarge, or a server of an UltraServer; `faults` as in a NeuronNode."""
    spec: dict[str, Any] = {"instanceType": "trn2.48xlarge"}
    if server is not None:
        spec = {"instanceType": "trn2u.48xlarge", "ultraServer": {"id": "us-1", "size": 4, "node": server}}
    metadata = {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"}
    return from_neuron_node({"metadata": metadata, "spec": {**spec, "faults": list(faults)}})


def report_of(chip: int, *, age: float) -> Report:
    """What a process on the four logical cores of a chip says."""
    said = profiles.report(
        "inference", seed=str(chip), cores=range(4), age=age, core_memory=24 << 30, core_flops=160e12
    )
    return {**said, "began": BEGAN}


def requests(node: SimulatedNode, *, age: float = 100) -> list[Shown]:
    """A claim, a pod and a process for each chip. The pods' names have what has to be escaped."""
    found = []
    for chip in range(node.instance_type.chips):
        view: Any = container_view(
            node.instance_type,
            given=[GivenChip(chip, cores=(0, 1, 2, 3))],
            first_index=0,
            logical_neuron_core=2,
            instance_id=node.instance_id,
            sdk=node.sdk,
        )
        pod: Any = {
            "metadata": {"namespace": "team", "name": f'pod-{chip} "\\'},
            "spec": {
                "containers": [{"name": "c", "resources": {"claims": [{"name": "neurons"}]}}],
                "resourceClaims": [{"name": "neurons", "resourceClaimName": "claim"}],
            },
        }
        found.append(Shown("claim", view, [pod], [report_of(chip, age=age)]))
    return found


def rendered(node: SimulatedNode, shown: Iterable[Shown]) -> bytes:
    """The devices' metrics."""
    return render(node, shown, MACHINE, {}).encode()


def page_of(node: SimulatedNode) -> bytes:
    """All that its agent shows."""
    own = Metrics()
    seat = node.seat
    own.node(
        {
            "instance_type": node.instance_type.name,
            "ultraserver_id": seat.id if seat else "",
            "ultraserver_node": seat.node if seat else "",
        }
    )
    return own.render() + rendered(node, requests(node))
