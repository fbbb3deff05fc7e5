"""Lists in pages and watches, as following thousands of objects needs them."""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from typing import Any, TypeVar

from ..api_server.http_client import JSON
from ..api_server.kube import Kube
from ..kubeletplugin import ApiError

Object = dict[str, Any]
T = TypeVar("T")

_PAGE = "500"


async def listed(
    kube: Kube, path: str, *, params: Mapping[str, str], read: Callable[[Object], T], accept: str = JSON
) -> tuple[list[T], str]:
    """What is read of each of them, and the list's version. No more than a page of them is in memory at a time."""
    found: list[T] = []
    query = {**params, "limit": _PAGE}
    while True:
        page = await kube.request("GET", path, params=query, accept=accept)
        found += [read(item) for item in page.get("items") or ()]
        if not (following := page["metadata"].get("continue")):
            return found, page["metadata"]["resourceVersion"]
        query["continue"] = following


@contextlib.asynccontextmanager
async def watched(
    kube: Kube, path: str, version: str, *, params: Mapping[str, str], accept: str = JSON
) -> AsyncIterator[AsyncGenerator[tuple[str, Object]]]:
    """What changes after a version."""
    events = kube.watch(path, params={**params, "resourceVersion": version}, accept=accept)
    async with contextlib.aclosing(events):
        yield events


def refuse(kind: str, item: Object) -> None:
    """Raise what a watch ended with, if this event is its end."""
    if kind == "ERROR":
        raise ApiError(int(item.get("code") or 500), str(item.get("message") or item))
