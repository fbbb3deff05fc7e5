"""What faults cost the jobs that pods' profiles describe: executions that fail, or that are never begun. Pure.

A profile says how many executions there would have been; a broken chip lets them fail one by one. So what was lost is
added up from look to look, is kept over restarts of the agent, and no count ever goes back. A process that reports for
itself is believed instead.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from neuron_device_model.faults import Fault

from ..hardware.effects import begin, cores_hit
from .reports import Report


@dataclass(frozen=True, slots=True)
class Loss:
    """Of one job, until an age in seconds."""

    until: float
    failed: int = 0
    timed_out: int = 0
    unbegun: float = 0.0

    def as_record(self) -> dict[str, Any]:
        """For JSON; its fields."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Trouble:
    """What faults do to a job now."""

    failing: str | None
    """As what its executions are counted that fail; None: they do not."""
    slower: int
    """Percent."""
    leaks: Mapping[int, float]
    """Parts of its memory that each core has lost, by the core's number in the view."""
    since: float
    """When the first of these faults began, in seconds since the epoch."""


def trouble(faults: Iterable[Fault], view: Mapping[str, Any], *, physical_cores: int, now: float) -> Trouble | None:
    """What these faults do to a job on a view's cores; None: nothing."""
    hit = {f: cores for f in faults if (cores := cores_hit(f, view, physical_cores=physical_cores))}
    mine = [fault for fault in hit if fault.kind.error or fault.degree]
    if not mine:
        return None
    leaks: dict[int, float] = {}
    for fault in mine:
        if fault.type == "MemoryLeak":
            lost = max(now - begin(fault), 0) / 60 * fault.degree / 100
            for core in (core for cores in hit[fault].values() for core in cores):
                leaks[core] = leaks.get(core, 0) + lost
    return Trouble(
        failing=next((fault.kind.counts_as for fault in mine if fault.kind.error), None),
        slower=max((fault.degree for fault in mine if fault.type == "ThermalThrottle"), default=0),
        leaks=leaks,
        since=min(map(begin, mine)),
    )


def advance(
    loss: Loss, found: Trouble | None, *, executions: Callable[[float], float], born: float, now: float
) -> Loss:
    """The loss as it is now, when since the last look, or since these faults began, it was as it is now.

    `executions` by age, if all were well; `born`: when the job began, in seconds since the epoch, as `now`.
    """
    age = now - born
    until = loss.until if found is None else max(loss.until, found.since - born)
    if age <= until:
        return loss
    due = int(executions(age)) - int(executions(until))
    later = replace(loss, until=age)
    if found is None:
        return later
    if found.failing == "timed_out":
        return replace(later, timed_out=loss.timed_out + due)
    if found.failing:
        return replace(later, failed=loss.failed + due)
    return replace(later, unbegun=loss.unbegun + due * found.slower / 100)


def replayed(
    faults: Iterable[tuple[Fault, float, float]],
    view: Mapping[str, Any],
    *,
    physical_cores: int,
    executions: Callable[[float], float],
    born: float,
    now: float,
) -> tuple[Loss | None, Trouble | None]:
    """What a job has lost, from all faults that there were while it ran, and what they do to it now.

    With each fault stands when it was heard of, and when it was over (or infinity). Gives the same, whoever asks, as
    looks between would add up.
    """
    mine = [
        (fault, since, until)
        for fault, since, until in faults
        if until > born and cores_hit(fault, view, physical_cores=physical_cores)
    ]
    if not mine:
        return None, None
    moments = {moment for _, since, until in mine for moment in (since, until) if born < moment < now}
    loss, found = Loss(until=0), None
    for moment in (*sorted(moments), now):
        # of those that were there just before
        there = [fault for fault, since, until in mine if since < moment <= until]
        found = trouble(there, view, physical_cores=physical_cores, now=moment)
        loss = advance(loss, found, executions=executions, born=born, now=moment)
    return loss, found


def suffered(report: Report, loss: Loss, found: Trouble | None, *, core_memory: int) -> Report:
    """A profile's report as it is with these losses. `core_memory`: bytes of a core."""
    lost = loss.failed + loss.timed_out
    executions = dict(report["executions"])
    executions["completed"] = max(executions["completed"] - lost - int(loss.unbegun), 0)
    executions["completed_with_err"] += loss.failed
    executions["timed_out"] += loss.timed_out
    errors = {**report["errors"], "hardware": report["errors"]["hardware"] + lost}
    result = {**report, "executions": executions, "errors": errors}
    if found is None:
        return result
    if found.failing:
        result["latency"] = None
    elif found.slower and report["latency"]:
        longer = 100 / (100 - found.slower)
        result["latency"] = {
            kind: {name: round(value * longer, 6) for name, value in values.items()}
            for kind, values in report["latency"].items()
        }
    result["cores"] = {name: _core(int(name), core, found, core_memory) for name, core in report["cores"].items()}
    return result


def _core(number: int, core: Mapping[str, Any], found: Trouble, core_memory: int) -> dict[str, Any]:
    memory = dict(core["memory"])
    room = max(core_memory - sum(memory.values()), 0)
    memory["runtime_memory"] += min(int(found.leaks.get(number, 0) * core_memory), room)
    if found.failing:
        return {**core, "memory": memory, "utilization": 0, "flops": 0}
    return {**core, "memory": memory, "flops": int(core["flops"] * (100 - found.slower) / 100)}


def read(record: Mapping[str, Mapping[str, Any]]) -> dict[str, Loss]:
    """Losses as they were kept; raises TypeError or AttributeError if they are none."""
    return {key: Loss(**fields) for key, fields in record.items()}


def written(losses: Mapping[str, Loss]) -> dict[str, Any]:
    """What is to be kept of them."""
    return {key: loss.as_record() for key, loss in sorted(losses.items())}
