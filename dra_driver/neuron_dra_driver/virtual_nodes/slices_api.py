"""The calls to the API server that publishing for many nodes needs: whole slices up, only their metadata down."""

from typing import Any

from ..api_server.kube import METADATA, METADATA_LIST, NEURON_NODES, SLICES, Kube
from ..kubeletplugin import ApiError
from ..names import VIRTUAL
from .ledger import Record, Write, read
from .listing import Take, listed, watch

Object = dict[str, Any]

_OURS = {"labelSelector": f"{VIRTUAL}=true"}


class SlicesApi:
    """The slices of all virtual nodes, and their NeuronNodes."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube

    async def slices(self) -> tuple[list[Record], str]:
        """All of them, and the list's version."""
        return await listed(self._kube, SLICES, params=_OURS, accept=METADATA_LIST, read=read)

    async def neuron_nodes(self) -> tuple[list[Object], str]:
        """All of them, and the list's version."""
        return await listed(self._kube, NEURON_NODES, params=_OURS, read=lambda item: item)

    async def watch_slices(self, version: str, take: Take) -> None:
        """What changes after a version, for as long as the watch lasts."""
        await watch(self._kube, SLICES, version, take, params=_OURS, accept=METADATA)

    async def watch_neuron_nodes(self, version: str, take: Take) -> None:
        """What changes after a version, for as long as the watch lasts."""
        await watch(self._kube, NEURON_NODES, version, take, params=_OURS)

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
            answer = await self._kube.request("PUT", f"{SLICES}/{write.name}", body=write.body, accept=METADATA)
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
