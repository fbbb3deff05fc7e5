"""explain, what-if and topology as people and scripts call them, over HTTP."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from fleet_objects import chips, claim, classes, fault, gang_pod, held, node, pod, request, slices, ultraserver
from neuron_cli.main import app
from typer.testing import CliRunner, Result

if TYPE_CHECKING:
    from conftest import FakeCluster

Object = dict[str, Any]

OURS = "/apis/neuron-sim.dev/v1alpha1"
DRA = "/apis/resource.k8s.io/v1"
TEAM = "/api/v1/namespaces/team"


@pytest.fixture
def cluster(fake: "FakeCluster") -> "FakeCluster":
    """One UltraServer; a pod waits for a node of it that another pod has a chip of."""
    members = ultraserver(0, faults=[fault("shown", chip=9, effect="None")])
    waiting = pod("train", claims=["wanted"])
    claims = [claim("wanted", request(count=16)), *(held(f"c{n}", f"u0n{n}", *chips(n), pod=f"p{n}") for n in range(4))]
    fake.answers |= {
        "/api/v1/nodes": [node(each["metadata"]["name"]) for each in members],
        f"{OURS}/neuronnodes": members,
        f"{OURS}/neurongangs": [],
        f"{DRA}/resourceslices": [page for each in members for page in slices(each)],
        f"{DRA}/resourceclaims": claims,
        f"{DRA}/deviceclasses": classes(),
        f"{DRA}/namespaces/team/resourceclaimtemplates": [],
        f"{DRA}/namespaces/team/resourceclaims/wanted": claims[0],
        f"{TEAM}/pods/train": waiting,
        f"{TEAM}/resourcequotas": [],
        f"{TEAM}/events": [{"type": "Warning", "reason": "FailedMount", "message": "no such secret"}],
        "/api/v1/pods": [gang_pod(f"ring-{number}", neuron=16) for number in range(4)],
    }
    return fake


@pytest.fixture
def run(kubeconfig: Path) -> Any:
    def run(*arguments: str | Path, text: str | None = None) -> Result:
        words = [str(argument) for argument in arguments]
        return CliRunner().invoke(app, [*words, "--kubeconfig", str(kubeconfig)], input=text)

    return run


def test_a_pod_is_explained(cluster: "FakeCluster", run: Any) -> None:
    found = run("explain", "pod/train", "-n", "team")
    assert found.exit_code == 0
    assert found.stdout.startswith("✗ pod team/train\nNone of 4 nodes can take the pod: ")
    assert "✗ u0n0, u0n1, u0n2, u0n3: 15 of 16 chips are free, 16 are asked for" in found.stdout
    assert "→ Node u0n0 would do if pod team/p0 ended" in found.stdout
    assert "FailedMount: no such secret" in found.stdout
    assert "1 held by pod team/p2" in run("explain", "train", "-n", "team", "--node", "u0n2").stdout
    assert (
        run("explain", "train", "-n", "team", "--all").stdout.count("15 of 16 chips are free, 16 are asked for:") == 4
    )


def test_the_explanation_is_a_document_for_programs(cluster: "FakeCluster", run: Any) -> None:
    found = json.loads(run("explain", "claim/wanted", "-n", "team", "-o", "json").stdout)
    assert found.keys() == {
        "subject", "state", "summary", "asks", "problems", "remedies", "nodes", "not_read", "said",
    }  # fmt: skip
    assert found["state"] == "waiting"
    assert found["nodes"][0] == {
        "node": "u0n0",
        "fits": False,
        "lacks": ["15 of 16 chips are free, 16 are asked for: 1 held by pod team/p0"],
        "sure": True,
    }


def test_a_gang_is_explained(cluster: "FakeCluster", run: Any) -> None:
    found = run("explain", "gang/ring", "-n", "team")
    assert found.exit_code == 0
    assert "4 pods in one ultraserver, 16 chips each" in found.stdout
    assert "room for 0 of 4 pods" in found.stdout


def test_a_workload_is_explained_by_its_first_pod_that_waits(cluster: "FakeCluster", run: Any) -> None:
    running, waiting = pod("train-0", nodeName="u0n0"), pod("train-1", neuron=16)
    made = {"spec": waiting["spec"]}
    job = {"kind": "Job", "metadata": {"name": "train", "namespace": "team"}, "spec": {
        "parallelism": 3, "selector": {"matchLabels": {"job": "train"}}, "template": made}}  # fmt: skip
    cluster.answers |= {"/apis/batch/v1/namespaces/team/jobs/train": job, f"{TEAM}/pods": [waiting, running]}
    found = run("explain", "job/train", "-n", "team")
    assert found.stdout.startswith(
        "✗ Job team/train\n1 of 3 pods have a node, 1 wait and 1 are not made yet. Of pod train-1: None of 4 nodes can"
    )


def test_a_workload_whose_gang_waits_is_explained_by_it(cluster: "FakeCluster", run: Any) -> None:
    pods = [gang_pod(f"ring-{number}", neuron=16) for number in range(4)]
    made = {"spec": pods[0]["spec"]}
    stateful = {"kind": "StatefulSet", "metadata": {"name": "ring", "namespace": "team"}, "spec": {
        "replicas": 4, "selector": {"matchLabels": {"app": "ring"}}, "template": made}}  # fmt: skip
    cluster.answers |= {"/apis/apps/v1/namespaces/team/statefulsets/ring": stateful, f"{TEAM}/pods": pods}
    found = run("explain", "sts/ring", "-n", "team")
    assert "0 of 4 pods have a node, 4 wait. Of gang ring: " in found.stdout
    assert "room for 0 of 4 pods" in found.stdout


def test_a_workload_without_pods_has_its_controllers_words(cluster: "FakeCluster", run: Any) -> None:
    jobset = {"kind": "JobSet", "metadata": {"name": "train", "namespace": "team"}, "spec": {"replicatedJobs": [
        {"name": "workers", "template": {"spec": {"parallelism": 2, "template": {"spec": {}}}}}]}}  # fmt: skip
    path = "/apis/jobset.x-k8s.io/v1alpha2/namespaces/team/jobsets/train"
    cluster.answers |= {path: jobset, f"{TEAM}/pods": []}
    found = run("explain", "jobset/train", "-n", "team")
    assert "None of 2 pods exists: see what its controller says" in found.stdout
    assert "FailedMount: no such secret" in found.stdout


def test_what_the_user_may_not_read_and_is_not_needed_is_left_out(cluster: "FakeCluster", run: Any) -> None:
    cluster.refused |= {f"{TEAM}/resourcequotas", f"{TEAM}/events"}
    assert run("explain", "train", "-n", "team").exit_code == 0
    cluster.refused.add(f"{DRA}/resourceslices")
    found = run("explain", "train", "-n", "team")
    assert (found.exit_code, found.stdout) == (1, "")
    assert "neuron-sim: not allowed" in found.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("pod/gone", "-n", "team"), "there is no pod gone in namespace team: name another one with -n"),
        (("train",), "there is no pod train in namespace default: name another one with -n"),
        (
            ("service/x",),
            "'service/x' is nothing to explain: write pod/NAME, claim/NAME, gang/NAME or a workload such as job/NAME",
        ),
        (("gang/none", "-n", "team"), "there is no gang none in namespace team"),
        (("train", "-n", "team", "--node", "gone"), "there is no node gone: `kubectl get nodes` lists them"),
    ],
)
def test_what_is_not_there_is_one_sentence(cluster: "FakeCluster", run: Any, words: tuple[str, ...], said: str) -> None:
    found = run("explain", *words)
    assert (found.exit_code, found.stdout) == (1, "")
    assert said in found.stderr


def test_the_namespace_is_the_contexts(cluster: "FakeCluster", run: Any, kubeconfig: Path) -> None:
    content = yaml.safe_load(kubeconfig.read_text())
    content["contexts"][0]["context"]["namespace"] = "team"
    kubeconfig.write_text(yaml.safe_dump(content))
    assert run("explain", "train").exit_code == 0


def test_the_fleet_is_drawn(cluster: "FakeCluster", run: Any) -> None:
    assert "UltraServer abcdefgh01234560" in run("topology").stdout
    assert [each["node"] for each in json.loads(run("topology", "-o", "json", "--node", "u0n3").stdout)["nodes"]] == [
        "u0n3"
    ]
    assert run("topology", "-o", "svg").stdout.startswith("<svg ")
    found = run("topology", "--pool", "other")
    assert found.exit_code == 1
    assert "pool other is not there: there are default" in found.stderr


def test_a_fleet_without_nodes_is_a_sentence(cluster: "FakeCluster", run: Any) -> None:
    cluster.answers[f"{OURS}/neuronnodes"] = []
    assert run("topology").stdout.startswith("No simulated nodes")


def test_a_manifest_lands_or_does_not(cluster: "FakeCluster", run: Any, tmp_path: Path) -> None:
    small, large = pod("small", neuron=2), pod("large", neuron=16)
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(small))
    found = run("what-if", "-f", file)
    assert found.exit_code == 0
    assert found.stdout == (
        "✓ Pod small\n  The pod would find a node now; 4 of 4 nodes could take it: u0n0, u0n1, u0n2, u0n3\n"
    )
    found = run("what-if", "-f", "-", text=yaml.safe_dump_all([small, large]))
    assert found.exit_code == 3
    assert "✗ Pod large" in found.stdout
    assert "→ Node" in found.stdout
    rows = json.loads(run("what-if", "-f", file, "-o", "json").stdout)
    assert rows["lands"] is True
    assert rows["workloads"][0]["nodes"] == {"u0n0": 1, "u0n1": 1, "u0n2": 1, "u0n3": 1}
    # nothing is ever written: the fake cluster refuses what is not a dry run
    assert {query["dryRun"][0] for method, _, query in cluster.asked if method == "POST"} == {"All"}


def test_what_the_api_server_would_refuse_is_told(cluster: "FakeCluster", run: Any, tmp_path: Path) -> None:
    file = tmp_path / "pod.yaml"
    file.write_text(yaml.safe_dump(pod("small", neuron=2)))
    cluster.refused.add(f"{TEAM}/pods")
    found = run("what-if", "-f", file)
    assert found.exit_code == 3
    assert "✗ the API server refuses Pod small: not allowed" in found.stdout


def test_a_bad_file_is_one_sentence(cluster: "FakeCluster", run: Any, tmp_path: Path) -> None:
    found = run("what-if", "-f", tmp_path / "gone.yaml")
    assert (found.exit_code, found.stdout) == (1, "")
    assert "cannot be read: No such file" in found.stderr


def of_group(number: int, **more: Any) -> Object:
    return pod(f"ring-{number}", schedulingGroup={"podGroupName": "ring"}, **more)


def ring(*, conditions: list[Object]) -> Object:
    spec = {
        "schedulingPolicy": {"gang": {"minCount": 3}},
        "schedulingConstraints": {"topology": [{"key": "neuron-sim.dev/ultraserver-id"}]},
    }
    return {"metadata": {"name": "ring", "namespace": "team"}, "spec": spec, "status": {"conditions": conditions}}


NO_ROOM = {"type": "PodGroupScheduled", "status": "False", "reason": "Unschedulable", "message": "0 placements fit"}


@pytest.mark.parametrize(
    ("pods", "conditions", "words"),
    [
        (None, [], "The pod is of PodGroup ring, which does not exist: kube-scheduler waits until somebody makes it"),
        (
            [of_group(0), of_group(1)],
            [],
            "at least 3 pods in one neuron-sim.dev/ultraserver-id, and waits for 1 more: 2 of 3 exist",
        ),
        (
            [of_group(0), of_group(1), of_group(2, schedulingGates=[{"name": "kueue"}])],
            [],
            "and waits for 1 more: 3 of 3 exist, and 1 of these have scheduling gates",
        ),
        ([of_group(number) for number in range(3)], [NO_ROOM], "and finds no room: 0 placements fit"),
    ],
)
def test_a_pod_of_a_pod_group_says_for_whom_the_scheduler_waits(
    cluster: "FakeCluster", run: Any, pods: list[Object] | None, conditions: list[Object], words: str
) -> None:
    cluster.answers[f"{TEAM}/pods/ring-0"] = of_group(0)
    cluster.answers[f"{TEAM}/pods"] = pods or [of_group(0)]
    if pods is not None:
        groups = "/apis/scheduling.k8s.io/v1alpha2/namespaces/team/podgroups"
        cluster.answers[f"{groups}/ring"] = ring(conditions=conditions)
    found = run("explain", "pod/ring-0", "-n", "team")
    assert found.exit_code == 0
    assert words in found.stdout
    assert "nodes could take the pod now" in found.stdout, "what it would find by itself"
