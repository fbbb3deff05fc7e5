"""Profiles: the activity that a pod's annotation asks for, without a process that reports any. Pure.

Everything follows from the profile, the seed, the core's number and the seconds since the pod was made: two agents say
the same, and so does one after a restart. Rates are curves with a known integral, so that counts are exact and never go
back. The figures are shapes of typical jobs, chosen here and measured nowhere: docs/fidelity.md.
"""

import math
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from .reports import CORE_MEMORY, ERRORS, EXECUTIONS, HOST_MEMORY, PERCENTILES, VCPU_USAGE, Report

MIB = 1 << 20
LOADING = 20.0
"""Seconds in which a model is loaded: memory grows, nothing is executed."""
CHECKPOINT_EVERY, CHECKPOINT = 300.0, 15.0
"""Seconds between two checkpoints of a training, and of one, in which the cores wait."""

_SPREAD: Mapping[str, float] = dict(zip(PERCENTILES, (0.94, 0.95, 0.98, 1.0, 1.03, 1.18, 1.3), strict=True))
"""Latency percentiles, as parts of the median."""

_VCPU: Mapping[str, float] = dict(zip(VCPU_USAGE, (0.05, 0.01), strict=True))
"""Percent of the vCPUs, as parts of a core's utilization."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a core does at a moment, since it began to execute."""

    utilization: float
    executions: float
    """Since the begin."""
    seconds: float
    """Of one execution, the median."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A kind of job: its load by seconds and phase (0 to 1), and how much of a core's memory it fills."""

    load: Callable[[float, float], Load]
    memory: Mapping[str, float]
    """Parts of the core's memory."""


def _training(t: float, phase: float) -> Load:
    """Step after step at a high level, and a checkpoint from time to time."""
    step = 1.5
    past, within = divmod(t, CHECKPOINT_EVERY)
    computing = CHECKPOINT_EVERY - CHECKPOINT
    steps = (past * computing + min(within, computing)) / step
    return Load(utilization=(92 + phase) if within < computing else 0, executions=steps, seconds=step)


def _inference(t: float, phase: float) -> Load:
    """Requests that come in waves of ten minutes, each 25 ms: slower when there are more of them."""
    mean, swing, wave = 16.0, 0.6, 2 * math.pi / 600
    begin = 2 * math.pi * phase
    rate = mean * (1 + swing * math.sin(wave * t + begin))
    requests = mean * (t - swing / wave * (math.cos(wave * t + begin) - math.cos(begin)))
    utilization = 100 * rate * 0.025
    return Load(utilization=utilization, executions=requests, seconds=0.025 * (1 + utilization / 100))


def _collective_bound(t: float, phase: float) -> Load:
    """Steps of which most is waiting for other workers: a low level, long latencies."""
    step = 4.0
    return Load(utilization=24 + 6 * phase, executions=t / step, seconds=step)


PROFILES: Mapping[str, Shape] = {
    "training": Shape(
        _training,
        dict(zip(CORE_MEMORY, (0.02, 0.03, 0.2, 0.01, 0.6), strict=True)),
    ),
    "inference": Shape(
        _inference,
        dict(zip(CORE_MEMORY, (0.45, 0.02, 0.05, 0.01, 0.25), strict=True)),
    ),
    "collective-bound": Shape(
        _collective_bound,
        dict(zip(CORE_MEMORY, (0.02, 0.03, 0.1, 0.05, 0.3), strict=True)),
    ),
}


def executions(profile: str, *, seed: str, age: float) -> float:
    """How many executions a pod with this profile has done `age` seconds after it was made."""
    t = age - LOADING
    return PROFILES[profile].load(t, _phase(seed)).executions if t > 0 else 0


def report(profile: str, *, seed: str, cores: Iterable[int], age: float, core_memory: int, core_flops: float) -> Report:
    """What a pod with this profile does on its cores `age` seconds after it was made.

    `core_memory`: bytes of a core; `core_flops`: operations a second that it can do.
    """
    shape = PROFILES[profile]
    t = max(age - LOADING, 0.0)
    loaded = min(max(age, 0.0) / LOADING, 1.0)
    load = shape.load(t, _phase(seed))
    if not t:
        load = Load(utilization=0, executions=0, seconds=load.seconds)
    of_core = {
        "utilization": round(load.utilization, 2),
        "flops": int(load.utilization / 100 * core_flops),
        "memory": {name: int(loaded * part * core_memory) for name, part in shape.memory.items()},
    }
    device = {name: round(part * load.seconds, 6) for name, part in _SPREAD.items()}
    total = {name: round(seconds * 1.02, 6) for name, seconds in device.items()}
    return {
        "pid": 1,
        "tag": profile,
        "began": 0,
        "cores": {str(core): of_core for core in cores},
        "host": dict(zip(HOST_MEMORY, (512 * MIB, 0, 64 * MIB, 0), strict=True)),
        "executions": dict.fromkeys(EXECUTIONS, 0) | {"completed": int(load.executions)},
        "errors": dict.fromkeys(ERRORS, 0),
        "vcpu": {name: round(part * load.utilization, 2) for name, part in _VCPU.items()},
        "latency": {"total": total, "device": device} if load.utilization else None,
        "models": [],
    }


def _phase(seed: str) -> float:
    """All cores of a job go through its steps together, so one number of the seed does for all."""
    return zlib.crc32(seed.encode()) / 0xFFFFFFFF
