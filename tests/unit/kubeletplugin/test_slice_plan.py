"""The decision alone: what is there, what is wanted, what to write."""

from __future__ import annotations

from typing import Any

import pytest
from neuron_dra_driver.kubeletplugin.slices import (
    Identity,
    Plan,
    Pool,
    Slice,
    SliceObject,
    content,
    differences,
    plan,
)

ME = Identity(
    driver_name="neuron.aws.com",
    node_name="ip-192-168-187-176.us-east-2.compute.internal",
    node_uid="node-uid",
    labels={"ours": "true"},
)
ONE = Pool(ME.node_name, (Slice(devices=[{"name": "neuron-device-0"}]),))
COUNTER = {"name": "chip-0", "counters": {"core-0": {"value": "1"}}}
TWO = Pool(ME.node_name, (Slice(shared_counters=[COUNTER]), Slice(devices=[{"name": "neuron-device-0"}])))


def decide(pool: Pool | None, *owned: SliceObject, generation: int = 0, accepted: dict[int, Any] | None = None) -> Plan:
    return plan(ME, pool, owned=owned, generation=generation, accepted=accepted or {})


def stored(pool: Pool = ONE, *, suffix: str = "clm4fd"[-5:]) -> list[SliceObject]:
    """What a server makes of the plan for an empty server."""
    result = []
    for write in decide(pool).writes:
        metadata = write.body["metadata"]
        name = metadata["generateName"][:58] + suffix
        uid = f"uid-{write.index}-{suffix}"
        result.append({**write.body, "metadata": {**metadata, "name": name, "uid": uid, "resourceVersion": "1"}})
    return result


def test_a_pool_of_one_slice_is_named_and_owned_as_the_real_driver_does() -> None:
    (write,) = decide(ONE).writes
    assert write.creates
    assert stored()[0]["metadata"]["name"] == "ip-192-168-187-176.us-east-2.compute.internal-neuron.aws.clm4fd"
    assert write.body == {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceSlice",
        "metadata": {
            "generateName": "ip-192-168-187-176.us-east-2.compute.internal-neuron.aws.com-",
            "labels": {"ours": "true"},
            "ownerReferences": [
                {
                    "apiVersion": "v1",
                    "kind": "Node",
                    "name": "ip-192-168-187-176.us-east-2.compute.internal",
                    "uid": "node-uid",
                    "controller": True,
                }
            ],
        },
        "spec": {
            "driver": "neuron.aws.com",
            "nodeName": "ip-192-168-187-176.us-east-2.compute.internal",
            "pool": {
                "name": "ip-192-168-187-176.us-east-2.compute.internal",
                "generation": 1,
                "resourceSliceCount": 1,
            },
            "devices": [{"name": "neuron-device-0"}],
        },
    }


def test_names_of_several_slices_sort_in_the_order_of_the_pool() -> None:
    many = Pool("p", tuple(Slice(devices=[{"name": f"d{place}"}]) for place in range(17)))
    names = [found["metadata"]["name"] for found in stored(many)]
    assert names == sorted(names)
    assert names[16].startswith("00010-neuron.aws.com-ip-192-")
    assert not decide(many, *stored(many))


def test_counters_and_devices_are_in_slices_of_their_own() -> None:
    counters, devices = (write.body["spec"] for write in decide(TWO).writes)
    assert counters["sharedCounters"] == [COUNTER]
    assert "devices" not in counters
    assert "sharedCounters" not in devices
    with pytest.raises(ValueError, match="two slices"):
        Slice(devices=[{}], shared_counters=[{}])
    with pytest.raises(ValueError, match="publish None"):
        Pool("p", ())


def test_what_stands_is_left_alone() -> None:
    assert not decide(ONE, *stored())
    assert not decide(TWO, *stored(TWO))
    assert not decide(None)


def test_any_change_rewrites_all_slices_under_a_new_generation() -> None:
    changed = Pool(ME.node_name, (TWO.slices[0], Slice(devices=[{"name": "neuron-device-1"}])))
    todo = decide(changed, *stored(TWO))
    assert not todo.deletes
    assert [write.creates for write in todo.writes] == [False, False]
    assert [write.body["spec"]["pool"]["generation"] for write in todo.writes] == [2, 2]


def test_a_lost_slice_is_made_again_and_the_others_follow_its_generation() -> None:
    todo = decide(TWO, stored(TWO)[1])
    assert [(write.index, write.creates) for write in todo.writes] == [(0, True), (1, False)]
    assert {write.body["spec"]["pool"]["generation"] for write in todo.writes} == {2}


def test_slices_of_different_generations_are_brought_to_one() -> None:
    one, other = stored(TWO)
    other["spec"] = {**other["spec"], "pool": {**other["spec"]["pool"], "generation": 5}}
    assert {write.body["spec"]["pool"]["generation"] for write in decide(TWO, one, other).writes} == {6}


def test_a_wrong_count_of_slices_is_corrected() -> None:
    (found,) = stored()
    found["spec"] = {**found["spec"], "pool": {**found["spec"]["pool"], "resourceSliceCount": 2}}
    (write,) = decide(ONE, found).writes
    assert write.body["spec"]["pool"]["resourceSliceCount"] == 1


def test_generations_never_go_back() -> None:
    assert decide(ONE, generation=7).generation == 8


def test_a_duplicate_is_deleted_and_the_newest_stays() -> None:
    (older,), (newer,) = stored(suffix="aaaaa"), stored(suffix="bbbbb")
    newer["spec"] = {**newer["spec"], "pool": {**newer["spec"]["pool"], "generation": 4}}
    todo = decide(ONE, older, newer)
    assert todo.deletes == (older,)
    assert not todo.writes


def test_slices_of_another_pool_or_shape_go() -> None:
    (renamed,) = stored(Pool("old-name", ONE.slices))
    assert decide(ONE, renamed).deletes == (renamed,)
    assert decide(TWO, *stored(ONE)).deletes == tuple(stored(ONE))
    assert len(decide(TWO, *stored(ONE)).writes) == 2
    assert decide(None, *stored(TWO)).deletes == tuple(stored(TWO))


def test_a_slice_that_is_going_is_not_counted_on() -> None:
    (going,) = stored()
    going["metadata"]["deletionTimestamp"] = "2026-11-21T00:00:00Z"
    todo = decide(ONE, going)
    assert not todo.deletes
    assert todo.writes[0].creates
    assert todo.generation == 2, "the allocator still sees it"


def test_labels_and_owner_are_ours_the_rest_of_the_metadata_is_not() -> None:
    (found,) = stored()
    found["metadata"] = {
        **found["metadata"],
        "labels": {"theirs": "x"},
        "annotations": {"a": "b"},
        "ownerReferences": [],
    }
    (write,) = decide(ONE, found).writes
    assert write.body["metadata"]["labels"] == {"theirs": "x", "ours": "true"}
    assert write.body["metadata"]["annotations"] == {"a": "b"}
    assert write.body["metadata"]["ownerReferences"][0]["uid"] == "node-uid"
    assert write.body["metadata"]["resourceVersion"] == "1"


def test_a_field_that_the_server_dropped_is_not_asked_for_again() -> None:
    tainted = Pool(ME.node_name, (Slice(devices=[{"name": "d", "taints": [{"key": "k"}]}]),))
    (found,) = stored(tainted)
    found["spec"] = {**found["spec"], "devices": [{"name": "d"}]}
    assert decide(tainted, found).writes
    assert not decide(tainted, found, accepted={0: content(found, ME)})


@pytest.mark.parametrize(
    ("wanted", "actual", "paths"),
    [
        ({"devices": []}, {}, []),
        ({"devices": [{"name": "a", "taints": []}]}, {"devices": [{"name": "a"}]}, []),
        ({"devices": [{"taints": [{"key": "k"}]}]}, {"devices": [{}]}, ["devices[0].taints"]),
        ({"devices": [{}]}, {"devices": [{"taints": [{"key": "k"}]}]}, ["devices[0].taints"]),
        ({"devices": [{}, {}]}, {"devices": [{}]}, ["devices"]),
        (
            {"attributes": {"a.example/b": {"int": 1}}},
            {"attributes": {"a.example/b": {"int": 2}}},
            ["attributes[a.example/b].int"],
        ),
        ({"capacity": {"memory": {"value": "1024Mi"}}}, {"capacity": {"memory": {"value": "1Gi"}}}, []),
        (
            {"counters": {"core": {"value": "2"}}},
            {"counters": {"core": {"value": "1"}}},
            ["counters.core.value"],
        ),
        ({"capacity": {"memory": {"value": "0.5"}}}, {"capacity": {"memory": {"value": "500m"}}}, []),
        ({"capacity": {"m": {"value": 96}}}, {"capacity": {"m": {"value": "96"}}}, []),
        ({"taints": [{"key": "1k"}]}, {"taints": [{"key": "1000"}]}, ["taints[0].key"]),
        ({"taints": [{"key": "k"}]}, {"taints": [{"key": "k", "timeAdded": "2026-11-21T00:00:00Z"}]}, []),
        (
            {"taints": [{"timeAdded": "2026-11-21T00:00:00.7+00:00"}]},
            {"taints": [{"timeAdded": "2026-11-21T00:00:00Z"}]},
            [],
        ),
        (
            {"taints": [{"timeAdded": "2026-11-21T00:00:01Z"}]},
            {"taints": [{"timeAdded": "2026-11-21T00:00:00Z"}]},
            ["taints[0].timeAdded"],
        ),
        ({"bindsToNode": True}, {}, ["bindsToNode"]),
    ],
)
def test_only_what_the_server_does_to_every_object_is_no_difference(wanted: Any, actual: Any, paths: list[str]) -> None:
    assert list(differences(wanted, actual)) == paths
