"""A plain pod that asks DRA for more than a claim can hold is told so, once, with the ways out."""

from datetime import UTC, datetime, timedelta

import pytest
from neuron_operator import kube, pending, survey
from neuron_operator.kube import ApiError
from neuron_operator.notices import PendingPods

NOW = datetime(2026, 11, 21, tzinfo=UTC)
BOTH = ("aws.amazon.com/neuron", "aws.amazon.com/neuroncore")


def container(restart=None, **amounts):
    limits = {f"aws.amazon.com/{resource}": str(amount) for resource, amount in amounts.items()}
    found = {"name": "c", "resources": {"limits": limits, "requests": limits}}
    return {**found, "restartPolicy": restart} if restart else found


def pod(name, *containers, first=(), node=None, phase="Pending"):
    spec = {"containers": list(containers), "initContainers": list(first)} | ({"nodeName": node} if node else {})
    return {"metadata": {"name": name, "namespace": "team"}, "spec": spec, "status": {"phase": phase}}


def events(cluster):
    return [e for e in cluster.of(kube.EVENTS).values() if e["regarding"]["kind"] == "Pod"]


@pytest.fixture
async def pods(cluster, fleet, node, pool, device_class, settle):
    """Pods of a cluster with one simulated node, looked at by an operator."""

    async def pods(*items, kept=True):
        cluster.put(kube.NODES, node("worker"))
        cluster.put(kube.POOLS, pool())
        cluster.put(kube.DEVICE_CLASSES, device_class(kept=kept))
        await settle(cluster)
        await survey.list_objects(fleet, cluster)
        await survey.look_around(fleet, cluster, driver_name="neuron.aws.com")
        for item in items:
            cluster.put(kube.PODS, item)
        return PendingPods(cluster, fleet)

    return pods


@pytest.mark.parametrize(
    ("containers", "first", "asked"),
    [
        ([container(neuroncore=32)], [], None),
        ([container(neuroncore=33)], [], {"aws.amazon.com/neuroncore": 33}),
        ([container(neuroncore=20), container(neuroncore=20)], [], {"aws.amazon.com/neuroncore": 40}),
        (
            [container(neuroncore=30, neuron=3)],
            [],
            {"aws.amazon.com/neuron": 3, "aws.amazon.com/neuroncore": 30},
        ),
        # what an init container had is used again, what a sidecar has is not
        ([container(neuroncore=20)], [container(neuroncore=20)], None),
        ([container(neuroncore=20)], [container("Always", neuroncore=20)], {"aws.amazon.com/neuroncore": 40}),
        ([container()], [container(neuroncore=40)], {"aws.amazon.com/neuroncore": 40}),
        ([container(gpu=64)], [], None),
    ],
)
def test_a_claim_holds_32_devices(containers, first, asked):
    item = pod("p", *containers, first=first)
    item["metadata"]["uid"] = "u"
    found = pending.oversized(item, resources=BOTH)
    assert (found.asked if found else None) == asked


async def test_the_pod_is_told_the_alternatives(cluster, pods):
    await (await pods(pod("train", container(neuroncore=64)))).look(NOW)
    (event,) = events(cluster)
    assert (event["type"], event["reason"], event["metadata"]["namespace"]) == (
        "Warning",
        "TooManyDevicesForAClaim",
        "team",
    )
    assert event["regarding"]["name"] == "train"
    for said in ("64 aws.amazon.com/neuroncore", "32 devices", "aws.amazon.com/neuron", "resources: DevicePlugin"):
        assert said in event["note"]


async def test_it_is_told_once_whatever_restarts_and_again_before_the_event_expires(cluster, fleet, pods):
    looking = await pods(pod("train", container(neuroncore=64)))
    await looking.look(NOW)
    await looking.look(NOW + timedelta(seconds=10))
    await PendingPods(cluster, fleet).look(NOW + timedelta(seconds=20))
    assert len(events(cluster)) == 1
    cluster.objects[kube.EVENTS].clear()
    await looking.look(NOW + timedelta(minutes=40))
    assert events(cluster) == []
    await looking.look(NOW + timedelta(minutes=55))
    assert len(events(cluster)) == 1


async def test_pods_that_have_a_node_or_are_done_are_none_of_ours(cluster, pods):
    bound = pod("bound", container(neuroncore=64), node="elsewhere")
    await (await pods(bound, pod("done", container(neuroncore=64), phase="Succeeded"))).look(NOW)
    assert events(cluster) == []


async def test_where_a_device_plugin_could_serve_it_nothing_is_said(cluster, pods):
    await (await pods(pod("train", container(neuroncore=64)), kept=False)).look(NOW)
    assert events(cluster) == []


async def test_an_event_that_was_refused_is_tried_again_and_hinders_no_other(cluster, pods):
    looking = await pods(pod("a", container(neuroncore=64)), pod("b", container(neuroncore=64)))
    cluster.faults = [ApiError(403, "Forbidden", "namespace team is terminating")]
    await looking.look(NOW)
    assert len(events(cluster)) == 1
    await looking.look(NOW)
    assert len(events(cluster)) == 2


async def test_it_is_looked_at_less_often_where_many_pods_wait(pods):
    looking = await pods(pod("a", container()))
    few = await looking.look(NOW)
    crowd = [pod(f"p{number}", container()) for number in range(250)]
    assert await (await pods(*crowd)).look(NOW) > few


async def test_an_api_server_that_does_not_answer_is_asked_again(cluster, pods, monkeypatch):
    looking = await pods(pod("train", container(neuroncore=64)))

    async def away(*_, **__):
        raise ApiError(0, "", "connection refused")

    with monkeypatch.context() as patch:
        patch.setattr(cluster, "list", away)
        await looking.look(NOW)
    await looking.look(NOW)
    assert len(events(cluster)) == 1
