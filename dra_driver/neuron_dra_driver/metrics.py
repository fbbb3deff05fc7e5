"""The agent's own metrics, by Kubernetes conventions: base units, low cardinality, every series there from the start.

(What neuron-monitor exports about the devices is another thing and not here.)

Three kinds of series as text are less than the client library's HTTP servers and processes cost each node in memory.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence

from .names import version

SUCCESS = "success"
ERROR = "error"
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0)
"""Seconds. OpenMetrics wants whole ones with their zero, too."""

PREFIX = "neuron_sim_agent_"


class Value:
    """A counter or a gauge."""

    def __init__(self, value: float = 0.0) -> None:
        self._value = value

    def set(self, value: float) -> None:
        """For a gauge."""
        self._value = value

    def inc(self, by: float = 1) -> None:
        """For a counter."""
        self._value += by

    def samples(self, name: str, labels: str) -> Iterator[str]:
        """As Prometheus reads it."""
        yield f"{name}{_in_braces(labels)} {self._value}"


class Durations:
    """A histogram of seconds."""

    def __init__(self) -> None:
        self._buckets = [0] * (len(BUCKETS) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one."""
        self._buckets[bisect_left(BUCKETS, seconds)] += 1
        self._sum += seconds

    def samples(self, name: str, labels: str) -> Iterator[str]:
        """As Prometheus reads it."""
        count = 0
        before = f"{labels}," if labels else ""
        for bound, found in zip((*BUCKETS, "+Inf"), self._buckets, strict=True):
            count += found
            yield f'{name}_bucket{{{before}le="{bound}"}} {count}'
        yield f"{name}_count{_in_braces(labels)} {count}"
        yield f"{name}_sum{_in_braces(labels)} {self._sum}"


class Metrics:
    """All series of one agent."""

    def __init__(self) -> None:
        self._head: dict[str, str] = {}
        """What comes before the samples of a name."""
        self._series: dict[str, dict[str, Value | Durations]] = {}
        """By name and labels."""
        self.prepare = self._durations("prepare", "Time to prepare the claims of one call of the kubelet.")
        self.unprepare = self._durations("unprepare", "Time to unprepare the claims of one call of the kubelet.")
        self.allocate = self._durations("allocate", "Time to answer one Allocate of the kubelet (device plugins).")
        self.prepared_claims = self._gauge("prepared_claims", "Claims that are prepared on this node.")
        self.devices = self._gauge("published_devices", "Devices that this node offers.")
        self.unhealthy = self._gauge("unhealthy_devices", "Offered devices of which a part is broken.")
        self.registered = self._gauge("registered", "Whether the kubelet has registered the driver (1) or not (0).")
        self.quarantined = self._gauge(
            "quarantined_checkpoints", "Checkpoint files that could not be read and were put aside."
        )
        self.read = self._counters(
            "prepared_claims_read_total",
            "Claims that the kubelet asked to prepare, by where they were read.",
            "source",
            ("watch", "api"),
        )
        self.reconciled = self._counters(
            "reconciled_claims_total",
            "Claims that were repaired or removed without being asked by the kubelet.",
            "action",
            ("removed", "repaired"),
        )
        self._gauge("build_info", "The agent's version; always 1.", f'version="{version()}"').set(1)

        self.node({})

    def node(self, labels: Mapping[str, object]) -> None:
        """What the node is from now on, which other series are joined with; without labels: none."""
        said = ",".join(f'{name}="{value}"' for name, value in labels.items())
        self._add("node_info", "gauge", "What the node is; always 1.", {said: Value(1)} if said else {})

    def render(self) -> bytes:
        """As Prometheus reads them."""
        lines: list[str] = []
        for name, head in self._head.items():
            lines.append(head)
            for labels, series in self._series[name].items():
                lines += series.samples(name, labels)
        return "\n".join([*lines, ""]).encode()

    def _gauge(self, name: str, help_text: str, labels: str = "") -> Value:
        gauge = Value()
        self._add(name, "gauge", help_text, {labels: gauge})
        return gauge

    def _counters(self, name: str, help_text: str, label: str, values: Sequence[str]) -> dict[str, Value]:
        counters = {value: Value() for value in values}
        self._add(name, "counter", help_text, {f'{label}="{value}"': one for value, one in counters.items()})
        return counters

    def _durations(self, operation: str, help_text: str) -> dict[str, Durations]:
        results = {result: Durations() for result in (SUCCESS, ERROR)}
        series = {f'result="{result}"': one for result, one in results.items()}
        self._add(f"{operation}_duration_seconds", "histogram", help_text, series)
        return results

    def _add(self, name: str, kind: str, help_text: str, series: dict[str, Value] | dict[str, Durations]) -> None:
        full = PREFIX + name
        self._head[full] = f"# HELP {full} {help_text}\n# TYPE {full} {kind}"
        self._series[full] = dict(series)


def _in_braces(labels: str) -> str:
    return f"{{{labels}}}" if labels else ""
