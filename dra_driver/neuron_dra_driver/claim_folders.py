"""What a claim's containers see under /run/neuron-sim: one folder per claim, in it one per request.

On tmpfs: a reboot takes it, and the kubelet then prepares again. Containers have the request's folder mounted and not
its files, so that what is rendered again later reaches those that run.
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path

from .errors import DiskError
from .files import make_directory, remove_tree, write_atomically

VIEW = "view.json"
METADATA = "metadata.json"

Files = Mapping[str, Mapping[str, bytes]]
"""Content by file name, by request."""


class ClaimFolders:
    """The folder of all claims; `path` tells where a container's mount comes from."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def path(self, uid: str, request: str) -> Path:
        """The folder of one request."""
        return self._directory / uid / request

    def write(self, uid: str, files: Files) -> None:
        """Write the files of a claim's requests."""
        for request, contents in files.items():
            folder = self.path(uid, request)
            make_directory(folder)
            for name, content in contents.items():
                write_atomically(folder / name, content)

    def remove(self, uid: str) -> None:
        """Remove everything of a claim."""
        remove_tree(self._directory / uid)

    def discard(self) -> None:
        """Remove the folder of all claims, if there are none."""
        with contextlib.suppress(OSError):
            self._directory.rmdir()

    def has(self, uid: str, request: str) -> bool:
        """Whether a request's files are there."""
        folder = self.path(uid, request)
        return (folder / VIEW).exists() and (folder / METADATA).exists()

    def claims(self) -> set[str]:
        """The uids that have a folder."""
        try:
            return {path.name for path in self._directory.iterdir()}
        except FileNotFoundError:
            return set()
        except OSError as error:
            raise DiskError(self._directory, error) from error
