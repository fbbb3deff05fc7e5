"""A real Prometheus scrapes the cluster: every query of every dashboard finds data, and alerts see what was broken.

The server is the one that `make dashboards` starts, so that command is what is tested, too.
"""

import json
import re
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from grafana_queries import AWS, asked
from harness import REPOSITORY, SYSTEM, Cluster, claim, pod, until

PROFILE = "neuron-sim.dev/activity-profile"
NO_ULTRASERVERS = "ultraserver:"
"""What stands on that dashboard: the nodes here are in none. The unit tests ask its queries."""


class Prometheus:
    """Its HTTP API."""

    def __init__(self, address: str) -> None:
        self._address = address

    def query(self, expr: str) -> list[dict[str, Any]]:
        """The series of an instant query."""
        url = f"{self._address}/api/v1/query?{urllib.parse.urlencode({'query': expr})}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return list(json.load(answer)["data"]["result"])

    def alert(self, name: str, **labels: str) -> bool:
        """Whether its condition is met; whether it fires already is a matter of its patience."""
        asked = ", ".join(f'{key}="{value}"' for key, value in {"alertname": name, **labels}.items())
        return bool(self.query(f"ALERTS{{{asked}}}"))


@pytest.fixture
def prometheus(cluster: Cluster) -> Iterator[Prometheus]:
    command = [str(REPOSITORY / "hack/dashboards"), "--name", cluster.name, "--port", "0", "--interval", "1s"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        found = re.match(r"Prometheus: (http://\S+) ", process.stdout.readline())
        try:
            assert found, "hack/dashboards says where it is"
            yield Prometheus(found[1])
        finally:
            process.terminate()
            process.stdout.read()


def test_dashboards_fill_and_alerts_see_what_was_broken(
    cluster: Cluster, namespace: str, node: str, prometheus: Prometheus
) -> None:
    profiled = pod("profiled", claim="profiled", node=node)
    profiled["metadata"]["annotations"] = {PROFILE: "inference"}
    cluster.apply(
        [*(claim(name) for name in ("profiled", "failing")), profiled, pod("failing", claim="failing", node=node)],
        namespace,
    )
    ours = "app.kubernetes.io/component in (agent, operator, virtual-agent)"
    running = [p for p in cluster.items("pods", "-n", SYSTEM, "-l", ours) if p["status"]["phase"] == "Running"]
    until(
        lambda: len(prometheus.query('up{job="neuron-sim"} == 1')) == len(running), what="agents and operator scraped"
    )
    cluster.wait_ready(namespace)
    cluster.execute(namespace, "failing", "sh", "-c", "neuron-sim-load --inject hardware=2 > /dev/null 2>&1 &")
    # of a chip that nobody has: whole chips are given from the other end
    broken = {
        "apiVersion": "neuron-sim.dev/v1alpha1",
        "kind": "NeuronFault",
        "metadata": {"name": f"drill-{namespace}"},
        "spec": {"target": {"nodeName": node, "chip": 0}, "type": "HBMUncorrectable"},
    }
    cluster.apply(broken)
    try:
        for name in ("profiled", "failing"):
            series = f'neuroncore_utilization_ratio{{namespace="{namespace}", pod="{name}", node="{node}"}} > 0'
            until(lambda series=series: prometheus.query(series), what=series)
        until(lambda: prometheus.alert("NeuronDeviceUnhealthy", node=node), what="the broken chip in an alert")
        fires = {"node": node, "alertstate": "firing"}
        until(
            lambda: prometheus.alert("NeuronFaultActive", fault=broken["metadata"]["name"], **fires),
            what="the fault in an alert that fires",
        )
        until(
            lambda: prometheus.alert("NeuronDeviceUncorrectedECC", neuron_device_index="0", **fires),
            what="its ECC event in an alert that fires",
        )
        until(
            lambda: prometheus.alert("NeuronHardwareErrors", namespace=namespace, pod="failing"),
            what="failing executions in an alert",
        )
        assert not prometheus.alert("NeuronHardwareErrors", namespace=namespace, pod="profiled")

        silent = {*AWS, *(expr for place, expr in asked() if not place.startswith(NO_ULTRASERVERS))}

        def answered() -> bool:
            silent.difference_update([expr for expr in silent if prometheus.query(expr)])
            return not silent

        until(answered, what="every query of every dashboard finds data", details=lambda: sorted(silent))
    finally:
        cluster.delete("neuronfault", broken["metadata"]["name"])
    until(lambda: not prometheus.alert("NeuronDeviceUnhealthy", node=node), what="the alert gone with the fault")
    cluster.wait_nodes()
