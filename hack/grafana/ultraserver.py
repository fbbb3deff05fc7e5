"""UltraServers: their nodes as one machine."""

from builder import BLUE, GREEN, RATE, RED, YELLOW, Dashboard, Panel, Query, Row, Variable

SEATS = (
    'max by (node, ultraserver_id) (neuron_sim_agent_node_info{ultraserver_id=~"$ultraserver_id", ultraserver_id!=""})'
)
"""1 for each node of the UltraServers that are chosen: what is multiplied by it gets their id."""


def of_ultraservers(aggregation: str, series: str) -> str:
    """An aggregation of nodes' series over each UltraServer."""
    return f"{aggregation} by (ultraserver_id) ({series} * on (node) group_left (ultraserver_id) {SEATS})"


ULTRASERVER = Dashboard(
    uid="neuron-sim-ultraserver",
    title="neuron-sim / UltraServer",
    description="The nodes of UltraServers together, and who has them. For pools of trn2u and trn3 types.",
    variables=[Variable("ultraserver_id", "UltraServer", 'neuron_sim_agent_node_info{ultraserver_id!=""}')],
    rows=[
        Row(
            "Now",
            [
                Panel(
                    "UltraServers",
                    [Query(f"count(count by (ultraserver_id) ({SEATS}))")],
                    "Of which a node is scraped.",
                    "stat",
                    width=6,
                    height=5,
                ),
                Panel(
                    "Servers of each",
                    [Query(f"count by (ultraserver_id) ({SEATS})", "{{ultraserver_id}}")],
                    "Four on trn2u and on Trainium3's first generation.",
                    "bargauge",
                    width=6,
                    height=5,
                    steps=[(None, BLUE)],
                ),
                Panel(
                    "By state",
                    [Query("max by (state) (neuron_sim_ultraservers) or vector(0)", "{{state}}")],
                    "NeuronUltraServers. Degraded: a server is missing, not Ready or broken.",
                    "bargauge",
                    width=6,
                    height=5,
                    steps=[(None, GREEN)],
                ),
                Panel(
                    "Workloads, by state",
                    [Query("max by (state) (neuron_sim_ultraserver_workloads) or vector(0)", "{{state}}")],
                    "NeuronUltraServerWorkloads.",
                    "bargauge",
                    width=6,
                    height=5,
                    steps=[(None, GREEN)],
                ),
            ],
        ),
        Row(
            "Load",
            [
                Panel(
                    "Utilization",
                    [Query(of_ultraservers("avg", "neuroncore_utilization_ratio"), "{{ultraserver_id}}")],
                    "Mean of the cores that processes have.",
                    unit="percentunit",
                    most=1,
                    width=12,
                ),
                Panel(
                    "Utilization of each server",
                    [
                        Query(
                            "avg by (ultraserver_id, node) (neuroncore_utilization_ratio"
                            f" * on (node) group_left (ultraserver_id) {SEATS})",
                            "{{ultraserver_id}} {{node}}",
                        )
                    ],
                    "Servers of one job go together; one that lags holds up all.",
                    unit="percentunit",
                    most=1,
                    width=12,
                ),
                Panel(
                    "Device memory",
                    [
                        Query(
                            of_ultraservers("sum", 'neuron_runtime_memory_used_bytes{memory_location="neuron_device"}'),
                            "{{ultraserver_id}}",
                        )
                    ],
                    "What processes have allocated on Neuron devices.",
                    unit="bytes",
                    width=12,
                ),
                Panel(
                    "Completed executions",
                    [
                        Query(
                            of_ultraservers("sum", f'rate(execution_status_total{{status_type="completed"}}[{RATE}])'),
                            "{{ultraserver_id}}",
                        )
                    ],
                    "A second.",
                    unit="cps",
                    width=12,
                ),
            ],
        ),
        Row(
            "Health",
            [
                Panel(
                    "Unhealthy devices",
                    [Query(of_ultraservers("sum", "neuron_sim_agent_unhealthy_devices"), "{{ultraserver_id}}")],
                    "Offered devices of which a part is broken.",
                    steps=[(None, GREEN), (1, RED)],
                ),
                Panel(
                    "Uncorrected ECC events",
                    [
                        Query(
                            of_ultraservers("sum", 'hardware_ecc_events_total{event_type=~".*_uncorrected"}'),
                            "{{ultraserver_id}}",
                        )
                    ],
                    "Since the nodes exist.",
                ),
                Panel(
                    "Gang placements rolled back",
                    [
                        Query(
                            f"sum by (reason) (rate(neuron_sim_gang_rollbacks_total[{RATE}])) or vector(0)",
                            "{{reason}}",
                        )
                    ],
                    "A second: places that were promised to a gang and taken back.",
                    unit="cps",
                    steps=[(None, GREEN), (0.01, YELLOW)],
                ),
            ],
        ),
    ],
)
