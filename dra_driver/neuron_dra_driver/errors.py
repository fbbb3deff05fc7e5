"""What can go wrong on a node, as sentences: the kubelet puts them into an Event of the pod, word by word."""

import errno
import os
from pathlib import Path


class AgentError(Exception):
    """An error that says what is wrong and what to change."""


class ClaimError(AgentError):
    """The claim, as it is now, is nothing that this node can prepare."""


class DeviceHeld(ClaimError):
    """A device of the claim is prepared for another claim."""


class NodeError(AgentError):
    """What the NeuronNode (or the flags) asks for cannot be offered."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class LockTimeout(AgentError):
    """Another process of this driver holds the node's lock for too long."""


class DiskError(AgentError):
    """A file could not be written or removed: names the path, the reason, and what would help."""

    def __init__(self, path: Path, error: OSError) -> None:
        reason = os.strerror(error.errno) if error.errno else str(error)
        super().__init__(f"{path}: {reason}; {_remedy(error.errno, path)}")
        self.path = path


def _remedy(code: int | None, path: Path) -> str:
    where = path.parent
    if code in (errno.ENOSPC, errno.EDQUOT):
        return f"free space or inodes on the node's file system of {where}, the kubelet then tries again"
    if code == errno.EROFS:
        return f"mount the node's {where} writable, the kubelet then tries again"
    if code in (errno.EACCES, errno.EPERM):
        return f"let the agent write to the node's {where} (it runs as root; owner, mode, security module)"
    return f"look at the node's file system of {where}"
