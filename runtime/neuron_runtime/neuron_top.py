"""``neuron-top``: the cores and their processes on a terminal, renewed every second.

The tools run in images without terminfo, so curses would not start there: the few sequences that are used, every
terminal of the last decades knows.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import time

from neuron_runtime import host_counters, nrt, views
from neuron_runtime.observed import Observer
from neuron_runtime.top_screen import Look, Screen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from neuron_device_model.view import View

    from neuron_runtime.nrt import Given

USAGE = """\
Usage:
  neuron-top

Shows NeuronCore utilization, vCPU usage and memory. Keys: q ends, f shows TFLOPS, a and d or 1 to 9 choose a Neuron
app, arrows move in the memory details, enter folds a line, x folds all.
"""
EVERY = 1.0
_NO_DEVICES = "no neuron device available"
# another screen, no cursor; and back
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _REST_OF_LINE, _REST_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"
_KEYS = {"\x1b[A": "up", "\x1b[B": "down", "\x1bOA": "up", "\x1bOB": "down", "\r": "enter", "\n": "enter"}


def main() -> None:
    """Run on this process's terminal."""
    os._exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Show the screen until a key ends it; the exit status."""
    if arguments:
        known = arguments[0] in ("-h", "--help")
        os.write(1, (USAGE if known else f"unknown flag `{arguments[0].lstrip('-')}'\n").encode(errors="replace"))
        return 0 if known else 1
    try:
        given = views.given()
    except nrt.ViewError as error:
        return _failed(str(error))
    if _visible(given) is None:
        return _failed(_NO_DEVICES)
    if not (os.isatty(0) and os.isatty(1)):
        return _failed("this is no terminal: use kubectl exec -it, or neuron-monitor for programs")
    before = termios.tcgetattr(0)
    signal.signal(signal.SIGTERM, _leave)
    try:
        raw = termios.tcgetattr(0)
        raw[3] &= ~(termios.ICANON | termios.ECHO | termios.ISIG)
        termios.tcsetattr(0, termios.TCSANOW, raw)
        _write(_ENTER)
        wanted = _show(Gatherer(given))
    finally:
        _write(_LEAVE)
        termios.tcsetattr(0, termios.TCSANOW, before)
    return 0 if wanted else _failed(_NO_DEVICES)


def keys(text: str) -> list[str]:
    """The keys of what a terminal sent."""
    found = []
    while text:
        sequence = next((known for known in _KEYS if text.startswith(known)), text[0])
        found.append(_KEYS.get(sequence, sequence.lower()))
        text = text[len(sequence) :]
    return found


class Gatherer:
    """Looks at everything, and knows what it was a moment ago."""

    def __init__(self, given: Given) -> None:
        self._given = given
        self._observer = Observer(given)
        self._cpu = host_counters.cpu_times()[0][""]
        self._ticks: dict[int, tuple[int, int]] = {}
        self._at = time.monotonic()

    def look(self) -> Look | None:
        """What there is now; usages are since the last look. None: the driver shows no device any more."""
        view = _visible(self._given)
        if view is None:
            return None
        now = time.monotonic()
        cpu = host_counters.cpu_times()[0][""]
        usage = host_counters.cpu_usage(self._cpu, cpu)
        processes = self._observer.look()
        ticks = {}
        vcpu = {}
        for process in processes:
            try:
                ticks[process.pid] = host_counters.process_ticks(process.pid)
            except OSError:
                continue  # of another container, or gone
            mine = ticks[process.pid]
            used = host_counters.process_usage(
                self._ticks.get(process.pid, mine), mine, seconds=max(now - self._at, 0.001)
            )
            vcpu[process.pid] = (used["user"], used["system"])
        self._cpu, self._ticks, self._at = cpu, ticks, now
        return Look(view, processes, system=(usage["user"], usage["system"]), vcpu=vcpu)


def _visible(given: Given) -> View | None:
    """Without what is lost: a device may be, or all with their driver, while the screen is shown."""
    return views.merge([view for _, view in views.visible(given)])


def _show(gatherer: Gatherer) -> bool:
    """Whether a key ended it; else there is nothing left to show."""
    screen = Screen()
    look = gatherer.look()
    due = time.monotonic() + EVERY
    while look:
        width, height = os.get_terminal_size(1)
        lines = screen.draw(look, width=width, height=height)
        _write(_HOME + "\r\n".join(line + _REST_OF_LINE for line in lines) + _REST_OF_SCREEN)
        try:
            ready, _, _ = select.select([0], [], [], max(due - time.monotonic(), 0))
        except InterruptedError:
            continue
        if ready:
            sent = os.read(0, 64)
            if not sent or not all(screen.press(key, look) for key in keys(sent.decode(errors="replace"))):
                return True
        if time.monotonic() >= due:
            look = gatherer.look()
            due = time.monotonic() + EVERY
    return False


def _leave(*_: object) -> None:
    raise SystemExit(0)


def _failed(reason: str) -> int:
    os.write(2, f"neuron-top: {reason}\n".encode())
    return 1


def _write(text: str) -> None:
    data = text.encode()
    while data:
        data = data[os.write(1, data) :]
