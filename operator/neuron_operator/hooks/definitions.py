"""The CRDs' own life. Helm installs the files of ``crds/`` once and never upgrades or deletes them."""

import asyncio
from collections.abc import Callable

from neuron_operator import crds, kube
from neuron_operator.kube import Api, NotFound
from neuron_operator.names import GROUP, LABEL_SIMULATED

Say = Callable[[str], None]

_POLL = 0.5


async def install(api: Api, *, timeout: float, say: Say) -> int:
    """Bring the CRDs to this release, and wait until they are served; returns an exit code."""
    for manifest in crds.manifests():
        name = manifest["metadata"]["name"]
        if await _foreign(api, name):
            say(f"left alone: {name} is there and not of neuron-sim")
            continue
        # whoever installed an older one (Helm) is overruled: the schema belongs to this program
        await api.apply(kube.CRDS, manifest, force=True)
        say(f"applied {name}")
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
    names = [manifest["metadata"]["name"] for manifest in crds.manifests()]
    waiting = [name for name in names if not await _foreign(api, name)]
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


async def _foreign(api: Api, name: str) -> bool:
    """Whether a CRD is somebody else's: two of ours bear names of AWS."""
    try:
        found = await api.get(kube.CRDS, name)
    except NotFound:
        return False
    ours = (found["metadata"].get("labels") or {}).get(LABEL_SIMULATED) == "true"
    return not ours and not name.endswith(f".{GROUP}")


async def _deleting(api: Api, name: str) -> bool:
    try:
        await api.delete(kube.CRDS, name)
        await api.get(kube.CRDS, name)
    except NotFound:
        return False
    return True
