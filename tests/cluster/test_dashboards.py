"""A real Prometheus scrapes the cluster: every query of every dashboard finds data, alerts fire, surfaces agree.

The server is the one that `make dashboards` starts, so that command is what is tested, too. What is broken is in
`drill`: every type of fault that takes a process, a link, a card or a driver, all at the same time.

The alerts are those of the chart in a copy that is in a hurry: without `for:`, and those of memory and latency, which
look back over half an hour, look back over twelve seconds. That they are patient is what promtool's unit tests
(tests/unit/monitoring) are for; here is seen that the expressions come true on a cluster where that has happened.
"""

import json
import re
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import drill
import pytest
import yaml
from grafana_queries import AWS, RULES, asked
from harness import CONTROL_PLANE, PLUGIN_DIR, REPOSITORY, SYSTEM, Cluster, Object, claim, pod, until

PROFILE = "neuron-sim.dev/activity-profile"
NO_ULTRASERVERS = "ultraserver:"
"""What stands on that dashboard: the nodes here are in none. The unit tests ask its queries."""
LOOK_BACK = ("NeuronMemoryLeak", "NeuronExecutionSlow")
"""Alerts that compare with what was, many minutes ago."""
FASTER = 150
REGISTRY = "/var/lib/kubelet/plugins_registry"


class Prometheus:
    """Its HTTP API."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._began = time.monotonic()

    def query(self, expr: str) -> list[dict[str, Any]]:
        """The series of an instant query."""
        url = f"{self._address}/api/v1/query?{urllib.parse.urlencode({'query': expr})}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return list(json.load(answer)["data"]["result"])

    def alert(self, name: str, **labels: str) -> bool:
        """Whether it fires."""
        return bool(self.query(f"ALERTS{{{_matchers(name, labels)}}}"))

    def fired(self, name: str, **labels: str) -> bool:
        """Whether it fires, or did since the begin: some conditions last for seconds."""
        since = int(time.monotonic() - self._began) + 1
        return bool(self.query(f"last_over_time(ALERTS{{{_matchers(name, labels)}}}[{since}s])"))


def _matchers(name: str, labels: dict[str, str]) -> str:
    wanted = {"alertname": name, "alertstate": "firing", **labels}
    return ", ".join(f'{key}="{value}"' for key, value in wanted.items())


def in_a_hurry(rules: Object) -> Object:
    """The rules as this test has the time for."""
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule.pop("for", None)
            if rule.get("alert") in LOOK_BACK:
                rule["expr"] = re.sub(r"\b(\d+)m\b", lambda found: f"{int(found[1]) * 60 // FASTER}s", rule["expr"])
    return rules


@pytest.fixture
def prometheus(cluster: Cluster, tmp_path: Path) -> Iterator[Prometheus]:
    rules = tmp_path / "rules.yaml"
    rules.write_text(yaml.safe_dump(in_a_hurry(yaml.safe_load(RULES.read_text()))))
    command = [str(REPOSITORY / "hack/dashboards"), "--name", cluster.name, "--port", "0", "--interval", "1s"]
    # what an earlier run saw a minute ago would look alive
    command += ["--rules", str(rules), "--dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        found = re.match(r"Prometheus: (http://\S+) ", process.stdout.readline())
        try:
            assert found, "hack/dashboards says where it is"
            yield Prometheus(found[1])
        finally:
            process.terminate()
            process.stdout.read()


@contextmanager
def without_operator(cluster: Cluster) -> Iterator[None]:
    """No replica of the operator runs for a while."""
    scale = ("scale", "deployment", "neuron-sim-operator", "-n", SYSTEM)
    cluster.kubectl(*scale, "--replicas=0")
    try:
        yield
    finally:
        cluster.kubectl(*scale, "--replicas=2")
        cluster.kubectl("rollout", "status", "-n", SYSTEM, "deployment/neuron-sim-operator", "--timeout=120s")


@contextmanager
def paused(cluster: Cluster, component: str) -> Iterator[str]:
    """The only pod of a component does nothing for a while, not even answer; its name."""
    (found,) = cluster.items("pods", "-n", SYSTEM, "-l", f"app.kubernetes.io/component={component}")
    node, process = found["spec"]["nodeName"], cluster.process(found)
    cluster.on_node(node, "kill", "-STOP", process)
    try:
        yield found["metadata"]["name"]
    finally:
        cluster.on_node(node, "kill", "-CONT", process)


@contextmanager
def unregistered(cluster: Cluster, node: str) -> Iterator[None]:
    """The agent has begun anew, and its kubelet does not look where it registers; mend it by another agent's pod."""
    cluster.on_node(node, "mount", "-t", "tmpfs", "none", REGISTRY)
    try:
        cluster.on_node(node, "kill", "-9", cluster.process(cluster.agent(node)))
        yield
    finally:
        cluster.on_node(node, "umount", "--lazy", REGISTRY)


@contextmanager
def without_rights(cluster: Cluster, pool: str) -> Iterator[None]:
    """Nobody may write a pool's status for a while."""
    version, kind = "admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy"
    rule = {"apiGroups": ["neuron-sim.dev"], "apiVersions": ["*"], "operations": ["UPDATE"]}
    spec = {
        "matchConstraints": {"resourceRules": [{**rule, "resources": ["neuronnodepools/status"]}]},
        "matchConditions": [{"name": "this-pool", "expression": f"object.metadata.name == '{pool}'"}],
        "validations": [{"expression": "false"}],
    }
    bound = {"policyName": pool, "validationActions": ["Deny"]}
    cluster.apply(
        [
            {"apiVersion": version, "kind": kind, "metadata": {"name": pool}, "spec": spec},
            {"apiVersion": version, "kind": f"{kind}Binding", "metadata": {"name": pool}, "spec": bound},
        ]
    )
    try:
        patch = ("patch", "neuronnodepool", pool, "--subresource=status", "--type=merge", "--dry-run=server")
        until(
            lambda: "denied" in cluster.kubectl(*patch, "-p", '{"status":{"nodes":7}}', check=False),
            what="the pool's status cannot be written",
        )
        yield
    finally:
        cluster.kubectl("delete", f"{kind}Binding,{kind}", pool, "--wait=false")


def refused(name: str, node: str) -> list[Object]:
    """A pod whose claim cannot be prepared."""
    wrong = claim(name)
    parameters = {"apiVersion": "neuron.aws.com/v1", "kind": "NeuronConfig", "logicalNeuronCore": 3}
    wrong["spec"]["devices"]["config"] = [{"opaque": {"driver": "neuron.aws.com", "parameters": parameters}}]
    return [wrong, pod(name, claim=name, node=node)]


def of_a_gang(name: str) -> Object:
    """The first pod of a gang that no fleet has room for."""
    found = pod(name, chips=16)
    found["metadata"]["labels"] = {"neuron-sim.dev/gang": name, "neuron-sim.dev/gang-size": "1000"}
    return found


def virtual_pool(name: str) -> Object:
    """A server of an UltraServer that lacks all others."""
    return {
        "apiVersion": "neuron-sim.dev/v1alpha1",
        "kind": "NeuronNodePool",
        "metadata": {"name": name},
        "spec": {"instanceType": "trn2u.48xlarge", "count": 1},
    }


def real(name: str) -> Object:
    """A node with chips that are not simulated."""
    labels = {"feature.node.kubernetes.io/aws-neuron": "true"}
    taint = {"key": CONTROL_PLANE, "effect": "NoSchedule"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": {"taints": [taint]},
    }


@pytest.mark.timeout(600)
def test_what_breaks_shows_on_dashboards_in_alerts_and_everywhere(
    cluster: Cluster, namespace: str, node: str, prometheus: Prometheus
) -> None:
    (other,) = set(cluster.workers()) - {node}
    seen: set[str] = set()

    def see(name: str, **labels: str) -> None:
        until(lambda: prometheus.fired(name, **labels), what=f"{name} fires for {labels}")
        seen.add(name)

    ours = "app.kubernetes.io/component in (agent, operator, virtual-agent)"
    running = [p for p in cluster.items("pods", "-n", SYSTEM, "-l", ours) if p["status"]["phase"] == "Running"]
    until(
        lambda: len(prometheus.query('up{job="neuron-sim"} == 1')) == len(running), what="agents and operator scraped"
    )

    # nothing runs yet on what is given, and there is much that cannot be given
    cluster.on_node(node, "sh", "-c", f"flock {PLUGIN_DIR} sleep 6 > /dev/null 2>&1 &")  # while pods start there
    objects = drill.objects(node, other, plain="profiled")
    objects[-1]["metadata"]["annotations"] = {PROFILE: "inference"}
    cluster.apply([*objects, claim("failing"), pod("failing", claim="failing", node=node)], namespace)
    cluster.apply([*refused("refused", node), of_a_gang("waits")], namespace)
    away, pool = real(f"real-{namespace}"), virtual_pool(f"lonely-{namespace}")
    try:
        with ExitStack() as refusals:
            with paused(cluster, "virtual-agent") as silent_pod:
                cluster.apply(pool)
                see("NeuronSimTargetDown", pod=silent_pod)
                see("NeuronSimPoolNotReady", pool=pool["metadata"]["name"])
                see("NeuronUltraServerDegraded")
                refusals.enter_context(without_rights(cluster, pool["metadata"]["name"]))
            # the node is served now, and nobody may say so
            see("NeuronSimReconcileErrors")
        broken = drill.ready(cluster, namespace, node, other, plain="profiled")
        cluster.wait_ready(namespace, "failing")
        see("NeuronDevicesIdle", node=node)
        see("NeuronSimPrepareErrors", node=node)
        see("NeuronSimPrepareSlow", node=node)
        see("NeuronGangWaits")

        broken.start()
        cluster.execute(namespace, "failing", "sh", "-c", "neuron-sim-load --inject hardware=2 > /dev/null 2>&1 &")
        for name, where in (("profiled", other), ("failing", node), ("drilled", node)):
            series = f'neuroncore_utilization_ratio{{namespace="{namespace}", pod="{name}", node="{where}"}} > 0'
            until(lambda series=series: prometheus.query(series), what=series)
        latency = f'namespace_pod:neuron_execution_latency_seconds:p50{{namespace="{namespace}", pod="drilled"}}'
        until(
            lambda: prometheus.query(f"count_over_time({latency}[1m]) >= {600 // FASTER}"),
            what="a past for the alert on latency to compare with",
        )
        assert not prometheus.fired("NeuronHardwareErrors", namespace=namespace, pod="drilled")
        cluster.apply(away)
        see("NeuronSimRealNeuronFound")
    finally:
        cluster.delete("node", away["metadata"]["name"], "--ignore-not-found")
        cluster.delete("neuronnodepool", pool["metadata"]["name"], "--ignore-not-found")

    faults = broken.faults()
    cluster.apply(faults)
    try:
        for fault in faults:
            see("NeuronFaultActive", fault=fault["metadata"]["name"], node=fault["spec"]["target"]["nodeName"])
        see("NeuronDeviceUnhealthy", node=node)
        see("NeuronDeviceMissing", node=other)
        see("NeuronDeviceUncorrectedECC", node=node, neuron_device_index="0")
        for chip in (broken.chips["hot"], broken.chips["leaking"]):
            see("NeuronDeviceCorrectedECC", node=node, neuron_device_index=str(chip))
        drilled = {"namespace": namespace, "pod": "drilled"}
        for name in ("HardwareErrors", "ExecutionErrors", "ExecutionHang", "ExecutionSlow", "MemoryLeak"):
            see(f"Neuron{name}", **drilled)
        see("NeuronHardwareErrors", namespace=namespace, pod="failing")
        broken.everywhere()

        silent = {*AWS, *(expr for place, expr in asked() if not place.startswith(NO_ULTRASERVERS))}

        def answered() -> bool:
            silent.difference_update([expr for expr in silent if prometheus.query(expr)])
            return not silent

        until(answered, what="every query of every dashboard finds data", details=lambda: sorted(silent))
    finally:
        cluster.delete("neuronfaults", *(fault["metadata"]["name"] for fault in faults), "--ignore-not-found")
    until(lambda: not prometheus.alert("NeuronDeviceUnhealthy", node=node), what="the alert gone with the faults")
    broken.healed()
    cluster.wait_nodes()

    with without_operator(cluster):
        with unregistered(cluster, other):
            see("NeuronSimDriverNotRegistered", node=other)
        cluster.on_node(other, "sh", "-c", f"echo damaged > {PLUGIN_DIR}/checkpoint.jsonl")
        cluster.crash_agent(other)
        see("NeuronSimNoLeader")
        see("NeuronSimCheckpointQuarantined", node=other)
    cluster.on_node(other, "sh", "-c", f"rm {PLUGIN_DIR}/checkpoint.jsonl.*")
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    assert seen == {rule["alert"] for rule in rules if "alert" in rule}
