"""What the extender tells Prometheus."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

REQUESTS: Final = Counter(
    "neuron_sim_extender_requests_total",
    "Calls of kube-scheduler; refused: no node left, or not bound.",
    ("verb", "result"),
)
SECONDS: Final = Histogram(
    "neuron_sim_extender_request_duration_seconds",
    "Time to answer kube-scheduler.",
    ("verb",),
    buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10),
)
ASSUMED: Final = Gauge(
    "neuron_sim_extender_assumed_pods", "Pods that were bound here and that no watch has told of yet."
)
