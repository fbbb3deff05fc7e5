"""How devices get into containers: CDI files, one for each claim.

The driver answers the kubelet with CDI device ids, the kubelet hands those of a container's claims to the container
runtime, and that one looks them up in these files. Runtimes keep what they read, so a name must never come back with
another meaning: the claim's uid is part of every name.

Version 0.6.0 is what every runtime knows that knows CDI by default (1.1.0 is refused by containerd 2.1), and allows
names that begin with a digit, as uids do. A file with an unknown field, or a device without edits, is invalid.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CDI_DIR = Path("/var/run/cdi")
CDI_VERSION = "0.6.0"

_UNFINISHED = ".tmp"


class CDIFolder:
    """A driver's files in the folder that the container runtime reads; those of others are left alone."""

    def __init__(self, driver_name: str, directory: Path = CDI_DIR) -> None:
        self._kind = f"{driver_name}/claim"
        self._prefix = f"{driver_name}-claim_"
        self._directory = directory

    def write(self, claim_uid: str, edits: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
        """Publish what containers get, by names of the driver's choice; the CDI device ids by the same names.

        The values are CDI's `containerEdits`: `env`, `deviceNodes`, `mounts`, `hooks`. One for each device is the
        natural choice, because the kubelet shows health by CDI device id.
        """
        ids = {name: f"{claim_uid}_{name}" for name in edits}
        content = {
            "cdiVersion": CDI_VERSION,
            "kind": self._kind,
            "devices": [{"name": ids[name], "containerEdits": dict(edit)} for name, edit in edits.items()],
        }
        path = self._path(claim_uid)
        unfinished = path.with_name(path.name + _UNFINISHED)
        self._directory.mkdir(parents=True, exist_ok=True)
        # Runtimes read the folder at any moment, and only names that end in .json or .yaml.
        unfinished.write_text(json.dumps(content))
        unfinished.rename(path)
        return {name: f"{self._kind}={identifier}" for name, identifier in ids.items()}

    def remove(self, claim_uid: str) -> None:
        """Remove a claim's file, if there is one."""
        path = self._path(claim_uid)
        path.unlink(missing_ok=True)
        path.with_name(path.name + _UNFINISHED).unlink(missing_ok=True)

    def claims(self) -> set[str]:
        """The uids of the claims that left a file here, a kill in the middle of writing included."""
        found = (path.name.removesuffix(_UNFINISHED) for path in self._directory.glob(f"{self._prefix}*.json*"))
        return {name.removeprefix(self._prefix).removesuffix(".json") for name in found}

    def _path(self, claim_uid: str) -> Path:
        return self._directory / f"{self._prefix}{claim_uid}.json"
