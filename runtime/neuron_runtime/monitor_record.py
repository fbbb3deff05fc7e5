"""A record of ``neuron-monitor``: the JSON that it prints whenever a metric group is due. Pure.

The fields and their order are those of captures (trn1.32xlarge and inf2 with tools of 2024, trn1.2xlarge with 2.28) and
of AWS's user guide. A group that is not due is not in the record: consumers add the counts of all records up.
"""

from __future__ import annotations

from neuron_runtime import chips
from neuron_runtime.observed import CORE_MEMORY, ERRORS, EXECUTIONS, HOST_MEMORY, MODEL_MEMORY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from neuron_device_model.view import View

    from neuron_runtime.observed import Process

    Group = dict[str, Any]
    Counts = Mapping[int, Mapping[str, int]]

_ECC = ("mem_ecc_corrected", "mem_ecc_uncorrected", "sram_ecc_uncorrected", "sram_ecc_corrected")
_NO_DEVICES = "no neuron device available"


def record(*, runtimes: list[Group], system: Group, view: View | None) -> Group:
    """The whole record."""
    return {
        "neuron_runtime_data": runtimes,
        "system_data": system,
        "instance_info": _instance(view),
        "neuron_hardware_info": _hardware(view),
    }


def runtime(process: Process, groups: Group) -> Group:
    """The entry of a process, with the groups that are due."""
    return {"pid": process.pid, "neuron_runtime_tag": process.tag, "error": process.error, "report": groups}


def group(period: float, fields: Mapping[str, Any], error: str = "") -> Group:
    """A metric group; `period`: seconds that it covers."""
    return {"period": round(period, 9), **fields, "error": error}


def execution_stats(process: Process, before: Process | None) -> Group:
    """What was executed since `before`, or since the process began."""
    errors, executions = dict(process.errors), dict(process.executions)
    if before is not None:
        for now, then in ((errors, before.errors), (executions, before.executions)):
            for name in now:
                now[name] = max(now[name] - then[name], 0)
    latency = process.latency or {}
    return {
        "error_summary": {name: errors[name] for name in ERRORS},
        "execution_summary": {name: executions[name] for name in EXECUTIONS},
        "latency_stats": {
            "total_latency": latency.get("total"),
            "device_latency": latency.get("device"),
        },
    }


def memory_used(process: Process, view: View) -> Group:
    """What a process has of the host's memory and of its cores'."""
    cores = sorted(process.cores.items())
    of_cores = {str(number): {name: core["memory"][name] for name in CORE_MEMORY} for number, core in cores}
    return {
        "neuron_runtime_used_bytes": {
            "host": sum(process.host.values()),
            "neuron_device": sum(sum(memory.values()) for memory in of_cores.values()),
            "usage_breakdown": {
                "host": {name: process.host[name] for name in HOST_MEMORY},
                "neuroncore_memory_usage": of_cores,
            },
        },
        "loaded_models": [_model(model, view) for model in process.models],
    }


def neuroncore_counters(process: Process, view: View) -> Group:
    """How busy the process' cores are."""
    return {
        "neuroncores_in_use": {str(number): _core(number, core, view) for number, core in sorted(process.cores.items())}
    }


def hardware_counters(view: View | None, now: Counts, before: Counts) -> Group:
    """ECC events of each device between two looks: AWS's exporter adds up what the records say."""
    return {
        "neuron_devices": [
            {
                "neuron_device_index": device["index"],
                **{
                    event: now.get(device["index"], {}).get(event, 0) - before.get(device["index"], {}).get(event, 0)
                    for event in _ECC
                },
            }
            for device in (view["devices"] if view else ())
        ]
    }


def _core(number: int, core: Mapping[str, Any], view: View) -> Group:
    level = round(core["utilization"], 2)
    found = {"neuroncore_utilization": level, "flops": int(core["flops"])}
    version = chips.core_version(view)
    if version.endswith("d"):
        # both physical cores do what the logical one does
        found[version] = {
            f"nc_{version[:-1]}.{physical}": {"neuroncore_utilization": level}
            for physical in (2 * number, 2 * number + 1)
        }
    return found


def _model(model: Mapping[str, Any], view: View) -> Group:
    core = model["core"]
    device = next(device for device in view["devices"] if core in device["core_ids"])
    subgraph = {
        "memory_used_bytes": {
            "host": sum(model["host"].values()),
            "neuron_device": sum(model["device"].values()),
            "usage_breakdown": {
                "host": {name: model["host"][name] for name in HOST_MEMORY},
                "neuron_device": {name: model["device"][name] for name in MODEL_MEMORY},
            },
        },
        "neuroncore_index": core % chips.cores_of_a_chip(view),
        "neuron_device_index": device["index"],
    }
    version = chips.core_version(view)
    if version == "v2":  # captures of trn1 and inf2
        subgraph[version] = f"nc_v2.{core}"
    return {
        "name": model["name"],
        "uuid": model["uuid"],
        "model_id": model["model_id"],
        "is_running": model["running"],
        "subgraphs": {"sg_00": subgraph},
    }


def _instance(view: View | None) -> Group:
    """Where the machine is, nobody in the container knows."""
    return {
        "instance_name": "",
        "instance_id": view["instance_id"] if view else "",
        "instance_type": view["instance_type"] if view else "",
        "instance_availability_zone": "",
        "instance_availability_zone_id": "",
        "instance_region": "",
        "ami_id": "",
        "subnet_id": "",
        "error": "",
    }


def _hardware(view: View | None) -> Group:
    if view is None:
        return {
            "neuron_device_type": "",
            "neuron_device_version": "",
            "neuroncore_version": "",
            "neuron_device_count": 0,
            "neuron_device_memory_size": 0,
            "neuroncore_per_device_count": 0,
            "logical_neuroncore_config": 0,
            "error": _NO_DEVICES,
        }
    chip = chips.chip_of(view)
    return {
        "neuron_device_type": chip.type,
        "neuron_device_version": chip.device_version,
        "neuroncore_version": chips.core_version(view),
        "neuron_device_count": len(view["devices"]),
        "neuron_device_memory_size": view["devices"][0]["memory_bytes"],
        "neuroncore_per_device_count": view["devices"][0]["core_count"],
        "logical_neuroncore_config": view["logical_neuroncore_config"] or 1,
        "error": "",
    }
