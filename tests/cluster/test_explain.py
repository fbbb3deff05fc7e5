"""explain, what-if and topology on a real cluster: what they say is what is so, and what then happens.

The two workers are two nodes of one UltraServer for the time of this file. The commands are run as a user runs them.
"""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from harness import REPOSITORY, Cluster, Object, pod, until

EXAMPLES = REPOSITORY / "manifests/examples"
LANDS = ["count/pod.yaml", "first-available/pod.yaml", "shared-claim/pods.yaml", "two-claims/pod.yaml"]
"""Examples that run on this pool, side by side."""


@pytest.fixture(scope="module", autouse=True)
def waiting(cluster: Cluster) -> Iterator[str]:
    """The pool of the gangs' example with both workers in it, instead of the chart's.

    And a namespace where the pod `large` waits from the beginning, because it takes half a minute to be told why.
    """
    with cluster.without_default_pool():
        cluster.apply((EXAMPLES / "gangs/pool.yaml").read_text())
        cluster.wait_nodes()
        with cluster.namespace() as name:
            cluster.apply(pod("large", chips=17), name)
            yield name


def ask(cluster: Cluster, *words: str, status: int = 0) -> str:
    """What the command prints, as a plugin of kubectl, by which the kubeconfig is passed on."""
    scripts = str(Path(sys.executable).parent)
    kubectl = shutil.which("kubectl", path=cluster.environment["PATH"])
    assert kubectl
    environment = cluster.environment | {"PATH": f"{scripts}{os.pathsep}{cluster.environment['PATH']}"}
    command = [kubectl, "neuron-sim", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def what_if(cluster: Cluster, namespace: str, file: Path, *, status: int = 0) -> list[Object]:
    answer = ask(cluster, "what-if", str(file), "-n", namespace, "-o", "json", status=status)
    found: list[Object] = json.loads(answer)["workloads"]
    return found


def manifest(folder: Path, *items: Object) -> Path:
    file = folder / "manifest.yaml"
    file.write_text(yaml.safe_dump_all(items))
    return file


def member(index: int) -> Object:
    found = pod(f"ring-{index}", chips=16)
    found["metadata"]["labels"] = {"neuron-sim.dev/gang": "ring", "neuron-sim.dev/gang-size": "2"}
    found["spec"]["schedulingGates"] = [{"name": "neuron-sim.dev/gang"}]
    return found


def test_what_lands_by_word_lands_in_fact(cluster: Cluster, namespace: str) -> None:
    """Each node that is told for an example could take it, and the scheduler takes one of them.

    A file's later pods are told where they may go when its first one is where what-if puts it. Of two nodes that are
    as good the scheduler may take the other: so of a file only the first pod is bound by the word.
    """
    promised = {}
    for example in LANDS:
        first, *_ = what_if(cluster, namespace, EXAMPLES / example)
        promised[first["workload"].removeprefix("Pod ")] = first["nodes"]
        cluster.apply((EXAMPLES / example).read_text(), namespace)
        cluster.wait_ready(namespace)
    nodes = {found["metadata"]["name"]: found["spec"]["nodeName"] for found in cluster.items("pods", "-n", namespace)}
    for name, possible in promised.items():
        assert nodes[name] in possible
    assert nodes["pod-shares-0"] == nodes["pod-shares-1"], "as what-if said of the second one"


def test_a_full_fleet_is_explained_and_what_is_freed_helps(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    workers = cluster.workers()
    one, two, large = pod("one", chips=16), pod("two", chips=3), pod("large", chips=16)
    file = manifest(tmp_path, one, two, large, member(0), member(1))
    # all of the file's objects see each other: no node is left for the last ones
    told = what_if(cluster, namespace, file, status=3)
    assert [answer["lands"] for answer in told] == [1, 1, 0, 0]
    assert f"pod {namespace}/two (of the manifest)" in told[3]["summary"]

    cluster.apply(one, namespace)
    cluster.wait_ready(namespace, "one")
    cluster.apply(two, namespace)
    cluster.wait_ready(namespace, "two")
    cluster.apply([large, member(0), member(1)], namespace)
    gang = until(lambda: cluster.get("neurongang", "-n", namespace, "ring").get("status"), what="the gang refused")
    assert gang["phase"] == "Pending"

    said = ask(cluster, "explain", "pod/large", "-n", namespace)
    free = dict.fromkeys(workers, "13") | {cluster.get("pod", "-n", namespace, "one")["spec"]["nodeName"]: "0"}
    for worker in workers:
        assert f"{worker}: {free[worker]} of 16 chips are free, 16 are asked for" in said
    assert f"would do if pod {namespace}/two ended" in said
    assert "cannot allocate all claims" in said, "the scheduler's own words"
    of_gang = ask(cluster, "explain", "pod/ring-0", "-n", namespace)
    assert "waits for its gang ring to be placed as a whole. No UltraServer has room" in of_gang
    assert f"(used by pod {namespace}/two)" in of_gang
    of_claim = json.loads(ask(cluster, "explain", "pod/two", "-n", namespace, "-o", "json"))
    assert of_claim["state"] == "placed"
    assert "neuron-device-0 to neuron-device-2 of" in of_claim["summary"]

    drawn = ask(cluster, "topology")
    assert "32 chips: 13 free, 19 used" in drawn
    assert f"{namespace}/one (16)" in drawn
    fleet = json.loads(ask(cluster, "topology", "-o", "json"))
    holders = Counter(chip["held_by"][0] for node in fleet["nodes"] for chip in node["chips"] if chip["held_by"])
    assert holders == {f"{namespace}/one": 16, f"{namespace}/two": 3}
    assert ask(cluster, "topology", "-o", "svg").startswith("<svg ")

    cluster.delete("pod", "two", "-n", namespace, "--timeout=60s")
    cluster.wait_ready(namespace, "large")


def test_a_gang_lands_where_what_if_says(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    small = pod("small", chips=1)
    (beside,) = what_if(cluster, namespace, manifest(tmp_path, small))
    assert set(beside["nodes"]) == set(cluster.workers())
    (told,) = what_if(cluster, namespace, EXAMPLES / "gangs/job.yaml")
    cluster.apply((EXAMPLES / "gangs/job.yaml").read_text(), namespace)
    cluster.kubectl("wait", "-n", namespace, "--for=condition=Complete", "job/sweep", "--timeout=120s")
    nodes = Counter(found["spec"]["nodeName"] for found in cluster.items("pods", "-n", namespace))
    assert nodes == told["nodes"]
    assert ask(cluster, "explain", "job/sweep", "-n", namespace).startswith(f"✓ Job {namespace}/sweep\n")


def test_a_pod_that_waits_is_told_by_an_event(cluster: Cluster, waiting: str) -> None:
    def told() -> list[str]:
        found = cluster.items("events", "-n", waiting)
        return [event["message"] for event in found if event["reason"] == "WaitsForNeuronDevices"]

    until(told, what="an Event", details=lambda: cluster.kubectl("get", "events", "-n", waiting))
    said = json.loads(ask(cluster, "explain", "large", "-n", waiting, "-o", "json"))
    assert told() == [said["summary"]]
    assert "2 nodes: has 16 chips, and 17 are asked for" in said["summary"]
