"""The conditions and Events that AWS's node problem detector and EKS's node monitoring agent would write."""

import re

import pytest
from neuron_device_model import identity
from neuron_operator import kube


def conditions(cluster, node="worker"):
    found = cluster.of(kube.NODES)[node].get("status", {}).get("conditions", [])
    return {one["type"]: (one["status"], one["reason"], one["message"]) for one in found}


def events(cluster):
    found = [e for e in cluster.of(kube.EVENTS).values() if e["regarding"]["kind"] == "Node"]
    return sorted((e["reportingController"], e["type"], e["reason"]) for e in found)


WELL = {
    "AcceleratedHardwareReady": (
        "True",
        "NeuronAcceleratedHardwareIsReady",
        "Monitoring for the Neuron AcceleratedHardware system is active",
    ),
    "NeuronHealth": ("False", "NeuronHasNoError", "Neuron has no error"),
}


@pytest.fixture
async def worker(cluster, node, pool, settle):
    cluster.put(kube.NODES, node("worker"))
    cluster.put(kube.NODES, node("other", labels={"plain": "yes"}))
    cluster.put(kube.POOLS, pool(nodeSelector={"matchExpressions": [{"key": "plain", "operator": "DoesNotExist"}]}))
    await settle(cluster)


@pytest.mark.usefixtures("worker")
async def test_a_healthy_neuron_node_says_so_and_others_say_nothing(cluster):
    assert conditions(cluster) == WELL
    assert conditions(cluster, "other") == {}
    assert events(cluster) == []


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(
    ("kind", "error", "reason", "message"),
    [
        ("SRAMUncorrectable", "SRAM_UNCORRECTABLE_ERROR", "NeuronSRAMUncorrectableError", "SRAM Uncorrectable Error"),
        ("NCUncorrectable", "NC_UNCORRECTABLE_ERROR", "NeuronNCUncorrectableError", "NC Uncorrectable Error"),
        ("HBMUncorrectable", "HBM_UNCORRECTABLE_ERROR", "NeuronHBMUncorrectableError", "HBM Uncorrectable Error"),
        ("DMAError", "DMA_ERROR", "NeuronDMAError", "DMA Error"),
    ],
)
async def test_a_hardware_error_is_told_as_both_would_and_taken_back(
    cluster, fault, settle, kind, error, reason, message
):
    cluster.put(kube.FAULTS, fault("hot", "worker", chip=3, core=1, type=kind))
    await settle(cluster)
    found = conditions(cluster)
    assert found["AcceleratedHardwareReady"] == ("False", reason, f"Discovered {message}")
    status, npd, line = found["NeuronHealth"]
    assert (status, npd) == ("True", f"NeuronHasError_{error}")
    # the detector's own pattern
    assert re.fullmatch(f".* NEURON_HW_ERR={error} .*", line)
    instance = cluster.of(kube.NEURON_NODES)["worker"]["spec"]["instanceID"]
    assert f"instance-id={instance} hostname=worker nd-id=3 nc-id=1" in line
    assert f"serial-num={identity.serial_number(instance, 3):016x}" in line
    assert events(cluster) == [("kernel-monitor", "Warning", npd)]

    cluster.drop(kube.FAULTS, "hot")
    await settle(cluster)
    assert conditions(cluster) == WELL
    assert events(cluster) == [("kernel-monitor", "Normal", "NeuronHasNoError"), ("kernel-monitor", "Warning", npd)]


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("kind", ["HBMCorrectable", "ThermalThrottle", "DeviceLost"])
async def test_what_the_driver_tells_no_kernel_message_of_is_in_no_condition(cluster, fault, settle, kind):
    cluster.put(kube.FAULTS, fault("hot", "worker", chip=3, type=kind))
    await settle(cluster)
    assert conditions(cluster) == WELL


@pytest.mark.usefixtures("worker")
async def test_the_last_of_several_errors_is_the_reason(cluster, fault, settle):
    cluster.put(kube.FAULTS, fault("a", "worker", chip=3, type="DMAError", created="2026-02-01T00:00:00Z"))
    cluster.put(kube.FAULTS, fault("b", "worker", chip=3, type="HBMUncorrectable"))
    await settle(cluster)
    found = conditions(cluster)
    assert found["NeuronHealth"][1] == "NeuronHasError_DMA_ERROR"
    both = "Discovered HBM Uncorrectable Error; Discovered DMA Error"
    assert found["AcceleratedHardwareReady"] == ("False", "NeuronDMAError", both)


@pytest.mark.usefixtures("worker")
async def test_a_hang_is_for_the_detector_only(cluster, fault, settle):
    cluster.put(kube.FAULTS, fault("stuck", "worker", chip=3, type="Hang"))
    await settle(cluster)
    found = conditions(cluster)
    assert found["NeuronHealth"][1] == "NeuronHasError_HANG_ON_COLLECTIVES"
    assert found["AcceleratedHardwareReady"] == WELL["AcceleratedHardwareReady"]


@pytest.mark.usefixtures("worker")
async def test_a_node_that_leaves_its_pool_keeps_no_such_condition(cluster, settle):
    cluster.drop(kube.POOLS, "default")
    await settle(cluster)
    assert conditions(cluster) == {}


@pytest.mark.usefixtures("worker")
async def test_conditions_of_others_stay(cluster, fault, settle):
    worker = cluster.of(kube.NODES)["worker"]
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": ""}
    status = {**worker["status"], "conditions": [*worker["status"]["conditions"], ready]}
    cluster.put(kube.NODES, {**worker, "status": status})
    cluster.put(kube.FAULTS, fault("hot", "worker", chip=3))
    await settle(cluster)
    assert conditions(cluster)["Ready"] == ("True", "KubeletReady", "")
