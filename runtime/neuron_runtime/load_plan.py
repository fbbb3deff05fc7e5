"""What ``neuron-sim-load`` does at each moment: the command line's wish, and the report that follows. Pure.

Counts are the integral of a rate over the time since the begin, so that reports that come late or never change nothing.
"""

from __future__ import annotations

from neuron_runtime.observed import CORE_MEMORY, ERRORS, EXECUTIONS, HOST_MEMORY, MODEL_MEMORY, PERCENTILES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

USAGE = """\
Usage:
  neuron-sim-load [OPTIONS]

Opens NeuronCores as neuron-sim-exec does and reports activity on them until it is told to end, so that every tool
and dashboard shows it. Nothing is computed.

Options:
  --cores N              Open N neighbouring cores that are free, of the visible ones.
  --utilization P        Percent of each core; default 80.
  --ramp FROM:TO:TIME    Utilization that goes from one to the other in a time, and then stays.
  --rate N               Executions a second, of the process; default 10.
  --latency TIME         Of one execution, the median; default what the utilization leaves.
  --memory SIZE          Tensors on each core; default 1GiB.
  --memory-growth SIZE   So much more each second on each core, until it is full: then it ends as the runtime does.
  --inject NAME=N        So many errors a second: generic, numerical, transient, model, runtime, hardware, or
                         timed_out, incorrect_input, failed_to_queue. May be given several times.
  --exit-on-error        When an execution fails on broken hardware, end with the runtime's status as most programs do;
                         without it the load goes on, and counts what fails.
  --model NAME           What the loaded model is called; default neuron-sim-load.
  --tag TEXT             Instead of NEURON_PROCESS_TAG.
  --interval TIME        Between two reports; default 1s.
  --duration TIME        End after it; default never.
  -h, --help             Show this help message

TIME is like 500ms, 30s, 5m or 1h, SIZE like 512MiB or 2GiB.
"""

MIB, GIB = 1 << 20, 1 << 30
_TIMES = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_SIZES = {"KiB": 1 << 10, "MiB": MIB, "GiB": GIB, "B": 1}
_SPREAD = (0.94, 0.95, 0.98, 1.0, 1.03, 1.18, 1.3)
_FIRST_MODEL = 10001
# of a core, besides what its tensors take
_CODE, _SCRATCHPAD = 128 * MIB, 256 * MIB
_HOST = {"application_memory": 256 * MIB, "dma_buffers": 32 * MIB}
_OF_STATUS = {"numerical": "completed_with_num_err", **dict.fromkeys(ERRORS[:1] + ERRORS[2:], "completed_with_err")}


class UsageError(Exception):
    """The command line is wrong; the message says how to write it."""


class Damage:
    """What broken hardware does to a load: how long it worked, and how long it failed, added up from look to look."""

    __slots__ = ("_at", "failed", "failing", "leaked", "slower", "worked")

    def __init__(self) -> None:
        self._at = 0.0
        self.worked = 0.0
        """Seconds, at full speed."""
        self.failed: dict[str, float] = {}
        """Seconds by what failed executions are counted as."""
        self.failing = ""
        """As what executions that fail now are counted; empty: they do not."""
        self.slower = 0.0
        """Percent."""
        self.leaked = 0.0
        """The part of a core's memory that is lost: it comes back with another process only."""

    def look(self, t: float, faults: Sequence[Mapping[str, Any]]) -> None:
        """`t` seconds after the begin these faults are there; since the last look it was as it was then."""
        passed, self._at = t - self._at, t
        if self.failing:
            self.failed[self.failing] = self.failed.get(self.failing, 0) + passed
        else:
            self.worked += passed * (100 - self.slower) / 100
        self.failing = next((fault["counts_as"] for fault in faults if fault["status"]), "")
        self.slower = max((fault["slower"] for fault in faults), default=0)
        self.leaked += passed / 60 * sum(fault["leak"] for fault in faults) / 100


class Plan:
    """A load, as the command line has it."""

    __slots__ = (
        "cores",
        "duration",
        "exit_on_error",
        "growth",
        "help",
        "inject",
        "interval",
        "latency",
        "level",
        "memory",
        "model",
        "ramp",
        "rate",
        "tag",
    )

    def __init__(self) -> None:
        self.cores: int | None = None
        self.level = 80.0
        self.ramp: tuple[float, float, float] | None = None
        self.rate = 10.0
        self.latency: float | None = None
        self.memory = GIB
        self.growth = 0
        self.inject: dict[str, float] = {}
        self.model = "neuron-sim-load"
        self.tag = ""
        self.interval = 1.0
        self.duration: float | None = None
        self.help = False
        self.exit_on_error = False

    def utilization(self, t: float) -> float:
        """Percent of each core, `t` seconds after the begin."""
        if self.ramp is None:
            return self.level
        begin, end, seconds = self.ramp
        return begin + (end - begin) * min(t / seconds, 1.0) if seconds else end

    def core_memory(self, t: float) -> dict[str, int]:
        """Bytes of each core."""
        used = dict.fromkeys(CORE_MEMORY, 0)
        return {
            **used,
            "model_code": _CODE,
            "model_shared_scratchpad": _SCRATCHPAD,
            "tensors": self.memory + int(self.growth * t),
        }

    def process(self, t: float, *, cores: Sequence[int], damage: Damage) -> dict[str, Any]:
        """What a report says of the process."""
        errors = {name: int(self.inject.get(name, 0) * t) for name in ERRORS}
        executions = {name: int(self.inject.get(name, 0) * t) for name in EXECUTIONS}
        for name, count in errors.items():
            executions[_OF_STATUS[name]] += count
        executions["completed"] = int(self.rate * damage.worked)
        for name, lost in damage.failed.items():
            executions[name] += int(self.rate * lost)
            errors["hardware"] += int(self.rate * lost)
        return {
            "host": {**dict.fromkeys(HOST_MEMORY, 0), **_HOST},
            "executions": executions,
            "errors": errors,
            "latency": None if damage.failing else self._latencies(t, slower=damage.slower),
            "models": [self._model(number, core) for number, core in enumerate(cores)],
        }

    def _latencies(self, t: float, *, slower: float) -> dict[str, dict[str, float]] | None:
        if not self.rate:
            return None
        median = self.latency
        if median is None:
            median = max(self.utilization(t), 1) / 100 / self.rate
        median *= 100 / (100 - slower)
        device = {name: round(part * median, 9) for name, part in zip(PERCENTILES, _SPREAD)}  # noqa: B905
        return {"total": {name: round(1.05 * value, 9) for name, value in device.items()}, "device": device}

    def _model(self, number: int, core: int) -> dict[str, Any]:
        return {
            "name": self.model,
            "uuid": f"{_FIRST_MODEL + number:032x}",
            "model_id": _FIRST_MODEL + number,
            "core": core,
            "running": True,
            "host": {**dict.fromkeys(HOST_MEMORY, 0), "application_memory": 20480},
            "device": {**dict.fromkeys(MODEL_MEMORY, 0), "model_code": _CODE},
        }


def parse_arguments(arguments: Sequence[str]) -> Plan:
    """The load that a command line asks for; raises UsageError."""
    plan = Plan()
    rest = list(arguments)
    while rest:
        option, has_value, value = rest.pop(0).partition("=")
        if option in ("-h", "--help"):
            plan.help = True
            return plan
        if option == "--exit-on-error" and not has_value:
            plan.exit_on_error = True
            continue
        if option not in _OPTIONS:
            raise UsageError(f"unknown option {option}: neuron-sim-load --help lists them")
        if not has_value:
            if not rest:
                raise UsageError(f"{option} needs a value: neuron-sim-load --help shows which")
            value = rest.pop(0)
        try:
            _OPTIONS[option](plan, value)
        except ValueError as error:
            raise UsageError(f"{option} {value}: {error}") from None
    return plan


def seconds(text: str) -> float:
    """A time like 500ms, 30s or 1h; raises ValueError."""
    return _quantity(text, _TIMES, "give a time like 500ms, 30s, 5m or 1h")


def size(text: str) -> int:
    """A size like 512MiB; raises ValueError."""
    return int(_quantity(text, _SIZES, "give a size like 512MiB or 2GiB"))


def _quantity(text: str, units: dict[str, Any], otherwise: str) -> float:
    number = text.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    unit = text[len(number) :]
    try:
        if unit in units:
            return _number(number) * float(units[unit])
    except ValueError:
        pass
    raise ValueError(otherwise)


def _number(text: str, most: float = 1e15) -> float:
    if not text.replace(".", "", 1).isdigit() or not text.isascii() or float(text) > most:
        raise ValueError("give a number, 0 or more")
    return float(text)


def _percent(text: str) -> float:
    try:
        return _number(text, 100)
    except ValueError:
        raise ValueError("give percent, from 0 to 100") from None


def _set_cores(plan: Plan, text: str) -> None:
    if not (text.isascii() and text.isdigit()) or len(text) > 6 or not int(text):
        raise ValueError("give the number of cores, 1 or more")
    plan.cores = int(text)


def _set_utilization(plan: Plan, text: str) -> None:
    plan.level = _percent(text)


def _set_ramp(plan: Plan, text: str) -> None:
    parts = text.split(":")
    if len(parts) != 3:
        raise ValueError("write it like 0:90:60s")
    plan.ramp = (_percent(parts[0]), _percent(parts[1]), seconds(parts[2]))


def _set_inject(plan: Plan, text: str) -> None:
    name, _, rate = text.partition("=")
    known = (*ERRORS, *EXECUTIONS[3:])
    if name not in known:
        raise ValueError(f"write NAME=N with one of {', '.join(known)}")
    plan.inject[name] = _number(rate, 1e9)


def _set_rate(plan: Plan, text: str) -> None:
    plan.rate = _number(text, 1e9)


def _set_latency(plan: Plan, text: str) -> None:
    plan.latency = seconds(text)


def _set_memory(plan: Plan, text: str) -> None:
    plan.memory = size(text)


def _set_growth(plan: Plan, text: str) -> None:
    plan.growth = size(text)


def _set_model(plan: Plan, text: str) -> None:
    plan.model = text


def _set_tag(plan: Plan, text: str) -> None:
    plan.tag = text


def _set_interval(plan: Plan, text: str) -> None:
    plan.interval = seconds(text)
    if plan.interval < 0.1:
        raise ValueError("the agent reads ten reports a second, give 100ms or more")


def _set_duration(plan: Plan, text: str) -> None:
    plan.duration = seconds(text)


_OPTIONS = {
    "--cores": _set_cores,
    "--utilization": _set_utilization,
    "--ramp": _set_ramp,
    "--rate": _set_rate,
    "--latency": _set_latency,
    "--memory": _set_memory,
    "--memory-growth": _set_growth,
    "--inject": _set_inject,
    "--model": _set_model,
    "--tag": _set_tag,
    "--interval": _set_interval,
    "--duration": _set_duration,
}
