"""How long to wait before the next try, so that a fleet of nodes does not hammer a server that is down."""

from __future__ import annotations

import random


class Backoff:
    """Delays that double from `first` to `most`, each cut by up to a half at random.

    They start over when things went well for `calm` seconds.
    """

    def __init__(self, first: float, most: float, *, calm: float) -> None:
        self._first = first
        self._most = most
        self._calm = calm
        self._delay = first

    def next(self, *, lasted: float) -> float:
        """The next delay, after `lasted` seconds without a failure."""
        if lasted >= self._calm:
            self._delay = self._first
        delay = self._delay
        self._delay = min(2 * delay, self._most)
        return delay * random.uniform(0.5, 1)
