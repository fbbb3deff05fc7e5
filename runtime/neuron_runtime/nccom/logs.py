"""The log of a run that failed: a file of its own, as the real tool leaves one, and the tensors that were wrong."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from neuron_runtime.nccom.checking import Mismatch

FOLDER = "/tmp"
_LETTERS = b"abcdefghijklmnopqrstuvwxyz0123456789_"


def write(lines: Iterable[str], *, folder: str) -> str:
    """Write a new log and give its path; where that cannot be, a path that says so."""
    name = bytes(_LETTERS[byte % len(_LETTERS)] for byte in os.urandom(8)).decode()
    path = f"{folder}/nccom_test_log_{name}.log"
    return path if _written(path, "".join(f"{line}\n" for line in lines).encode()) else f"{path} (not writable)"


def write_tensors(log: str, mismatch: Mismatch) -> list[str]:
    """Write what was found and what is right, and give the paths."""
    stem = log.removesuffix(".log")
    tensors = {"output": mismatch.output, "golden": mismatch.golden}
    return [path for name, data in tensors.items() if _written(path := f"{stem}_{name}.bin", data)]


def _written(path: str, data: bytes) -> bool:
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644), "wb") as file:  # noqa: PTH123
            file.write(data)
    except OSError:
        return False
    return True
