"""The commands as people and scripts call them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from neuron_cli.main import app
from neuron_device_model.catalog import instance_types
from typer.testing import CliRunner, Result

if TYPE_CHECKING:
    from conftest import FakeCluster

NODES = "/apis/neuron-sim.dev/v1alpha1/neuronnodes"
FAULTS = "/apis/neuron-sim.dev/v1alpha1/neuronfaults"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_types_lists_the_whole_catalogue() -> None:
    lines = run("types").stdout.splitlines()
    assert lines[0].split()[:3] == ["TYPE", "CHIP", "CHIPS"]
    assert [line.split()[0] for line in lines[1:]] == [kind.name for kind in instance_types()]


def test_types_are_rows_for_programs_too() -> None:
    rows = {row["type"]: row for row in json.loads(run("types", "--output", "json").stdout)}
    assert rows["trn2.48xlarge"]["chips"] == 16
    assert rows["trn2.48xlarge"]["cores"] == 64
    assert rows["inf2.24xlarge"]["topology"] == "chain 6"


def test_one_type_shows_each_chip() -> None:
    result = run("types", "trn2.48xlarge")
    assert "0000:cc:00.0" in result.stdout
    details = json.loads(run("types", "trn2.48xlarge", "--output", "json").stdout)
    assert len(details["devices"]) == 16
    assert details["physical_cores"] == 128


def test_unknown_type_names_the_nearest() -> None:
    result = run("types", "trn2.4xlarge")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "trn2.48xlarge" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_nodes_say_why_one_is_not_ready(fake: "FakeCluster", kubeconfig: Path) -> None:
    not_ready = {"type": "Ready", "status": "False", "reason": "NotRegistered", "message": "no kubelet has called"}
    fake.answers[NODES] = [
        {
            "metadata": {"name": "worker"},
            "spec": {
                "pool": "default",
                "instanceType": "trn2.48xlarge",
                "logicalNeuronCore": 2,
                "resources": "DevicePlugin",
                "partitions": "logical",
                "faults": [{"name": "hot"}, {"name": "gone"}],
            },
            "status": {"devices": 16, "preparedClaims": 3, "conditions": [not_ready]},
        }
    ]
    table = run("nodes", "--kubeconfig", kubeconfig)
    assert table.exit_code == 0
    assert "NotRegistered: no kubelet has called" in table.stdout
    (row,) = json.loads(run("nodes", "--kubeconfig", kubeconfig, "--output", "json").stdout)
    assert (row["devices"], row["claims"], row["ready"]) == (16, 3, "False")
    assert (row["resources"], row["partitions"], row["faults"]) == ("DevicePlugin", "logical", 2)


def test_nodes_of_a_cluster_without_neuron_sim(fake: "FakeCluster", kubeconfig: Path) -> None:
    result = run("nodes", "--kubeconfig", kubeconfig)
    assert result.exit_code == 1
    assert "neuron-sim: not installed in this cluster: helm install" in result.stderr


def test_no_nodes_is_a_sentence_for_people_and_no_rows_for_programs(fake: "FakeCluster", kubeconfig: Path) -> None:
    fake.answers[NODES] = []
    assert run("nodes", "--kubeconfig", kubeconfig).stdout.startswith("No simulated nodes")
    assert json.loads(run("nodes", "--kubeconfig", kubeconfig, "--output", "json").stdout) == []


def test_faults_say_why_one_is_not_active(fake: "FakeCluster", kubeconfig: Path) -> None:
    inactive = {"type": "Active", "status": "False", "reason": "UnknownChip", "message": "there is no such chip"}
    fake.answers[FAULTS] = [
        {
            "metadata": {"name": "hot", "creationTimestamp": "2026-11-21T00:00:00Z"},
            "spec": {"target": {"nodeName": "worker", "chip": 99}, "type": "Hang", "effect": "NoSchedule"},
            "status": {"conditions": [inactive]},
        }
    ]
    assert "UnknownChip: there is no such chip" in run("fault", "list", "--kubeconfig", kubeconfig).stdout
    (row,) = json.loads(run("fault", "list", "--kubeconfig", kubeconfig, "-o", "json").stdout)
    assert (row["fault"], row["node"], row["chip"], row["core"], row["active"]) == ("hot", "worker", 99, None, "False")
    fake.answers[FAULTS] = []
    assert run("fault", "list", "--kubeconfig", kubeconfig).stdout.startswith("Nothing is broken")


BREAK = ("fault", "create", "hot", "--node", "worker", "--chip", "3", "--type", "DeviceLost")
BROKEN = {
    "apiVersion": "neuron-sim.dev/v1alpha1",
    "kind": "NeuronFault",
    "metadata": {"name": "hot"},
    "spec": {"target": {"nodeName": "worker", "chip": 3}, "type": "DeviceLost", "effect": "None"},
}


def test_a_fault_is_printed_for_kubectl(kubeconfig_of_nobody: Path) -> None:
    printed = run(*BREAK, "--effect", "None", "-o", "yaml", "--kubeconfig", kubeconfig_of_nobody)
    assert yaml.safe_load(printed.stdout) == BROKEN
    assert json.loads(run(*BREAK, "--effect", "None", "-o", "json").stdout) == BROKEN


def test_a_fault_is_created_and_deleted(fake: "FakeCluster", kubeconfig: Path) -> None:
    fake.writable = FAULTS
    assert run(*BREAK, "--effect", "None", "--kubeconfig", kubeconfig).exit_code == 0
    assert fake.created == [BROKEN]
    fake.answers[f"{FAULTS}/hot"] = BROKEN
    assert run("fault", "delete", "hot", "--kubeconfig", kubeconfig).exit_code == 0
    assert fake.asked[-1][:2] == ("DELETE", f"{FAULTS}/hot")


def test_a_fault_has_the_place_the_degree_and_the_times_of_its_options() -> None:
    words = ("--peer", "1", "--for", "5m", "--every", "1h", "--times", "3", "--after", "10s", "--until", "8h")
    link = ("fault", "create", "link", "--node", "n", "--type", "LinkDown", "--chip", "0", *words, "-o", "yaml")
    assert yaml.safe_load(run(*link).stdout)["spec"] == {
        "target": {"nodeName": "n", "chip": 0, "peer": 1},
        "type": "LinkDown",
        "schedule": {"startAfter": "10s", "endAfter": "8h", "duration": "5m", "repeatEvery": "1h", "repeats": 3},
    }
    by_chance = ("--events-per-minute", "60", "--mean-time-between", "2h", "--mean-duration", "3m", "--seed", "7")
    ecc = ("fault", "create", "ecc", "--node", "n", "--type", "HBMCorrectable", *by_chance, "-o", "yaml")
    assert yaml.safe_load(run(*ecc).stdout)["spec"] == {
        "target": {"nodeName": "n"},
        "type": "HBMCorrectable",
        "eventsPerMinute": 60,
        "schedule": {"random": {"seed": 7, "meanTimeBetween": "2h", "meanDuration": "3m"}},
    }


def test_faults_of_a_scenario_are_deleted_together(fake: "FakeCluster", kubeconfig: Path) -> None:
    fake.answers |= {FAULTS: [BROKEN], f"{FAULTS}/hot": BROKEN}
    done = run("fault", "delete", "--scenario", "day", "--kubeconfig", kubeconfig)
    assert done.stdout == "hot deleted\n"
    assert fake.asked[-2][2]["labelSelector"] == ["neuron-sim.dev/scenario=day"]
    assert run("fault", "delete").exit_code == 1


def test_an_unknown_type_of_fault_is_answered_with_those_there_are() -> None:
    result = run("fault", "create", "hot", "--node", "worker", "--type", "Rust", "-o", "yaml")
    assert result.exit_code == 1
    assert "there is no type 'Rust': choose one of SRAMUncorrectable" in result.stderr


def test_doctor_fails_on_a_bare_cluster_and_says_how_to_install(fake: "FakeCluster", kubeconfig: Path) -> None:
    fake.answers |= {
        "/version": {"gitVersion": "v1.36.3"},
        "/apis/resource.k8s.io": {"versions": [{"version": "v1"}]},
        "/apis/resource.k8s.io/v1/deviceclasses": [],
        "/apis/apps/v1/daemonsets": [],
        "/apis/apps/v1/deployments": [],
        "/api/v1/nodes": [],
    }
    result = run("doctor", "--kubeconfig", kubeconfig)
    assert result.exit_code == 1
    assert "✓ API server" in result.stdout
    assert "✗ CRDs" in result.stdout
    assert "→ helm install neuron-sim charts/neuron-sim" in result.stdout
    findings = json.loads(run("doctor", "--kubeconfig", kubeconfig, "--output", "json").stdout)
    assert {"check": "extended resources", "verdict": "ok"}.items() <= findings[2].items()


@pytest.mark.parametrize("command", ["nodes", "doctor"])
def test_unreachable_cluster_is_one_line(command: str, kubeconfig_of_nobody: Path) -> None:
    result = run(command, "--kubeconfig", kubeconfig_of_nobody)
    assert result.exit_code == 1
    assert result.stdout == ""
    (line,) = (line for line in result.stderr.splitlines() if line.strip())
    assert line.startswith("neuron-sim: cannot reach the API server at http://127.0.0.1:1")


def test_agent_becomes_the_agents_process(monkeypatch: pytest.MonkeyPatch) -> None:
    became: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda program, arguments: became.append([program, *arguments]))
    run("agent", "--instance-type", "trn2.48xlarge", "--help")
    agent = [sys.executable, "-m", "neuron_dra_driver", "--instance-type", "trn2.48xlarge", "--help"]
    assert became == [[sys.executable, *agent]]


def test_looking_at_types_needs_no_kubernetes_client() -> None:
    program = (
        "import sys; from neuron_cli.main import app; app(['types'], standalone_mode=False);"
        "sys.exit('kubernetes' in sys.modules)"
    )
    subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
        stdout=subprocess.DEVNULL,
    )
