"""A complete device plugin: offers a few devices that do not exist, and tells each container which ones it got.

`touch /tmp/broken-toy-1` in the plugin's pod makes device toy-1 unhealthy.
"""

import asyncio
import logging
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from neuron_dra_driver.deviceplugin import AllocationRefused, ContainerAllocation, Device, DevicePlugin, given_devices

RESOURCE = "fake.example.com/toy"
NAMES = [f"toy-{number}" for number in range(int(os.environ.get("DEVICES", "4")))]


def devices() -> list[Device]:
    """What there is, and how it is."""
    return [Device(name, healthy=not Path(f"/tmp/broken-{name}").exists()) for name in NAMES]


async def allocate(ids: Sequence[str]) -> ContainerAllocation:
    """Give devices to a container, as an environment variable."""
    if unknown := set(ids) - set(NAMES):
        raise AllocationRefused(f"there is no {min(unknown)} (any more): delete the pod, so that it gets others")
    return ContainerAllocation(environment={"TOYS": ",".join(sorted(ids))})


async def prefer(available: Sequence[str], must_include: Sequence[str], count: int) -> Sequence[str]:
    """Wish for low numbers."""
    return [*must_include, *sorted(set(available) - set(must_include))][:count]


async def watch_devices(plugin: DevicePlugin) -> None:
    """Look at the devices every second."""
    while True:
        plugin.publish(devices())
        await asyncio.sleep(1)


async def watch_pods() -> None:
    """Tell who has what every ten seconds: a plugin that keeps something for containers cleans up by this."""
    while True:
        given = [one for one in await given_devices() if one.resource == RESOURCE]
        logging.info("in use: %s", {f"{one.namespace}/{one.pod}": sorted(one.device_ids) for one in given})
        await asyncio.sleep(10)


async def main() -> None:
    """Serve until told to stop."""
    logging.basicConfig(level=logging.INFO)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with DevicePlugin(
        allocate, resource=RESOURCE, endpoint="toy.sock", devices=devices(), prefer=prefer
    ) as plugin:
        work = [asyncio.create_task(watch_devices(plugin)), asyncio.create_task(watch_pods())]
        await stop.wait()
        for task in work:
            task.cancel()


if __name__ == "__main__":
    asyncio.run(main())
