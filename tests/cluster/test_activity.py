"""Activity: what a process does on its cores shows in its pod, on its node's page for Prometheus, and nowhere else."""

import json
from typing import Any

from harness import SYSTEM, Cluster, Object, claim, pod, until

CORES = "neuroncore.neuron-sim.dev"
PROFILE = "neuron-sim.dev/activity-profile"


def monitored(cluster: Cluster, namespace: str, name: str) -> list[Object]:
    """The processes of the second record of neuron-monitor in a pod: in the first there is no utilization yet."""
    config = json.dumps(
        {
            "period": "200ms",
            "neuron_runtimes": [{"metrics": [{"type": "neuroncore_counters"}, {"type": "execution_stats"}]}],
        }
    )
    script = f"echo '{config}' > /tmp/c; neuron-monitor -c /tmp/c | head -n 2"
    lines = cluster.execute(namespace, name, "sh", "-c", script).splitlines()
    return list(json.loads(lines[1])["neuron_runtime_data"])


def utilization(process: Object) -> dict[str, Any]:
    counters = process["report"]["neuroncore_counters"]["neuroncores_in_use"]
    return {core: what["neuroncore_utilization"] for core, what in counters.items()}


def page(cluster: Cluster, node: str) -> str:
    """What Prometheus reads of a node, by the API server's proxy."""
    agent = cluster.agent(node)["metadata"]["name"]
    return cluster.kubectl("get", "--raw", f"/api/v1/namespaces/{SYSTEM}/pods/{agent}:8000/proxy/metrics")


def series(cluster: Cluster, node: str, name: str, *parts: str) -> list[float]:
    return [
        float(line.rpartition(" ")[2])
        for line in page(cluster, node).splitlines()
        if line.startswith(f"{name}{{") and all(part in line for part in parts)
    ]


def test_load_is_shown_where_it_runs_and_ends_with_its_process(cluster: Cluster, namespace: str, node: str) -> None:
    profiled = pod("profiled", claim="profiled", node=node)
    profiled["metadata"]["annotations"] = {PROFILE: "collective-bound"}
    cluster.apply(
        [
            *(claim(name, deviceClassName=CORES) for name in ("busy", "idle", "profiled")),
            *(pod(name, claim=name, node=node) for name in ("busy", "idle")),
            profiled,
        ],
        namespace,
    )
    cluster.wait_ready(namespace)
    load = "neuron-sim-load --utilization 63.5 --inject numerical=2 --tag job > /dev/null 2>&1 & echo $!"
    process = cluster.execute(namespace, "busy", "sh", "-c", load).strip()
    (seen,) = until(lambda: monitored(cluster, namespace, "busy"), what="neuron-monitor shows the load")
    assert (seen["pid"], seen["neuron_runtime_tag"]) == (int(process), "job")
    assert set(utilization(seen).values()) == {63.5}
    assert monitored(cluster, namespace, "idle") == []

    mine = (f'namespace="{namespace}"', 'pod="busy"')
    until(
        lambda: series(cluster, node, "neuroncore_utilization_ratio", *mine) == [0.635],
        what="the node's page shows the load, with its pod",
    )
    until(
        lambda: sum(series(cluster, node, "execution_errors_total", 'error_type="numerical"', *mine)) > 0,
        what="errors are counted",
    )
    assert not series(cluster, node, "neuroncore_utilization_ratio", 'pod="idle"')

    (shown,) = until(lambda: monitored(cluster, namespace, "profiled"), what="neuron-monitor shows the profile")
    assert shown["neuron_runtime_tag"] == "collective-bound"

    counted = sum(series(cluster, node, "execution_status_total", 'status_type="completed"', *mine))
    cluster.crash_agent(node)
    (again,) = until(
        lambda: series(cluster, node, "execution_status_total", 'status_type="completed"', *mine),
        what="the next agent hears of the load",
    )
    assert again >= counted, "counts do not go back with a restart of the agent"

    cluster.execute(namespace, "busy", "kill", "-9", process)
    until(lambda: not monitored(cluster, namespace, "busy"), what="neuron-monitor shows nobody")
    until(lambda: not series(cluster, node, "neuroncore_utilization_ratio", *mine), what="its series end")
