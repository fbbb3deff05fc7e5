"""What pods do with the cores that they have."""

from builder import GREEN, RATE, RED, YELLOW, Dashboard, Panel, Query, Row, Variable

MINE = 'namespace=~"$namespace", pod=~"$pod"'

WORKLOAD = Dashboard(
    uid="neuron-sim-workload",
    title="neuron-sim / Workload",
    description="Utilization, memory, executions and errors of pods. Pods that share a claim stand in one series.",
    variables=[
        Variable("namespace", "Namespace", "neuroncore_utilization_ratio"),
        Variable("pod", "Pod", 'neuroncore_utilization_ratio{namespace=~"$namespace"}'),
    ],
    rows=[
        Row(
            "Now",
            [
                Panel(
                    "Processes",
                    [
                        Query(
                            "count(count by (namespace, pod, pid, runtime_tag) "
                            f"(neuroncore_utilization_ratio{{{MINE}}})) or vector(0)"
                        )
                    ],
                    "Processes that have cores.",
                    "stat",
                    width=6,
                    height=4,
                ),
                Panel(
                    "Utilization",
                    [Query(f"avg(neuroncore_utilization_ratio{{{MINE}}})")],
                    "Mean of their cores.",
                    "gauge",
                    unit="percentunit",
                    most=1,
                    width=6,
                    height=4,
                    steps=[(None, RED), (0.2, YELLOW), (0.35, GREEN)],
                ),
                Panel(
                    "Executions a second",
                    [Query(f'sum(rate(execution_status_total{{{MINE}, status_type="completed"}}[{RATE}]))')],
                    "That were completed.",
                    "stat",
                    unit="cps",
                    width=6,
                    height=4,
                ),
                Panel(
                    "Failed executions",
                    [
                        Query(
                            f'sum(rate(execution_status_total{{{MINE}, status_type!="completed"}}[{RATE}]))'
                            f" / clamp_min(sum(rate(execution_status_total{{{MINE}}}[{RATE}])), 1e-9)"
                        )
                    ],
                    "As a part of all.",
                    "stat",
                    unit="percentunit",
                    width=6,
                    height=4,
                    steps=[(None, GREEN), (0.01, RED)],
                ),
            ],
        ),
        Row(
            "Cores",
            [
                Panel(
                    "Utilization by pod",
                    [
                        Query(
                            f"avg by (namespace, pod) (neuroncore_utilization_ratio{{{MINE}}})",
                            "{{namespace}}/{{pod}}",
                        )
                    ],
                    "Mean of a pod's cores.",
                    unit="percentunit",
                    most=1,
                    width=12,
                ),
                Panel(
                    "Slowest core against the fastest",
                    [
                        Query(
                            f"max by (namespace, pod) (neuroncore_utilization_ratio{{{MINE}}})"
                            f" - min by (namespace, pod) (neuroncore_utilization_ratio{{{MINE}}})",
                            "{{namespace}}/{{pod}}",
                        )
                    ],
                    "How unevenly a pod's cores are used. Zero is even.",
                    unit="percentunit",
                    most=1,
                    width=12,
                ),
                Panel(
                    "Device memory by pod",
                    [
                        Query(
                            "sum by (namespace, pod) "
                            f'(neuron_runtime_memory_used_bytes{{{MINE}, memory_location="neuron_device"}})',
                            "{{namespace}}/{{pod}}",
                        )
                    ],
                    "A line that only rises is a leak.",
                    unit="bytes",
                    width=12,
                ),
                Panel(
                    "Host memory by pod",
                    [
                        Query(
                            "sum by (namespace, pod) "
                            f'(neuron_runtime_memory_used_bytes{{{MINE}, memory_location="host"}})',
                            "{{namespace}}/{{pod}}",
                        )
                    ],
                    "Of the runtime in the pod's processes.",
                    unit="bytes",
                    width=12,
                ),
            ],
        ),
        Row(
            "Executions",
            [
                Panel(
                    "Completed by pod",
                    [
                        Query(
                            "sum by (namespace, pod) "
                            f'(rate(execution_status_total{{{MINE}, status_type="completed"}}[{RATE}]))',
                            "{{namespace}}/{{pod}}",
                        )
                    ],
                    "A second. A pod that is busy and completes nothing hangs.",
                    unit="cps",
                ),
                Panel(
                    "Errors by type",
                    [
                        Query(
                            f"sum by (error_type) (rate(execution_errors_total{{{MINE}}}[{RATE}]))",
                            "{{error_type}}",
                        )
                    ],
                    "A second.",
                    unit="cps",
                ),
                Panel(
                    "Latency by percentile",
                    [Query(f"avg by (percentile) (execution_latency_seconds{{{MINE}}})", "{{percentile}}")],
                    "Mean over processes, as AWS's dashboard has it.",
                    unit="s",
                ),
            ],
        ),
    ],
)
