"""The answers to the kubelet of each node of an UltraServer that a claim has.

The operator publishes an UltraServer as one device, in a pool that bears the UltraServer's id and that its nodes can
reach, so one claim is prepared on each node where a pod of it runs. The scheduler has pinned these pods by the claim's
allocation; a node that has left the UltraServer since then refuses. A container learns its place, in AWS's words and
nothing else: no device file stands for an UltraServer.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from neuron_device_model.ultraserver import SETS

from ..allocations.config import SIMULATED_VARIABLE
from ..errors import ClaimError
from ..kubeletplugin import AllocatedDevice, ClaimRef, allocated_devices
from ..names import BARRIER_DEVICE, ULTRASERVER_DRIVER_NAME
from ..node import SimulatedNode
from ..prepared.ultraserver_environment import environment
from ..stateless.driver import StatelessDriver


class UltraServerDriver(StatelessDriver):
    """Implements `kubeletplugin.DRADriver`."""

    driver_name = ULTRASERVER_DRIVER_NAME

    def devices(self, claim: Mapping[str, Any] | None, ref: ClaimRef, node: SimulatedNode) -> Sequence[AllocatedDevice]:
        """The claim's UltraServer, if it is this node's, and the barrier of gangs, if the claim has that."""
        if node.seat is None:
            raise ClaimError(
                f"claim {ref} holds a device of an UltraServer, and node {self._pool} is in none (any more): delete the"
                " pods of the claim and the claim, so that they are scheduled again"
            )
        return allocated_devices(claim, ref, driver_name=ULTRASERVER_DRIVER_NAME, pool=node.seat.id)

    def edits(self, device: str, node: SimulatedNode) -> Mapping[str, Any]:
        """The node's place. AWS has no words for UltraServers of other sizes than its sets."""
        known = node.seat is not None and node.seat.size in SETS and device != BARRIER_DEVICE
        words = environment(node.seat.size, node.seat) if node.seat and known else {}
        return {"env": [f"{name}={value}" for name, value in {SIMULATED_VARIABLE: "true", **words}.items()]}
