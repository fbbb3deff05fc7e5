"""Gangs on a real scheduler: whole and near together, or not at all.

The two workers are two nodes of one UltraServer for the time of this file.
"""

import json
from collections import Counter
from collections.abc import Iterator
from functools import partial

import pytest
import yaml
from harness import REPOSITORY, SYSTEM, Cluster, Failed, Object, pod, until

EXAMPLES = REPOSITORY / "manifests/examples/gangs"
WORKLOADS = {"pretrain": "jobset", "serve": "leaderworkerset"}
"""Gangs of other examples, and the kind that makes their pods."""


@pytest.fixture(scope="module", autouse=True)
def ultraserver(cluster: Cluster) -> Iterator[None]:
    """The example's pool with both workers in it, instead of the chart's."""
    with cluster.without_default_pool():
        cluster.apply((EXAMPLES / "pool.yaml").read_text())
        cluster.wait_nodes()
        yield


@pytest.fixture(autouse=True)
def nothing_reserved(cluster: Cluster) -> Iterator[None]:
    """No test leaves a reservation, nor a NeuronGang."""
    yield
    until(lambda: not cluster.items("neurongangs", "-A"), what="no NeuronGang left", details=lambda: gangs(cluster))
    until(lambda: not reserved(cluster), what="no node reserved", details=lambda: reserved(cluster))


def gangs(cluster: Cluster) -> str:
    return cluster.kubectl("get", "neurongangs", "-A", "-o", "wide")


def reserved(cluster: Cluster) -> list[str]:
    return [
        node["metadata"]["name"]
        for node in cluster.items("nodes")
        if any(taint["key"] == "neuron-sim.dev/reserved" for taint in node["spec"].get("taints", []))
    ]


def phase(cluster: Cluster, namespace: str, gang: str) -> str:
    return str(cluster.get("neurongang", "-n", namespace, gang).get("status", {}).get("phase", ""))


def said(cluster: Cluster, namespace: str, gang: str) -> str:
    conditions = cluster.get("neurongang", "-n", namespace, gang).get("status", {}).get("conditions", [])
    return str(conditions[0]["message"]) if conditions else ""


def wait_for_phase(cluster: Cluster, namespace: str, gang: str, wanted: str) -> None:
    until(
        lambda: phase(cluster, namespace, gang) == wanted,
        what=f"{gang} {wanted}",
        details=lambda: gangs(cluster),
    )


def nodes_of(cluster: Cluster, namespace: str, gang: str) -> list[str]:
    pods = cluster.items("pods", "-n", namespace, "-l", f"neuron-sim.dev/gang={gang}")
    return sorted(found["spec"]["nodeName"] for found in pods if found["spec"].get("nodeName"))


def events(cluster: Cluster, namespace: str, reason: str) -> list[Object]:
    # kubectl shows events.k8s.io as core/v1, where the note is a message
    return [event for event in cluster.items("events", "-n", namespace) if event["reason"] == reason]


def member(gang: str, index: int, size: int, *, chips: int = 16, gate: bool = True, **annotations: str) -> Object:
    found = pod(f"{gang}-{index}", chips=chips)
    found["metadata"]["labels"] = {"neuron-sim.dev/gang": gang, "neuron-sim.dev/gang-size": str(size)}
    found["metadata"]["annotations"] = {
        f"neuron-sim.dev/{key.replace('_', '-')}": annotations[key] for key in annotations
    }
    if gate:
        found["spec"]["schedulingGates"] = [{"name": "neuron-sim.dev/gang"}]
    return found


def test_two_pods_get_the_two_nodes_of_the_ultraserver(cluster: Cluster, namespace: str) -> None:
    cluster.apply((EXAMPLES / "pods.yaml").read_text(), namespace)
    cluster.wait_ready(namespace, "ring-0", "ring-1")
    assert nodes_of(cluster, namespace, "ring") == cluster.workers()
    wait_for_phase(cluster, namespace, "ring", "Bound")
    until(lambda: not reserved(cluster), what="the reservation over")
    ultraserver = cluster.get("neuronnode", cluster.workers()[0])["spec"]["ultraServer"]["id"]
    assert cluster.get("neurongang", "-n", namespace, "ring")["status"]["domain"] == ultraserver
    assert len(cluster.neuron_ls(namespace, "ring-0")) == 16


def test_the_api_server_adds_the_gate(cluster: Cluster, namespace: str) -> None:
    cluster.apply([member("gated", 0, 1, gate=False)], namespace)
    cluster.wait_ready(namespace, "gated-0")
    annotations = cluster.get("pod", "-n", namespace, "gated-0")["metadata"]["annotations"]
    assert annotations["neuron-sim.dev/place"] in cluster.workers()


def test_a_statefulset_is_reserved_for_at_its_first_pod(cluster: Cluster, namespace: str) -> None:
    cluster.apply((EXAMPLES / "statefulset.yaml").read_text(), namespace)
    try:
        wait_for_phase(cluster, namespace, "train", "Bound")
        cluster.wait_ready(namespace, "train-0", "train-1")
        assert nodes_of(cluster, namespace, "train") == cluster.workers()
    finally:
        cluster.delete("statefulset", "train", "-n", namespace, "--timeout=60s")


def test_an_indexed_job_shares_a_node_and_leaves_nothing(cluster: Cluster, namespace: str) -> None:
    cluster.apply((EXAMPLES / "job.yaml").read_text(), namespace)
    cluster.kubectl("wait", "-n", namespace, "--for=condition=Complete", "job/sweep", "--timeout=120s")
    assert len(set(nodes_of(cluster, namespace, "sweep"))) == 1
    until(lambda: not phase(cluster, namespace, "sweep"), what="the NeuronGang gone with the last pod's end")


def test_one_that_cannot_fit_says_what_is_lacking_and_starts_nothing(cluster: Cluster, namespace: str) -> None:
    cluster.apply([member("large", index, 3) for index in range(3)], namespace)
    wait_for_phase(cluster, namespace, "large", "Pending")
    until(lambda: said(cluster, namespace, "large"), what="a reason")
    until(lambda: len(events(cluster, namespace, "DoesNotFit")) == 3, what="an Event on each pod")
    assert events(cluster, namespace, "DoesNotFit")[0]["message"][:200] in said(cluster, namespace, "large")
    assert not nodes_of(cluster, namespace, "large")
    assert not reserved(cluster)


def test_of_two_gangs_one_runs_and_the_other_waits_for_it(cluster: Cluster, namespace: str) -> None:
    names = ("first", "second")
    cluster.apply([member(gang, index, 2) for index in range(2) for gang in names], namespace)
    until(
        lambda: sorted(phase(cluster, namespace, gang) for gang in names) == ["Bound", "Pending"],
        what="one bound, one pending",
        details=lambda: gangs(cluster),
    )
    running = next(gang for gang in names if phase(cluster, namespace, gang) == "Bound")
    (waiting,) = set(names) - {running}
    assert not nodes_of(cluster, namespace, waiting)
    cluster.wait_ready(namespace, f"{running}-0", f"{running}-1")
    cluster.delete("pods", "-n", namespace, f"{running}-0", f"{running}-1", "--timeout=60s")
    wait_for_phase(cluster, namespace, waiting, "Bound")


def test_not_in_time_it_is_rolled_back_and_a_bare_pod_is_made_anew(cluster: Cluster, namespace: str) -> None:
    cluster.apply([member("late", 0, 2, gang_timeout="10s")], namespace)
    uid = cluster.get("pod", "-n", namespace, "late-0")["metadata"]["uid"]
    until(lambda: nodes_of(cluster, namespace, "late"), what="the first pod bound")

    def again() -> bool:
        found = cluster.get("pod", "-n", namespace, "late-0")
        return bool(found) and found["metadata"]["uid"] != uid

    until(again, what="another pod of the same name", details=lambda: gangs(cluster))

    # the next pod of the name has its own ten seconds, and its own Events
    def told(reason: str, words: str) -> bool:
        return any(words in event["message"] for event in events(cluster, namespace, reason))

    until(lambda: told("GangPodMadeAnew", uid), what="an Event that says so")
    until(lambda: told("GangTimedOut", "1 of 2 pods were bound within 10 s"), what="an Event that says why")
    cluster.apply([member("late", 1, 2, gang_timeout="10s")], namespace)
    wait_for_phase(cluster, namespace, "late", "Bound")


def test_at_the_barrier_no_pod_is_bound_before_all_have_their_devices(cluster: Cluster, namespace: str) -> None:
    """Kube-scheduler itself waits, with the chips of the first pod in its claim; a pod of no gang waits for nobody."""
    alone = pod("alone", chips=1)
    alone["spec"]["containers"][0]["resources"]["limits"]["neuron-sim.dev/gang-barrier"] = 1
    first, second = yaml.safe_load_all((EXAMPLES / "barrier.yaml").read_text())

    def told() -> dict[str, int]:
        """How many conditions the barrier has for each pod that is allocated it."""
        return {
            user["name"]: sum(len(entry["conditions"]) for entry in claim["status"].get("devices", []))
            for claim in cluster.items("resourceclaims", "-n", namespace)
            for user in claim.get("status", {}).get("reservedFor", [])
        }

    cluster.apply([alone, first], namespace)
    until(lambda: told() == {"alone": 1, "commit-0": 0}, what="one waits, one does not", details=lambda: str(told()))
    assert not nodes_of(cluster, namespace, "commit")
    cluster.apply(second, namespace)
    wait_for_phase(cluster, namespace, "commit", "Bound")
    cluster.wait_ready(namespace)
    assert len(cluster.neuron_ls(namespace, "commit-0")) == 4


def test_an_operator_that_goes_in_the_middle_is_followed_by_the_next(cluster: Cluster, namespace: str) -> None:
    cluster.apply([member("train", 0, 2)], namespace)
    until(lambda: nodes_of(cluster, namespace, "train"), what="the first pod bound")
    operators = ("pods", "-n", SYSTEM, "-l", "app.kubernetes.io/component=operator")
    cluster.kubectl("delete", *operators, "--force", "--grace-period=0")
    cluster.apply([member("train", 1, 2)], namespace)
    wait_for_phase(cluster, namespace, "train", "Bound")
    assert nodes_of(cluster, namespace, "train") == cluster.workers()
    cluster.kubectl("rollout", "status", "-n", SYSTEM, "deployment/neuron-sim-operator", "--timeout=120s")


@pytest.fixture(scope="module")
def controllers(cluster: Cluster) -> Iterator[None]:
    """JobSet's and LeaderWorkerSet's, as a user installs them. Their kinds stay, and nobody looks at them any more."""
    cluster.show([str(REPOSITORY / "hack/controllers"), "install", "--name", cluster.name, "jobset", "lws"])
    yield
    for kind in ("jobset", "lws"):
        cluster.kubectl("scale", "deployment", "--all", "-n", f"{kind}-system", "--replicas=0")


@pytest.fixture
def workloads(cluster: Cluster, namespace: str, controllers: None) -> Iterator[dict[str, Object]]:
    """The examples, by the name of their gang; gone in the end, so that nobody makes their pods anew."""
    yield {
        name: yaml.safe_load((EXAMPLES.parent / f"{kind}/{kind}.yaml").read_text()) for name, kind in WORKLOADS.items()
    }
    for name in WORKLOADS:
        delete_workload(cluster, namespace, name)


def delete_workload(cluster: Cluster, namespace: str, name: str) -> None:
    cluster.kubectl("delete", WORKLOADS[name], name, "-n", namespace, "--ignore-not-found", "--cascade=foreground")


def uids(cluster: Cluster, namespace: str, gang: str) -> set[str]:
    pods = cluster.items("pods", "-n", namespace, "-l", f"neuron-sim.dev/gang={gang}")
    return {found["metadata"]["uid"] for found in pods}


@pytest.mark.timeout(3600)  # where no registry is in reach, the controllers are compiled at first
def test_a_jobset_and_a_leaderworkerset_race_for_the_last_ultraserver(
    cluster: Cluster, namespace: str, workloads: dict[str, Object]
) -> None:
    """All of one or all of the other, though a LeaderWorkerSet makes its workers only when the leader runs."""
    cluster.apply(list(workloads.values()), namespace)
    until(
        lambda: sorted(phase(cluster, namespace, gang) for gang in workloads) == ["Bound", "Pending"],
        what="one bound, one pending",
        details=lambda: gangs(cluster),
    )
    running = next(gang for gang in workloads if phase(cluster, namespace, gang) == "Bound")
    (waiting,) = set(workloads) - {running}
    assert Counter(nodes_of(cluster, namespace, running)) == dict.fromkeys(cluster.workers(), 2)
    assert not nodes_of(cluster, namespace, waiting)
    delete_workload(cluster, namespace, running)
    wait_for_phase(cluster, namespace, waiting, "Bound")
    assert Counter(nodes_of(cluster, namespace, waiting)) == dict.fromkeys(cluster.workers(), 2)


def test_rolled_back_pods_are_made_anew_by_their_controllers(
    cluster: Cluster, namespace: str, workloads: dict[str, Object]
) -> None:
    """The scheduler wants a pod of another kind first, of which placement knows nothing."""
    wanted = {"labelSelector": {"matchLabels": {"app": "rendezvous"}}, "topologyKey": "kubernetes.io/os"}
    for found in workloads.values():
        made = (
            found["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]
            if found["kind"] == "JobSet"
            else found["spec"]["leaderWorkerTemplate"]["workerTemplate"]
        )
        made["metadata"]["annotations"]["neuron-sim.dev/gang-timeout"] = "8s"
        made["spec"]["containers"][0]["resources"]["limits"] = {"aws.amazon.com/neuron": 4}
        made["spec"]["affinity"] = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [wanted]}}
    workloads["serve"]["spec"]["startupPolicy"] = "LeaderCreated"
    cluster.apply(list(workloads.values()), namespace)

    def late() -> set[str]:
        return {event["involvedObject"]["name"].split("-")[0] for event in events(cluster, namespace, "GangTimedOut")}

    before = {
        gang: until(partial(uids, cluster, namespace, gang), what=f"pods of {gang}", details=lambda: gangs(cluster))
        for gang in workloads
    }
    until(lambda: late() == set(workloads), what="both rolled back", details=lambda: gangs(cluster))
    assert "pod affinity" in json.dumps(events(cluster, namespace, "GangTimedOut"))
    rendezvous = pod("rendezvous")
    rendezvous["metadata"]["labels"] = {"app": "rendezvous"}
    cluster.apply(rendezvous, namespace)
    for gang in workloads:
        wait_for_phase(cluster, namespace, gang, "Bound")
        assert len(nodes_of(cluster, namespace, gang)) == 4
        assert not before[gang] & uids(cluster, namespace, gang), "all are new"


@pytest.mark.parametrize(
    ("labels", "annotations", "words"),
    [
        ({"gang-size": "0"}, {}, "is no size"),
        ({"gang-size": "four"}, {}, "is no size"),
        ({"gang": "Train"}, {}, "lower-case letters"),
        ({}, {"topology": "rack"}, "use one of node, row"),
        ({}, {"gang-timeout": "soon"}, "90s, 5m or 1h30m"),
    ],
)
def test_a_gang_that_is_written_wrong_is_refused(
    cluster: Cluster, namespace: str, labels: dict[str, str], annotations: dict[str, str], words: str
) -> None:
    wrong = member("wrong", 0, 2)
    wrong["metadata"]["labels"] |= {f"neuron-sim.dev/{key}": value for key, value in labels.items()}
    wrong["metadata"]["annotations"] |= {f"neuron-sim.dev/{key}": value for key, value in annotations.items()}
    with pytest.raises(Failed, match=words):
        cluster.apply(wrong, namespace)


def test_a_size_without_a_gang_is_refused(cluster: Cluster, namespace: str) -> None:
    wrong = member("wrong", 0, 2)
    del wrong["metadata"]["labels"]["neuron-sim.dev/gang"]
    with pytest.raises(Failed, match="names no gang"):
        cluster.apply(wrong, namespace)


def test_the_operator_writes_no_other_pods(cluster: Cluster, namespace: str) -> None:
    cluster.apply(pod("mine"), namespace)
    operator = f"--as=system:serviceaccount:{SYSTEM}:neuron-sim-operator"
    dry = ("--dry-run=server", "-n", namespace, operator)
    for command in (
        ("run", "other", "--image=busybox", *dry),
        ("annotate", "pod", "mine", "a=b", *dry),
        ("delete", "pod", "mine", *dry),
    ):
        with pytest.raises(Failed, match="neuron-sim operator may"):
            cluster.kubectl(*command)
