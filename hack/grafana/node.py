"""One node, chip by chip and core by core."""

from builder import GREEN, RATE, RED, YELLOW, Dashboard, Panel, Query, Row, Variable

NODE = Dashboard(
    uid="neuron-sim-node",
    title="neuron-sim / Node",
    description="The chips and cores of a node, its host, and its agent. Everything but the host's load is simulated.",
    variables=[Variable("node", "Node", "instance_info")],
    rows=[
        Row(
            "What it is",
            [
                Panel(
                    "Nodes",
                    [Query('neuron_hardware_info{node=~"$node"}')],
                    "Devices are those that the driver finds; cores at the node's LNC.",
                    "table",
                    width=12,
                    height=6,
                    columns={
                        "node": "Node",
                        "instance_type": "Instance type",
                        "instance_id": "Instance",
                        "neuron_device_count": "Devices",
                        "neuroncore_per_device_count": "Cores per device",
                    },
                ),
                Panel(
                    "Claims prepared",
                    [Query('sum(neuron_sim_agent_prepared_claims{node=~"$node"})')],
                    "Claims whose devices pods have now.",
                    "stat",
                    width=4,
                    height=6,
                ),
                Panel(
                    "Unhealthy devices",
                    [Query('sum(neuron_sim_agent_unhealthy_devices{node=~"$node"})')],
                    "Offered devices of which a part is broken: chips, cores, the node itself.",
                    "stat",
                    width=4,
                    height=6,
                    steps=[(None, GREEN), (1, RED)],
                ),
                Panel(
                    "Uncorrected ECC events",
                    [Query('sum(hardware_ecc_events_total{node=~"$node", event_type=~".*_uncorrected"})')],
                    "Since the node exists.",
                    "stat",
                    width=4,
                    height=6,
                    steps=[(None, GREEN), (1, RED)],
                ),
            ],
        ),
        Row(
            "NeuronCores",
            [
                Panel(
                    "Utilization by core",
                    [
                        Query(
                            'max by (node, neuroncore) (neuroncore_utilization_ratio{node=~"$node"})',
                            "{{node}} nc{{neuroncore}}",
                        )
                    ],
                    "Cores that a process has, numbered on the node.",
                    unit="percentunit",
                    most=1,
                    width=12,
                ),
                Panel(
                    "Memory of cores by kind",
                    [
                        Query(f'sum(neuroncore_memory_usage_{kind}{{node=~"$node"}})', kind)
                        for kind in ("tensors", "constants", "model_code", "model_shared_scratchpad", "runtime_memory")
                    ],
                    "Of all processes on the node.",
                    unit="bytes",
                    stacked=True,
                    width=12,
                ),
            ],
        ),
        Row(
            "Hardware",
            [
                Panel(
                    "ECC events",
                    [
                        Query(
                            f'sum by (event_type) (increase(hardware_ecc_events_total{{node=~"$node"}}[{RATE}]))',
                            "{{event_type}}",
                        )
                    ],
                    "What came in an interval.",
                ),
                Panel(
                    "Devices with most ECC events",
                    [
                        Query(
                            "topk(8, sum by (node, neuron_device_index, event_type) "
                            '(hardware_ecc_events_total{node=~"$node"}))',
                            "{{node}} nd{{neuron_device_index}} {{event_type}}",
                        )
                    ],
                    "Since the node exists.",
                    "bargauge",
                    steps=[(None, GREEN), (1, YELLOW), (100, RED)],
                ),
                Panel(
                    "Latency of executions",
                    [
                        Query(
                            'max by (percentile) (execution_latency_seconds{node=~"$node"})',
                            "{{percentile}}",
                        )
                    ],
                    "The slowest process of the node. Thermal throttling raises it.",
                    unit="s",
                ),
            ],
        ),
        Row(
            "Host and agent",
            [
                Panel(
                    "vCPUs of the host",
                    [
                        Query(
                            'avg by (usage_type) (system_vcpu_usage_ratio{node=~"$node"})',
                            "{{usage_type}}",
                        )
                    ],
                    "Of the machine that the node really is.",
                    unit="percentunit",
                    stacked=True,
                    most=1,
                ),
                Panel(
                    "vCPUs of Neuron processes",
                    [
                        Query(
                            'sum by (usage_type) (neuron_runtime_vcpu_usage_ratio{node=~"$node"})',
                            "{{usage_type}}",
                        )
                    ],
                    "As processes report it.",
                    unit="percentunit",
                    stacked=True,
                ),
                Panel(
                    "Memory of the host",
                    [
                        Query('sum(system_memory_used_bytes{node=~"$node"})', "used"),
                        Query('sum(system_memory_total_bytes{node=~"$node"})', "all"),
                    ],
                    "Of the machine that the node really is.",
                    unit="bytes",
                ),
                Panel(
                    "Driver registered",
                    [Query('min by (node) (neuron_sim_agent_registered{node=~"$node"})', "{{node}}")],
                    "Whether the kubelet knows the node's driver.",
                    "state-timeline",
                    width=12,
                    height=6,
                    steps=[(None, RED), (1, GREEN)],
                    words={"0": ("no", RED), "1": ("yes", GREEN)},
                ),
                Panel(
                    "Calls of the kubelet that failed",
                    [
                        Query(
                            "sum by (node) (rate(neuron_sim_agent_prepare_duration_seconds_count"
                            f'{{node=~"$node", result="error"}}[{RATE}]))',
                            "{{node}} prepare",
                        ),
                        Query(
                            "sum by (node) (rate(neuron_sim_agent_unprepare_duration_seconds_count"
                            f'{{node=~"$node", result="error"}}[{RATE}]))',
                            "{{node}} unprepare",
                        ),
                    ],
                    "A second.",
                    unit="cps",
                    width=12,
                    height=6,
                    steps=[(None, GREEN), (0.1, YELLOW)],
                ),
            ],
        ),
    ],
)
