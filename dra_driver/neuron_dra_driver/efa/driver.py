"""The EFA driver's answers to the kubelet: the verbs devices of the cards that a claim has.

That a card is in one claim only is the scheduler's doing: what two pods would share is a device that swallows what is
written to it, not a core that one of them must own.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from neuron_device_model.efa import efa_devices

from ..errors import ClaimError
from ..kubeletplugin import AllocatedDevice, ClaimRef, allocated_devices
from ..names import EFA_DRIVER_NAME
from ..node import SimulatedNode
from ..prepared.cdi import NULL_DEVICE
from ..stateless.driver import StatelessDriver

CONNECTION_MANAGER = "/dev/infiniband/rdma_cm"


class EfaDriver(StatelessDriver):
    """Implements `kubeletplugin.DRADriver`."""

    driver_name = EFA_DRIVER_NAME

    def devices(self, claim: Mapping[str, Any] | None, ref: ClaimRef, node: SimulatedNode) -> Sequence[AllocatedDevice]:
        """The cards of a claim, all of which this node has."""
        devices = allocated_devices(claim, ref, driver_name=EFA_DRIVER_NAME, pool=self._pool)
        cards = {card.name for card in efa_devices(node.instance_type)}
        if unknown := sorted({device.device for device in devices} - cards):
            raise ClaimError(
                f"claim {ref} holds {', '.join(unknown)}, which node {self._pool} does not have (any more): "
                "delete the pod, so that it is scheduled again"
            )
        return devices

    def edits(self, device: str, node: SimulatedNode) -> Mapping[str, Any]:
        """What DRANET gives for a card: its verbs device and the connection manager."""
        (verbs,) = (card.verbs for card in efa_devices(node.instance_type) if card.name == device)
        paths = (f"/dev/infiniband/uverbs{verbs}", CONNECTION_MANAGER)
        return {"deviceNodes": [{"path": path, **NULL_DEVICE} for path in paths]}
