"""What a prepared claim is on disk: the CDI file, the view, the metadata file."""

import json
from dataclasses import replace
from typing import Any

import pytest
from neuron_dra_driver.allocations.allocation import allocation_on
from neuron_dra_driver.errors import ClaimError
from neuron_dra_driver.node import SimulatedNode, from_neuron_node, standalone


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

    def marker(request: str, name: str) -> dict[str, Any]:
        return {"name": f"uid-of-mine_{request}_{name}", "containerEdits": {"env": ["NEURON_SIM_SIMULATED=true"]}}

    assert spec == {
        "cdiVersion": "0.6.0",
        "kind": "neuron.aws.com/claim",
        "annotations": {"neuron-sim.dev/simulated": "true", "neuron-sim.dev/claim": "team/mine"},
        "devices": [
            device("main", 0),
            device("more", 1, 2),
            marker("main", "neuron-device-5"),
            marker("more", "neuron-device-2"),
            marker("more", "neuron-device-3"),
        ],
    }
    assert record["uid"] == "uid-of-mine"
    assert [d["device"] for d in record["devices"]] == ["neuron-device-5", "neuron-device-2", "neuron-device-3"]


def test_chips_without_logical_cores_have_no_such_variable(host: Any, store: Any, make: Any) -> None:
    prepare(store, make.claim(), standalone(name="worker-1", type_name="trn1.32xlarge"))
    (path,) = host.cdi.iterdir()
    assert json.loads(path.read_bytes())["devices"][0]["containerEdits"]["env"] == ["NEURON_SIM_SIMULATED=true"]


def environment(host: Any, *, request: int = 0) -> dict[str, str]:
    """The variables of a prepared claim's request."""
    (path,) = host.cdi.iterdir()
    return dict(
        line.split("=", 1) for line in json.loads(path.read_bytes())["devices"][request]["containerEdits"]["env"]
    )


def device_files(host: Any) -> list[list[str]]:
    (path,) = host.cdi.iterdir()
    return [
        [node["path"] for node in device["containerEdits"]["deviceNodes"]]
        for device in json.loads(path.read_bytes())["devices"]
        if "deviceNodes" in device["containerEdits"]
    ]


def view(host: Any, request: str = "n") -> Any:
    return json.loads((host.views / "uid-of-mine" / request / "view.json").read_bytes())


def test_cores_of_two_chips(host: Any, store: Any, make: Any, cut: SimulatedNode) -> None:
    """A file and a row for each chip, with the cores that were given under the container's numbers."""
    devices = ["neuron-core-6", "neuron-core-40", "neuron-core-5"]
    answer = prepare(store, make.claim(devices={"n": devices}), cut)
    assert device_files(host) == [["/dev/neuron0", "/dev/neuron1"]]
    assert environment(host)["NEURON_RT_VISIBLE_CORES"] == "1-2,4"
    assert environment(host)["NEURON_LOGICAL_NC_CONFIG"] == "2"
    seen = [(d["index"], d["host_index"], d["core_ids"], d["core_count"]) for d in view(host)["devices"]]
    assert seen == [(0, 1, [1, 2], 2), (1, 10, [4], 1)]
    assert [device.device for device in answer] == ["neuron-core-5", "neuron-core-6", "neuron-core-40"]


def test_each_core_has_a_file_that_stays_the_same(host: Any, store: Any, make: Any, cut: SimulatedNode) -> None:
    """Processes hold locks on them while the claim is prepared again."""
    claim = make.claim(devices={"n": ["neuron-core-6", "neuron-device-3"]})

    def files() -> dict[str, int]:
        return {path.name: path.stat().st_ino for path in (host.views / "uid-of-mine" / "n" / "cores").iterdir()}

    prepare(store, claim, cut)
    before = files()
    assert sorted(before) == ["2", "4", "5", "6", "7"]
    prepare(store, claim, cut)
    assert files() == before


def test_a_chip_beside_cores_is_listed_with_them(host: Any, store: Any, make: Any, cut: SimulatedNode) -> None:
    prepare(store, make.claim(devices={"n": ["neuron-core-4", "neuron-device-0"]}), cut)
    assert environment(host)["NEURON_RT_VISIBLE_CORES"] == "0-4"


def test_all_cores_of_a_chip_need_no_list(host: Any, store: Any, make: Any, cut: SimulatedNode) -> None:
    prepare(store, make.claim(devices={"n": [f"neuron-core-{n}" for n in range(4)]}), cut)
    assert "NEURON_RT_VISIBLE_CORES" not in environment(host)


def test_a_container_of_a_scheduler_made_claim_has_one_list(
    host: Any, store: Any, make: Any, cut: SimulatedNode
) -> None:
    devices = {"container-0-request-0": [9], "container-0-request-1": ["neuron-core-1"], "container-1-request-0": [2]}
    annotations = {"resource.kubernetes.io/extended-resource-claim": "true"}
    prepare(store, make.claim(devices=devices, annotations=annotations), cut)
    assert device_files(host) == [["/dev/neuron0"], ["/dev/neuron1"], ["/dev/neuron0"]]
    lists = [environment(host, request=n).get("NEURON_RT_VISIBLE_CORES") for n in range(3)]
    assert lists == ["0-3,5", "0-3,5", None]


def test_nobody_knows_which_requests_of_a_claim_a_container_uses(
    host: Any, store: Any, make: Any, cut: SimulatedNode
) -> None:
    prepare(store, make.claim(devices={"a": ["neuron-core-0"], "b": ["neuron-core-1"]}), cut)
    assert [environment(host, request=n).get("NEURON_RT_VISIBLE_CORES") for n in (0, 1)] == [None, None]
    assert [view(host, request)["devices"][0]["core_ids"] for request in "ab"] == [[0], [5]]


def test_another_lnc(host: Any, store: Any, make: Any, cut: SimulatedNode) -> None:
    claim = make.claim(devices={"n": ["neuron-core-5"]}, config=[make.lnc(1)])
    prepare(store, claim, cut)
    assert environment(host)["NEURON_LOGICAL_NC_CONFIG"] == "1"
    assert environment(host)["NEURON_RT_VISIBLE_CORES"] == "2-3"
    assert view(host)["logical_neuroncore_config"] == 1


def test_our_own_configuration(host: Any, store: Any, make: Any, trn2: SimulatedNode) -> None:
    parameters = {
        "apiVersion": "neuron-sim.dev/v1alpha1",
        "kind": "SimulationConfig",
        "environment": {"NEURON_RT_LOG_LEVEL": "INFO", "NEURON_CC_FLAGS": "--a=b c"},
    }
    prepare(store, make.claim(config=[make.opaque(parameters)]), trn2)
    assert environment(host) == {
        "NEURON_SIM_SIMULATED": "true",
        "NEURON_LOGICAL_NC_CONFIG": "2",
        "NEURON_RT_LOG_LEVEL": "INFO",
        "NEURON_CC_FLAGS": "--a=b c",
    }


def trn2u(**seat: Any) -> SimulatedNode:
    """A trn2u.48xlarge, the last of its UltraServer unless said otherwise."""
    return from_neuron_node(
        {
            "metadata": {"name": "worker-1"},
            "spec": {
                "instanceType": "trn2u.48xlarge",
                "partitions": "logical",
                "devices": "both",
                "ultraServer": {"id": "u5wy80u0o2saugxy", "size": 4, "node": 3} | seat,
                "capacityBlockID": "cr-0123456789abcdef0",
            },
        }
    )


@pytest.mark.parametrize(
    ("servers", "mode", "node_id", "first"), [(1, "4", "-1", "0"), (2, "2", "1", "1"), (4, "1", "3", "3")]
)
def test_a_whole_node_of_an_ultraserver(
    host: Any, store: Any, make: Any, servers: int, mode: str, node_id: str, first: str
) -> None:
    parameters = {"apiVersion": "neuron.aws.com/v1", "kind": "UltraServerConfig", "ultraserverMode": servers}
    claim = make.claim(devices={"n": ["neuron-node"]}, config=[make.opaque(parameters), make.lnc(1)])
    answer = prepare(store, claim, trn2u())
    assert [device.device for device in answer] == ["neuron-node"]
    assert device_files(host) == [[f"/dev/neuron{n}" for n in range(16)]]
    has = environment(host)
    assert has["NEURON_RT_ULTRASERVER_MODE"] == mode
    assert has["NEURON_RT_ULTRASERVER_NODE_ID"] == node_id
    assert has["NEURON_GLOBAL_TOPOID"] == first
    assert environment(host)["NEURON_LOGICAL_NC_CONFIG"] == "1"
    assert sum(device["core_count"] for device in view(host)["devices"]) == 128


def test_the_workers_of_a_set_name_it_alike_and_others_do_not(host: Any, store: Any, make: Any) -> None:
    def set_of(node: int, servers: int) -> str:
        parameters = {"apiVersion": "neuron.aws.com/v1", "kind": "UltraServerConfig", "ultraserverMode": servers}
        claim = make.claim(devices={"n": ["neuron-node"]}, config=[make.opaque(parameters)])
        prepare(store, claim, trn2u(node=node))
        return environment(host)["NEURON_RT_ULTRASERVER_SERVER_ID"]

    assert {set_of(node, 4) for node in range(4)} == {"u5wy80u0o2saugxy"}
    pairs = [set_of(node, 2) for node in range(4)]
    assert pairs[0] == pairs[1] != pairs[2] == pairs[3]
    assert {set_of(node, 1) for node in range(4)} == {"0000000000000000"}


def test_what_a_device_plugin_gives_has_no_claims_metadata(
    host: Any, store: Any, make: Any, trn2: SimulatedNode
) -> None:
    allocation = replace(make.allocation(make.claim(devices={"n": ["neuron-core-3"]})), origin="device-plugin")
    store.prepare(allocation, trn2)
    (path,) = host.cdi.iterdir()
    assert "dra-device-attributes" not in path.read_text()
    assert environment(host)["NEURON_RT_VISIBLE_CORES"] == "3"
    assert [entry.origin for entry in host.opened().prepared()] == ["device-plugin"]


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
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in folder.rglob("*"))
    assert folder.stat().st_mode & 0o555 == 0o555


def test_a_device_that_the_node_does_not_have_any_more(host: Any, store: Any, make: Any) -> None:
    with pytest.raises(ClaimError, match=r"no neuron-device-9 \(any more\): it is a trn2.3xlarge with 1 devices"):
        prepare(store, make.claim(devices={"n": [9]}), standalone(name="worker-1", type_name="trn2.3xlarge"))
    assert host.leftovers() == []


def test_every_answered_device_has_a_cdi_device_of_its_own_and_its_requests(
    host: Any, store: Any, make: Any, trn2: SimulatedNode
) -> None:
    """The kubelet reports health by the first, and knows one device for each."""
    answer = prepare(store, make.claim(devices={"main/sub": [5, 6], "more": [2]}), trn2)
    main, more = (f"neuron.aws.com/claim=uid-of-mine_{request}" for request in ("main", "more"))
    assert [(d.requests, d.device, d.cdi_device_ids) for d in answer] == [
        (("main",), "neuron-device-5", (f"{main}_neuron-device-5", main)),
        (("main",), "neuron-device-6", (f"{main}_neuron-device-6", main)),
        (("more",), "neuron-device-2", (f"{more}_neuron-device-2", more)),
    ]
    (file,) = host.cdi.iterdir()
    known = {f"neuron.aws.com/claim={device['name']}" for device in json.loads(file.read_text())["devices"]}
    assert {name for device in answer for name in device.cdi_device_ids} == known
