"""AWS's UltraServer operator, served: nodes of UltraServers for workloads, and what becomes of their pods.

Both workers are the first two servers of one UltraServer; its other two are missing, so that sets of two are the
largest. The operator releases a node only when its pods are gone, so every test ends with an UltraServer that is free.
"""

from collections.abc import Iterator

import pytest
from harness import REPOSITORY, SYSTEM, Cluster, Failed, Object, claim_template, condition, pod, until

EXAMPLE = REPOSITORY / "manifests/examples/ultraserver-workload"
WORKLOAD = "neuronultraserverworkload"
NAME = "my-training-job"


@pytest.fixture(scope="module")
def ultraserver(cluster: Cluster) -> Iterator[None]:
    """A pool of UltraServer nodes with both workers in it, instead of the chart's."""
    with cluster.without_default_pool():
        cluster.apply(
            {
                "apiVersion": "neuron-sim.dev/v1alpha1",
                "kind": "NeuronNodePool",
                "metadata": {"name": "ultraserver"},
                "spec": {"instanceType": "trn2u.48xlarge", "devices": "node", "partitions": "none"},
            }
        )
        cluster.wait_nodes()
        yield


@pytest.fixture
def team(cluster: Cluster, ultraserver: None, namespace: str) -> Iterator[str]:
    """A namespace; its Deployments and workloads are gone before its pods are waited for."""
    try:
        yield namespace
    finally:
        cluster.delete("deployments", "--all", "-n", namespace, "--timeout=60s")
        cluster.delete(f"{WORKLOAD}s", "--all", "-n", namespace, "--timeout=120s")
        until(lambda: not tags(cluster), what="no node with a workload id", details=lambda: tags(cluster))


def tags(cluster: Cluster) -> dict[str, str]:
    """The workload ids that devices carry, by node."""
    return {
        found["spec"]["nodeName"]: device["attributes"]["workloadId"]["string"]
        for found in cluster.slices()
        for device in found["spec"].get("devices", [])
        if "workloadId" in device["attributes"]
    }


def state(cluster: Cluster, namespace: str, name: str = NAME) -> str:
    return str(cluster.get(WORKLOAD, name, "-n", namespace).get("status", {}).get("state", ""))


def reason(cluster: Cluster, namespace: str, name: str = NAME) -> str:
    conditions = cluster.get(WORKLOAD, name, "-n", namespace).get("status", {}).get("conditions", [{}])
    return str(conditions[0].get("reason", ""))


def allocated(cluster: Cluster, namespace: str) -> Object:
    """The example's workload, once it has its nodes."""
    cluster.apply((EXAMPLE / "workload.yaml").read_text(), namespace)
    until(
        lambda: state(cluster, namespace) == "Allocated",
        what="the workload Allocated",
        details=lambda: cluster.get(WORKLOAD, NAME, "-n", namespace).get("status"),
    )
    return cluster.get(WORKLOAD, NAME, "-n", namespace)


def running(cluster: Cluster, namespace: str) -> list[Object]:
    """The example's pods, once both run."""
    cluster.apply((EXAMPLE / "pods.yaml").read_text(), namespace)
    cluster.kubectl("rollout", "status", "-n", namespace, f"deployment/{NAME}", "--timeout=120s")
    return [one for one in cluster.items("pods", "-n", namespace) if "deletionTimestamp" not in one["metadata"]]


def workload(name: str, size: int, **more: object) -> Object:
    spec = {"instanceType": "trn2u.48xlarge", "topologySize": size, "serverCount": 1, **more}
    return {
        "apiVersion": "neuron.aws.com/v1",
        "kind": "NeuronUltraServerWorkload",
        "metadata": {"name": name},
        "spec": spec,
    }


def the_table(cluster: Cluster) -> Object:
    """The NeuronUltraServer with both workers and a status, which the operator writes every few seconds."""
    workers = cluster.workers()

    def complete() -> Object:
        tables = cluster.items("neuronultraservers", "-n", SYSTEM)
        if len(tables) != 1 or [node["name"] for node in tables[0]["spec"]["nodes"]] != workers:
            return {}
        return tables[0] if "availableConfigurations" in tables[0].get("status", {}) else {}

    return until(complete, what="one NeuronUltraServer, of both workers, with its status")


def test_the_ultraserver_is_an_object(cluster: Cluster, ultraserver: None) -> None:
    def available() -> Object:
        return dict(the_table(cluster)["status"]["availableConfigurations"])

    free = {"oneNode": 2, "twoNodes": 1, "fourNodes": 0}
    until(lambda: available() == free, what="both nodes free", details=available)
    table = the_table(cluster)
    assert table["status"]["state"] == "Degraded", "two of its servers are not there"
    attributes = cluster.devices(cluster.workers()[0], "neuron_node")[0]["attributes"]
    assert table["metadata"]["name"] == attributes["ultraserverId"]["string"]
    assert "Degraded" in cluster.kubectl("get", "neuronultraserver", "-n", SYSTEM)


def test_example(cluster: Cluster, team: str) -> None:
    found = allocated(cluster, team)
    assert found["status"]["workloadId"] == NAME
    assert found["status"]["totalNodesAllocated"] == 2
    until(lambda: tags(cluster) == dict.fromkeys(cluster.workers(), NAME), what="both nodes' devices carry the id")
    assert found["status"]["allocatedUltraServers"] == [the_table(cluster)["metadata"]["name"]]

    def owners() -> list[str]:
        return [each["workloadRef"] for each in the_table(cluster)["status"].get("allocations", [])]

    until(lambda: owners() == [f"{team}/{NAME}"], what="the UltraServer says who has it", details=owners)

    pods = running(cluster, team)
    assert sorted(one["spec"]["nodeName"] for one in pods) == cluster.workers()
    for one in pods:
        name = one["metadata"]["name"]
        assert len(cluster.neuron_ls(team, name)) == 16
        assert "NEURON_RT_ULTRASERVER_MODE=2" in cluster.execute(team, name, "env")

    cluster.delete(WORKLOAD, NAME, "-n", team, "--timeout=120s")
    assert not cluster.get("resourceclaimtemplate", f"{NAME}-rct", "-n", team)
    alive = {o["metadata"]["uid"] for o in cluster.items("pods", "-n", team) if o["status"]["phase"] == "Running"}
    assert not alive & {one["metadata"]["uid"] for one in pods}, "what still ran when the workload was gone"
    until(lambda: not tags(cluster), what="the devices carry no workload id any more")


def test_a_claim_of_somebody_else_is_refused_on_the_workloads_nodes(cluster: Cluster, team: str) -> None:
    allocated(cluster, team)
    until(lambda: len(tags(cluster)) == 2, what="both nodes' devices carry the id")
    anything = claim_template("anything", tolerations=[{"operator": "Exists"}])
    strangers = [pod("stranger", template="theirs"), pod("intruder", template="anything")]
    cluster.apply([claim_template("theirs"), anything, *strangers], team)
    until(
        lambda: condition(cluster.get("pod", "stranger", "-n", team), "PodScheduled") == "False",
        what="the scheduler keeps off the workload's nodes who does not tolerate it",
    )
    assert f"the workload id {NAME}" in cluster.event(team, "intruder", "NeuronUltraServerWorkload")
    cluster.delete("pod", "intruder", "stranger", "-n", team, "--grace-period=1", "--timeout=60s")


def test_who_finds_no_room_says_why_and_gets_it_when_there_is_some(cluster: Cluster, team: str) -> None:
    allocated(cluster, team)
    cluster.apply(workload("next", 1), team)
    until(lambda: reason(cluster, team, "next") == "NoCapacity", what="the second one refused")
    message = cluster.get(WORKLOAD, "next", "-n", team)["status"]["conditions"][0]["message"]
    assert f"{team}/{NAME}" in message
    cluster.delete(WORKLOAD, NAME, "-n", team, "--timeout=120s")
    until(lambda: state(cluster, team, "next") == "Allocated", what="the second one allocated")


def test_a_fault_restarts_a_workload_that_wants_it(cluster: Cluster, team: str) -> None:
    allocated(cluster, team)
    before = {one["metadata"]["uid"] for one in running(cluster, team)}
    cluster.apply(
        {
            "apiVersion": "neuron-sim.dev/v1alpha1",
            "kind": "NeuronFault",
            "metadata": {"name": "test-ultraserver"},
            "spec": {"target": {"nodeName": cluster.workers()[0]}, "type": "Hang", "effect": "NoSchedule"},
        }
    )
    try:
        until(lambda: state(cluster, team) == "Pending", what="everything given back")
        until(
            lambda: not before & {one["metadata"]["uid"] for one in cluster.items("pods", "-n", team)},
            what="the old pods gone",
        )
        assert reason(cluster, team) in ("Restarting", "NoCapacity")
    finally:
        cluster.delete("neuronfault", "test-ultraserver")
    until(lambda: state(cluster, team) == "Allocated", what="allocated anew when the node is healed")
    cluster.kubectl("rollout", "status", "-n", team, f"deployment/{NAME}", "--timeout=120s")


def test_an_operator_that_is_killed_leaves_everything_as_it_was(cluster: Cluster, team: str) -> None:
    found = allocated(cluster, team)
    cluster.delete("pods", "-n", SYSTEM, "-l", "app.kubernetes.io/component=operator", "--grace-period=0")
    cluster.kubectl("rollout", "status", "-n", SYSTEM, "deployment/neuron-sim-operator", "--timeout=120s")
    cluster.apply(workload("after", 1), team)
    until(lambda: reason(cluster, team, "after") == "NoCapacity", what="a new operator that decides")
    again = cluster.get(WORKLOAD, NAME, "-n", team)
    assert again["status"]["sets"] == found["status"]["sets"]
    assert again["status"]["state"] == "Allocated"


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        pytest.param(workload("x", 3), "topologySize", id="size"),
        pytest.param(workload("x", 2, instanceType="trn2.48xlarge"), "choose one of trn2u.48xlarge", id="type"),
        pytest.param(workload("x", 2, serverCount=0), "serverCount", id="count"),
        pytest.param(workload("x", 2, allocationPolicy={"failureStrategy": "Pray"}), "MigrateAffected", id="strategy"),
    ],
)
def test_what_is_wrong_is_refused_at_apply(cluster: Cluster, namespace: str, wrong: Object, says: str) -> None:
    with pytest.raises(Failed, match=says):
        cluster.apply(wrong, namespace)


def test_what_was_asked_for_cannot_be_changed_later(cluster: Cluster, team: str) -> None:
    cluster.apply(workload("fixed", 1), team)
    with pytest.raises(Failed, match="topologySize cannot be changed: delete the workload"):
        cluster.apply(workload("fixed", 2), team)
    cluster.apply(workload("fixed", 1, allocationPolicy={"failureStrategy": "NoOp"}), team)
