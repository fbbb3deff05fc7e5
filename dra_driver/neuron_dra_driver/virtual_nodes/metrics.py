"""Metrics of the process: how many virtual nodes it has, and what it wrote for them."""

from ..metrics import Value

PREFIX = "neuron_sim_virtual_agent_"


class FleetMetrics:
    """All series."""

    def __init__(self) -> None:
        self.nodes = Value()
        self.writes = Value()
        self.deletes = Value()
        self.statuses = Value()
        self.failures = Value()

    def render(self) -> bytes:
        """As Prometheus reads them."""
        lines: list[str] = []
        for name, kind, help_text, value in (
            ("nodes", "gauge", "Virtual nodes that are published.", self.nodes),
            ("slice_writes_total", "counter", "ResourceSlices that were created or changed.", self.writes),
            ("slice_deletes_total", "counter", "ResourceSlices that were deleted.", self.deletes),
            ("status_writes_total", "counter", "Statuses of NeuronNodes that were written.", self.statuses),
            ("failures_total", "counter", "Nodes whose writes failed and are tried again.", self.failures),
        ):
            lines += [f"# HELP {PREFIX}{name} {help_text}", f"# TYPE {PREFIX}{name} {kind}"]
            lines += value.samples(PREFIX + name, "")
        return "\n".join([*lines, ""]).encode()
