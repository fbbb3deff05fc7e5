"""One NeuronFault, and node, exporter, tools and runtime tell the same; then it ends, and they recover as real ones do.

What Kubernetes shows of it in slices, claims and pods is in test_health.
"""

import json
import re
import sys
from pathlib import Path

import pytest
import yaml
from harness import REPOSITORY, SYSTEM, Cluster, Failed, Object, claim, condition, pod, until

CHIPS = "neuron-device.neuron-sim.dev"
COMMAND = Path(sys.executable).parent / "neuron-sim"


def series(cluster: Cluster, node: str, name: str, *parts: str) -> list[float]:
    """The values of a family's samples on the node's page for Prometheus that have these labels."""
    agent = cluster.agent(node)["metadata"]["name"]
    page = cluster.kubectl("get", "--raw", f"/api/v1/namespaces/{SYSTEM}/pods/{agent}:8000/proxy/metrics")
    return [
        float(line.rpartition(" ")[2])
        for line in page.splitlines()
        if line.startswith(f"{name}{{") and all(part in line for part in parts)
    ]


def reason(cluster: Cluster, node: str, kind: str) -> tuple[str, str]:
    """Status and reason of a condition of the node."""
    found = cluster.get("node", node)["status"]["conditions"]
    (one,) = [(c["status"], c["reason"]) for c in found if c["type"] == kind] or [("", "")]
    return one


def both(cluster: Cluster, node: str) -> list[tuple[str, str]]:
    return [reason(cluster, node, kind) for kind in ("NeuronHealth", "AcceleratedHardwareReady")]


def neuron_sim(cluster: Cluster, *words: str) -> str:
    return cluster.run([str(COMMAND), *words], env=cluster.environment)


def hardware_errors(cluster: Cluster, namespace: str, name: str) -> int:
    """What neuron-monitor's second record counts."""
    config = json.dumps({"period": "1s", "neuron_runtimes": [{"metrics": [{"type": "execution_stats"}]}]})
    script = f"echo '{config}' > /tmp/c; neuron-monitor -c /tmp/c | head -n 2"
    lines = cluster.execute(namespace, name, "sh", "-c", script).splitlines()
    found = json.loads(lines[1])["neuron_runtime_data"]
    return sum(one["report"]["execution_stats"]["error_summary"]["hardware"] for one in found)


def in_sysfs(cluster: Cluster, namespace: str, name: str) -> int:
    """The uncorrected ECC events of memory that the driver's files count, of all of a pod's chips."""
    below = "/tmp/sys/devices/virtual/neuron_device/neuron*/stats/hardware/mem_ecc_uncorrected"
    counts = cluster.execute(namespace, name, "sh", "-c", f"neuron-sim-sysfs --once /tmp/sys && cat {below}")
    return sum(map(int, counts.split()))


WELL = [("False", "NeuronHasNoError"), ("True", "NeuronAcceleratedHardwareIsReady")]
BROKEN = [("True", "NeuronHasError_HBM_UNCORRECTABLE_ERROR"), ("False", "NeuronHBMUncorrectableError")]


def test_a_chip_that_breaks_is_told_everywhere_until_it_is_whole(cluster: Cluster, namespace: str, node: str) -> None:
    cluster.apply([claim("two", 2, deviceClassName=CHIPS), pod("p", claim="two", node=node)], namespace)
    cluster.wait_ready(namespace, "p")
    until(lambda: both(cluster, node) == WELL, what="the node says that it is well")
    held = cluster.get("resourceclaim", "-n", namespace, "two")["status"]["allocation"]["devices"]["results"]
    chip = min(int(result["device"].rpartition("-")[2]) for result in held)
    # numbered as in the container
    cluster.execute(namespace, "p", "sh", "-c", "neuron-sim-load --tag job > /dev/null 2> /tmp/said &")
    mine = (f'namespace="{namespace}"', 'runtime_tag="job"')
    done = ("execution_status_total", 'status_type="completed"', *mine)
    until(lambda: sum(series(cluster, node, *done)) > 0, what="it works")
    ecc = ("hardware_ecc_events_total", f'neuron_device_index="{chip}"', 'event_type="mem_ecc_uncorrected"')
    before = series(cluster, node, *ecc)
    files = in_sysfs(cluster, namespace, "p")

    broken: Object = {
        "apiVersion": "neuron-sim.dev/v1alpha1",
        "kind": "NeuronFault",
        "metadata": {"name": "one-yaml"},
        "spec": {"target": {"nodeName": node, "chip": chip}, "type": "HBMUncorrectable"},
    }
    cluster.apply(broken)
    try:
        until(lambda: both(cluster, node) == BROKEN, what="both conditions", details=lambda: both(cluster, node))
        events = ("events", "-n", "default", f"--field-selector=involvedObject.name={node},reason={BROKEN[0][1]}")
        until(lambda: cluster.items(*events), what="an Event on the node")
        until(lambda: series(cluster, node, *ecc) == [before[0] + 1], what="an ECC event on the node's page")
        assert series(cluster, node, "neuron_sim_fault_active", 'fault="one-yaml"') == [1]
        errors = ("execution_errors_total", 'error_type="hardware"', *mine)
        until(lambda: sum(series(cluster, node, *errors)) > 0, what="failed executions on the node's page")
        until(lambda: hardware_errors(cluster, namespace, "p") > 0, what="failed executions in neuron-monitor")
        assert in_sysfs(cluster, namespace, "p") == files + 1
        said = until(lambda: cluster.execute(namespace, "p", "cat", "/tmp/said"), what="the runtime's words")
        assert "Uncorrectable HBM memory error is detected" in said
        assert "NRT_EXEC_HW_ERR_HBM_UE(1201)" in said
        cluster.crash_agent(node)
        until(lambda: series(cluster, node, *ecc) == [before[0] + 1], what="the next agent counts the same")
    finally:
        cluster.delete("neuronfault", "one-yaml")
    until(lambda: both(cluster, node) == WELL, what="the node is well again")
    failed = sum(series(cluster, node, *errors))
    worked = sum(series(cluster, node, *done))
    until(lambda: sum(series(cluster, node, *done)) > worked, what="it works again")
    assert series(cluster, node, *ecc) == [before[0] + 1], "counters never go back"
    assert sum(series(cluster, node, *errors)) >= failed > 0
    until(lambda: not series(cluster, node, "neuron_sim_fault_active"), what="no fault on the page")


def test_a_replayed_day_takes_a_chip_away_and_gives_it_back(
    cluster: Cluster, namespace: str, node: str, tmp_path: Path
) -> None:
    """The scenario names the pod's chip; its times are seconds, and nobody has to heal it."""
    cluster.apply([claim("two", 2, deviceClassName=CHIPS), pod("p", claim="two", node=node)], namespace)
    cluster.wait_ready(namespace, "p")
    held = cluster.get("resourceclaim", "-n", namespace, "two")["status"]["allocation"]["devices"]["results"]
    chip = min(int(result["device"].rpartition("-")[2]) for result in held)
    scenario = tmp_path / "day.yaml"
    lost = {"type": "DeviceLost", "at": "0s", "for": "20m", "node": node, "chip": chip, "effect": "None"}
    scenario.write_text(json.dumps({"name": "day", "length": "1h", "faults": [lost]}))
    planned = neuron_sim(cluster, "fault", "replay", str(scenario), "--dry-run", "--speed", "80")
    assert planned == neuron_sim(cluster, "fault", "replay", str(scenario), "--dry-run", "--speed", "80")
    assert f"00:00:00  00:00:15  DeviceLost  {node}" in planned
    neuron_sim(cluster, "fault", "replay", str(scenario), "--speed", "80")
    try:
        until(lambda: len(cluster.neuron_ls(namespace, "p")) == 1, what="neuron-ls without the chip")
        refused = cluster.kubectl("exec", "-n", namespace, "p", "--", "neuron-sim-exec", "true", check=False)
        assert re.search(r"TDRV:tdrv_init_mla_phase1 +Could not open the nd[01]", refused)
        assert series(cluster, node, "neuron_hardware_info", 'neuron_device_count="15"') == [1]
        until(lambda: len(cluster.neuron_ls(namespace, "p")) == 2, what="the chip back, by its schedule")
        cluster.execute(namespace, "p", "neuron-sim-exec", "true")
        (fault,) = cluster.items("neuronfaults")
        assert condition(fault, "Active") == "False"
    finally:
        deleted = neuron_sim(cluster, "fault", "delete", "--scenario", "day")
    assert "day-000-device-lost deleted" in deleted
    until(lambda: series(cluster, node, "neuron_hardware_info", 'neuron_device_count="16"'), what="all chips")


def test_the_examples_are_accepted_for_any_node(cluster: Cluster, node: str) -> None:
    """By the API server and by the operator; and a schedule that makes no sense is refused at once."""
    found = [
        yaml.safe_load(path.read_text()) for path in sorted((REPOSITORY / "manifests/examples/faults").glob("*.yaml"))
    ]
    for fault in found:
        fault["spec"]["target"]["nodeName"] = node

    def reasons() -> set[str]:
        conditions = [fault.get("status", {}).get("conditions", []) for fault in cluster.items("neuronfaults")]
        return {c["reason"] for one in conditions for c in one} if all(conditions) else set()

    cluster.apply(found)
    try:
        until(lambda: reasons() == {"FaultActive", "Scheduled"}, what="one active, two to come", details=reasons)
    finally:
        neuron_sim(cluster, "fault", "delete", "--all")
    wrong = {**found[0], "spec": {**found[0]["spec"], "schedule": {"duration": "1m", "repeatEvery": "30s"}}}
    with pytest.raises(Failed, match=r"repeatEvery needs a duration that is shorter"):
        cluster.apply(wrong)
    wrong = {**found[0], "spec": {**found[0]["spec"], "type": "LinkDown"}}
    with pytest.raises(Failed, match=r"target\.peer is the other end of a link"):
        cluster.apply(wrong)
