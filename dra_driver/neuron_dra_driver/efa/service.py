"""When the EFA driver is there: its slices while the node has cards to give, its sockets as long as anybody needs them.

Most nodes have no EFA cards (smaller instance types, the device-plugin road), and there the kubelet is not told of
this driver. A node that stops offering cards takes its slices back at once and keeps its sockets until the last claim
is unprepared, because a kubelet without its driver cannot end pods.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from neuron_device_model.efa import offered

from ..api_server.kube import Kube
from ..kubeletplugin import KubeletPlugin, Pool, Slice, SliceController
from ..kubeletplugin.sockets import remove_dead
from ..names import EFA_DRIVER_NAME, SIMULATED
from ..node import SimulatedNode
from ..prepared.cdi import CdiFolder
from .driver import EfaDriver

RECONCILE_EVERY = 300.0


class EfaService:
    """See the module. `serve`, `publish` and `reconcile` are to be run again whenever they end."""

    def __init__(
        self,
        *,
        node_name: str,
        kube: Kube,
        plugins_dir: Path,
        registry_dir: Path,
        cdi_dir: Path,
        instance: str | None,
        node: Callable[[], Awaitable[SimulatedNode]],
    ) -> None:
        """`node` is what preparing asks: it raises an AgentError while this node offers nothing."""
        self._node_name = node_name
        self._kube = kube
        self._plugins_dir = plugins_dir
        self._registry_dir = registry_dir
        self._cdi = CdiFolder(cdi_dir, driver=EFA_DRIVER_NAME)
        self._due = asyncio.Event()
        self._driver = EfaDriver(pool=node_name, read_claim=kube.claim, cdi=self._cdi, node=node, changed=self._due.set)
        self._plugin = KubeletPlugin(
            self._driver,
            driver_name=EFA_DRIVER_NAME,
            plugins_dir=plugins_dir,
            registry_dir=registry_dir,
            instance=instance,
        )
        self._slices: SliceController | None = None
        self._devices: tuple[dict[str, Any], ...] | None = None
        """None: it is not known yet what the node is, and what an earlier process published stays."""

    def offer(self, node: SimulatedNode | None) -> None:
        """Say what the node is, None where nothing is to be given away by claims."""
        self._devices = offered(node.instance_type, faults=node.faults) if node else ()
        self._publish()
        self._due.set()

    async def publish(self) -> None:
        """Keep the slices as they should be."""
        self._slices = SliceController(
            self._kube.slices,
            driver_name=EFA_DRIVER_NAME,
            node_name=self._node_name,
            node_uid=await self._kube.node_uid(self._node_name),
            labels={SIMULATED: "true"},
        )
        self._publish()
        await self._slices.run()

    async def serve(self) -> None:
        """Serve the kubelet whenever, and for as long as, somebody needs it."""
        while True:
            try:
                if self._needed():
                    async with self._plugin:
                        while self._needed():
                            await self._change()
            finally:
                self._tidy()
            await self._change()

    async def reconcile(self) -> None:
        """Remove what is left of claims that are gone, at the start and every few minutes."""
        while True:
            await self._driver.reconcile()
            await asyncio.sleep(RECONCILE_EVERY)

    def _publish(self) -> None:
        if self._slices and self._devices is not None:
            self._slices.publish(Pool(self._node_name, (Slice(self._devices),)) if self._devices else None)

    def _needed(self) -> bool:
        return bool(self._devices or self._cdi.claims())

    async def _change(self) -> None:
        await self._due.wait()
        self._due.clear()

    def _tidy(self) -> None:
        """Leave nothing where nobody needs this driver, neither of this process nor of one that was killed."""
        if self._devices is None or self._needed():
            return
        remove_dead(self._plugins_dir, self._registry_dir, driver_name=EFA_DRIVER_NAME)
        with contextlib.suppress(OSError):
            (self._plugins_dir / EFA_DRIVER_NAME).rmdir()  # not while another agent serves there
