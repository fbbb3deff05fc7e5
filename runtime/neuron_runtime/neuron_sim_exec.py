"""``neuron-sim-exec``: opens NeuronCores for a command that cannot do so by itself, and becomes that command.

AWS has no such tool: there, whatever runs on cores has libnrt inside, which opens them. The cores are this
process's and stay so over exec (see `nrt`), so there is nothing in between: the command has the pid, the
signals and the exit status, and the cores are free when it ends.
"""

from __future__ import annotations

# the package around it loads enum, which takes longer than all else here
import _signal  # type: ignore[import-not-found]
import os
import sys

from neuron_runtime import nrt, views

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import NoReturn

USAGE = """\
Usage:
  neuron-sim-exec [--cores N] [--] COMMAND [ARGUMENT...]

Opens NeuronCores as the Neuron runtime does, and runs the command as their owner.
Without --cores the environment says which: NEURON_RT_VISIBLE_CORES (3, 0-2 or 0,2-3),
else NEURON_RT_NUM_CORES (how many, 0 means all), else all.

Options:
  --cores N   Open N neighbouring cores that are free, of the visible ones.
  -h, --help  Show this help message
"""
# as shells have it
_NOT_EXECUTABLE = 126
_NOT_FOUND = 127
_NO_PROGRAM = (FileNotFoundError, NotADirectoryError)


class UsageError(Exception):
    """The command line is wrong; the message says how to write it."""


def main() -> None:
    """Run on this process's arguments; returns to nobody."""
    os._exit(run(sys.argv[1:]))


def run(arguments: Sequence[str], *, run_root: str = nrt.RUN_ROOT) -> int:
    """Become the command; the exit status where that cannot be."""
    try:
        count, command = parse_arguments(arguments)
    except UsageError as error:
        return _failed(f"neuron-sim-exec: {error}", nrt.NRT_INVALID)
    if not command:
        os.write(1, USAGE.encode())
        return 0
    environment = _environment()
    try:
        given = nrt.given_cores(views.given(run_root))
        cores = nrt.open_given(given, count=count, environment=environment, inheritable=True)
    except nrt.ViewError as error:
        return _failed(nrt.NrtError(nrt.NRT_FAILURE, "NRT:nrt_init", str(error)).log_line(), nrt.NRT_FAILURE)
    except nrt.NrtError as error:
        return _failed(error.log_line(), error.status)
    environment[nrt.VISIBLE_CORES] = nrt.core_list(cores.ids)
    # ours to ignore, not the command's: the interpreter's start made it so
    for number in (_signal.SIGPIPE, _signal.SIGXFSZ):
        _signal.signal(number, _signal.SIG_DFL)
    try:
        _execute(command, environment)
    except _NO_PROGRAM:
        return _failed(f"neuron-sim-exec: {command[0]}: command not found", _NOT_FOUND)
    except OSError as error:
        return _failed(f"neuron-sim-exec: {command[0]}: {error.strerror}", _NOT_EXECUTABLE)


def parse_arguments(arguments: Sequence[str]) -> tuple[int | None, list[str]]:
    """How many cores, None where the environment says it, and the command, empty to ask for help."""
    rest = list(arguments)
    count = None
    while rest and rest[0].startswith("-"):
        option, has_value, value = rest.pop(0).partition("=")
        if option == "--" and not has_value:
            break
        if option in ("-h", "--help") and not has_value:
            return None, []
        if option != "--cores":
            raise UsageError(f"unknown option {option}: options are --cores N and --help, the command follows them")
        if not has_value:
            value = rest.pop(0) if rest else ""
        if not (value.isascii() and value.isdigit()) or len(value) > 6 or not int(value):
            raise UsageError(f"--cores {value}: give the number of cores, 1 or more")
        count = int(value)
    if not rest or not rest[0]:
        raise UsageError("give a command: neuron-sim-exec [--cores N] -- COMMAND [ARGUMENT...]")
    return count, rest


def _environment() -> dict[str, str]:
    """What this process was given: where no locale is set, the interpreter adds an LC_CTYPE to its own."""
    environment = dict(os.environ)
    try:
        with open("/proc/self/environ", "rb") as file:  # noqa: PTH123
            names = {entry.partition(b"=")[0] for entry in file.read().split(b"\0")}
    except OSError:
        return environment
    if b"LC_CTYPE" not in names:
        environment.pop("LC_CTYPE", None)
    return environment


def _execute(command: list[str], environment: Mapping[str, str]) -> NoReturn:
    """Like os.execvpe, which loads modules first to look for byte strings in the environment."""
    name = command[0]
    if "/" in name:
        os.execve(name, command, environment)
    denied: OSError | None = None
    for folder in environment.get("PATH", os.defpath).split(":"):
        try:
            os.execve(f"{folder or '.'}/{name}", command, environment)
        except _NO_PROGRAM:
            continue
        except PermissionError as error:
            denied = error
    raise denied or FileNotFoundError(name)


def _failed(line: str, status: int) -> int:
    os.write(2, f"{line}\n".encode(errors="surrogateescape"))
    return status
