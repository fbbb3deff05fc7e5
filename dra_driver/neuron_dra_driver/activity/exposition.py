"""The devices' metrics for Prometheus, under the names of AWS's neuron-monitor-prometheus.py. Pure.

Names, labels, units and HELP texts are those of the script and of a scrape of a trn1n.32xlarge that OpenTelemetry's
tests have. Beside them stand `pod`, `namespace` and `container`, and a process' `pid`, because processes
of one job often have one tag. Nothing is remembered here: counts are what the processes count, so they are the same
after a restart, and series end with their process and their pod. One more tells of active faults, under a name of ours.

The script's client library says of each count when it began, as a series `…_created`. So does a node's page; on that of
thousands of virtual nodes it would be every second line of those where nothing runs.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from neuron_device_model.faults import chips_hit, lost_chips

from ..node import SimulatedNode
from .pods import Pod, containers_of
from .reports import CORE_MEMORY, ERRORS, EXECUTIONS, PERCENTILES, VCPU_USAGE, Report

ECC_EVENTS = ("mem_ecc_corrected", "mem_ecc_uncorrected", "sram_ecc_corrected", "sram_ecc_uncorrected")

FAMILIES: Mapping[str, tuple[str, str]] = {
    "execution_errors_total": ("counter", "Execution errors total"),
    "execution_errors_created": ("gauge", "Execution errors total"),
    "execution_status_total": ("counter", "Execution status total"),
    "execution_status_created": ("gauge", "Execution status total"),
    "execution_latency_seconds": ("gauge", "Execution latency in seconds"),
    "neuron_runtime_memory_used_bytes": ("gauge", "Runtime memory used bytes"),
    **{
        f"neuroncore_memory_usage_{name}": ("gauge", f"NeuronCore memory utilization for {name}")
        for name in CORE_MEMORY
    },
    "neuroncore_utilization_ratio": ("gauge", "NeuronCore utilization ratio"),
    "neuron_runtime_vcpu_usage_ratio": ("gauge", "Runtime vCPU utilization ratio"),
    "hardware_ecc_events_total": ("counter", "Hardware ecc events total"),
    "hardware_ecc_events_created": ("gauge", "Hardware ecc events total"),
    "system_memory_total_bytes": ("gauge", "System memory total_bytes bytes"),
    "system_memory_used_bytes": ("gauge", "System memory used_bytes bytes"),
    "system_swap_total_bytes": ("gauge", "System swap total_bytes bytes"),
    "system_swap_used_bytes": ("gauge", "System swap used_bytes bytes"),
    "system_vcpu_count": ("gauge", "System vCPU count"),
    "system_vcpu_usage_ratio": ("gauge", "System CPU utilization ratio"),
    "instance_info": ("gauge", "EC2 instance information"),
    "neuron_hardware_info": ("gauge", "Neuron Hardware Information"),
    "neuron_sim_fault_active": ("gauge", "NeuronFaults that are active, by the chips that they hit"),
}
"""Type and help text of each, in the order of the page."""
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


@dataclass(frozen=True, slots=True)
class Shown:
    """What is known of one request: its view, its pods, and the processes on its cores."""

    claim: str
    """The ResourceClaim's name."""
    view: Mapping[str, Any]
    pods: Iterable[Pod]
    processes: Iterable[Report]


@dataclass(frozen=True, slots=True)
class System:
    """The machine: vCPUs, how busy they are (0 to 1, by usage: user, system), bytes of memory."""

    vcpus: int
    usage: Mapping[str, float]
    memory: Mapping[str, int]


def render(node: SimulatedNode, requests: Iterable[Shown], system: System, ecc: Mapping[int, Mapping[str, int]]) -> str:
    """The page of a node with Neuron devices. `ecc`: counters by chip and event; what is not in it is 0."""
    found = families(node, requests, system, ecc, instance=instance_labels(node), created=True)
    return "".join(head(name) + text for name, text in found.items())


def families(
    node: SimulatedNode,
    requests: Iterable[Shown],
    system: System,
    ecc: Mapping[int, Mapping[str, int]],
    *,
    instance: str,
    created: bool = False,
) -> dict[str, str]:
    """The lines of each family that a node has samples of, without its head.

    `instance`: the labels of all of them; `created`: whether to say when counts began.
    """
    samples: dict[str, dict[str, float]] = {name: {} for name in FAMILIES}
    for request in requests:
        owner = f"{instance},{_owner(request)}"
        numbers = core_numbers(request.view, physical_cores=node.instance_type.chip.physical_cores)
        for process in request.processes:
            runtime = f"{owner},{labels_of(pid=process['pid'], runtime_tag=process['tag'])}"
            for name, labels, value in _of_process(process, numbers):
                series, key = samples[name], f"{runtime},{labels}"
                # two processes that cannot be told apart are one series: a page with a series twice is thrown away
                series[key] = series.get(key, 0) + value
            for name, labels in _begins_of_process() if created else ():
                series, key = samples[name], f"{runtime},{labels}"
                series[key] = min(series.get(key, process["began"]), process["began"])
    of_node = _of_node(node, system, ecc)
    for name, labels, value in chain(of_node, _begins_of_node(node)) if created else of_node:
        samples[name][f"{instance},{labels}" if labels else instance] = value
    return {
        name: "".join([f"{name}{{{labels}}} {value}\n" for labels, value in found.items()])
        for name, found in samples.items()
        if found
    }


def instance_labels(node: SimulatedNode, /, **more: object) -> str:
    """The labels that every series of a node has."""
    return labels_of(
        **more,
        availability_zone="",
        instance_id=node.instance_id,
        instance_name="",
        instance_type=node.instance_type.name,
        region="",
        subnet_id="",
    )


def head(name: str) -> str:
    """What comes before the samples of a family."""
    kind, text = FAMILIES[name]
    return f"# HELP {name} {text}\n# TYPE {name} {kind}\n"


def core_numbers(view: Mapping[str, Any], *, physical_cores: int) -> dict[str, int]:
    """The number on the node of each core, by its number in the request."""
    per_chip = physical_cores // (view["logical_neuroncore_config"] or 1)
    return {
        str(core): device["host_index"] * per_chip + core - device["index"] * per_chip
        for device in view["devices"]
        for core in device["core_ids"]
    }


def labels_of(**labels: object) -> str:
    """As they stand between the braces."""
    return ",".join(f'{name}="{str(value).translate(_ESCAPES)}"' for name, value in labels.items())


def _of_process(process: Report, numbers: Mapping[str, int]) -> Iterator[tuple[str, str, float]]:
    for core, what in process["cores"].items():
        number = f'neuroncore="{numbers[core]}"'
        yield "neuroncore_utilization_ratio", number, what["utilization"] / 100
        for name in CORE_MEMORY:
            labels = f'memory_location="None",{number}'
            yield f"neuroncore_memory_usage_{name}", labels, what["memory"].get(name, 0)
    on_devices = sum(sum(core["memory"].values()) for core in process["cores"].values())
    yield "neuron_runtime_memory_used_bytes", 'memory_location="host"', sum(process["host"].values())
    yield "neuron_runtime_memory_used_bytes", 'memory_location="neuron_device"', on_devices
    for name in VCPU_USAGE:
        yield "neuron_runtime_vcpu_usage_ratio", f'usage_type="{name}"', process["vcpu"][name] / 100
    for name in ERRORS:
        yield "execution_errors_total", f'error_type="{name}"', process["errors"][name]
    for name in EXECUTIONS:
        yield "execution_status_total", f'status_type="{name}"', process["executions"][name]
    latency = process["latency"] and process["latency"]["total"]
    for name in PERCENTILES if latency else ():
        yield "execution_latency_seconds", f'percentile="{name}"', latency[name]


def _begins_of_process() -> Iterator[tuple[str, str]]:
    for name in ERRORS:
        yield "execution_errors_created", f'error_type="{name}"'
    for name in EXECUTIONS:
        yield "execution_status_created", f'status_type="{name}"'


def _of_node(
    node: SimulatedNode, system: System, ecc: Mapping[int, Mapping[str, int]]
) -> Iterator[tuple[str, str, float]]:
    chips = _chips(node)
    for device in chips:
        for event in ECC_EVENTS:
            yield "hardware_ecc_events_total", _ecc_labels(device, event), ecc.get(device, {}).get(event, 0)
    for fault in node.faults:
        for hit in chips_hit(fault, node.instance_type) or ("",):
            labels = labels_of(fault=fault.name, neuron_device_index=hit, type=fault.type)
            yield "neuron_sim_fault_active", labels, 1
    for name, count in system.memory.items():
        yield f"system_{name}", "", count
    yield "system_vcpu_count", "", system.vcpus
    for usage, ratio in system.usage.items():
        yield "system_vcpu_usage_ratio", f'usage_type="{usage}"', ratio
    yield "instance_info", "", 1
    per_device = node.instance_type.chip.physical_cores // node.logical_neuron_core
    yield "neuron_hardware_info", labels_of(neuron_device_count=len(chips), neuroncore_per_device_count=per_device), 1


def _begins_of_node(node: SimulatedNode) -> Iterator[tuple[str, str, float]]:
    for device in _chips(node):
        for event in ECC_EVENTS:
            yield "hardware_ecc_events_created", _ecc_labels(device, event), node.created


def _ecc_labels(device: int, event: str) -> str:
    return f'event_type="{event}",neuron_device_index="{device}"'


def _chips(node: SimulatedNode) -> list[int]:
    """Those that the driver still sees."""
    lost = lost_chips(node.faults, node.instance_type)
    return [chip for chip in range(node.instance_type.chips) if chip not in lost]


def _owner(request: Shown) -> str:
    """Pod, namespace and containers. Pods that share a claim stand side by side, nobody knows whose a core is."""
    pods = list(request.pods)
    containers = dict.fromkeys(name for pod in pods for name in containers_of(pod, request.claim))
    return labels_of(
        container=",".join(containers),
        namespace=",".join(dict.fromkeys(pod["metadata"]["namespace"] for pod in pods)),
        pod=",".join(pod["metadata"]["name"] for pod in pods),
    )
