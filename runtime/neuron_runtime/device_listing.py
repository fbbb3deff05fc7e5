"""The devices of a view as ``neuron-ls`` lists them: as a table and as JSON.

Equal to captures of tools 2.25 to 2.32; AWS's documentation still shows older tables for some flags. The
version of the tools that the view names decides one thing: 2.32 put the instance into every JSON entry.
"""

from __future__ import annotations

from neuron_runtime import json_text, nrt, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from neuron_device_model.view import DeviceView, View

    from neuron_runtime.processes import Holders, Process

COMMAND_WIDTH = 40
WIDE_COMMAND_WIDTH = 80
_JSON_INSTANCE_SINCE = (2, 32)
_GIB = 1 << 30
_NO_PROCESS = {"pid": "NA", "command": "NA", "version": "NA"}

# header, header, cell; in the order of captures of tools 2.25 to 2.32
_COLUMNS = (
    ("NEURON", "DEVICE", "index"),
    ("NEURON", "CORES", "cores"),
    ("NEURON", "CORE IDS", "core_ids"),
    ("NEURON", "MEMORY", "memory"),
    ("CONNECTED", "DEVICES", "connected"),
    ("PCI", "BDF", "bdf"),
    ("PID", "", "pid"),
    ("CPU", "AFFINITY", "affinity"),
    ("NUMA", "NODE", "numa"),
    ("COMMAND", "", "command"),
    ("RUNTIME", "VERSION", "version"),
)


def as_text(view: View, holders: Holders, *, command_width: int) -> str:
    """The lines about the instance, and the table: one line per device, or per process where any holds it."""
    any_held = any(holders.get(device["index"]) for device in view["devices"])
    lines: list[Mapping[str, str]] = []
    group_sizes = []
    for device in view["devices"]:
        processes = [_process_cells(p, command_width) for p in holders.get(device["index"], ())]
        if not processes:
            processes = [_NO_PROCESS if any_held else {}]
        lines.append({**_device_cells(device), **processes[0]})
        lines.extend(processes[1:])
        group_sizes.append(len(processes))
    columns = [table.Column(top, bottom, [line.get(cell, "") for line in lines]) for top, bottom, cell in _COLUMNS]
    return _instance_lines(view) + table.render(columns, group_sizes=group_sizes)


def as_json(view: View, holders: Holders, *, command_width: int) -> str:
    """The devices as the real tool's JSON array, without a newline at its end."""
    entries = [
        _json_entry(view, device, processes=holders.get(device["index"], ()), command_width=command_width)
        for device in view["devices"]
    ]
    return json_text.render(entries)


def _instance_lines(view: View) -> str:
    lines = f"instance-type: {view['instance_type']}\ninstance-id: {view['instance_id']}\n"
    if view["logical_neuroncore_config"] is not None:
        lines += f"logical-neuroncore-config: {view['logical_neuroncore_config']}\n"
    return lines


def _device_cells(device: DeviceView) -> dict[str, str]:
    return {
        "index": str(device["index"]),
        "cores": str(device["core_count"]),
        "core_ids": nrt.core_list(device["core_ids"]),
        "memory": f"{device['memory_bytes'] // _GIB} GB",
        "connected": ", ".join(map(str, device["connected"] or ())),
        "bdf": device["pci_bdf"],
        "affinity": device["cpu_affinity"],
        "numa": device["numa_node"],
    }


def _process_cells(process: Process, command_width: int) -> dict[str, str]:
    return {
        "pid": str(process.pid),
        # a shell's script has lines of its own, and anyone may put a terminal's escapes into a command line
        "command": "".join(c if c.isprintable() else " " for c in _shortened(process.command, command_width)),
        "version": process.runtime_version,
    }


def _json_entry(
    view: View, device: DeviceView, *, processes: Sequence[Process], command_width: int
) -> dict[str, object]:
    entry: dict[str, object] = {}
    if _tools_version(view) >= _JSON_INSTANCE_SINCE:
        entry["instance_type"] = view["instance_type"]
        entry["instance_id"] = view["instance_id"]
    entry["neuron_device"] = device["index"]
    entry["bdf"] = device["pci_bdf"]
    entry["cpu_affinity"] = device["cpu_affinity"]
    entry["numa_node"] = device["numa_node"]
    entry["connected_to"] = device["connected"]
    entry["nc_count"] = device["core_count"]
    if view["logical_neuroncore_config"] is not None:
        entry["logical_neuroncore_config"] = view["logical_neuroncore_config"]
    entry["memory_size"] = device["memory_bytes"]
    entry["neuroncore_ids"] = device["core_ids"]
    entry["neuron_processes"] = [
        {
            "pid": process.pid,
            "command": _shortened(process.command, command_width),
            "neuron_runtime_version": process.runtime_version,
        }
        for process in processes
    ]
    return entry


def _shortened(command: str, width: int) -> str:
    return command if len(command) <= width else command[: width - 3] + "..."


def _tools_version(view: View) -> tuple[int, ...]:
    return tuple(int(part) for part in view["tools_version"].split("."))
