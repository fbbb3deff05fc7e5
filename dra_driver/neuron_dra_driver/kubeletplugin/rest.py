"""The library's calls to the API server over any HTTP client: two methods are enough for all of them.

Plain HTTP and plain dicts, because clients with models drop the fields that are newer than they are, and a
ResourceSlice that lost a field is another one. `http_api` has such a client, for drivers that have none.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any, Protocol

from .api import ClaimRef
from .slice_client import ApiError
from .slices import SliceObject

API = "/apis/resource.k8s.io/v1"
SLICES = f"{API}/resourceslices"

Object = dict[str, Any]


class ApiServer(Protocol):
    """An authenticated connection. Raises ApiError when the server refuses, anything else is an outage."""

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> Object:
        """One call with a JSON body, one JSON answer, within a timeout of the client's own."""
        ...

    def watch(self, path: str, *, params: Mapping[str, str]) -> AsyncGenerator[tuple[str, Object], None]:
        """GET with `watch=true` and `allowWatchBookmarks=true` besides the params; type and object of each event."""
        ...


async def read_claim(api: ApiServer, ref: ClaimRef) -> Object | None:
    """The claim of this name as it is now, which may be another one than `ref` meant; None: there is none."""
    try:
        return await api.request("GET", f"{API}/namespaces/{ref.namespace}/resourceclaims/{ref.name}")
    except ApiError as error:
        if error.status == 404:
            return None
        raise


async def node_uid(api: ApiServer, name: str) -> str:
    """The uid of a Node, which becomes the owner of its slices."""
    return str((await api.request("GET", f"/api/v1/nodes/{name}"))["metadata"]["uid"])


class RestSlices:
    """ResourceSlices; implements `SliceClient`."""

    def __init__(self, api: ApiServer) -> None:
        self._api = api

    async def list(self, *, field_selector: str) -> tuple[list[SliceObject], str]:
        """All that match, and the list's version."""
        found = await self._api.request("GET", SLICES, params={"fieldSelector": field_selector})
        return found.get("items") or [], found["metadata"]["resourceVersion"]

    def watch(self, *, field_selector: str, resource_version: str) -> AsyncGenerator[tuple[str, SliceObject], None]:
        """Events after a version."""
        return self._api.watch(SLICES, params={"fieldSelector": field_selector, "resourceVersion": resource_version})

    async def create(self, body: SliceObject) -> SliceObject:
        """Make a slice."""
        return await self._api.request("POST", SLICES, body=body)

    async def replace(self, body: SliceObject) -> SliceObject:
        """Write a slice that nobody wrote since it was read."""
        return await self._api.request("PUT", f"{SLICES}/{body['metadata']['name']}", body=body)

    async def delete(self, name: str, *, uid: str, resource_version: str) -> None:
        """Delete a slice that nobody wrote since it was read."""
        preconditions = {"uid": uid, "resourceVersion": resource_version}
        await self._api.request("DELETE", f"{SLICES}/{name}", body={"preconditions": preconditions})
