"""The driver's files in /sys/devices/virtual/neuron_device, and what each of them says. Pure.

AWS docs: tools/neuron-sys-tools (sysfs guide); the driver's neuron_sysfs_metrics.c for the names of counters. The
driver counts physical cores, so a logical core's values are halved among its two. `total` is what was counted since the
process began, `present` what is so now, `peak` the most that was seen.
"""

from __future__ import annotations

from neuron_runtime import chips

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from neuron_device_model.view import DeviceView, View

    from neuron_runtime.observed import Process

HOST_MEMORY = (
    "application_memory",
    "constants",
    "dma_buffers",
    "dma_rings",
    "driver_memory",
    "notifications",
    "tensors",
    "uncategorized",
)
DEVICE_MEMORY = (
    "model_code",
    "tensors",
    "constants",
    "model_shared_scratchpad",
    "runtime_memory",
    "driver_memory",
    "collectives",
    "nonshared_scratchpad",
    "notifications",
    "dma_rings",
    "uncategorized",
)
STATUS = (
    "success",
    "failure",
    "timeout",
    "exec_bad_input",
    "hw_error",
    "execute_completed_with_error",
    "execute_completed_with_num_error",
    "generic_error",
    "resource_error",
    "resource_nc_error",
    "execute_failed_to_queue",
    "invalid_error",
    "unsupported_neff_version",
    "oob_error",
    "hw_collectives_error",
    "hw_hbm_ue_error",
    "hw_nc_ue_error",
    "hw_dma_abort_error",
    "execute_sw_nq_overflow",
    "execute_sw_semaphore_error",
    "execute_sw_event_error",
    "execute_sw_psum_collision",
    "execute_sw_sequencer_fatal",
    "hw_repairable_hbm_ue_error",
)
OTHER_INFO = (
    "flop_count",
    "inference_count",
    "model_load_count",
    "reset_fail_count",
    "reset_req_count",
    "nc_time_in_use",
)
_OF_STATUS = {
    "success": "completed",
    "timeout": "timed_out",
    "exec_bad_input": "incorrect_input",
    "execute_completed_with_error": "completed_with_err",
    "execute_completed_with_num_error": "completed_with_num_err",
    "execute_failed_to_queue": "failed_to_queue",
}
_ECC = (
    "sram_ecc_uncorrected",
    "mem_ecc_uncorrected",
    "mem_ecc_repairable_uncorrected",
    "sram_ecc_corrected",
    "mem_ecc_corrected",
)


class Tree:
    """The files' contents by their paths below `neuron_device`; remembers peaks."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._peaks: dict[str, int] = {}

    def files(
        self, view: View | None, processes: Sequence[Process], ecc: Mapping[int, Mapping[str, int]], *, now: float
    ) -> dict[str, str]:
        """Everything, as it is now (seconds since the epoch). `view`: the devices that the driver shows.

        `ecc`: counters of each device; what is not in it is 0.
        """
        found: dict[str, str] = {}
        if view is None:
            return found
        self._view = view
        for device in self._view["devices"]:
            for path, text in self._device(device, processes, ecc.get(device["index"], {}), now=now):
                found[f"neuron{device['index']}/{path}"] = text
        return found

    def _device(
        self, device: DeviceView, processes: Sequence[Process], ecc: Mapping[str, int], *, now: float
    ) -> Iterator[tuple[str, str]]:
        chip = chips.chip_of(self._view)
        root = f"neuron{device['index']}"
        yield "connected_devices", ", ".join(map(str, device["connected"] or ())) + "\n"
        yield "core_count", f"{chip.physical_cores}\n"
        yield "info/notify_delay", "0\n"
        yield "info/serial_number", f"{_serial(self._view, device):016x}\n"
        yield "info/architecture/arch_type", f"ND{chip.arch}\n"
        yield "info/architecture/device_name", f"{chip.title}\n"
        yield "info/architecture/instance_type", f"{self._view['instance_type'][:4].capitalize()}\n"
        for name in _ECC:
            yield f"stats/hardware/{name}", f"{ecc.get(name, 0)}\n"
        here = [process for process in processes if set(device["core_ids"]) & process.cores.keys()]
        host = {name: sum(process.host.get(name, 0) for process in here) for name in HOST_MEMORY}
        for name, count in host.items():
            yield from self._memory(root, f"stats/memory_usage/host_mem/{name}", count)
        levels = [process.cores[core]["utilization"] for process in here for core in device["core_ids"]
                  if core in process.cores]  # fmt: skip
        low, high = (
            (min(levels), max(levels)) if len(levels) == len(device["core_ids"]) else (0, max(levels, default=0))
        )
        mean = sum(levels) / len(device["core_ids"])
        minute = int(now) // 60 * 60
        yield "stats/power/utilization", f"POWER_STATUS_VALID,{minute},{low:.2f},{high:.2f},{mean:.2f}\n"
        yield from self._cores(root, device, here)

    def _cores(self, root: str, device: DeviceView, here: Sequence[Process]) -> Iterator[tuple[str, str]]:
        chip = chips.chip_of(self._view)
        together = self._view["logical_neuroncore_config"] or 1
        first = device["index"] * chips.cores_of_a_chip(self._view)
        for physical in range(chip.physical_cores):
            core = first + physical // together
            users = [process for process in here if core in process.cores]
            folder = f"neuron_core{physical}"
            yield f"{folder}/info/architecture/arch_type", f"NC{chip.arch}\n"
            for name, count in _statuses(users).items():
                yield f"{folder}/stats/status/{name}/total", f"{count}\n"
                yield f"{folder}/stats/status/{name}/present", f"{count}\n"
            used = {
                name: sum(process.cores[core]["memory"].get(name, 0) for process in users) // together
                for name in DEVICE_MEMORY
            }
            yield from self._memory(root, f"{folder}/stats/memory_usage/host_mem", 0)
            yield from self._memory(root, f"{folder}/stats/memory_usage/device_mem", sum(used.values()))
            for name, count in used.items():
                yield from self._memory(root, f"{folder}/stats/memory_usage/device_mem/{name}", count)
            for name, count in _other(users, core, together).items():
                yield f"{folder}/stats/other_info/{name}/total", f"{count}\n"
                yield f"{folder}/stats/other_info/{name}/present", f"{count}\n"

    def _memory(self, root: str, path: str, count: int) -> Iterator[tuple[str, str]]:
        key = f"{root}/{path}"
        peak = self._peaks[key] = max(self._peaks.get(key, 0), count)
        yield f"{path}/total", f"{count}\n"
        yield f"{path}/present", f"{count}\n"
        yield f"{path}/peak", f"{peak}\n"


def _statuses(users: Iterable[Process]) -> Mapping[str, int]:
    counts = dict.fromkeys(STATUS, 0)
    for process in users:
        for name, ours in _OF_STATUS.items():
            counts[name] += process.executions[ours]
        counts["generic_error"] += process.errors["generic"]
        counts["hw_error"] += process.errors["hardware"]
    return counts


def _other(users: Sequence[Process], core: int, together: int) -> Mapping[str, int]:
    return {
        **dict.fromkeys(OTHER_INFO, 0),
        "flop_count": sum(int(process.cores[core]["flops"]) for process in users) // together,
        "inference_count": sum(sum(process.executions.values()) for process in users),
        "model_load_count": sum(model["core"] == core for process in users for model in process.models),
    }


def _serial(view: View, device: DeviceView) -> int:
    """A number that is the device's: the same for all who see it, of whichever claim.

    `neuron_device_model.identity` has the same, for the kernel's messages.
    """
    digest = 0xCBF29CE484222325
    for byte in f"{view['instance_id']}/{device['host_index']}".encode():
        digest = (digest ^ byte) * 0x100000001B3 % (1 << 64)
    return digest
