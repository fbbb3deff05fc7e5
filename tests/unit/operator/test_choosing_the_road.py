"""DRA or the device plugin: what Auto chooses, when it changes its mind, and what is told."""

import pytest
from neuron_operator import kube, names

CHIPS = {"aws.amazon.com/neuron": "16", "aws.amazon.com/neuroncore": "64"}
NONE = dict.fromkeys(CHIPS, "0")


def condition(cluster, kind, pool="default"):
    return next(c for c in cluster.of(kube.POOLS)[pool]["status"]["conditions"] if c["type"] == kind)


def roads(cluster):
    return {name: item["spec"]["resources"] for name, item in cluster.of(kube.NEURON_NODES).items()}


def wish(cluster, resources, pool="default"):
    edited = cluster.of(kube.POOLS)[pool]
    edited["spec"]["resources"] = resources
    cluster.put(kube.POOLS, edited)


def report(cluster, name, allocatable, capacity=None):
    """What the kubelet does, some time after a device plugin came or went."""
    item = cluster.of(kube.NODES)[name]
    item["status"] = {"capacity": capacity or allocatable, "allocatable": allocatable}
    cluster.put(kube.NODES, item)


@pytest.fixture
async def live(cluster, node, pool, settle):
    async def live(device_class, **spec):
        cluster.put(kube.NODES, node("worker"))
        cluster.put(kube.POOLS, pool(**spec))
        if device_class:
            cluster.put(kube.DEVICE_CLASSES, device_class)
        await settle(cluster)

    return live


@pytest.mark.parametrize(
    ("kept", "road", "reason", "plain"),
    [
        (True, "DRA", "ExtendedResourceServed", "ExtendedResourceServed"),
        (False, "DevicePlugin", "ExtendedResourceNameDropped", "DevicePluginServed"),
    ],
)
async def test_auto_is_whatever_serves_plain_pods(cluster, device_class, live, kept, road, reason, plain):
    await live(device_class(kept=kept))
    assert roads(cluster) == {"worker": road}
    assert cluster.of(kube.POOLS)["default"]["status"]["resources"] == road
    told = condition(cluster, "ResourcesSettled")
    assert (told["status"], told["reason"]) == ("True", reason)
    assert told["message"].startswith(f"Pods get devices by {road}: ")
    told = condition(cluster, "PlainPods")
    assert (told["status"], told["reason"]) == ("True", plain)


async def test_who_does_not_want_plain_pods_served_gets_no_device_plugin(cluster, device_class, live):
    await live(device_class(""))
    assert roads(cluster) == {"worker": "DRA"}
    assert condition(cluster, "PlainPods")["reason"] == "PlainPodsNotWished"


@pytest.mark.parametrize("resources", ["DRA", "DevicePlugin"])
@pytest.mark.parametrize("kept", [True, False])
async def test_what_the_pool_says_goes_before_what_the_cluster_can(cluster, device_class, live, resources, kept):
    await live(device_class(kept=kept), resources=resources)
    assert roads(cluster) == {"worker": resources}
    assert condition(cluster, "ResourcesSettled")["reason"] == "AsWished"


async def test_a_pool_is_told_when_its_wish_leaves_plain_pods_without(cluster, device_class, live, settle):
    await live(device_class(kept=False), resources="DRA")
    told = condition(cluster, "PlainPods")
    assert (told["status"], told["reason"]) == ("False", "ExtendedResourceNameDropped")
    assert "1.36" in told["message"]
    cluster.put(kube.DEVICE_CLASSES, device_class())
    await settle(cluster)
    assert condition(cluster, "PlainPods")["status"] == "True"


async def test_while_nothing_is_known_auto_means_dra(cluster, live):
    await live(None)
    assert roads(cluster) == {"worker": "DRA"}
    assert condition(cluster, "ResourcesSettled")["status"] == "Unknown"


async def test_a_device_class_that_vanishes_changes_no_node(cluster, device_class, live, settle):
    await live(device_class(kept=False))
    cluster.drop(kube.DEVICE_CLASSES, names.DEVICE_CLASS)
    await settle(cluster)
    assert roads(cluster) == {"worker": "DevicePlugin"}
    assert condition(cluster, "ResourcesSettled")["reason"] == "NotKnown"


async def test_a_pool_made_wrong_by_an_edit_tells_the_road_that_its_nodes_have(cluster, device_class, live, settle):
    await live(device_class(kept=False))
    edited = cluster.of(kube.POOLS)["default"]
    edited["spec"] |= {"instanceType": "trn9.48xlarge", "resources": "DRA"}
    cluster.put(kube.POOLS, edited)
    await settle(cluster)
    assert roads(cluster) == {"worker": "DevicePlugin"}
    assert cluster.of(kube.POOLS)["default"]["status"]["resources"] == "DevicePlugin"


async def test_pods_of_the_other_road_are_told_of_while_they_last(cluster, device_class, live, settle):
    await live(device_class(), resources="DevicePlugin")
    wish(cluster, "DRA")
    item = cluster.of(kube.NEURON_NODES)["worker"]
    cluster.put(kube.NEURON_NODES, {**item, "status": {"preparedClaims": 3, "otherRoadClaims": 2}})
    await settle(cluster)
    told = condition(cluster, "ResourcesSettled")
    assert (told["status"], told["reason"]) == ("False", "PodsOfTheOtherRoad")
    assert "2 allocations on worker" in told["message"]
    assert "keep their devices until they end" in told["message"]
    item = cluster.of(kube.NEURON_NODES)["worker"]
    cluster.put(kube.NEURON_NODES, {**item, "status": {"preparedClaims": 1, "otherRoadClaims": 0}})
    await settle(cluster)
    assert condition(cluster, "ResourcesSettled")["status"] == "True"


class TestOurOwnDevicePluginIsNotMistaken:
    """It puts the very names into the node's capacity by which a real one is known."""

    async def test_while_it_serves(self, cluster, device_class, live, settle):
        await live(device_class(kept=False))
        report(cluster, "worker", CHIPS)
        planned = await settle(cluster)
        assert not planned.refusal
        assert condition(cluster, "Accepted")["status"] == "True"

    async def test_by_an_operator_that_was_killed_before_it_wrote_the_label(self, cluster, device_class, live, settle):
        await live(device_class(kept=False))
        unlabelled = cluster.of(kube.NODES)["worker"]
        unlabelled["metadata"] |= {"labels": {}, "managedFields": []}
        cluster.put(kube.NODES, unlabelled)
        report(cluster, "worker", CHIPS)
        assert not (await settle(cluster)).refusal

    @pytest.mark.parametrize("goes", ["road", "pool"])
    async def test_until_the_kubelet_has_taken_note_that_it_went(self, cluster, device_class, live, settle, goes):
        await live(device_class(kept=False))
        report(cluster, "worker", CHIPS)
        if goes == "road":
            wish(cluster, "DRA")
        else:
            cluster.drop(kube.POOLS, "default")
        assert not (await settle(cluster)).refusal
        assert not (await settle(cluster)).refusal
        assert names.LABEL_DEVICE_PLUGIN in cluster.of(kube.NODES)["worker"]["metadata"]["labels"]
        # for five minutes the kubelet reports what the plugin had, but nothing of it as allocatable
        report(cluster, "worker", NONE, capacity=CHIPS)
        assert not (await settle(cluster)).refusal
        assert names.LABEL_DEVICE_PLUGIN not in cluster.of(kube.NODES)["worker"]["metadata"]["labels"]
        assert not (await settle(cluster)).refusal

    async def test_and_a_real_one_still_is_found(self, cluster, device_class, live, settle):
        await live(device_class())
        report(cluster, "worker", CHIPS)
        assert (await settle(cluster)).refusal
