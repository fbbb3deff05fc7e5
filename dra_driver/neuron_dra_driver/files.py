"""Writing and removing files so that a kill at any instruction leaves the old file, the new file or a `.tmp`.

Callers hold the node's lock, hence one writer at a time and a temporary name that needs no random part: what a
killed writer left is found, and overwritten or removed, under the name that everybody knows.

Nothing is synced to disk here but on request: the files that containers use belong on tmpfs and are rendered again
after a reboot; only the checkpoint must survive one.

Paths are strings on the way of every claim: a `Path` is slower to put together than a file is to open.
"""

import contextlib
import os
from pathlib import Path
from typing import TypeAlias

from .errors import DiskError

TEMPORARY = ".tmp"

AnyPath: TypeAlias = str | Path


def temporary(path: Path) -> Path:
    """Where `write_atomically` writes before it renames."""
    return path.with_name(path.name + TEMPORARY)


def write_atomically(path: AnyPath, content: bytes, *, sync: bool = False) -> None:
    """Write a file (0644) at once. One that holds this content already is left alone: readers watch for changes."""
    target = os.fspath(path)
    unfinished = target + TEMPORARY
    try:
        if not sync and _holds(target, content):
            return
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            write_all(descriptor, content)
            if sync:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(unfinished, target)
        if sync:
            sync_directory(Path(path).parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(unfinished)
        raise DiskError(Path(path), error) from error


def write_all(descriptor: int, content: bytes) -> None:
    """Write everything: a disk that fills up may take a part of it first."""
    written = os.write(descriptor, content)
    while written < len(content):
        written += os.write(descriptor, content[written:])


def sync_directory(directory: Path) -> None:
    """Make a rename in this directory survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: AnyPath) -> None:
    """Remove a file and what an interrupted write of it left; neither needs to exist."""
    target = os.fspath(path)
    for one in (target, target + TEMPORARY):
        try:
            os.unlink(one)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise DiskError(Path(one), error) from error


def remove_tree(path: AnyPath) -> None:
    """Remove a folder with everything in it; it needs not exist.

    Not shutil's: that one guards against somebody who exchanges folders for links meanwhile, at several times the
    price, and our folders are root's.
    """
    try:
        _remove_tree(os.fspath(path))
    except FileNotFoundError:
        pass
    except OSError as error:
        raise DiskError(Path(error.filename or path), error) from error


def _remove_tree(folder: str) -> None:
    with os.scandir(folder) as found:
        entries = list(found)
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            _remove_tree(entry.path)
        else:
            os.unlink(entry.path)
    os.rmdir(folder)


def make_directory(path: AnyPath) -> None:
    """Make a folder and its parents."""
    try:
        os.mkdir(path)
    except FileExistsError:
        pass
    except FileNotFoundError:
        make_directory(os.path.dirname(path))
        make_directory(path)
    except OSError as error:
        raise DiskError(Path(path), error) from error


def _holds(path: str, content: bytes) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        if os.fstat(descriptor).st_size != len(content):
            return False
        return os.read(descriptor, len(content) + 1) == content
    finally:
        os.close(descriptor)
