"""``neuron-sim-sysfs``: keeps the driver's sysfs tree in a folder of the user's choice.

Nothing can be mounted where /sys has no folder for it, and a container with such a mount does not start. So whoever
wants the files runs this, and points the program that reads them at the folder. A file is replaced when what it says
has changed, hence one that a person wrote stays until then.
"""

# ruff: noqa: PTH101, PTH103, PTH104, PTH106, PTH108, PTH123, PTH208
from __future__ import annotations

import os
import signal
import sys
import time

from neuron_runtime import load_plan, nrt, views
from neuron_runtime.observed import Observer
from neuron_runtime.sysfs_tree import Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

BELOW = "devices/virtual/neuron_device"
USAGE = f"""\
Usage:
  neuron-sim-sysfs [--once] [--interval TIME] FOLDER

Writes the files of the Neuron driver, which real nodes have in /sys/{BELOW}, to
FOLDER/{BELOW}, and keeps them as they would be there.

Options:
  --once           Write them and end.
  --interval TIME  Between two looks; default 1s.
  -h, --help       Show this help message
"""


class UsageError(Exception):
    """The command line is wrong; the message says how to write it."""


def main() -> None:
    """Run on this process's arguments."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
    os._exit(run(sys.argv[1:]))


def run(arguments: Sequence[str], *, run_root: str = nrt.RUN_ROOT) -> int:
    """Keep the tree; the exit status."""
    try:
        folder, interval = parse_arguments(arguments)
    except (UsageError, ValueError) as error:
        os.write(2, f"neuron-sim-sysfs: {error}\n".encode(errors="replace"))
        return 2
    if not folder:
        os.write(1, USAGE.encode())
        return 0
    try:
        given = views.given(run_root)
        view = views.merge([view for _, view in given])
        if view is None:
            raise nrt.ViewError("no neuron device available")
        tree, observer = Tree(view), Observer(given)
        written: dict[str, str] = {}
        while True:
            processes = observer.look()
            there = views.merge([view for _, view in views.visible(given)])
            files = tree.files(there, processes, observer.ecc, now=time.time())
            _write(f"{folder}/{BELOW}", {path: text for path, text in files.items() if written.get(path) != text})
            _remove(f"{folder}/{BELOW}", sorted(written.keys() - files.keys()))
            written = files
            if not interval:
                observer.close()
                return 0
            time.sleep(interval)
    except (OSError, nrt.ViewError) as error:
        os.write(2, f"neuron-sim-sysfs: {error}\n".encode(errors="replace"))
        return 1


def parse_arguments(arguments: Sequence[str]) -> tuple[str, float]:
    """The folder, empty to ask for help, and the seconds between two looks, 0 for one; raises UsageError."""
    folder, interval = "", 1.0
    rest = list(arguments)
    while rest:
        option, has_value, value = rest.pop(0).partition("=")
        if option in ("-h", "--help"):
            return "", 0
        if option == "--once":
            interval = 0
        elif option == "--interval":
            interval = load_plan.seconds(value if has_value else rest.pop(0) if rest else "")
        elif option.startswith("-") or folder:
            raise UsageError(f"{option}: give one folder: neuron-sim-sysfs [--once] [--interval TIME] FOLDER")
        else:
            folder = option + (f"={value}" if has_value else "")
    if not folder:
        raise UsageError("give a folder to write to: neuron-sim-sysfs [--once] [--interval TIME] FOLDER")
    return folder, interval


def _remove(root: str, paths: Sequence[str]) -> None:
    """Remove the files of devices that are lost, with their folders."""
    for path in paths:
        os.unlink(f"{root}/{path}")
    folders = {path[:end] for path in paths for end, letter in enumerate(path) if letter == "/"}
    for folder in sorted(folders, reverse=True):
        if not os.listdir(f"{root}/{folder}"):
            os.rmdir(f"{root}/{folder}")


def _write(root: str, files: dict[str, str]) -> None:
    folders = {f"{root}/{path}".rpartition("/")[0] for path in files}
    for folder in sorted(folders):
        os.makedirs(folder, exist_ok=True)
    for path, text in files.items():
        target = f"{root}/{path}"
        with open(f"{target}.tmp", "w", encoding="ascii") as file:
            file.write(text)
        os.chmod(f"{target}.tmp", 0o444 if path.endswith(("core_count", "connected_devices")) else 0o644)
        os.rename(f"{target}.tmp", target)
