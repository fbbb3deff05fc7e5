"""The configuration file of ``neuron-monitor``: which metric groups, of which processes, how often. Pure.

AWS docs: tools/neuron-sys-tools/neuron-monitor-user-guide.rst. A period stands at the root, at a runtime or at a
group; the innermost holds. What the real tool says about a wrong file was not seen anywhere: the sentences are ours.
"""

from __future__ import annotations

import json
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

RUNTIME_GROUPS = ("execution_stats", "memory_used", "neuron_runtime_vcpu_usage", "neuroncore_counters")
SYSTEM_GROUPS = ("memory_info", "neuron_hw_counters", "vcpu_usage")
"""As they stand in a record: in the order of the alphabet."""
DEFAULT_PERIOD = 5.0

_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:ns|us|µs|ms|s|m|h)")
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


class ConfigError(ValueError):
    """The file cannot be used; the message says what to change."""


class RuntimeConfig:
    """Which groups are wanted of processes with a tag like this, each with its period in seconds."""

    __slots__ = ("groups", "tag_filter")

    def __init__(self, tag_filter: re.Pattern[str] | None, groups: Mapping[str, float]) -> None:
        self.tag_filter = tag_filter
        self.groups = groups

    def wants(self, tag: str) -> bool:
        """Whether a process is watched."""
        return self.tag_filter is None or self.tag_filter.search(tag) is not None


class Config:
    """What to collect."""

    __slots__ = ("runtimes", "system")

    def __init__(self, runtimes: Sequence[RuntimeConfig], system: Mapping[str, float]) -> None:
        self.runtimes = runtimes
        self.system = system

    def runtime(self, tag: str) -> tuple[int, RuntimeConfig] | None:
        """The first entry that wants a process, and its number."""
        return next(((number, one) for number, one in enumerate(self.runtimes) if one.wants(tag)), None)


DEFAULT = Config(
    [RuntimeConfig(None, dict.fromkeys(RUNTIME_GROUPS, DEFAULT_PERIOD))], dict.fromkeys(SYSTEM_GROUPS, DEFAULT_PERIOD)
)


def parse(text: str) -> Config:
    """A configuration file's content; raises ConfigError."""
    try:
        root = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"not JSON: {error}") from error
    root = _object("the file", root, ("period", "neuron_runtimes", "system_metrics"))
    period = _period("period", root, DEFAULT_PERIOD)
    runtimes = []
    for number, item in enumerate(_list("neuron_runtimes", root)):
        where = f"neuron_runtimes[{number}]"
        runtime = _object(where, item, ("tag_filter", "period", "metrics"))
        of_runtime = _period(where, runtime, period)
        groups = _groups(f"{where}.metrics", _list("metrics", runtime), RUNTIME_GROUPS, of_runtime)
        runtimes.append(RuntimeConfig(_tag_filter(where, runtime), groups))
    system = _groups("system_metrics", _list("system_metrics", root), SYSTEM_GROUPS, period)
    return Config(runtimes, system)


def duration(text: object) -> float:
    """Seconds of a Go duration like 5s, 500ms or 1m30s; raises ValueError."""
    if not isinstance(text, str) or not _DURATION.sub("", text) == "" or not text:
        raise ValueError("write a duration like 5s, 500ms or 1m30s")
    total = 0.0
    for part in _DURATION.findall(text):
        number = part.rstrip("nuµmsh")
        total += float(number) * _UNITS[part[len(number) :]]
    if total <= 0:
        raise ValueError("a period is more than nothing")
    return total


def _groups(where: str, items: Sequence[object], known: Sequence[str], period: float) -> dict[str, float]:
    found = {}
    for number, item in enumerate(items):
        group = _object(f"{where}[{number}]", item, ("type", "period"))
        kind = group.get("type")
        if kind not in known:
            raise ConfigError(f"{where}[{number}].type is {kind!r}: write one of {', '.join(known)}")
        found[str(kind)] = _period(f"{where}[{number}]", group, period)
    return {kind: found[kind] for kind in known if kind in found}


def _tag_filter(where: str, runtime: Mapping[str, Any]) -> re.Pattern[str] | None:
    text = runtime.get("tag_filter")
    if text is None:
        return None
    try:
        return re.compile(text)
    except (re.error, TypeError) as error:
        raise ConfigError(f"{where}.tag_filter is no regular expression: {error}") from error


def _period(where: str, holder: Mapping[str, Any], default: float) -> float:
    if "period" not in holder:
        return default
    try:
        return duration(holder["period"])
    except ValueError as error:
        raise ConfigError(f"{where}: period is {holder['period']!r}: {error}") from error


def _list(name: str, holder: Mapping[str, Any]) -> Sequence[object]:
    found = holder.get(name, [])
    if not isinstance(found, list):
        raise ConfigError(f"{name} is a list")
    return found


def _object(where: str, value: object, fields: Sequence[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{where} is an object with {', '.join(fields)}")
    if unknown := [name for name in value if name not in fields]:
        raise ConfigError(f"{where} has no field {unknown[0]!r}: it knows {', '.join(fields)}")
    return value
