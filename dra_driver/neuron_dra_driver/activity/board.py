"""Who does what on the cores of one request: the reports of its processes, and what its pod's profile adds.

A core has one owner at a time, so two processes that live cannot report the same one. A profile fills the cores of
which no process reports anything: whoever reports is believed. A request with admin access has no cores of its own, it
looks at what others do on them.
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from .reports import Report, WrongMessage


class Board:
    """See the module. Reporters are whatever is hashable: one for each connection."""

    def __init__(self, cores: Collection[int], *, clock: Callable[[], float] = time.time) -> None:
        """`clock`: seconds since the epoch."""
        self._clock = clock
        self.cores = frozenset(cores)
        self.profile: Callable[[Sequence[int]], Report] | None = None
        """What these cores do by the pod's profile, if it has one."""
        self.others: Callable[[], Iterable[Report]] | None = None
        """What the processes of other claims do on cores that a request with admin access looks at."""
        self.hardware: Callable[[], Mapping[str, Mapping[str, int]]] = dict
        """The ECC counters of the devices that are there, by their numbers in the view."""
        self._reports: dict[object, Report] = {}

    def put(self, reporter: object, report: Report) -> None:
        """A process' newest report, in place of its last; raises WrongMessage when they contradict each other.

        One that does not say when it began began when it was first heard, as for AWS's script.
        """
        if before := self._reports.get(reporter):
            for counts in ("executions", "errors"):
                for name, count in before[counts].items():
                    if report[counts][name] < count:
                        raise WrongMessage(f"report.{counts}.{name} was {count}: count from the process' begin on")
        for other, theirs in self._reports.items():
            if other is not reporter and (taken := theirs["cores"].keys() & report["cores"].keys()):
                raise WrongMessage(f"core {min(taken)} is process {theirs['pid']}'s, which reports what it does")
        began = report["began"] or (before["began"] if before else self._clock())
        self._reports[reporter] = {**report, "began": began}

    def drop(self, reporter: object) -> None:
        """A process ended, or has nothing more to say."""
        self._reports.pop(reporter, None)

    def processes(self) -> list[Report]:
        """What is known, a report for each process."""
        found = list(self._reports.values())
        if self.profile:
            reported = {core for report in found for core in report["cores"]}
            idle = sorted(core for core in self.cores if str(core) not in reported)
            if idle:
                found.append(self.profile(idle))
        return [*found, *self.others()] if self.others else found
