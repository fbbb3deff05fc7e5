"""What a prepared claim is on disk: the CDI file, the view, the metadata file."""

import json
from typing import Any

import pytest
from neuron_dra_driver.claims import allocation_on
from neuron_dra_driver.errors import ClaimError
from neuron_dra_driver.node import SimulatedNode, standalone


def prepare(store: Any, claim: dict[str, Any], node: SimulatedNode) -> Any:
    allocation = allocation_on(claim, uid=claim["metadata"]["uid"], driver="neuron.aws.com", pool="worker-1")
    return store.prepare(allocation, node)


@pytest.fixture
def store(host: Any) -> Any:
    store = host.store()
    store.refresh()
    yield store
    store.close()


def test_cdi_file(host: Any, store: Any, make: Any, trn2: SimulatedNode) -> None:
    prepare(store, make.claim(devices={"main/sub": [5], "more": [2, 3]}), trn2)
    (path,) = host.cdi.iterdir()
    assert path.name == "neuron.aws.com-claim_uid-of-mine.json"
    spec = json.loads(path.read_bytes())
    record = json.loads(spec["annotations"].pop("neuron-sim.dev/checkpoint-record"))
    (tree,) = host.runtimes.iterdir()
    run = host.views / "uid-of-mine"

    def mount(source: Any, target: str, kind: str) -> dict[str, Any]:
        return {"hostPath": str(source), "containerPath": target, "options": ["ro", kind, "nosuid", "nodev"]}

    def device(request: str, *nodes: int) -> dict[str, Any]:
        null = {"type": "c", "major": 1, "minor": 3, "fileMode": 0o666, "permissions": "rw"}
        metadata = f"/var/run/kubernetes.io/dra-device-attributes/resourceclaims/mine/{request}"
        return {
            "name": f"uid-of-mine_{request}",
            "containerEdits": {
                "env": ["NEURON_SIM_SIMULATED=true", "NEURON_LOGICAL_NC_CONFIG=2"],
                "deviceNodes": [{"path": f"/dev/neuron{n}"} | null for n in nodes],
                "mounts": [
                    mount(tree, "/opt/aws/neuron", "rbind"),
                    mount(tree / "bin" / "neuron-ls", "/usr/local/bin/neuron-ls", "bind"),
                    mount(tree / "bin" / "neuron-top", "/usr/local/bin/neuron-top", "bind"),
                    mount(run / request, f"/run/neuron-sim/uid-of-mine/{request}", "rbind"),
                    mount(run / request / "metadata.json", f"{metadata}/neuron.aws.com-metadata.json", "bind"),
                ],
            },
        }

    assert spec == {
        "cdiVersion": "0.6.0",
        "kind": "neuron.aws.com/claim",
        "annotations": {"neuron-sim.dev/simulated": "true", "neuron-sim.dev/claim": "team/mine"},
        "devices": [device("main", 0), device("more", 1, 2)],
    }
    assert record["uid"] == "uid-of-mine"
    assert [d["device"] for d in record["devices"]] == ["neuron-device-5", "neuron-device-2", "neuron-device-3"]


def test_chips_without_logical_cores_have_no_such_variable(host: Any, store: Any, make: Any) -> None:
    prepare(store, make.claim(), standalone(name="worker-1", type_name="trn1.32xlarge"))
    (path,) = host.cdi.iterdir()
    assert json.loads(path.read_bytes())["devices"][0]["containerEdits"]["env"] == ["NEURON_SIM_SIMULATED=true"]


def test_views_number_on_over_requests(host: Any, store: Any, make: Any, trn2: SimulatedNode) -> None:
    prepare(store, make.claim(devices={"a": [5], "b": [9]}), trn2)
    views = [json.loads((host.views / "uid-of-mine" / r / "view.json").read_bytes()) for r in ("a", "b")]
    assert [[(d["index"], d["host_index"]) for d in view["devices"]] for view in views] == [[(0, 5)], [(1, 9)]]
    assert views[0]["simulated"] is True


def test_metadata_file_says_what_the_slice_says(host: Any, store: Any, make: Any, trn2: SimulatedNode) -> None:
    annotations = {"resource.kubernetes.io/pod-claim-name": "chips"}
    prepare(store, make.claim(devices={"main/sub": [5]}, annotations=annotations), trn2)
    path = host.views / "uid-of-mine" / "main" / "metadata.json"
    documents = [json.loads(line) for line in path.read_text().splitlines()]
    assert [d.pop("apiVersion") for d in documents] == [
        "metadata.resource.k8s.io/v1beta1",
        "metadata.resource.k8s.io/v1alpha1",
    ]
    assert documents[0] == documents[1]
    device = {
        "driver": "neuron.aws.com",
        "pool": "worker-1",
        "name": "neuron-device-5",
        "attributes": trn2.devices["neuron-device-5"]["attributes"],
    }
    assert documents[0] == {
        "kind": "DeviceMetadata",
        "metadata": {"name": "mine", "namespace": "team", "uid": "uid-of-mine", "generation": 1},
        "podClaimName": "chips",
        "requests": [{"name": "main/sub", "devices": [device]}],
    }
    cdi = (host.cdi / "neuron.aws.com-claim_uid-of-mine.json").read_text()
    assert "/dra-device-attributes/resourceclaimtemplates/chips/main/neuron.aws.com-metadata.json" in cdi


def test_containers_may_read_whoever_they_run_as(host: Any, store: Any, make: Any, trn2: SimulatedNode) -> None:
    prepare(store, make.claim(), trn2)
    folder = host.views / "uid-of-mine" / "neurons"
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in folder.iterdir())
    assert folder.stat().st_mode & 0o555 == 0o555


def test_a_device_that_the_node_does_not_have_any_more(host: Any, store: Any, make: Any) -> None:
    with pytest.raises(ClaimError, match=r"no neuron-device-9 \(any more\): it is a trn2.3xlarge with 1 devices"):
        prepare(store, make.claim(devices={"n": [9]}), standalone(name="worker-1", type_name="trn2.3xlarge"))
    assert host.leftovers() == []


def test_every_answered_device_names_its_request_and_its_cdi_device(store: Any, make: Any, trn2: SimulatedNode) -> None:
    answer = prepare(store, make.claim(devices={"main/sub": [5], "more": [2]}), trn2)
    assert [(d.requests, d.device, d.cdi_device_ids) for d in answer] == [
        (("main",), "neuron-device-5", ("neuron.aws.com/claim=uid-of-mine_main",)),
        (("more",), "neuron-device-2", ("neuron.aws.com/claim=uid-of-mine_more",)),
    ]
