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


def claims_of(item, *names):
    item["spec"]["resourceClaims"] = [{"name": name, "resourceClaimName": name} for name in names]
    return item


def resource_claim(name, *, count, device_class="neuron.aws.com"):
    exactly = {"deviceClassName": device_class, "count": count}
    devices = {"requests": [{"name": "neurons", "exactly": exactly}]}
    return {"metadata": {"name": name, "namespace": "team"}, "spec": {"devices": devices}}


@pytest.fixture
async def world(cluster, fleet, pods):
    """A node whose agent serves, AWS's class, and a claim for more chips than it has and one for as many."""
    looking = await pods()
    ready = {"type": "Ready", "status": "True", "reason": "Ready", "message": "", "lastTransitionTime": "x"}
    await cluster.merge_status(kube.NEURON_NODES, "worker", {"conditions": [ready]})
    expression = 'device.attributes["neuron.aws.com"].resourceType == "neuron_device"'
    for name in ("neuron.aws.com", "somebody.else"):
        aws = {"metadata": {"name": name}, "spec": {"selectors": [{"cel": {"expression": expression}}]}}
        cluster.put(kube.DEVICE_CLASSES, aws)
    for item in (resource_claim("many", count=17), resource_claim("enough", count=16)):
        cluster.put(kube.CLAIMS, item)
    cluster.put(kube.CLAIMS, resource_claim("foreign", count=17, device_class="somebody.else"))
    await survey.list_objects(fleet, cluster)
    return looking


async def test_a_pod_that_has_waited_is_told_what_explain_says(cluster, world):
    cluster.put(kube.PODS, claims_of(pod("train", container()), "many"))
    await world.look(NOW)
    (event,) = events(cluster)
    assert (event["reason"], event["regarding"]["name"]) == ("WaitsForNeuronDevices", "train")
    assert event["note"].startswith("The node cannot take the pod: worker: has 16 chips, and 17 are asked for")
    await world.look(NOW + timedelta(minutes=10))
    assert len(events(cluster)) == 1


async def test_a_claim_that_nobody_made_is_told_because_the_scheduler_is_silent(cluster, world):
    cluster.put(kube.PODS, claims_of(pod("train", container()), "gone"))
    await world.look(NOW)
    (event,) = events(cluster)
    assert "ResourceClaim gone does not exist in namespace team" in event["note"]


async def test_pods_that_fit_or_are_new_or_held_back_or_somebody_elses_are_not_told(cluster, world):
    cluster.put(kube.PODS, claims_of(pod("fits", container()), "enough"))
    cluster.put(kube.PODS, claims_of(pod("foreign", container()), "foreign"))
    gated = claims_of(pod("gated", container()), "many")
    gated["spec"]["schedulingGates"] = [{"name": "example.com/wait"}]
    cluster.put(kube.PODS, gated)
    new = claims_of(pod("new", container()), "many")
    new["metadata"]["creationTimestamp"] = "2026-11-20T23:59:45Z"
    cluster.put(kube.PODS, new)
    await world.look(NOW)
    assert events(cluster) == []
    # new no more, after the rest that explaining takes
    await world.look(NOW + timedelta(seconds=60))
    assert [event["regarding"]["name"] for event in events(cluster)] == ["new"]


async def test_a_few_are_explained_at_a_time(cluster, world):
    for number in range(25):
        cluster.put(kube.PODS, claims_of(pod(f"p{number}", container()), "many"))
    await world.look(NOW)
    assert len(events(cluster)) == 10
    await world.look(NOW + timedelta(seconds=10))
    assert len(events(cluster)) == 10
    await world.look(NOW + timedelta(minutes=5))
    assert len(events(cluster)) == 20


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
