"""What the operator tells Prometheus. Labels are pools and a few fixed words, never nodes."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

RECONCILE_SECONDS: Final = Histogram(
    "neuron_sim_operator_reconcile_duration_seconds",
    "Time to make a plan and carry it out.",
    buckets=(0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60),
)
RECONCILE_ERRORS: Final = Counter(
    "neuron_sim_operator_reconcile_errors_total", "Reconciliations in which something failed."
)
WRITES: Final = Counter("neuron_sim_operator_writes_total", "Writes to the API server.", ("kind", "verb", "result"))
LEADER: Final = Gauge("neuron_sim_operator_leader", "1 while this replica is the one that acts.")
FINDINGS: Final = Gauge(
    "neuron_sim_operator_real_neuron_findings", "Signs of real Neuron that keep pools from growing."
)
FAULTS: Final = Gauge("neuron_sim_faults", "NeuronFaults, by whether they are active.", ("active",))
ULTRASERVERS: Final = Gauge("neuron_sim_ultraservers", "NeuronUltraServers, by state.", ("state",))
ULTRASERVER_WORKLOADS: Final = Gauge(
    "neuron_sim_ultraserver_workloads", "NeuronUltraServerWorkloads, by state.", ("state",)
)
GANGS: Final = Gauge("neuron_sim_gangs", "NeuronGangs, by phase.", ("phase",))
GANG_PLACEMENT_SECONDS: Final = Histogram(
    "neuron_sim_gang_placement_seconds",
    "Time from the first sight of a gang to the reservation of all of its places.",
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 120, 600),
)
GANG_ROLLBACKS: Final = Counter("neuron_sim_gang_rollbacks_total", "Reservations that were rolled back.", ("reason",))
POOL_NODES: Final = Gauge("neuron_sim_pool_nodes", "Nodes in a pool.", ("pool",))
POOL_READY_NODES: Final = Gauge("neuron_sim_pool_ready_nodes", "Nodes of a pool that serve devices.", ("pool",))
POOL_DEVICES: Final = Gauge("neuron_sim_pool_devices", "Neuron devices that a pool serves.", ("pool",))
