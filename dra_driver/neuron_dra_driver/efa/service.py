"""The EFA driver of a node: its slices while the node has cards to give, its sockets as long as anybody needs them.

Most nodes have no EFA cards (smaller instance types, the device-plugin road), and there the kubelet is not told of
this driver. A node that stops offering cards takes its slices back at once.
"""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from neuron_device_model.efa import offered

from ..api_server.kube import Kube
from ..kubeletplugin import Health, HealthMonitor, Pool, Slice, SliceController
from ..names import EFA_DRIVER_NAME, SIMULATED
from ..node import SimulatedNode
from ..prepared.cdi import CdiFolder
from ..stateless.service import StatelessService
from .driver import EfaDriver


class EfaService:
    """See the module. `publish` is to be run again whenever it ends, and so is what `service` does."""

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
        claims_changed: Callable[[], None],
    ) -> None:
        """`node` is what preparing asks: it raises an AgentError while this node offers nothing. `claims_changed` is
        called when claims may have been prepared or unprepared.
        """
        self._node_name = node_name
        self._kube = kube
        self._health = HealthMonitor()

        def driver(cdi: CdiFolder, changed: Callable[[], None]) -> EfaDriver:
            def both() -> None:
                changed()
                claims_changed()

            return EfaDriver(pool=node_name, read_claim=kube.claim_patiently, cdi=cdi, node=node, changed=both)

        self.service = StatelessService(
            driver,
            driver_name=EFA_DRIVER_NAME,
            plugins_dir=plugins_dir,
            registry_dir=registry_dir,
            cdi_dir=cdi_dir,
            instance=instance,
            health=self._health,
        )
        self._slices: SliceController | None = None
        self._devices: tuple[dict[str, Any], ...] | None = None
        """None: it is not known yet what the node is, and what an earlier process published stays."""

    def offer(self, node: SimulatedNode | None, health: Mapping[tuple[str, str], Health]) -> None:
        """Say what the node is, None where nothing is to be given away by claims; and how its cards are."""
        self._devices = offered(node.instance_type, faults=node.faults) if node else ()
        self._publish()
        self._health.set(health)
        self.service.offer(bool(self._devices))

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

    def _publish(self) -> None:
        if self._slices and self._devices is not None:
            self._slices.publish(Pool(self._node_name, (Slice(self._devices),)) if self._devices else None)
