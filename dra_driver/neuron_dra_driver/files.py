"""Writing and removing files so that a kill at any instruction leaves the old file, the new file or a `.tmp`.

Callers hold the node's lock, hence one writer at a time and a temporary name that needs no random part: what a
killed writer left is found, and overwritten or removed, under the name that everybody knows.

Nothing is synced to disk here but on request: the files that containers use belong on tmpfs and are rendered again
after a reboot; only the checkpoint must survive one.
"""

import contextlib
import os
import shutil
from pathlib import Path

from .errors import DiskError

TEMPORARY = ".tmp"


def temporary(path: Path) -> Path:
    """Where `write_atomically` writes before it renames."""
    return path.with_name(path.name + TEMPORARY)


def write_atomically(path: Path, content: bytes, *, sync: bool = False) -> None:
    """Write a file (0644) at once. One that holds this content already is left alone: readers watch for changes."""
    unfinished = temporary(path)
    try:
        if not sync and _holds(path, content):
            return
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            write_all(descriptor, content)
            if sync:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        unfinished.rename(path)
        if sync:
            sync_directory(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise DiskError(path, error) from error


def write_all(descriptor: int, content: bytes) -> None:
    """Write everything: a disk that fills up may take a part of it first."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def sync_directory(directory: Path) -> None:
    """Make a rename in this directory survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file and what an interrupted write of it left; neither needs to exist."""
    for one in (path, temporary(path)):
        try:
            one.unlink(missing_ok=True)
        except OSError as error:
            raise DiskError(one, error) from error


def remove_tree(path: Path) -> None:
    """Remove a folder with everything in it; it needs not exist."""
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise DiskError(Path(error.filename or path), error) from error


def make_directory(path: Path) -> None:
    """Make a folder and its parents."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DiskError(path, error) from error


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except FileNotFoundError:
        return False
