"""The calls to the API server that publishing for many nodes needs: whole slices up, only their metadata down."""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from ..api_server.kube import METADATA, METADATA_LIST, NEURON_NODES, SLICES, Kube
from ..kubeletplugin import ApiError
from ..names import VIRTUAL
from .ledger import Record, Write, read

Object = dict[str, Any]

_OURS = {"labelSelector": f"{VIRTUAL}=true"}
_PAGE = "500"


class SlicesApi:
    """The slices of all virtual nodes, and their NeuronNodes."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube

    async def slices(self) -> tuple[list[Record], str]:
        """All of them, and the list's version."""
        items, version = await self._list(SLICES, accept=METADATA_LIST)
        return [read(item) for item in items], version

    async def neuron_nodes(self) -> tuple[list[Object], str]:
        """All of them, and the list's version."""
        return await self._list(NEURON_NODES)

    def watch_slices(self, version: str) -> contextlib.AbstractAsyncContextManager[AsyncGenerator[tuple[str, Object]]]:
        """What changes after a version."""
        return self._watch(SLICES, version, accept=METADATA)

    def watch_neuron_nodes(
        self, version: str
    ) -> contextlib.AbstractAsyncContextManager[AsyncGenerator[tuple[str, Object]]]:
        """What changes after a version."""
        return self._watch(NEURON_NODES, version, accept="application/json")

    async def slice(self, name: str) -> Record | None:
        """A slice of any driver, None if there is none."""
        try:
            return read(await self._kube.request("GET", f"{SLICES}/{name}", accept=METADATA))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def write(self, write: Write) -> Record:
        """Create or change a slice."""
        if write.record is None:
            # its name is ours, so a second try finds the first
            answer = await self._kube.request("POST", SLICES, body=write.body, accept=METADATA, harmless_twice=True)
        else:
            answer = await self._kube.request(
                "PATCH",
                f"{SLICES}/{write.name}",
                body=write.body,
                content_type="application/merge-patch+json",
                accept=METADATA,
            )
        return read(answer)

    async def delete(self, record: Record) -> None:
        """Delete a slice, if it is still that one."""
        body = {"preconditions": {"uid": record.uid}}
        try:
            await self._kube.request("DELETE", f"{SLICES}/{record.name}", body=body)
        except ApiError as error:
            if error.status != 404:
                raise

    async def report(self, node: str, status: Object) -> None:
        """Write the status of a NeuronNode."""
        await self._kube.request(
            "PATCH",
            f"{NEURON_NODES}/{node}/status",
            body={"status": status},
            content_type="application/merge-patch+json",
            accept=METADATA,
        )

    async def _list(self, path: str, *, accept: str = "application/json") -> tuple[list[Object], str]:
        items: list[Object] = []
        params = {**_OURS, "limit": _PAGE}
        while True:
            page = await self._kube.request("GET", path, params=params, accept=accept)
            items += page.get("items") or []
            if not (following := page["metadata"].get("continue")):
                return items, page["metadata"]["resourceVersion"]
            params["continue"] = following

    @contextlib.asynccontextmanager
    async def _watch(
        self, path: str, version: str, *, accept: str
    ) -> AsyncIterator[AsyncGenerator[tuple[str, Object]]]:
        events = self._kube.watch(path, params={**_OURS, "resourceVersion": version}, accept=accept)
        async with contextlib.aclosing(events):
            yield events
