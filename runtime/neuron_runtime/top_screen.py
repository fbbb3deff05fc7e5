"""What ``neuron-top`` shows, as lines of text, and what its keys change. Pure.

The sections, their words and the keys are those of AWS's user guide and its pictures (neuron-top, Trn2); a bar is as
wide as the terminal leaves it, and lines that have no place are cut.
"""

from __future__ import annotations

from neuron_runtime import chips

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from neuron_device_model.view import View

    from neuron_runtime.observed import Process

    Usage = tuple[float, float]

_UNITS = ("B", "KB", "MB", "GB", "TB")
_HOST_ROWS = (
    ("Tensors", "tensors"),
    ("Constants", "constants"),
    ("DMA Buffers", "dma_buffers"),
    ("App. Memory", "application_memory"),
)
_DEVICE_ROWS = (
    ("Tensors", "tensors"),
    ("Constants", "constants"),
    ("Model Code", "model_code"),
    ("Runtime Memory", "runtime_memory"),
    ("Model Scratchpad", "model_shared_scratchpad"),
)
_NAME_COLUMN, _BYTES_COLUMN = 52, 16
_TERAFLOP = 1e12


class Look:
    """What there is to show at a moment."""

    __slots__ = ("processes", "system", "vcpu", "view")

    def __init__(self, view: View, processes: Sequence[Process], *, system: Usage, vcpu: Mapping[int, Usage]) -> None:
        self.view = view
        self.processes = processes
        self.system = system
        """Percent of all vCPUs in user and in kernel code."""
        self.vcpu = vcpu
        """The same of each process, by its pid."""


class Screen:
    """What the person at the keys has chosen."""

    __slots__ = ("_folded", "_rows", "app", "cursor", "flops")

    def __init__(self) -> None:
        self.app = 0
        """0 for all, else the number of a process in the list."""
        self.cursor = 0
        self.flops = False
        self._folded: set[str] = set()
        self._rows: list[str] = []

    def press(self, key: str, look: Look) -> bool:
        """Follow a key; false to end."""
        apps = len(look.processes) + 1
        if key in ("q", "\x03"):
            return False
        if key == "f":
            self.flops = not self.flops
        elif key == "a":
            self.app = (self.app - 1) % apps
        elif key == "d":
            self.app = (self.app + 1) % apps
        elif key.isdigit() and 0 < int(key) <= apps:
            self.app = int(key) - 1
        elif key == "x":
            self._folded = set() if self._folded else set(self._rows)
        elif key in ("up", "down"):
            self.cursor = max(0, min(self.cursor + (1 if key == "down" else -1), len(self._rows) - 1))
        elif key == "enter" and self._rows:
            self._folded ^= {self._rows[min(self.cursor, len(self._rows) - 1)]}
        return True

    def draw(self, look: Look, *, width: int, height: int) -> list[str]:
        """The lines, as many as the terminal has."""
        self.app = min(self.app, len(look.processes))
        shown = look.processes if self.app == 0 else [look.processes[self.app - 1]]
        view = look.view
        head = [f"neuron-top {view['tools_version']} running on {view['instance_id']} ({view['instance_type']})", ""]
        head += [*self._cores(view, shown, width), "", *_vcpu(look, shown), "", *_summary(shown), ""]
        head += ["Memory Usage Details", _columns("Model ID", "Device Memory", "Host Memory")]
        tree = list(self._tree(view, shown))
        self._rows = [key for key, _ in tree]
        self.cursor = max(0, min(self.cursor, len(tree) - 1))
        room = max(height - len(head) - 2, 1)
        first = max(0, min(self.cursor - room + 1, len(tree) - room))
        body = [
            f"{'>' if number == self.cursor else ' '}{text}"
            for number, (_, text) in enumerate(tree[first : first + room], start=first)
        ]
        body += [""] * (room - len(body))
        lines = [*head, *body, _apps(look.processes, self.app)]
        lines.append("q: quit  arrows: move  enter: fold  x: fold all  a/d, 1-9: app  f: FLOPS")
        # a terminal that is too low shows what comes first, and the line of the apps
        if len(lines) > height:
            lines = [*lines[: max(height - 2, 0)], *lines[-2:]][:height]
        return ["".join(c if c.isprintable() else " " for c in line)[:width] for line in lines]

    def _cores(self, view: View, shown: Sequence[Process], width: int) -> Iterator[str]:
        level: dict[int, float] = {}
        flops: dict[int, float] = {}
        for process in shown:
            for core, what in process.cores.items():
                level[core] = level.get(core, 0) + what["utilization"]
                flops[core] = flops.get(core, 0) + what["flops"]
        numbers = [core for device in view["devices"] for core in device["core_ids"]]
        average = sum(level.get(core, 0) for core in numbers) / max(len(numbers), 1)
        version = chips.core_version(view)
        if self.flops:
            total = sum(flops.values()) / _TERAFLOP
            yield f"NeuronCore {version} TFLOPS (Total: {total:.2f})"
        else:
            yield f"NeuronCore {version} Utilization (Avg: {average:.2f}%)"
        per_chip = max(len(device["core_ids"]) for device in view["devices"])
        cell = max((width - 6) // per_chip - 1, 12)
        yield "      " + " ".join(f"NC{core}".center(cell) for core in range(per_chip))
        for device in view["devices"]:
            cells = []
            for core in device["core_ids"]:
                text = f"{flops.get(core, 0) / _TERAFLOP:.2f}" if self.flops else f"{level.get(core, 0):.2f}%"
                cells.append(_bar(min(level.get(core, 0), 100) / 100, text, cell))
            yield f"{'ND' + str(device['index']):<5} " + " ".join(cells)

    def _tree(self, view: View, shown: Sequence[Process]) -> Iterator[tuple[str, str]]:
        """What is foldable by its key: the devices, their cores, and what is loaded on each."""
        for device in view["devices"]:
            key = f"nd{device['index']}"
            used = [(process, core) for core in device["core_ids"] for process in shown if core in process.cores]
            yield key, self._row(key, 0, f"ND {device['index']}", _bytes_on(used), _host_on(used))
            if key in self._folded:
                continue
            for core in dict.fromkeys(core for _, core in used):
                here = [(process, one) for process, one in used if one == core]
                of_core = f"nc{core}"
                place = core % chips.cores_of_a_chip(view)
                yield of_core, self._row(of_core, 1, f"NC {place}", _bytes_on(here), _host_on(here))
                if of_core in self._folded:
                    continue
                for process, _ in here:
                    for model in process.models:
                        if model["core"] == core:
                            name = f"{model['name']} {model['model_id']}"
                            row = f"{of_core}/{process.pid}/{model['model_id']}"
                            sizes = sum(model["device"].values()), sum(model["host"].values())
                            yield row, self._row(row, 2, name, *sizes)

    def _row(self, key: str, depth: int, name: str, device: int, host: int) -> str:
        mark = "[+]" if key in self._folded or depth == 2 else "[-]"
        return _columns("  " * depth + f"{mark} {name}", size(device), size(host))


def size(count: int) -> str:
    """Bytes for people: 1.5GB."""
    value = float(count)
    for unit in _UNITS:
        if value < 1024 or unit == _UNITS[-1]:
            break
        value /= 1024
    return f"{count}B" if unit == "B" else f"{value:.1f}{unit}"


def _bar(part: float, text: str, width: int) -> str:
    inside = width - 2
    room = max(inside - len(text) - 1, 0)
    return "[" + ("|" * round(part * room)).ljust(room) + text.rjust(inside - room) + "]"


def _vcpu(look: Look, shown: Sequence[Process]) -> Iterator[str]:
    user = sum(look.vcpu.get(process.pid, (0.0, 0.0))[0] for process in shown)
    system = sum(look.vcpu.get(process.pid, (0.0, 0.0))[1] for process in shown)
    yield "vCPU Utilization"
    yield f"System vCPU Usage  [{look.system[0]:5.2f}%,{look.system[1]:5.2f}%]"
    yield f"Runtime vCPU Usage [{user:5.2f}%,{system:5.2f}%]"


def _summary(shown: Sequence[Process]) -> Iterator[str]:
    host = {name: sum(process.host[name] for process in shown) for _, name in _HOST_ROWS}
    cores = [core["memory"] for process in shown for core in process.cores.values()]
    device = {name: sum(memory[name] for memory in cores) for _, name in _DEVICE_ROWS}
    yield "Memory Usage Summary"
    for title, rows, used in (("Host Used Memory", _HOST_ROWS, host), ("Device Used Memory", _DEVICE_ROWS, device)):
        parts = [("Total", sum(used.values())), *((name, used[key]) for name, key in rows)]
        yield f"{title:<18}" + "".join(f"{name:>17}" for name, _ in parts)
        yield " " * 18 + "".join(f"{size(count):>17}" for _, count in parts)


def _bytes_on(used: Iterable[tuple[Process, int]]) -> int:
    return sum(sum(process.cores[core]["memory"].values()) for process, core in used)


def _host_on(used: Iterable[tuple[Process, int]]) -> int:
    return sum(
        sum(model["host"].values()) for process, core in used for model in process.models if model["core"] == core
    )


def _columns(name: str, device: str, host: str) -> str:
    return f"{name[:_NAME_COLUMN]:<{_NAME_COLUMN}}{device:>{_BYTES_COLUMN}}{host:>{_BYTES_COLUMN}}"


def _apps(processes: Sequence[Process], chosen: int) -> str:
    names = ["all", *(process.tag for process in processes)]
    parts = [f"[{number + 1}]:{name}" for number, name in enumerate(names)]
    parts[chosen] = f">{parts[chosen]}<"
    return "Neuron Apps " + " ".join(parts)
