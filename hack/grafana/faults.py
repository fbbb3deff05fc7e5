"""A fault drill: what was broken, when each surface showed it, and whether all is well again."""

from builder import GREEN, RATE, RED, YELLOW, Dashboard, Panel, Query, Row, Variable

FAULT_DRILL = Dashboard(
    uid="neuron-sim-faults",
    title="neuron-sim / Fault drill",
    description="Break a chip and watch what notices it: hardware counters, programs, alerts, on one time axis.",
    variables=[Variable("node", "Node", "instance_info")],
    rows=[
        Row(
            "What is broken",
            [
                Panel(
                    "Active faults",
                    [Query('max(neuron_sim_faults{active="true"})')],
                    "NeuronFaults that are active.",
                    "stat",
                    width=4,
                    height=7,
                    steps=[(None, GREEN), (1, RED)],
                ),
                Panel(
                    "Alerts that fire",
                    [Query('count(ALERTS{alertstate="firing", alertname=~"Neuron.*"}) or vector(0)')],
                    "Those of neuron-sim's rules.",
                    "stat",
                    width=4,
                    height=7,
                    steps=[(None, GREEN), (1, RED)],
                ),
                Panel(
                    "Faults",
                    [
                        Query(
                            'max by (node, type, fault) (neuron_sim_fault_active{node=~"$node"})'
                            ' or label_replace(0 * max(neuron_sim_faults), "type", "none", "", "")',
                            "{{node}} {{type}}",
                        )
                    ],
                    "From when to when each fault was active.",
                    "state-timeline",
                    width=16,
                    height=7,
                    steps=[(None, GREEN), (1, RED)],
                    words={"0": ("no fault", GREEN), "1": ("broken", RED)},
                ),
            ],
        ),
        Row(
            "What the hardware says",
            [
                Panel(
                    "Unhealthy devices",
                    [Query('sum by (node) (neuron_sim_agent_unhealthy_devices{node=~"$node"})', "{{node}}")],
                    "Offered devices of which a part is broken. Schedulers see their taints.",
                ),
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
                    "Devices that the driver finds",
                    [
                        Query(
                            'count by (node) (hardware_ecc_events_total{node=~"$node", '
                            'event_type="mem_ecc_corrected"})',
                            "{{node}}",
                        )
                    ],
                    "A lost device is missing here, all are when the driver failed.",
                ),
            ],
        ),
        Row(
            "What programs notice",
            [
                Panel(
                    "Errors by type",
                    [
                        Query(
                            f'sum by (error_type) (rate(execution_errors_total{{node=~"$node"}}[{RATE}]))',
                            "{{error_type}}",
                        )
                    ],
                    "A second.",
                    unit="cps",
                ),
                Panel(
                    "Executions that did not complete",
                    [
                        Query(
                            "sum by (status_type) (rate(execution_status_total"
                            f'{{node=~"$node", status_type!="completed"}}[{RATE}]))',
                            "{{status_type}}",
                        )
                    ],
                    "A second. `timed_out` is a hang.",
                    unit="cps",
                ),
                Panel(
                    "Median latency by node",
                    [
                        Query(
                            'avg by (node) (execution_latency_seconds{node=~"$node", percentile="p50"})',
                            "{{node}}",
                        )
                    ],
                    "Thermal throttling raises it.",
                    unit="s",
                ),
                Panel(
                    "Device memory by node",
                    [
                        Query(
                            "sum by (node) (neuron_runtime_memory_used_bytes"
                            '{node=~"$node", memory_location="neuron_device"})',
                            "{{node}}",
                        )
                    ],
                    "A leak rises until programs end with NRT_RESOURCE.",
                    unit="bytes",
                    width=12,
                ),
                Panel(
                    "Pods that wait or leave",
                    [
                        Query('max(neuron_sim_gangs{phase=~"Pending|RollingBack"})', "gangs without places"),
                        Query('sum(neuron_sim_agent_prepared_claims{node=~"$node"})', "claims prepared"),
                    ],
                    "Eviction shows as claims that go.",
                    width=12,
                    steps=[(None, GREEN), (1, YELLOW)],
                ),
            ],
        ),
    ],
)
