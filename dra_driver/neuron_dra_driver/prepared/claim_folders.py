"""What a claim's containers see under /run/neuron-sim: one folder per claim, in it one per request.

On tmpfs: a reboot takes it, and the kubelet then prepares again. Containers have the request's folder mounted and not
its files, so that what is rendered again later reaches those that run.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import DiskError
from ..files import make_directory, remove_tree, write_atomically
from .core_files import CORES, lay_cores

VIEW = "view.json"
METADATA = "metadata.json"


@dataclass(frozen=True, slots=True)
class RequestFiles:
    """What is in the folder of a request."""

    view: bytes
    metadata: bytes
    cores: Sequence[int]
    """By their numbers in the container."""


class ClaimFolders:
    """The folder of all claims; `path` tells where a container's mount comes from."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._name = str(directory)

    def path(self, uid: str, request: str) -> str:
        """The folder of one request."""
        return f"{self._name}/{uid}/{request}"

    def write(self, uid: str, requests: Mapping[str, RequestFiles]) -> None:
        """Write the files of a claim's requests. The view comes last, for it tells of the cores."""
        make_directory(f"{self._name}/{uid}")
        for request, files in requests.items():
            folder = self.path(uid, request)
            make_directory(folder)
            lay_cores(folder, files.cores)
            write_atomically(f"{folder}/{METADATA}", files.metadata)
            write_atomically(f"{folder}/{VIEW}", files.view)

    def remove(self, uid: str) -> None:
        """Remove everything of a claim."""
        remove_tree(f"{self._name}/{uid}")

    def discard(self) -> None:
        """Remove the folder of all claims, if there are none."""
        with contextlib.suppress(OSError):
            self._directory.rmdir()

    def has(self, uid: str, request: str) -> bool:
        """Whether a request's files are there."""
        folder = Path(self.path(uid, request))
        return all((folder / name).exists() for name in (VIEW, METADATA, CORES))

    def claims(self) -> set[str]:
        """The uids that have a folder."""
        try:
            return {path.name for path in self._directory.iterdir()}
        except FileNotFoundError:
            return set()
        except OSError as error:
            raise DiskError(self._directory, error) from error
