"""A clock for counts that follow from the time: it never goes back, and it does not stand still either.

What a profile or a fault has counted follows from when it began, so the wall clock is needed, and two agents agree. But
wall clocks are set. One that is set forward is believed: it was wrong before. One that is set back is not, as long as
this process lives, because counters that go back look like a restart: the time goes on from where it was, at its pace.
"""

import time
from collections.abc import Callable


class SteadyClock:
    """Seconds since the epoch, by calling it."""

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._now = wall()
        self._at = monotonic()

    def __call__(self) -> float:
        """The time."""
        at = self._monotonic()
        self._now = max(self._now + at - self._at, self._wall())
        self._at = at
        return self._now
