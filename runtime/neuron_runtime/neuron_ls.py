"""``neuron-ls``: the Neuron devices of this container, and who uses them.

Same flags, output and exit codes as AWS's tool (docs: tools/neuron-sys-tools/neuron-ls.rst; captures of
tools 2.25 to 2.32; what no source shows is listed in docs/fidelity.md). One run: read the views, look through
/proc, print once, leave.
"""

from __future__ import annotations

import os
import sys
import time

from neuron_runtime import device_listing, nrt, processes, topology_art, views

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from neuron_device_model.view import View

_LONG_FLAGS = {
    "wide": "w",
    "show-all-procs": "a",
    "topology": "t",
    "json-output": "j",
    "help": "h",
}
# the layout of the flags library that the real tool's error messages betray (jessevdk/go-flags)
HELP = """\
Usage:
  neuron-ls [OPTIONS]

Application Options:
  -w, --wide            Displays the table in a wider format.
  -a, --show-all-procs  Show all processes using the Neuron Devices, including
                        processes that aren't using Neuron Runtime 2.x such as
                        neuron-monitor or neuron-ls itself.
  -t, --topology        Display topology information about the system's Neuron
                        Devices.
  -j, --json-output     Output in JSON format.

Help Options:
  -h, --help            Show this help message
"""


class UsageError(Exception):
    """The command line is wrong; the message is what the real tool prints."""


class Result:
    """What a run prints where, and its exit code."""

    __slots__ = ("code", "stderr", "stdout")

    def __init__(self, *, stdout: str = "", stderr: str = "", code: int = 0) -> None:
        self.stdout = stdout
        self.stderr = stderr
        self.code = code


def main() -> None:
    """Run the tool on this process's arguments and leave without the interpreter's own farewell."""
    result = run(sys.argv[1:], stderr_is_terminal=os.isatty(2))
    try:
        _write(1, result.stdout)
        _write(2, result.stderr)
    except BrokenPipeError:
        result.code = 1
    # nothing is left to be cleaned up, and the interpreter takes longer to shut down than we to work
    os._exit(result.code)


def run(
    arguments: Sequence[str],
    *,
    run_root: str = views.RUN_ROOT,
    proc_root: str = processes.PROC_ROOT,
    dev_root: str = "/dev",
    stderr_is_terminal: bool = False,
) -> Result:
    """One run, its effects held back."""
    try:
        flags = parse_flags(arguments)
    except UsageError as error:
        return Result(stdout=f"{error}\n", code=1)
    if "h" in flags:
        return Result(stdout=HELP)
    try:
        given = views.visible(views.given(run_root))
    except nrt.ViewError as error:
        return _failed("Failed to read the simulated devices", error, stderr_is_terminal)
    view = views.merge([view for _, view in given])
    if view is None:
        # a capture of tools 2.28 on a machine without devices
        reason = "failed to discover Neuron devices"
        return _failed("Failed to load MLA system information", reason, stderr_is_terminal)
    owners = processes.core_owners(nrt.given_cores(given))
    return Result(stdout=_listing(view, flags, owners=owners, proc_root=proc_root, dev_root=dev_root))


def parse_flags(arguments: Sequence[str]) -> set[str]:
    """The short letters of the flags given, read as go-flags does. Raises UsageError; words are ignored."""
    flags: set[str] = set()
    for argument in arguments:
        if argument == "--":
            break
        if argument.startswith("--"):
            name, has_value, _ = argument[2:].partition("=")
            if name not in _LONG_FLAGS:
                raise UsageError(f"unknown flag `{name}'")
            if has_value:
                raise UsageError(f"bool flag `-{_LONG_FLAGS[name]}, --{name}' cannot have an argument")
            flags.add(_LONG_FLAGS[name])
        elif argument.startswith("-") and argument != "-":
            for letter in argument[1:]:
                if letter not in _LONG_FLAGS.values():
                    raise UsageError(f"unknown flag `{letter}'")
                flags.add(letter)
    return flags


def _listing(
    view: View, flags: set[str], *, owners: Mapping[int, Collection[int]], proc_root: str, dev_root: str
) -> str:
    show_all = "a" in flags
    if show_all:
        # the real tool opens every device and so finds itself among their users (docs: neuron-ls.rst)
        processes.hold((device["index"] for device in view["devices"]), dev_root=dev_root)
    holders = processes.device_holders(
        owners=owners,
        # the driver knows three of the four parts (captures: 2.34.10, 2.28.23)
        runtime_version=".".join(view["runtime_version"].split(".")[:3]),
        include_foreign=show_all,
        proc_root=proc_root,
    )
    width = device_listing.WIDE_COMMAND_WIDTH if "w" in flags else device_listing.COMMAND_WIDTH
    if "j" in flags:
        return device_listing.as_json(view, holders, command_width=width)
    text = device_listing.as_text(view, holders, command_width=width)
    return f"{text}\n\n{topology_art.draw(view)}" if "t" in flags else text


def _failed(message: str, error: object, to_terminal: bool) -> Result:
    """A fatal error as Go's logrus writes it: logfmt, or coloured on a terminal with the seconds since start."""
    if to_terminal:
        line = f'\x1b[31mFATA\x1b[0m[0000] {message:<44}  \x1b[31merror\x1b[0m="{error}"\n'
    else:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        line = f'time="{now}" level=fatal msg="{message}" error="{error}"\n'
    return Result(stderr=line, code=1)


def _write(fd: int, text: str) -> None:
    # the drawing needs UTF-8 whatever locale the user's image has; a pipe may take less than all at once
    data = text.encode()
    while data:
        data = data[os.write(fd, data) :]
