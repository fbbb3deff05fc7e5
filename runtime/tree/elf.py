"""Executables and shared libraries that find one another in a folder of their own.

Nothing here knows a processor: the loader's name and the libraries come from the files themselves.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

# "libm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x00007f...)"; the loader's own line has no arrow
_LDD_LINE = re.compile(r"^\s*(?P<name>\S+) => (?P<path>\S+) \(0x[0-9a-f]+\)$", re.MULTILINE)


class ElfError(Exception):
    """A file cannot be made self-contained; the message says why."""


def loader(executable: Path) -> Path:
    """The dynamic loader that an executable asks the kernel for."""
    path = Path(_run("patchelf", "--print-interpreter", executable).strip())
    if "musl" in path.name:
        raise ElfError(f"{executable} is linked against musl: give a CPython linked against glibc")
    return path


def libraries(files: Iterable[Path]) -> dict[str, Path]:
    """Every library that the files need, directly or through one another: its name and where it lies."""
    found: dict[str, Path] = {}
    for file in files:
        output = _run("ldd", file)
        if "not found" in output:
            raise ElfError(f"{file} needs libraries that this machine does not have:\n{output}")
        found |= {match["name"]: Path(match["path"]) for match in _LDD_LINE.finditer(output)}
    return found


def copy_library(source: Path, target: Path) -> None:
    """Copy a library that is to be found, with what it needs, where the executable looks.

    A library without a search path of its own inherits the executable's; libc and its kin stay as they are.
    """
    shutil.copyfile(source, target)
    if _run("patchelf", "--print-rpath", source).strip():
        _run("patchelf", "--remove-rpath", target)


def copy_executable(source: Path, target: Path, *, loader_path: Path, search: Path) -> None:
    """Copy an executable that starts under a loader of ours, with the libraries of one folder.

    RPATH and not RUNPATH: before the latter comes the user's LD_LIBRARY_PATH, and a foreign libc under our
    loader crashes; and only the former counts for the libraries of libraries too.
    """
    shutil.copyfile(source, target)
    _run("patchelf", "--set-interpreter", loader_path, target)
    _run("patchelf", "--force-rpath", "--set-rpath", search, target)


def _run(*command: str | Path) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise ElfError(f"{' '.join(map(str, command))}: {result.stderr.strip() or result.stdout.strip()}")
    return result.stdout
