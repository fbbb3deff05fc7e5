"""What a process says about its cores: one JSON object per line of its claim's socket. Pure.

docs/activity.md is the protocol. Reports are strict, since a misspelt field would look like an idle core; and small,
since they come from anybody's container. Counts are since the process began, so that a report may be lost, and an
agent restarted, without any of them going back.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeAlias

import orjson

MAX_MESSAGE = 1 << 16
"""Bytes of a line. A process with all 128 cores of a node and a model on each takes half of it."""
MAX_MODELS = 128
TAG_LENGTH = 255
NAME_LENGTH = 128

CORE_MEMORY = ("constants", "model_code", "model_shared_scratchpad", "runtime_memory", "tensors")
HOST_MEMORY = ("application_memory", "constants", "dma_buffers", "tensors")
MODEL_MEMORY = ("constants", "model_code", "runtime_memory", "tensors")
EXECUTIONS = (
    "completed",
    "completed_with_err",
    "completed_with_num_err",
    "timed_out",
    "incorrect_input",
    "failed_to_queue",
)
ERRORS = ("generic", "numerical", "transient", "model", "runtime", "hardware")
VCPU_USAGE = ("user", "system")
PERCENTILES = ("p0", "p1", "p25", "p50", "p75", "p99", "p100")

_MOST = (1 << 63) - 1
_HEX = frozenset("0123456789abcdef")

Report: TypeAlias = dict[str, Any]
"""Checked and complete: whatever may be left out is there."""
Field: TypeAlias = Callable[[str, Any], Any]
"""Checks a value, and gives it as it is passed on. Its place in the message comes first."""


class WrongMessage(ValueError):
    """A line that is no message; the sentence is sent back."""


def message(line: bytes) -> dict[str, Any]:
    """A line as an object; raises WrongMessage."""
    try:
        found = orjson.loads(line)
    except ValueError as error:
        raise WrongMessage(f"not JSON ({error}): write one object per line") from error
    if not isinstance(found, dict):
        raise WrongMessage("write one JSON object per line")
    return found


def report(fields: Mapping[str, Any], *, cores: Collection[int]) -> Report:
    """A report about some of a request's cores, checked; raises WrongMessage."""
    if "pid" not in fields or "cores" not in fields:
        raise WrongMessage("a report needs pid and cores")
    found: Report = {"pid": 0, "tag": "", "began": 0, "cores": {}, "latency": None, "models": []}
    found |= {
        "host": dict.fromkeys(HOST_MEMORY, 0),
        "executions": dict.fromkeys(EXECUTIONS, 0),
        "errors": dict.fromkeys(ERRORS, 0),
        "vcpu": dict.fromkeys(VCPU_USAGE, 0),
    }
    found |= _object("report", fields, _FIELDS)
    found["tag"] = found["tag"] or str(found["pid"])
    used = set(found["cores"]) | {str(model["core"]) for model in found["models"]}
    if strange := used - {str(core) for core in cores}:
        raise WrongMessage(f"core {min(strange)} is not of this request, which has {_listed(cores)}")
    return found


def on_cores(found: Report, numbers: Mapping[str, str]) -> Report | None:
    """A report as it is about these cores only, with their new numbers; None when it is about none of them."""
    cores = {numbers[core]: what for core, what in found["cores"].items() if core in numbers}
    models = [
        {**model, "core": int(numbers[str(model["core"])])}
        for model in found["models"]
        if str(model["core"]) in numbers
    ]
    return {**found, "cores": cores, "models": models} if cores else None


def _object(where: str, value: Any, fields: Mapping[str, Field]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise WrongMessage(f"{where} is an object")
    if unknown := value.keys() - fields.keys():
        raise WrongMessage(f"{where} has no field {min(unknown)!r}: it knows {', '.join(fields)}")
    return {name: fields[name](f"{where}.{name}", found) for name, found in value.items()}


def _number(most: float) -> Field:
    def check(where: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
            raise WrongMessage(f"{where} is a number from 0 to {most:g}")
        return value

    return check


def _count(where: str, value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _MOST:
        raise WrongMessage(f"{where} is a whole number, 0 or more")
    return value


def _flag(where: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise WrongMessage(f"{where} is true or false")
    return value


def _text(length: int) -> Field:
    def check(where: str, value: Any) -> str:
        if not isinstance(value, str) or len(value) > length or not value.isprintable():
            raise WrongMessage(f"{where} is a text of at most {length} printable characters")
        return value

    return check


def _uuid(where: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) != 32 or not _HEX.issuperset(value):
        raise WrongMessage(f"{where} is 32 hexadecimal digits")
    return value


def _counts(names: tuple[str, ...]) -> Field:
    known: dict[str, Field] = dict.fromkeys(names, _count)

    def check(where: str, value: Any) -> dict[str, int]:
        found = _object(where, value, known)
        return {name: found.get(name, 0) for name in names}

    return check


def _cores(where: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise WrongMessage(f"{where} is an object with the cores' numbers as its keys")
    idle = {"utilization": 0, "flops": 0, "memory": dict.fromkeys(CORE_MEMORY, 0)}
    return {core: idle | _object(f"{where}.{core}", found, _CORE) for core, found in value.items()}


def _vcpu(where: str, value: Any) -> dict[str, float]:
    found = _object(where, value, dict.fromkeys(VCPU_USAGE, _number(100)))
    return {name: found.get(name, 0) for name in VCPU_USAGE}


def _latency(where: str, value: Any) -> dict[str, Any] | None:
    if value is None:
        return None
    found = _object(where, value, {"total": _percentiles, "device": _percentiles})
    return {name: found.get(name) for name in ("total", "device")}


def _percentiles(where: str, value: Any) -> dict[str, float]:
    found = _object(where, value, dict.fromkeys(PERCENTILES, _number(1e6)))
    if missing := [name for name in PERCENTILES if name not in found]:
        raise WrongMessage(f"{where} lacks {', '.join(missing)}")
    return {name: found[name] for name in PERCENTILES}


def _models(where: str, value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or len(value) > MAX_MODELS:
        raise WrongMessage(f"{where} is a list of at most {MAX_MODELS} models")
    models = []
    for number, one in enumerate(value):
        found = _object(f"{where}[{number}]", one, _MODEL)
        if missing := [name for name in ("name", "uuid", "model_id", "core") if name not in found]:
            raise WrongMessage(f"{where}[{number}] lacks {', '.join(missing)}")
        empty = {"running": False, "host": dict.fromkeys(HOST_MEMORY, 0), "device": dict.fromkeys(MODEL_MEMORY, 0)}
        models.append(empty | found)
    return models


def _listed(cores: Collection[int]) -> str:
    return ", ".join(str(core) for core in sorted(cores)) or "none"


_CORE: Mapping[str, Field] = {"utilization": _number(100), "flops": _number(1e18), "memory": _counts(CORE_MEMORY)}
_MODEL: Mapping[str, Field] = {
    "name": _text(NAME_LENGTH),
    "uuid": _uuid,
    "model_id": _count,
    "core": _count,
    "running": _flag,
    "host": _counts(HOST_MEMORY),
    "device": _counts(MODEL_MEMORY),
}
_FIELDS: Mapping[str, Field] = {
    "pid": _count,
    "tag": _text(TAG_LENGTH),
    "began": _number(1e12),
    "cores": _cores,
    "host": _counts(HOST_MEMORY),
    "executions": _counts(EXECUTIONS),
    "errors": _counts(ERRORS),
    "latency": _latency,
    "vcpu": _vcpu,
    "models": _models,
}
