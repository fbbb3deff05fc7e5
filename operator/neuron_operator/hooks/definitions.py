"""The CRDs' own life. Helm installs the files of ``crds/`` once and never upgrades or deletes them."""

import asyncio
from collections.abc import Callable

from neuron_operator import crds, kube
from neuron_operator.kube import Api, NotFound

Say = Callable[[str], None]

_POLL = 0.5


async def install(api: Api, *, timeout: float, say: Say) -> int:
    """Bring the CRDs to this release, and wait until they are served; returns an exit code."""
    for manifest in crds.manifests():
        # whoever installed an older one (Helm) is overruled: the schema belongs to this program
        await api.apply(kube.CRDS, manifest, force=True)
        say(f"applied {manifest['metadata']['name']}")
    waiting = [manifest["metadata"]["name"] for manifest in crds.manifests()]
    try:
        async with asyncio.timeout(timeout):
            while waiting:
                waiting = [name for name in waiting if not await _established(api, name)]
                if waiting:
                    await asyncio.sleep(_POLL)
    except TimeoutError:
        say(f"not served after {timeout:g} s: {', '.join(waiting)}. See `kubectl describe crd {waiting[0]}`")
        return 1
    return 0


async def _established(api: Api, name: str) -> bool:
    status = (await api.get(kube.CRDS, name)).get("status") or {}
    return any(
        condition["type"] == "Established" and condition["status"] == "True"
        for condition in status.get("conditions") or ()
    )


async def delete(api: Api, *, timeout: float, say: Say) -> int:
    """Delete the CRDs, and wait until they are gone; returns an exit code."""
    waiting = [manifest["metadata"]["name"] for manifest in crds.manifests()]
    try:
        async with asyncio.timeout(timeout):
            while waiting:
                waiting = [name for name in waiting if await _deleting(api, name)]
                if waiting:
                    await asyncio.sleep(_POLL)
    except TimeoutError:
        say(f"still there after {timeout:g} s: {', '.join(waiting)}. See `kubectl describe crd {waiting[0]}`")
        return 1
    say("the CRDs are gone")
    return 0


async def _deleting(api: Api, name: str) -> bool:
    try:
        await api.delete(kube.CRDS, name)
        await api.get(kube.CRDS, name)
    except NotFound:
        return False
    return True
