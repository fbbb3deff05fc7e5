"""Lists in pages and watches, as following thousands of objects needs them."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import orjson

from ..api_server.http_client import JSON
from ..api_server.kube import SILENCE, Kube
from ..kubeletplugin import ApiError

Object = dict[str, Any]
T = TypeVar("T")
Take = Callable[[str, Object], None]
"""Is told of a change: ADDED, MODIFIED or DELETED, and the object."""

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


async def watch(
    kube: Kube, path: str, version: str, take: Take, *, params: Mapping[str, str], accept: str = JSON
) -> None:
    """Tell of what changes after a version, each in the moment in which it comes, until the server ends the watch.

    Raises what it ended with.
    """
    query = {**params, "resourceVersion": version}
    async with kube.stream(path, params=query, accept=accept) as stream:
        await stream.each(lambda line: _tell(line, take), silence=SILENCE)


def _tell(line: bytes, take: Take) -> None:
    event = orjson.loads(line)
    kind, item = event["type"], event["object"]
    if kind == "ERROR":
        raise ApiError(int(item.get("code") or 500), str(item.get("message") or item))
    if kind != "BOOKMARK":
        take(kind, item)
