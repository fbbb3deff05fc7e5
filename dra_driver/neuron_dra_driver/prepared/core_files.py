"""The files that stand for a container's cores: `cores/<number in the container>`, beside the view.

To own a core is to hold a lock on its file (`neuron_runtime.nrt`), so a file that is there is never replaced: its locks
would stay with the old one. They are empty, hence made at once, and a kill in between leaves some that the next try
completes. What is there too many names no core of the view and disturbs nobody.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from ..errors import DiskError
from ..files import make_directory

CORES = "cores"


def lay_cores(folder: str, cores: Iterable[int]) -> None:
    """Make the files of these cores, where they are missing, in a request's folder."""
    directory = f"{folder}/{CORES}"
    make_directory(directory)
    try:
        for core in cores:
            os.close(os.open(f"{directory}/{core}", os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o444))
    except OSError as error:
        raise DiskError(Path(directory), error) from error
