"""When a fault is active: a pure function of its schedule, its creation and the time.

So an operator that was away, a second replica and tomorrow's replay come to the same. Times are whole seconds since
the epoch, which is what objects can say. The random process alternates between healthy and broken for times that are
exponentially distributed; the n-th pair of times follows from the seed and n alone.
"""

import hashlib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from neuron_operator.resources import FaultRandom, FaultSchedule

SHORTEST_MEAN = 10
"""Seconds between two faults of a random process, in the mean: less is no fault but noise."""

_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


@dataclass(frozen=True, slots=True)
class Span:
    """A time in which it is broken: from `begin` until before `end`; None is for ever."""

    begin: int
    end: int | None


@dataclass(frozen=True, slots=True)
class State:
    """How it is at a moment."""

    span: Span | None
    """The time in which it is broken now."""
    next_change: int | None
    """When that changes; None: never."""


def seconds(duration: str) -> int:
    """Of a duration like 1h30m or 90s; raises ValueError."""
    match = _DURATION.fullmatch(duration)
    if match is None or not any(match.groups()):
        raise ValueError(f"{duration!r} is no duration: write it like 90s, 5m or 1h30m")
    hours, minutes, rest = (int(number or 0) for number in match.groups())
    return hours * 3600 + minutes * 60 + rest


def epoch(timestamp: str) -> int:
    """An RFC 3339 time in seconds since the epoch; raises ValueError."""
    moment = datetime.fromisoformat(timestamp)
    if moment.tzinfo is None:
        raise ValueError(f"{timestamp} has no time zone: write it like 2026-01-02T03:04:05Z")
    return math.floor(moment.timestamp())


def stamp(moment: int) -> str:
    """Seconds since the epoch as an RFC 3339 time."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def at(schedule: FaultSchedule | None, *, created: int, now: int) -> State:
    """How it is now; raises ValueError where the schedule makes no sense."""
    if schedule is None:
        return State(Span(created, None), None)
    start, end = _bounds(schedule, created)
    span = _span(schedule, start, max(now, start))
    if span is None or (end is not None and span.begin >= end):
        return State(None, None)
    if end is not None:
        span = Span(span.begin, end if span.end is None else min(span.end, end))
    if now < span.begin:
        return State(None, span.begin)
    if span.end is not None and now >= span.end:
        return State(None, None)
    return State(span, span.end)


def spans(schedule: FaultSchedule | None, *, created: int, until: int) -> Iterator[Span]:
    """All times that begin before `until`, in order; raises ValueError where the schedule makes no sense."""
    now = created
    while True:
        state = at(schedule, created=created, now=now)
        if state.span is not None:
            yield state.span
        if state.next_change is None or state.next_change >= until:
            return
        now = state.next_change


def _span(schedule: FaultSchedule, start: int, now: int) -> Span | None:
    """The span that `now` is in, or else another one; where there is a next one, that."""
    if schedule.random:
        return _drawn(schedule.random, start, now)
    if schedule.repeat_every:
        return _repeated(schedule, start, now)
    return Span(start, start + seconds(schedule.duration) if schedule.duration else None)


def _bounds(schedule: FaultSchedule, created: int) -> tuple[int, int | None]:
    start = created + seconds(schedule.start_after) if schedule.start_after else created
    if schedule.start_time:
        start = epoch(schedule.start_time)
    end = created + seconds(schedule.end_after) if schedule.end_after else None
    if schedule.end_time:
        end = epoch(schedule.end_time)
    return start, end


def _repeated(schedule: FaultSchedule, start: int, now: int) -> Span | None:
    """The span that `now` is in, or else the next one."""
    every = seconds(schedule.repeat_every or "0s")
    lasting = seconds(schedule.duration or "0s")
    if not 0 < lasting < every:
        raise ValueError("schedule.repeatEvery needs a duration that is shorter")
    number = (now - start) // every
    if now >= start + number * every + lasting:
        number += 1
    if schedule.repeats is not None and number >= schedule.repeats:
        return None
    begin = start + number * every
    return Span(begin, begin + lasting)


def _drawn(random: FaultRandom, start: int, now: int) -> Span:
    between, lasting = seconds(random.mean_time_between), seconds(random.mean_duration)
    if between < SHORTEST_MEAN or lasting < 1:
        raise ValueError(f"schedule.random.meanTimeBetween is at least {SHORTEST_MEAN}s, and meanDuration 1s")
    found = _walk(random.seed, between, lasting).at(now - start)
    return Span(start + found.begin, start + (found.end or 0))


@lru_cache(maxsize=1024)
def _walk(seed: int, between: int, lasting: int) -> "_Walk":
    return _Walk(seed, between, lasting)


class _Walk:
    """The random process. It remembers the last pair that it came to, because time goes on: what it answers does not
    depend on what it was asked before.
    """

    def __init__(self, seed: int, between: int, lasting: int) -> None:
        self._seed, self._between, self._lasting = seed, between, lasting
        self._restart()

    def _restart(self) -> None:
        self._number, self._since = 0, 0
        self._span = self._next(0, 0)

    def at(self, moment: int) -> Span:
        """The span that a moment (seconds from the start) is in, or else the next one."""
        if moment < self._since:
            self._restart()
        while self._span.end is not None and moment >= self._span.end:
            self._number, self._since = self._number + 1, self._span.end
            self._span = self._next(self._number, self._since)
        return self._span

    def _next(self, number: int, since: int) -> Span:
        begin = since + self._draw(f"{number}/between", self._between)
        return Span(begin, begin + self._draw(f"{number}/lasting", self._lasting))

    def _draw(self, what: str, mean: int) -> int:
        digest = hashlib.sha256(f"{self._seed}/{what}".encode()).digest()
        chance = int.from_bytes(digest[:7]) / (1 << 56)
        return max(1, round(-mean * math.log(1 - chance)))
