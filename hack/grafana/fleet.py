"""All nodes at a glance."""

from builder import GREEN, RATE, RED, YELLOW, Dashboard, Panel, Query, Row, Variable

FLEET = Dashboard(
    uid="neuron-sim-fleet",
    title="neuron-sim / Fleet",
    description="Pools, nodes and what runs on all NeuronCores. Everything here is simulated.",
    variables=[Variable("instance_type", "Instance type", "instance_info")],
    rows=[
        Row(
            "Now",
            [
                Panel(
                    "Nodes",
                    [Query('count(instance_info{instance_type=~"$instance_type"})')],
                    "Nodes that are scraped.",
                    "stat",
                    width=4,
                    height=4,
                ),
                Panel(
                    "Nodes not ready",
                    [Query("sum(max by (pool) (neuron_sim_pool_nodes) - max by (pool) (neuron_sim_pool_ready_nodes))")],
                    "Nodes of pools that do not serve devices.",
                    "stat",
                    width=4,
                    height=4,
                    steps=[(None, GREEN), (1, RED)],
                ),
                Panel(
                    "Neuron devices",
                    [
                        Query(
                            'count(hardware_ecc_events_total{event_type="mem_ecc_corrected", '
                            'instance_type=~"$instance_type"})'
                        )
                    ],
                    "Chips of all nodes.",
                    "stat",
                    width=4,
                    height=4,
                ),
                Panel(
                    "NeuronCores in use",
                    [Query('count(neuroncore_utilization_ratio{instance_type=~"$instance_type"} > 0) or vector(0)')],
                    "Cores that do something now.",
                    "stat",
                    width=4,
                    height=4,
                ),
                Panel(
                    "Utilization of cores in use",
                    [Query('avg(neuroncore_utilization_ratio{instance_type=~"$instance_type"} > 0)')],
                    "Mean of the cores that do something.",
                    "gauge",
                    unit="percentunit",
                    most=1,
                    width=4,
                    height=4,
                    steps=[(None, RED), (0.2, YELLOW), (0.35, GREEN)],
                ),
                Panel(
                    "Active faults",
                    [Query('max(neuron_sim_faults{active="true"})')],
                    "NeuronFaults that are active.",
                    "stat",
                    width=4,
                    height=4,
                    steps=[(None, GREEN), (1, RED)],
                ),
            ],
        ),
        Row(
            "Nodes",
            [
                Panel(
                    "Nodes by type",
                    [Query("count by (instance_type) (instance_info)", "{{instance_type}}")],
                    "Nodes that are scraped, by instance type.",
                    stacked=True,
                ),
                Panel(
                    "Nodes of pools",
                    [
                        Query("max by (pool) (neuron_sim_pool_nodes)", "{{pool}}: all"),
                        Query("max by (pool) (neuron_sim_pool_ready_nodes)", "{{pool}}: ready"),
                    ],
                    "As the operator counts them. The two lines of a pool lie on each other while all is well.",
                ),
                Panel(
                    "Claims prepared",
                    [
                        Query(
                            "sum by (node) (neuron_sim_agent_prepared_claims * on (node) group_left () "
                            'group by (node) (instance_info{instance_type=~"$instance_type"}))',
                            "{{node}}",
                        )
                    ],
                    "Claims whose devices pods have now, by node.",
                    stacked=True,
                ),
            ],
        ),
        Row(
            "Load",
            [
                Panel(
                    "Utilization by node",
                    [
                        Query(
                            'avg by (node) (neuroncore_utilization_ratio{instance_type=~"$instance_type"})', "{{node}}"
                        )
                    ],
                    "Mean of the cores that a process has. A node without processes has no line.",
                    unit="percentunit",
                    most=1,
                    width=12,
                ),
                Panel(
                    "Device memory by node",
                    [
                        Query(
                            'sum by (node) (neuron_runtime_memory_used_bytes{memory_location="neuron_device", '
                            'instance_type=~"$instance_type"})',
                            "{{node}}",
                        )
                    ],
                    "What processes have allocated on Neuron devices.",
                    unit="bytes",
                    width=12,
                ),
                Panel(
                    "Executions by outcome",
                    [
                        Query(
                            "sum by (status_type) (rate(execution_status_total"
                            f'{{instance_type=~"$instance_type"}}[{RATE}]))',
                            "{{status_type}}",
                        )
                    ],
                    "Executions a second.",
                    unit="cps",
                    width=12,
                ),
                Panel(
                    "Execution errors by type",
                    [
                        Query(
                            "sum by (error_type) (rate(execution_errors_total"
                            f'{{instance_type=~"$instance_type"}}[{RATE}]))',
                            "{{error_type}}",
                        )
                    ],
                    "Errors a second. `hardware` is what a broken device causes.",
                    unit="cps",
                    width=12,
                ),
            ],
        ),
        Row(
            "The simulator itself",
            [
                Panel(
                    "Time to prepare claims",
                    [
                        Query(
                            f"histogram_quantile({quantile}, sum by (le) "
                            f"(rate(neuron_sim_agent_prepare_duration_seconds_bucket[{RATE}])))",
                            name,
                        )
                        for quantile, name in ((0.5, "p50"), (0.99, "p99"))
                    ],
                    "Of calls of kubelets to node agents. No line: there were no calls.",
                    unit="s",
                ),
                Panel(
                    "Reconciliations",
                    [
                        Query(f"sum(rate(neuron_sim_operator_reconcile_duration_seconds_count[{RATE}]))", "all"),
                        Query(f"sum(rate(neuron_sim_operator_reconcile_errors_total[{RATE}]))", "failed"),
                    ],
                    "Of the operator, a second.",
                    unit="cps",
                ),
                Panel(
                    "Gangs by phase",
                    [Query("max by (phase) (neuron_sim_gangs)", "{{phase}}")],
                    "Pending: no place for all of its pods yet.",
                ),
            ],
        ),
    ],
)
