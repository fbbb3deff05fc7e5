"""How a cluster's claims pack, and what becomes of a mix of claims."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from neuron_cli.main import app
from typer.testing import CliRunner, Result

if TYPE_CHECKING:
    from conftest import FakeCluster

NODES = "/apis/neuron-sim.dev/v1alpha1/neuronnodes"
CLAIMS = "/apis/resource.k8s.io/v1/resourceclaims"
CLASS = "/apis/resource.k8s.io/v1/deviceclasses/neuron-device.neuron-sim.dev"
PODS = "/api/v1/pods"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["packing", *map(str, arguments)])


def rows(kubeconfig: Path) -> dict[str, Any]:
    """The nodes by name, and the total."""
    found = json.loads(run("--kubeconfig", kubeconfig, "-o", "json").stdout)
    return {row["node"]: row for row in [*found["nodes"], found["total"]]}


def counts(row: dict[str, Any]) -> tuple[int, ...]:
    return tuple(row[key] for key in ("chips", "free", "partly", "full", "broken", "best"))


def node(name: str = "worker", *, type: str = "trn2.48xlarge", lnc: int = 2, resources: str = "DRA") -> dict[str, Any]:
    spec = {"instanceType": type, "logicalNeuronCore": lnc, "resources": resources}
    return {"metadata": {"name": name}, "spec": spec}


def claim(*devices: str, pool: str = "worker", **more: Any) -> dict[str, Any]:
    results = [{"driver": "neuron.aws.com", "pool": pool, "device": device} | more for device in devices]
    return {"metadata": {"name": "c"}, "status": {"allocation": {"devices": {"results": results}}}}


def pod(name: str, *, ids: str | None = None, **limits: int) -> dict[str, Any]:
    requests = {f"aws.amazon.com/{resource}": str(count) for resource, count in limits.items()}
    annotations = {"AWS_NEURON_IDS": ids} if ids else {}
    return {
        "metadata": {"name": name, "namespace": "team", "uid": name, "annotations": annotations},
        "spec": {"nodeName": "worker", "containers": [{"name": "c", "resources": {"requests": requests}}]},
        "status": {"phase": "Running"},
    }


def test_scattered_cores_stand_beside_what_would_be_enough(fake: "FakeCluster", kubeconfig: Path) -> None:
    fake.answers |= {
        NODES: [node(), node("other", type="trn1.2xlarge", lnc=1)],
        CLAIMS: [
            claim("neuron-core-0", "neuron-core-4", "neuron-core-8"),  # one on each of three chips
            claim("neuron-core-12", "neuron-core-13", "neuron-core-14", "neuron-core-15"),  # all of the fourth
            claim("neuron-device-15", "neuron-device-14"),
            {"metadata": {"name": "waits"}, "spec": {}},
        ],
    }
    found = rows(kubeconfig)
    assert counts(found["worker"]) == (16, 10, 3, 3, 4, 2)
    assert counts(found["other"]) == (1, 1, 0, 0, 0, 0)
    assert counts(found["total"]) == (17, 11, 3, 3, 4, 2)
    table = run("--kubeconfig", kubeconfig).stdout.splitlines()
    assert table[0].split() == [
        "NODE",
        "TYPE",
        "RESOURCES",
        "CHIPS",
        "FREE",
        "PARTLY",
        "FULL",
        "BROKEN",
        "BEST",
        "NOTE",
    ]
    assert table[-1].split() == ["total", "17", "11", "3", "3", "4", "2"]


def test_claims_of_others_and_those_who_only_look_hold_nothing(fake: "FakeCluster", kubeconfig: Path) -> None:
    fake.answers |= {
        NODES: [node()],
        CLAIMS: [
            claim("neuron-node", adminAccess=True),
            claim("gpu-0", driver="gpu.example.com"),
            claim("neuron-device-0", driver="neuron.example.com"),
            claim("neuron-core-0", pool="a-node-that-went"),
        ],
    }
    assert counts(rows(kubeconfig)["worker"]) == (16, 16, 0, 0, 0, 0)


def test_another_driver_name_is_read_from_the_class_of_the_chart(fake: "FakeCluster", kubeconfig: Path) -> None:
    fake.answers |= {
        NODES: [node()],
        CLAIMS: [claim("neuron-device-0", driver="neuron.example.com"), claim("neuron-device-1")],
        CLASS: {"spec": {"selectors": [{"cel": {"expression": 'device.driver == "neuron.example.com" && true'}}]}},
    }
    assert counts(rows(kubeconfig)["worker"]) == (16, 15, 0, 1, 0, 0)


def test_the_whole_node_fills_all_of_its_chips(fake: "FakeCluster", kubeconfig: Path) -> None:
    fake.answers |= {NODES: [node()], CLAIMS: [claim("neuron-node")]}
    assert counts(rows(kubeconfig)["worker"]) == (16, 0, 0, 16, 0, 0)


def test_a_node_that_was_cut_anew_says_what_is_left_out(fake: "FakeCluster", kubeconfig: Path) -> None:
    fake.answers |= {
        NODES: [node(type="trn1.2xlarge", lnc=1), node("strange", type="trn9.huge")],
        CLAIMS: [claim("neuron-device-0", "neuron-device-7")],
    }
    found = rows(kubeconfig)
    assert counts(found["worker"]) == (1, 0, 0, 1, 0, 0)
    assert found["worker"]["note"].startswith("1 allocated device left out")
    assert "trn9.huge" in found["strange"]["note"]
    assert found["strange"]["chips"] is None
    assert found["total"]["chips"] == 1


def test_on_the_device_plugin_road_the_pods_say_what_they_have(fake: "FakeCluster", kubeconfig: Path) -> None:
    by_claim = pod("by-claim", neuron=16)
    by_claim["status"]["extendedResourceClaimStatus"] = {"resourceClaimName": "c"}
    fake.answers |= {
        NODES: [node(resources="DevicePlugin")],
        PODS: [pod("scattered", ids="0,4", neuroncore=2), pod("row", ids="8,9,10,11", neuron=4), by_claim],
    }
    found = rows(kubeconfig)
    assert counts(found["worker"]) == (16, 10, 2, 4, 2, 1)
    assert found["worker"]["note"] == ""
    (asked,) = {tuple(query["fieldSelector"]) for _, path, query in fake.asked if path == PODS}
    assert "spec.nodeName!=" in asked[0]


def test_pods_that_do_not_say_are_estimated_and_counted(fake: "FakeCluster", kubeconfig: Path) -> None:
    fake.answers |= {NODES: [node(resources="DevicePlugin")], CLAIMS: [], PODS: [pod("silent", neuroncore=2)]}
    found = rows(kubeconfig)["worker"]
    assert counts(found) == (16, 15, 1, 0, 1, 1)
    assert found["note"].startswith("estimated for 1 pod without AWS_NEURON_IDS")


def test_pods_are_not_read_where_claims_say_everything(fake: "FakeCluster", kubeconfig: Path) -> None:
    fake.answers |= {NODES: [node()], CLAIMS: []}
    assert run("--kubeconfig", kubeconfig).exit_code == 0
    assert PODS not in {path for _, path, _ in fake.asked}


def test_what_stands_in_the_way_is_one_line(fake: "FakeCluster", kubeconfig: Path, kubeconfig_of_nobody: Path) -> None:
    def complaint(where: Path) -> str:
        result = run("--kubeconfig", where)
        assert (result.exit_code, result.stdout) == (1, "")
        (line,) = (line for line in result.stderr.splitlines() if line.strip())
        return line

    assert "not installed in this cluster" in complaint(kubeconfig)
    assert "cannot reach the API server" in complaint(kubeconfig_of_nobody)
    fake.answers[NODES] = [node()]
    fake.refused.add(CLAIMS)
    assert "not allowed" in complaint(kubeconfig)


def test_a_cluster_without_nodes(fake: "FakeCluster", kubeconfig: Path) -> None:
    fake.answers |= {NODES: [], CLAIMS: []}
    assert run("--kubeconfig", kubeconfig).stdout.startswith("No simulated nodes")
    assert rows(kubeconfig)["total"]["chips"] == 0


def test_a_mix_leaves_holes_where_something_was_released() -> None:
    """Of eight cores on two chips three are released on the first and three on the second."""
    mix = "8x1 -2 -3 -4 -6 -7 -8"
    assert run("--mix", mix).stdout.splitlines() == [
        "in the end: 2 of 16 chips broken by cores, best possible 1; 0 given as a whole, 14 untouched",
        "at worst: 2 of 16 chips broken by cores, best possible 1; 0 given as a whole, 14 untouched",
    ]
    found = json.loads(run("--mix", mix.replace(" ", ","), "-o", "json").stdout)
    assert found["end"] == {"chips": 16, "whole": 0, "broken": 2, "best": 1, "untouched": 14}
    assert found["held"] == {"1": ["neuron-core-0"], "5": ["neuron-core-4"]}
    assert found["refused"] == []


def test_a_mix_says_who_finds_no_room() -> None:
    printed = run("--mix", "1x1,15x1chip,1x1chip,1x1node,1x2physical-core", "--instance-type", "trn2.48xlarge").stdout
    assert "refused: 17 (1 x chip), full" in printed
    assert "refused: 18 (1 x node), full" in printed
    assert "refused: 19" not in printed


def test_a_mix_is_for_a_node_of_any_type() -> None:
    assert run("--mix", "1x2", "--instance-type", "trn1.2xlarge").stdout.startswith("in the end: 1 of 1 chips")
    assert "trn2.48xlarge" in run("--mix", "1x1", "--instance-type", "trn2.4xlarge").stderr
    assert "use 1 or 2" in run("--mix", "1x1", "--lnc", "3").stderr


@pytest.mark.parametrize(
    ("mix", "says"),
    [
        ("2x", "'2x' is no part of a mix: write 2x4"),
        ("0x1", "'0x1' is no part"),
        ("2x4gpu", "2x4chip"),
        ("", "'' is no part"),
        ("1x1,-2", "'-2' releases a claim that is not there"),
        ("1x1,-1,-1", "'-1' releases a claim that is not there"),
        ("1000000x1", "more than 1000 claims"),
    ],
)
def test_a_mix_that_is_none_says_what_to_write(mix: str, says: str) -> None:
    result = run("--mix", mix)
    assert (result.exit_code, result.stdout) == (1, "")
    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1
