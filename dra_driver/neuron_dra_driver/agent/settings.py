"""What a node's agent is told when it is started."""

from dataclasses import dataclass
from pathlib import Path

from ..node import SimulatedNode


@dataclass(frozen=True)
class Settings:
    """Where things are and what this agent is for."""

    node_name: str
    driver_name: str
    plugins_dir: Path
    registry_dir: Path
    device_plugins_dir: Path
    pod_resources_dir: Path
    cdi_dir: Path
    state_dir: Path
    run_dir: Path
    runtime_tree: Path
    metrics_port: int
    pod_uid: str | None = None
    efa: bool = False
    """Whether the node's EFA cards are offered beside its chips."""
    standalone: SimulatedNode | None = None
    """What the node is when no operator says so."""
    status_interval: float = 0.5
    """Seconds between two writes of the status: pods come in bursts, and each changes a number in it."""
    kubelet_patience: float = 5.0
    """Seconds that the first slice waits for the kubelet to register this driver."""
