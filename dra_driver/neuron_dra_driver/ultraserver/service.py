"""The UltraServer driver of a node: sockets while the node is in an UltraServer that claims can have."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from ..names import ULTRASERVER_DRIVER_NAME
from ..node import SimulatedNode
from ..stateless.driver import ReadClaim
from ..stateless.service import StatelessService
from .driver import UltraServerDriver


def ultraserver_service(
    *,
    node_name: str,
    read_claim: ReadClaim,
    plugins_dir: Path,
    registry_dir: Path,
    cdi_dir: Path,
    instance: str | None,
    node: Callable[[], Awaitable[SimulatedNode]],
) -> StatelessService:
    """The service of the node; what it publishes, the operator publishes for all of the UltraServer."""
    return StatelessService(
        lambda cdi, changed: UltraServerDriver(
            pool=node_name, read_claim=read_claim, cdi=cdi, node=node, changed=changed
        ),
        driver_name=ULTRASERVER_DRIVER_NAME,
        plugins_dir=plugins_dir,
        registry_dir=registry_dir,
        cdi_dir=cdi_dir,
        instance=instance,
    )
