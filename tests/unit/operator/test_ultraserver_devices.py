"""UltraServers as DRA devices: what is published for a fleet whose nodes come, break and go."""

import copy

import pytest
from neuron_operator import kube, names
from neuron_operator.kube import ApiError
from ultraserver_site import Site, api_with


@pytest.fixture
async def site(cluster, node, pool, fault):
    site = Site(cluster, node=node, pool=pool, fault=fault)
    await site.settle()
    return site


def ultraserver_of(site, node):
    return site.cluster.of(kube.NEURON_NODES)[node]["spec"]["ultraServer"]["id"]


def nodes_of(site, item):
    """The nodes that a slice's selector selects."""
    (term,) = item["spec"]["nodeSelector"]["nodeSelectorTerms"]
    (wanted,) = term["matchExpressions"]
    labels = {name: node["metadata"]["labels"] for name, node in site.cluster.of(kube.NODES).items()}
    return sorted(name for name, found in labels.items() if found.get(wanted["key"]) in wanted["values"])


def slice_writes(site):
    return [write for write in site.cluster.writes if "resourceslices" in write]


async def test_each_ultraserver_is_one_device_that_its_nodes_can_reach(site):
    slices = site.slices()
    assert sorted(slices) == sorted({ultraserver_of(site, "n0"), ultraserver_of(site, "n4")})
    reached = sorted(nodes_of(site, item) for item in slices.values())
    assert reached == [["n0", "n1", "n2", "n3"], ["n4", "n5", "n6", "n7"]]
    for name, item in slices.items():
        assert item["spec"]["driver"] == names.ULTRASERVER_DRIVER_NAME != names.AWS_DRIVER_NAME
        assert item["spec"]["pool"]["resourceSliceCount"] == 1
        (device,) = item["spec"]["devices"]
        assert device["attributes"]["ultraserverId"] == {"string": name}
        assert (device["attributes"]["nodes"], device["attributes"]["chips"]) == ({"int": 4}, {"int": 64})
        assert "taints" not in device


async def test_nothing_is_written_that_is_right(site):
    before = copy.deepcopy(site.slices())
    site.agents()
    await site.settle()
    assert site.slices() == before


async def test_a_broken_node_taints_its_ultraserver_until_it_is_healed(site):
    first, second = ultraserver_of(site, "n1"), ultraserver_of(site, "n4")
    before = site.slices()[first]["spec"]["pool"]["generation"]
    site.break_node("n1", effect="NoExecute")
    await site.settle()
    (device,) = site.slices()[first]["spec"]["devices"]
    assert device["taints"] == [{"key": "neuron-sim.dev/unhealthy", "value": "NodeBroken", "effect": "NoSchedule"}]
    assert site.slices()[first]["spec"]["pool"]["generation"] == before + 1
    assert "taints" not in site.slices()[second]["spec"]["devices"][0]
    site.cluster.drop(kube.FAULTS, "fault-n1")
    await site.settle()
    assert "taints" not in site.slices()[first]["spec"]["devices"][0]
    assert site.slices()[first]["spec"]["pool"]["generation"] == before + 2


async def test_an_ultraserver_that_lacks_a_node_says_so_and_one_without_nodes_is_gone(site):
    first = ultraserver_of(site, "n0")
    site.drop_node("n3")
    await site.settle()
    (device,) = site.slices()[first]["spec"]["devices"]
    assert [device["attributes"][name] for name in ("size", "nodes", "chips")] == [{"int": 4}, {"int": 3}, {"int": 48}]
    assert "taints" not in device
    for name in ("n0", "n1", "n2"):
        site.drop_node(name)
    await site.settle()
    assert list(site.slices()) == [ultraserver_of(site, "n4")]


async def test_what_others_do_to_a_slice_is_put_right(site):
    first, second = site.slices().values()
    edited = copy.deepcopy(first)
    edited["spec"]["devices"][0]["attributes"]["instanceType"] = {"string": "t2.micro"}
    edited["spec"]["pool"]["generation"] = 7
    site.cluster.put(kube.SLICES, edited)
    site.cluster.drop(kube.SLICES, second["metadata"]["name"])
    left_over = copy.deepcopy(second)
    left_over["metadata"]["name"] = "of-an-earlier-release"
    site.cluster.put(kube.SLICES, left_over)
    await site.settle()
    found = site.cluster.of(kube.SLICES)
    assert found.keys() == {first["metadata"]["name"], second["metadata"]["name"]}
    again = found[first["metadata"]["name"]]["spec"]
    assert again["devices"] == first["spec"]["devices"]
    assert again["pool"]["generation"] == 8


async def test_slices_of_somebody_else_are_left_alone(site):
    theirs = {
        "metadata": {"name": "theirs"},
        "spec": {"driver": names.ULTRASERVER_DRIVER_NAME, "pool": {"name": "theirs", "generation": 1}},
    }
    site.cluster.put(kube.SLICES, theirs)
    agents = {
        "metadata": {"name": "n0-slice", "labels": {names.LABEL_SIMULATED: "true"}},
        "spec": {"driver": names.AWS_DRIVER_NAME, "nodeName": "n0", "pool": {"name": "n0", "generation": 1}},
    }
    site.cluster.put(kube.SLICES, agents)
    before = slice_writes(site)
    await site.settle()
    assert slice_writes(site) == before


async def test_taints_that_the_api_server_drops_are_not_sent_for_ever(site):
    site.break_node("n1")
    await site.settle()
    item = copy.deepcopy(site.slices()[ultraserver_of(site, "n1")])
    del item["spec"]["devices"][0]["taints"]
    site.cluster.put(kube.SLICES, item)
    before = slice_writes(site)
    await site.settle()
    assert slice_writes(site) == before


async def test_timestamps_that_the_api_server_adds_are_no_change(site):
    site.break_node("n1")
    await site.settle()
    item = copy.deepcopy(site.slices()[ultraserver_of(site, "n1")])
    item["spec"]["devices"][0]["taints"][0]["timeAdded"] = "2026-11-21T12:00:00Z"
    site.cluster.put(kube.SLICES, item)
    before = slice_writes(site)
    await site.settle()
    assert slice_writes(site) == before


async def test_the_barrier_of_gangs_is_a_second_device_of_the_same_slice(site):
    before = {name: item["spec"]["pool"]["generation"] for name, item in site.slices().items()}
    site.barrier = True
    await site.settle()
    for name, item in site.slices().items():
        ultraserver, barrier = item["spec"]["devices"]
        assert ultraserver["attributes"]["ultraserverId"] == {"string": name}
        assert "bindingConditions" not in ultraserver
        assert barrier["allowMultipleAllocations"] is True
        assert barrier["bindingConditions"] == [names.CONDITION_COMPLETE]
        assert barrier["bindingFailureConditions"] == [names.CONDITION_GIVEN_UP]
        assert item["spec"]["pool"] == {"name": name, "generation": before[name] + 1, "resourceSliceCount": 1}
    site.barrier = False
    await site.settle()
    assert all(len(item["spec"]["devices"]) == 1 for item in site.slices().values())


@pytest.mark.parametrize("field", ["bindingConditions", "allowMultipleAllocations"])
async def test_fields_behind_gates_are_put_right_but_not_sent_for_ever(site, field):
    site.barrier = True
    await site.settle()
    item = copy.deepcopy(site.slices()[ultraserver_of(site, "n1")])
    sent = item["spec"]["devices"][1].pop(field)
    site.cluster.put(kube.SLICES, item)
    before = slice_writes(site)
    await site.settle()
    assert slice_writes(site) == before, "an API server without the gate drops it again"
    item["spec"]["devices"][1][field] = ["else"]
    site.cluster.put(kube.SLICES, item)
    await site.settle()
    assert site.slices()[ultraserver_of(site, "n1")]["spec"]["devices"][1][field] == sent


async def test_a_fleet_with_too_many_offers_none(site):
    site.most_devices = 1
    await site.settle()
    assert site.slices() == {}
    for name in ("n4", "n5", "n6", "n7"):
        site.drop_node(name)
    await site.settle()
    assert list(site.slices()) == [ultraserver_of(site, "n0")]


async def test_a_kill_between_any_two_writes_leads_to_the_same(cluster, node, pool, fault):
    site = Site(cluster, node=node, pool=pool, fault=fault)
    for allowed in range(40):
        left = allowed

        def fail():
            nonlocal left
            left -= 1
            if left < 0:
                raise ApiError(0, "", "killed")

        await site.look(api=api_with(cluster, fail))
        site.agents()
    await site.settle()
    assert sorted(site.slices()) == sorted({ultraserver_of(site, "n0"), ultraserver_of(site, "n4")})
    assert len(site.cluster.of(kube.SLICES)) == 2
    assert all("taints" not in item["spec"]["devices"][0] for item in site.slices().values())
