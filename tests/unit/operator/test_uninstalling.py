"""Uninstall refuses while devices are in use, and else leaves nothing behind."""

import pytest
from neuron_operator import crds, kube, names
from neuron_operator.hooks import definitions, uninstall


def claim(name="claim", *, driver=names.AWS_DRIVER_NAME, pods=("pod",)):
    reserved = [{"resource": "pods", "name": pod, "uid": pod} for pod in pods]
    results = [{"request": "r", "driver": driver, "pool": "worker", "device": "neuron-device-0"}]
    status = {"allocation": {"devices": {"results": results}}, "reservedFor": reserved}
    return {"metadata": {"name": name, "namespace": "team"}, "status": status}


def simulated_slice(name="worker-slice", driver=names.AWS_DRIVER_NAME):
    metadata = {"name": name, "labels": {names.LABEL_SIMULATED: "true"}}
    return {"metadata": metadata, "spec": {"driver": driver}}


@pytest.fixture
def said():
    return []


@pytest.fixture
def run(cluster, said):
    async def run(*, timeout=0.0):
        return await uninstall.uninstall(cluster, driver_name=names.AWS_DRIVER_NAME, timeout=timeout, say=said.append)

    return run


@pytest.mark.parametrize("driver", [names.AWS_DRIVER_NAME, names.EFA_DRIVER_NAME, names.ULTRASERVER_DRIVER_NAME])
async def test_it_refuses_with_the_list_of_pods_and_changes_nothing(cluster, pool, run, said, driver):
    cluster.put(kube.POOLS, pool())
    cluster.put(kube.CLAIMS, claim(driver=driver, pods=("a", "b")))
    assert await run() == 1
    assert "  team/a (claim)" in said
    assert "  team/b (claim)" in said
    assert cluster.writes == []


async def test_a_claim_whose_pod_is_just_gone_is_waited_for(cluster, run, monkeypatch):
    look = cluster.list

    async def list_and_free(resource, **query):
        found = await look(resource, **query)
        cluster.put(kube.CLAIMS, claim(pods=()))
        return found

    cluster.put(kube.CLAIMS, claim())
    monkeypatch.setattr(cluster, "list", list_and_free)
    monkeypatch.setattr(uninstall, "_POLL", 0.0)
    assert await run(timeout=5.0) == 0


@pytest.mark.parametrize("other", [{"driver": "gpu.example.com"}, {"pods": ()}])
async def test_claims_that_hold_nothing_of_ours_are_no_hindrance(cluster, run, other):
    cluster.put(kube.CLAIMS, claim(**other))
    assert await run() == 0


def test_claims_without_status_are_no_hindrance():
    assert uninstall.holders([{"metadata": {"name": "c", "namespace": "n"}}], driver_names=("x",)) == []


async def test_it_cleans_up_even_where_the_operator_does_not_run(cluster, node, pool, fault, settle, run, said):
    cluster.put(kube.NODES, node("worker"))
    cluster.put(kube.POOLS, pool())
    cluster.put(kube.FAULTS, fault("hot", "worker"))
    await settle(cluster)
    assert await run() == 0
    assert cluster.of(kube.POOLS) == cluster.of(kube.NEURON_NODES) == cluster.of(kube.FAULTS) == {}
    assert cluster.of(kube.NODES)["worker"]["metadata"]["labels"] == {}
    assert said[-1] == "nothing is left"


async def test_workloads_and_ultraservers_of_ours_go_and_no_others(cluster, run):
    mine = {"name": "mine", "namespace": "team", "finalizers": [names.FINALIZER_ULTRASERVERS]}
    cluster.put(kube.ULTRASERVER_WORKLOADS, {"metadata": mine})
    cluster.put(kube.ULTRASERVER_WORKLOADS, {"metadata": {"name": "theirs", "namespace": "team"}})
    made = {"name": "cr-1", "namespace": "sim", "labels": {names.LABEL_SIMULATED: "true"}}
    cluster.put(kube.ULTRASERVERS, {"metadata": made})
    cluster.put(kube.ULTRASERVERS, {"metadata": {"name": "theirs", "namespace": "aws"}})
    assert await run() == 0
    assert list(cluster.of(kube.ULTRASERVER_WORKLOADS)) == ["team/theirs"]
    assert list(cluster.of(kube.ULTRASERVERS)) == ["aws/theirs"]


async def test_it_can_be_run_again(cluster, run):
    assert await run() == 0
    assert await run() == 0


async def test_it_cleans_nodes_where_the_crds_are_gone_already(cluster, node, pool, settle, run):
    cluster.put(kube.NODES, node("worker"))
    cluster.put(kube.POOLS, pool())
    await settle(cluster)
    cluster.objects[kube.POOLS].clear()
    cluster.objects[kube.NEURON_NODES].clear()
    cluster.missing = {kube.POOLS, kube.NEURON_NODES, kube.FAULTS}
    assert await run() == 0
    assert cluster.of(kube.NODES)["worker"]["metadata"]["labels"] == {}


async def test_resources_of_our_own_device_plugin_that_the_kubelet_still_reports_keep_no_label(
    cluster, node, pool, settle, run
):
    cluster.put(kube.NODES, node("worker"))
    cluster.put(kube.POOLS, pool(resources="DevicePlugin"))
    await settle(cluster)
    served = cluster.of(kube.NODES)["worker"]
    served["status"]["allocatable"] = {"aws.amazon.com/neuron": "16"}
    cluster.put(kube.NODES, served)
    assert await run() == 0
    assert cluster.of(kube.NODES)["worker"]["metadata"]["labels"] == {}


def test_slices_that_no_agent_deletes_are_deleted_in_the_end(cluster, run, said, live):
    cluster.put(kube.SLICES, simulated_slice())
    cluster.put(kube.SLICES, simulated_slice("efa-slice", names.EFA_DRIVER_NAME))
    assert live(run(timeout=60)) == 0
    for name in ("worker-slice", "efa-slice"):
        assert any(name in line for line in said)
    assert cluster.of(kube.SLICES) == {}


async def test_it_gives_up_in_time_and_says_what_is_left(cluster, run, said):
    cluster.put(kube.SLICES, simulated_slice())
    assert await run(timeout=-1.0) == 1
    assert "1 ResourceSlices" in said[-1]


async def test_crds_of_aws_are_left_alone(cluster, said):
    name = "neuronultraservers.neuron.aws.com"
    cluster.put(kube.CRDS, {"metadata": {"name": name}, "spec": "theirs"})
    for manifest in crds.manifests():
        if manifest["metadata"]["name"] != name:
            conditions = {"conditions": [{"type": "Established", "status": "True"}]}
            cluster.put(kube.CRDS, {**manifest, "status": conditions})
    assert await definitions.delete(cluster, timeout=1, say=said.append) == 0
    assert list(cluster.of(kube.CRDS)) == [name]


async def test_crds_are_installed_and_deleted_and_both_again(cluster, said):
    for manifest in crds.manifests():
        status = {"conditions": [{"type": "Established", "status": "True"}]}
        cluster.put(kube.CRDS, {**manifest, "status": status})
    for _ in range(2):
        assert await definitions.install(cluster, timeout=1, say=said.append) == 0
    assert len(cluster.of(kube.CRDS)) == len(crds.manifests())
    for _ in range(2):
        assert await definitions.delete(cluster, timeout=1, say=said.append) == 0
    assert cluster.of(kube.CRDS) == {}
