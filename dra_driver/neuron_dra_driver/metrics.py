"""The agent's own metrics, by Kubernetes conventions: base units, low cardinality, every series there from the start.

(What neuron-monitor exports about the devices is another thing and not here.)
"""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from .names import version

SUCCESS = "success"
ERROR = "error"
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 30)


class Metrics:
    """All series of one agent, in a registry of its own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self.prepare = self._duration("prepare", "Time to prepare the claims of one call of the kubelet.")
        self.unprepare = self._duration("unprepare", "Time to unprepare the claims of one call of the kubelet.")
        self.prepared_claims = self._gauge("prepared_claims", "Claims that are prepared on this node.")
        self.devices = self._gauge("published_devices", "Devices that this node offers.")
        self.registered = self._gauge("registered", "Whether the kubelet has registered the driver (1) or not (0).")
        self.quarantined = self._gauge(
            "quarantined_checkpoints", "Checkpoint files that could not be read and were put aside."
        )
        self.reconciled = Counter(
            "neuron_sim_agent_reconciled_claims",
            "Claims that were repaired or removed without being asked by the kubelet.",
            ["action"],
            registry=self._registry,
        )
        for action in ("removed", "repaired"):
            self.reconciled.labels(action)
        info = self._gauge("build_info", "The agent's version; always 1.", ["version"])
        info.labels(version()).set(1)

    def render(self) -> bytes:
        """As Prometheus reads them."""
        return generate_latest(self._registry)

    def _duration(self, operation: str, help_text: str) -> Histogram:
        histogram = Histogram(
            f"neuron_sim_agent_{operation}_duration_seconds",
            help_text,
            ["result"],
            buckets=BUCKETS,
            registry=self._registry,
        )
        for result in (SUCCESS, ERROR):
            histogram.labels(result)
        return histogram

    def _gauge(self, name: str, help_text: str, labels: list[str] | None = None) -> Gauge:
        return Gauge(f"neuron_sim_agent_{name}", help_text, labels or [], registry=self._registry)
