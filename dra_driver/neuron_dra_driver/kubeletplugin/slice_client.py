"""The five calls to the API server that publishing needs, for an adapter over some Kubernetes client."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from .slices import SliceObject


class ApiError(Exception):
    """The API server refused. `status` is the HTTP status, the text is the server's message.

    Anything else that a client raises (connection refused, timeout) is taken as an outage.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class SliceClient(Protocol):
    """ResourceSlices of `resource.k8s.io/v1` as plain dicts, just as they are on the wire.

    Every call raises ApiError with the server's status code when the server refuses (403, 404, 409, 410,
    422), and every call but the watch ends within a timeout of the client's own.
    """

    async def list(self, *, field_selector: str) -> tuple[list[SliceObject], str]:
        """All that match, no older than the last write (no `resourceVersion` sent), and the list's version."""
        ...

    def watch(self, *, field_selector: str, resource_version: str) -> AsyncGenerator[tuple[str, SliceObject], None]:
        """Events after `resource_version` as they come: (ADDED | MODIFIED | DELETED | BOOKMARK | ERROR, object).

        Bookmarks must be asked for (`allowWatchBookmarks`): they tell a quiet watch from a dead one. The
        generator ends when the server ends the watch, and lets go of the connection when it is closed.
        """
        ...

    async def create(self, body: SliceObject) -> SliceObject:
        """POST; the answer as it was stored."""
        ...

    async def replace(self, body: SliceObject) -> SliceObject:
        """PUT, the body's resourceVersion being the precondition; the answer as it was stored."""
        ...

    async def delete(self, name: str, *, uid: str, resource_version: str) -> None:
        """DELETE with both as preconditions."""
        ...
