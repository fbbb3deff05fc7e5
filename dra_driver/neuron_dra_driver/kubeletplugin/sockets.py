"""Names of the plugin's two sockets, and what dead processes left of theirs.

An instance (the pod's uid) in the names lets two processes of one driver serve during a rolling update
(kubelet 1.33 and newer); the kubelet then prefers the newer one. A killed process leaves its sockets
behind, the kubelet keeps dialling them, and under new names nobody would ever replace them: so they are
found by trying.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import socket
from pathlib import Path

MAX_PATH = 107
"""Longest path of a Unix socket on Linux (sun_path is 108 bytes with its end); gRPC refuses longer ones."""

log = logging.getLogger(__name__)


class SocketInUse(Exception):
    """Another process serves under this name."""


def service_socket(plugins_dir: Path, *, driver_name: str, instance: str | None) -> Path:
    """Where the DRA service listens. The kubelet is told this path, so it must be the host's as well."""
    suffix, short_suffix = _suffixes(instance)
    return _first_that_fits(plugins_dir / driver_name, f"dra{suffix}.sock", f"dra{short_suffix}.sock")


def registration_socket(registry_dir: Path, *, driver_name: str, instance: str | None) -> Path:
    """Where the kubelet looks for plugins; the folder is shared by all drivers."""
    suffix, short_suffix = _suffixes(instance)
    return _first_that_fits(
        registry_dir,
        f"{driver_name}{suffix}-reg.sock",
        f"{_short(driver_name)}{short_suffix}-reg.sock",
    )


def remove_dead(plugins_dir: Path, registry_dir: Path, *, driver_name: str) -> None:
    """Unlink this driver's sockets that no process listens on. Those of live processes stay."""
    candidates = list((plugins_dir / driver_name).glob("dra*.sock"))
    for name in (driver_name, _short(driver_name)):
        candidates += registry_dir.glob(f"{name}-reg.sock")
        candidates += registry_dir.glob(f"{name}-*-reg.sock")
    for path in candidates:
        if path.is_socket() and not is_served(path):
            log.info("removing the socket of a dead process: %s", path, extra={"path": str(path)})
            path.unlink(missing_ok=True)


def take(path: Path) -> None:
    """Make a name free for gRPC, which would take it away from a living server without a word."""
    if is_served(path):
        raise SocketInUse(
            f"{path} is served by another process of this driver: stop it, or give each process an instance"
        )
    path.unlink(missing_ok=True)


def is_served(path: Path) -> bool:
    """Whether a process listens there. Unsure counts as yes: what is taken away cannot be given back."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            outcome = probe.connect_ex(str(path))
        except OSError:  # a path too long for a socket's address
            return True
    return outcome not in (errno.ECONNREFUSED, errno.ENOENT)


def _first_that_fits(folder: Path, *names: str) -> Path:
    for name in names:
        if len(os.fsencode(folder / name)) <= MAX_PATH:
            return folder / name
    raise ValueError(
        f"{folder / names[-1]} is longer than a Unix socket's path may be ({MAX_PATH} bytes): use a shorter folder"
    )


def _suffixes(instance: str | None) -> tuple[str, str]:
    return (f"-{instance}", f"-{_short(instance)}") if instance else ("", "")


def _short(name: str) -> str:
    """Eight hex digits: the longest driver name and an instance still fit below /var/lib/kubelet/plugins."""
    return hashlib.sha256(name.encode()).hexdigest()[:8]
