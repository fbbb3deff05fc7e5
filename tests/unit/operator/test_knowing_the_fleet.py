"""The state in memory: complete before it is used, and right in whatever order news arrives."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from neuron_operator import kube
from neuron_operator.fleet import Fleet, Store


def item(name, version, value="x"):
    return {"metadata": {"name": name, "resourceVersion": str(version)}, "value": value}


@pytest.fixture
def store():
    return Store(lambda item: item["value"])


STORES = ["pools", "nodes", "neuron_nodes", "faults", "workloads", "ultraservers"]


@pytest.mark.parametrize("unlisted", [*STORES, "foreign"])
def test_there_is_no_snapshot_of_a_cluster_that_is_known_in_part(fleet, unlisted):
    fleet.foreign = ()
    for name in STORES:
        getattr(fleet, name).replace([], version=1)
    assert fleet.snapshot() is not None
    if unlisted == "foreign":
        fleet.foreign = None
    else:
        getattr(fleet, unlisted).listed = False
    assert fleet.snapshot() is None


def test_watched_objects_alone_make_no_snapshot(cluster, fleet, node):
    fleet.foreign = ()
    fleet.nodes.observe(cluster.put(kube.NODES, node("worker")))
    assert fleet.snapshot() is None


def test_an_older_version_never_replaces_a_newer_one(store):
    assert store.observe(item("a", 5, "new"))
    assert not store.observe(item("a", 4, "old"))
    store.replace([item("a", 3, "oldest")], version=4)
    assert store.values() == ["new"]


def test_a_deletion_that_the_watch_missed_is_found_by_the_list(store):
    store.observe(item("a", 5))
    assert store.replace([], version=9)
    assert store.values() == []


def test_an_object_newer_than_the_list_is_kept(store):
    store.observe(item("a", 12))
    store.replace([], version=9)
    assert store.values() == ["x"]


def test_a_list_that_is_older_than_a_deletion_does_not_bring_the_object_back(store):
    store.observe(item("a", 5))
    store.observe(item("a", 12), deleted=True)
    store.replace([item("a", 5)], version=9)
    assert store.values() == []


def test_the_late_news_of_a_deletion_does_not_take_its_successor(store):
    store.observe(item("a", 20, "successor"))
    assert not store.observe(item("a", 12), deleted=True)
    assert store.values() == ["successor"]


def test_what_decides_nothing_is_no_change(store):
    assert store.observe(item("a", 5))
    assert not store.observe(item("a", 6))


def test_a_heartbeat_of_a_node_is_no_change(cluster, fleet, node):
    seen = cluster.put(kube.NODES, node("worker"))
    assert fleet.nodes.observe(seen)
    seen["status"]["images"] = ["a", "b"]
    assert not fleet.nodes.observe(cluster.put(kube.NODES, seen))


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["put", "drop"])), max_size=12),
    st.data(),
)
def test_any_order_of_events_and_a_list_give_the_same_state(history, data):
    """Events in any order and a list taken at any moment, and the state is the last one."""
    state, events, lists = {}, [], [(0, [])]
    for version, (name, what) in enumerate(history, start=1):
        if what == "put":
            state[name] = item(name, version, f"{name}{version}")
            events.append((state[name], False))
        elif name in state:
            state.pop(name)
            events.append((item(name, version), True))
        lists.append((version, list(state.values())))
    news = [("event", event) for event in events] + [("list", data.draw(st.sampled_from(lists)))]
    store = Store(lambda item: item["value"])
    for kind, payload in data.draw(st.permutations(news)):
        if kind == "event":
            store.observe(payload[0], deleted=payload[1])
        else:
            store.replace(payload[1], version=payload[0])
    assert store.values() == [state[name]["value"] for name in sorted(state)]


def test_an_empty_fleet_has_a_snapshot_once_everything_was_listed():
    fleet = Fleet(driver_name="x")
    fleet.foreign = ()
    for name in STORES:
        getattr(fleet, name).replace([], version=1)
    assert fleet.snapshot().nodes == []
