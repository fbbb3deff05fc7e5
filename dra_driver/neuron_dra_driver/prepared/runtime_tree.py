"""The tools that containers have mounted at /opt/aws/neuron, as a folder of the node.

The agent's image carries them, but a container's mount needs a path on the node that outlives the agent's container.
So they are copied under the hash of their content: an agent of another version brings another folder, pods that began
with the earlier one keep it, and it goes when the last of their claims does.

A copy that a kill interrupted has another name until it is whole. One that a power cut or a hand damaged is noticed
by its hash when the agent starts, and made anew.
"""

import contextlib
import hashlib
import os
import shutil
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import AgentError, DiskError
from ..files import TEMPORARY, make_directory, remove_tree


@dataclass(frozen=True, slots=True)
class RuntimeTree:
    """A copy of the tools on this node."""

    digest: str
    path: Path
    tools: tuple[str, ...]
    """The file names in its `bin`."""


class RuntimeTrees:
    """The folder of copies. Its methods are called under the node's lock."""

    def __init__(self, source: Path, directory: Path) -> None:
        self._source = source
        self._directory = directory
        self._installed: RuntimeTree | None = None

    def ensure(self) -> RuntimeTree:
        """The copy of this agent's tools; copied now if it is not there. After the first time this is one stat."""
        if self._installed and self._installed.path.is_dir():
            return self._installed
        if not self._source.is_dir():
            raise AgentError(f"{self._source} is not a folder: --runtime-tree must name the runtime tree of the image")
        digest = digest_of(self._source)
        target = self._directory / digest
        try:
            if not target.is_dir() or digest_of(target) != digest:
                self._copy(target)
        except OSError as error:
            raise DiskError(target, error) from error
        tools = tuple(sorted(path.name for path in (target / "bin").iterdir())) if (target / "bin").is_dir() else ()
        self._installed = RuntimeTree(digest=digest, path=target, tools=tools)
        return self._installed

    def has(self, digest: str) -> bool:
        """Whether the copy that a claim was prepared with is there."""
        return (self._directory / digest).is_dir()

    def prune(self, *, used: Collection[str], keep_own: bool) -> None:
        """Remove the copies that no prepared claim uses, this agent's own only when asked to."""
        own = self._installed.digest if self._installed and keep_own else None
        try:
            names = [path.name for path in self._directory.iterdir()]
        except FileNotFoundError:
            return
        except OSError as error:
            raise DiskError(self._directory, error) from error
        for name in names:
            if name not in used and name != own:
                remove_tree(self._directory / name)
        with contextlib.suppress(OSError):
            self._directory.rmdir()  # when that was the last one

    def _copy(self, target: Path) -> None:
        unfinished = target.with_name(target.name + TEMPORARY)
        remove_tree(unfinished)
        remove_tree(target)
        make_directory(self._directory)
        try:
            shutil.copytree(self._source, unfinished, symlinks=True)
        except (OSError, shutil.Error):
            remove_tree(unfinished)
            raise
        unfinished.rename(target)


def digest_of(tree: Path) -> str:
    """Names, modes and content of everything in a folder."""
    digest = hashlib.sha256()
    for path in _walk(tree):
        found = path.lstat()
        digest.update(f"{path.relative_to(tree)}\0{found.st_mode:o}\0".encode())
        if stat.S_ISLNK(found.st_mode):
            digest.update(os.fsencode(path.readlink()))
        elif stat.S_ISREG(found.st_mode):
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def _walk(directory: Path) -> Iterator[Path]:
    for path in sorted(directory.iterdir()):
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)
