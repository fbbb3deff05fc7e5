"""A complete DRA driver: offers a few devices that do not exist, and tells each container which ones it got.

`touch /tmp/broken-fake-1` in the driver's pod makes device fake-1 unhealthy.
"""

import asyncio
import logging
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from neuron_dra_driver.kubeletplugin import (
    ApiServer,
    CDIFolder,
    ClaimNotUsable,
    ClaimRef,
    Health,
    HealthMonitor,
    HealthStatus,
    KubeletPlugin,
    Pool,
    PreparedDevice,
    PrepareResult,
    RestSlices,
    Slice,
    SliceController,
    UnprepareResult,
    allocated_devices,
    node_uid,
    read_claim,
)
from neuron_dra_driver.kubeletplugin.http_api import in_cluster

DRIVER = "fake.example.com"
NAMES = [f"fake-{number}" for number in range(int(os.environ.get("DEVICES", "4")))]


class FakeDriver:
    """The kubelet's calls."""

    def __init__(self, api: ApiServer, cdi: CDIFolder, pool: str) -> None:
        self._api, self._cdi, self._pool = api, cdi, pool

    async def prepare(self, claims: Sequence[ClaimRef]) -> Mapping[str, PrepareResult]:
        """Give the claims' devices to containers, each as an environment variable."""
        return {claim.uid: await self._prepare(claim) for claim in claims}

    async def unprepare(self, claims: Sequence[ClaimRef]) -> Mapping[str, UnprepareResult]:
        """Take them away again."""
        for claim in claims:
            self._cdi.remove(claim.uid)
        return dict.fromkeys(claim.uid for claim in claims)

    async def _prepare(self, ref: ClaimRef) -> PrepareResult:
        try:
            devices = allocated_devices(await read_claim(self._api, ref), ref, driver_name=DRIVER, pool=self._pool)
        except ClaimNotUsable as error:
            return error
        edits = {d.device: {"env": [f"{d.device.upper().replace('-', '_')}=granted"]} for d in devices}
        ids = self._cdi.write(ref.uid, edits)
        return [PreparedDevice((d.request,), d.pool, d.device, (ids[d.device],), d.share_id) for d in devices]


async def watch_health(health: HealthMonitor, pool: str) -> None:
    """Look at the devices every second."""
    while True:
        broken = {name for name in NAMES if Path(f"/tmp/broken-{name}").exists()}
        sick = Health(HealthStatus.UNHEALTHY, "somebody broke it: remove the file /tmp/broken-… from the driver's pod")
        health.set({(pool, name): sick if name in broken else Health(HealthStatus.HEALTHY) for name in NAMES})
        await asyncio.sleep(1)


async def offer(plugin: KubeletPlugin, slices: SliceController) -> None:
    """Nothing before the kubelet knows the driver: it would fail the pods that come with devices."""
    await plugin.wait_registered()
    await slices.run()


async def main(node: str) -> None:
    """Serve until told to stop; what is published stays, for the next one."""
    logging.basicConfig(level=logging.INFO)
    stop, health = asyncio.Event(), HealthMonitor(valid_for=10)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with in_cluster() as api:
        driver = FakeDriver(api, CDIFolder(DRIVER), node)
        uid, marks = await node_uid(api, node), {"app": "minimal-dra-driver"}
        slices = SliceController(RestSlices(api), driver_name=DRIVER, node_name=node, node_uid=uid, labels=marks)
        slices.publish(Pool(node, (Slice(devices=[{"name": name} for name in NAMES]),)))
        async with KubeletPlugin(driver, driver_name=DRIVER, instance=os.environ["POD_UID"], health=health) as plugin:
            work = [asyncio.create_task(offer(plugin, slices)), asyncio.create_task(watch_health(health, node))]
            await stop.wait()
            for task in work:
                task.cancel()


if __name__ == "__main__":
    asyncio.run(main(os.environ["NODE_NAME"]))
