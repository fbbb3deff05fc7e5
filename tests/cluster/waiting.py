"""The one way in which tests wait: for a condition, with a limit, and with what was there instead when it is over."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T], *, what: str, timeout: float = 90, details: Callable[[], object] = str) -> T:
    """Ask until the answer is true, and return it; fail with the last details when time is up."""
    deadline = time.monotonic() + timeout
    while True:
        if answer := condition():
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:.0f} s: {what}; now: {details()}")
        time.sleep(0.25)
