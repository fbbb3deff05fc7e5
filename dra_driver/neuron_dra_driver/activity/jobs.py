"""A job that a pod's profile describes, on the cores of one request. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from neuron_device_model.catalog import Chip

from . import losses, profiles
from .losses import Loss, Trouble
from .pods import Wish
from .reports import Report


@dataclass(frozen=True, slots=True)
class Job:
    """What there is to know of it."""

    wish: Wish
    core_memory: int
    """Bytes of a core."""
    core_flops: float
    """Operations a second that a core can do."""

    def executions(self, age: float) -> float:
        """How many there would have been at this age, in seconds, if all were well."""
        return profiles.executions(self.wish.profile, seed=self.wish.seed, age=age)

    def report(self, cores: Iterable[int], *, now: float, loss: Loss | None, found: Trouble | None) -> Report:
        """What it does on its cores: `now` in seconds since the epoch, with what faults cost it and do to it."""
        well = profiles.report(
            self.wish.profile,
            seed=self.wish.seed,
            cores=cores,
            age=now - self.wish.since,
            core_memory=self.core_memory,
            core_flops=self.core_flops,
        )
        well["began"] = self.wish.since
        return losses.suffered(well, loss, found, core_memory=self.core_memory) if loss else well


def job_on(view: Mapping[str, Any], wish: Wish, chip: Chip) -> Job:
    """The job of a request that sees `view`."""
    device = view["devices"][0]
    flops = chip.tflops["bf16"] * 1e12 / chip.physical_cores * (view["logical_neuroncore_config"] or 1)
    return Job(wish, device["memory_bytes"] // device["core_count"], flops)
