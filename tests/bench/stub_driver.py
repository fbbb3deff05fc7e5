"""A DRA driver with one device, which tells the kubelet at once what a ConfigMap says of it; for `fault_delays.py`.

    python stub_driver.py DRIVER NODE DEVICE CONFIGMAP

It runs in a pod on the node, with the kubelet's folders at their own paths. What it does is the least that a driver can
do between an object of the API server and the kubelet.
"""

import asyncio
import sys
from collections.abc import Mapping, Sequence

from neuron_dra_driver.api_server.kube import SLICES, Kube
from neuron_dra_driver.kubeletplugin import (
    ClaimRef,
    Health,
    HealthMonitor,
    HealthStatus,
    KubeletPlugin,
    PreparedDevice,
    PrepareResult,
    UnprepareResult,
)


class Stub:
    """Implements DRADriver; brings nothing into containers."""

    def __init__(self, node: str, device: str) -> None:
        self._device = PreparedDevice(requests=(), pool=node, device=device, cdi_device_ids=())

    async def prepare(self, claims: Sequence[ClaimRef]) -> Mapping[str, PrepareResult]:
        return {claim.uid: [self._device] for claim in claims}

    async def unprepare(self, claims: Sequence[ClaimRef]) -> Mapping[str, UnprepareResult]:
        return dict.fromkeys((claim.uid for claim in claims), None)


async def serve(driver: str, node: str, device: str, told: str) -> None:
    health = HealthMonitor()
    health.set({(node, device): Health(HealthStatus.HEALTHY)})
    params = {"fieldSelector": f"metadata.name={told}"}
    pool = {"name": node, "generation": 1, "resourceSliceCount": 1}
    offered = {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceSlice",
        "metadata": {"name": told},
        "spec": {"driver": driver, "nodeName": node, "pool": pool, "devices": [{"name": device}]},
    }
    async with Kube() as kube, KubeletPlugin(Stub(node, device), driver_name=driver, health=health) as plugin:
        await plugin.wait_registered()
        await kube.request("POST", SLICES, body=offered)
        while True:
            async for kind, found in kube.watch("/api/v1/namespaces/default/configmaps", params=params):
                if kind in ("ADDED", "MODIFIED"):
                    broken = found["data"]["broken"] == "true"
                    status = HealthStatus.UNHEALTHY if broken else HealthStatus.HEALTHY
                    health.set({(node, device): Health(status)})


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:5]))
