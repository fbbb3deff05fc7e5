"""kube-scheduler's extender API, over sockets on both sides."""

import asyncio
import os
import signal

import pytest
from aiohttp import ClientSession, web
from neuron_operator.extender import running, state, watching


async def bound(scheduler, cluster, pod, node="n"):
    """Create a pod and have it bound; returns its ids."""
    await cluster.put("pods", pod)
    assert await scheduler.bind(pod, node) == ""
    return cluster.ids(pod["metadata"]["name"])


# --- filter


async def test_nodes_that_fit_are_kept_and_others_named_with_the_reason(scheduler, cluster, pod, neuron_node):
    await cluster.put("neuronnodes", neuron_node("inf", "inf2.48xlarge"))
    answer = await scheduler.filter(pod(chips=7), "n", "inf")
    # Go's decoder takes the names of its fields in any case; these are its own
    assert answer == {
        "Nodes": None,
        "NodeNames": ["inf"],
        "FailedNodes": {},
        "FailedAndUnresolvableNodes": {
            "n": "Instance type trn1.32xlarge does not support requests for device: 7. "
            "Please request a different number of devices."
        },
        "Error": "",
    }


async def test_a_full_node_can_become_free_again(scheduler, cluster, pod):
    await bound(scheduler, cluster, pod("a", chips=16))
    answer = await scheduler.filter(pod("b", chips=1), "n")
    assert answer["NodeNames"] == []
    assert "fewer than 1 free Neuron devices" in answer["FailedNodes"]["n"]


async def test_whole_nodes_are_answered_with_whole_nodes(scheduler, cluster, pod, neuron_node):
    await cluster.put("neuronnodes", neuron_node("inf", "inf2.48xlarge"))
    nodes = [{"metadata": {"name": name, "labels": {"a": "b"}}} for name in ("n", "inf")]
    answer = await scheduler.post("filter", {"pod": pod(chips=7), "nodes": {"items": nodes}, "nodenames": None})
    assert answer["Nodes"] == {"items": nodes[1:]}
    assert answer["NodeNames"] is None
    assert list(answer["FailedAndUnresolvableNodes"]) == ["n"]


async def test_nodes_of_the_other_road_are_left_to_the_scheduler(scheduler, cluster, pod, neuron_node, until):
    await cluster.put("neuronnodes", neuron_node(resources="DRA"))
    # 7 chips are a matter of the extender on a device-plugin node only
    await until(lambda: scheduler.fits(pod(chips=7), "n"))
    assert await scheduler.fits(pod(chips=7), "no-neuron-node")


async def test_until_all_pods_are_known_nothing_is_promised(extender, cluster, pod):
    cluster.lists_flow.clear()
    await cluster.put("pods", pod())
    async with extender(wait=False) as scheduler:
        assert (await scheduler.get("healthz"))[0] == 200
        assert (await scheduler.get("readyz"))[0] == 503
        assert "does not know all pods yet" in (await scheduler.filter(pod(chips=1), "n"))["Error"]
        assert "does not know all pods yet" in await scheduler.bind(pod(), "n")
        assert "nodeName" not in cluster.pod("p")["spec"]
        cluster.lists_flow.set()


@pytest.mark.parametrize("verb", ["filter", "bind"])
@pytest.mark.parametrize("body", ["", "[]", "{}", '{"Pod": null, "PodName": ""}'])
async def test_what_is_no_request_of_a_scheduler_is_refused(scheduler, verb, body):
    async with ClientSession() as session, session.post(f"{scheduler.url}/{verb}", data=body) as answer:
        assert answer.status == 400


# --- bind


async def test_a_binding_adds_awss_annotations_and_keeps_all_others(scheduler, cluster, pod):
    await bound(scheduler, cluster, pod(chips=4, metadata={"annotations": {"k8s.ovn.org/pod-networks": "{}"}}))
    annotations = cluster.pod("p")["metadata"]["annotations"]
    assert annotations.pop("NEURON_ALLOC_TIME").isdecimal()
    assert annotations == {"k8s.ovn.org/pod-networks": "{}", "AWS_NEURON_IDS": "0,1,2,3", "NEURON_ALLOCATED": "false"}
    assert cluster.pod("p")["spec"]["nodeName"] == "n"


async def test_core_requests_name_their_resource(scheduler, cluster, pod):
    assert await bound(scheduler, cluster, pod(cores=3)) == [0, 1, 2]
    assert cluster.pod("p")["metadata"]["annotations"]["NEURON_RESOURCE_TYPE"] == "aws.amazon.com/neuroncore"


async def test_pods_of_other_nodes_are_bound_without_annotations(scheduler, cluster, pod, neuron_node, until):
    await cluster.put("neuronnodes", neuron_node(resources="DRA"))
    await until(lambda: scheduler.fits(pod(chips=7), "n"))
    await cluster.put("pods", pod(chips=7))
    assert await scheduler.bind(pod(chips=7), "n") == ""
    assert cluster.pod("p")["spec"]["nodeName"] == "n"
    assert cluster.pod("p")["metadata"]["annotations"] == {}


async def test_two_at_the_same_time_get_different_devices(scheduler, cluster, pod):
    pods = [pod(f"p{number}", chips=4) for number in range(4)]
    for one in pods:
        await cluster.put("pods", one)
    assert await asyncio.gather(*(scheduler.bind(one, "n") for one in pods)) == [""] * 4
    ids = [number for one in pods for number in cluster.ids(one["metadata"]["name"])]
    assert sorted(ids) == list(range(16))
    # the device plugin meets them in this order
    times = [int(cluster.pod(f"p{number}")["metadata"]["annotations"]["NEURON_ALLOC_TIME"]) for number in range(4)]
    assert len(set(times)) == 4


async def test_a_watch_that_is_late_behind_our_own_binding_does_no_harm(scheduler, cluster, pod):
    cluster.watches_flow.clear()
    assert await bound(scheduler, cluster, pod("a", chips=8)) == list(range(8))
    assert await bound(scheduler, cluster, pod("b", chips=8)) == list(range(8, 16))
    assert not await scheduler.fits(pod("c", chips=1), "n")


async def test_the_watch_ends_the_assumption(scheduler, cluster, pod, until):
    await bound(scheduler, cluster, pod("a", chips=8))

    async def told():
        return "neuron_sim_extender_assumed_pods 0.0" in (await scheduler.get("metrics"))[1]

    await until(told)
    assert not await scheduler.fits(pod("b", chips=16), "n")


async def test_a_new_extender_knows_what_is_taken(extender, cluster, pod):
    async with extender() as first:
        await bound(first, cluster, pod("a", chips=8))
    async with extender() as second:
        assert await bound(second, cluster, pod("b", chips=8)) == list(range(8, 16))


@pytest.mark.parametrize("end", ["deleted", "Succeeded", "Failed"])
async def test_a_pod_that_ends_gives_its_devices_back(scheduler, cluster, pod, until, end):
    await bound(scheduler, cluster, pod("a", chips=16))
    if end == "deleted":
        await cluster.drop("pods", "default/a")
    else:
        await cluster.change("pods", "default/a", lambda item: item["status"].update(phase=end))
    await until(lambda: scheduler.fits(pod("b", chips=16), "n"))


async def test_a_pod_that_another_scheduler_bound_is_counted(scheduler, cluster, pod, until):
    await cluster.put("pods", pod("a", chips=1, spec={"nodeName": "n"}))

    async def full():
        return not await scheduler.fits(pod("b", chips=16), "n")

    await until(full)
    assert await bound(scheduler, cluster, pod("b", chips=4)) == [4, 5, 6, 7]


async def test_a_pod_that_was_deleted_meanwhile_leaves_nothing(scheduler, cluster, pod):
    await cluster.put("pods", pod("a", chips=16))
    await cluster.drop("pods", "default/a")
    assert "not found" in await scheduler.bind(pod("a", chips=16), "n")
    assert await scheduler.fits(pod("b", chips=16), "n")


async def test_a_pod_that_is_deleted_at_the_last_moment_leaves_nothing(scheduler, cluster, pod):
    await cluster.put("pods", pod("a", chips=16))

    async def delete():
        await cluster.drop("pods", "default/a")

    cluster.before_binding = delete
    assert "not found" in await scheduler.bind(pod("a", chips=16), "n")
    assert await scheduler.fits(pod("b", chips=16), "n")


async def test_another_pod_of_the_same_name_is_not_bound(scheduler, cluster, pod):
    await cluster.put("pods", pod("a", chips=16, metadata={"uid": "newer"}))
    assert "another one has its name" in await scheduler.bind(pod("a", chips=16), "n")
    assert "nodeName" not in cluster.pod("a")["spec"]


async def test_a_pod_that_somebody_else_bound_is_refused_and_keeps_its_annotations(scheduler, cluster, pod):
    await cluster.put("pods", pod("a", chips=4))

    async def bind_elsewhere():
        await cluster.change("pods", "default/a", lambda item: item["spec"].update(nodeName="elsewhere"))

    cluster.before_binding = bind_elsewhere
    assert "already assigned to node elsewhere" in await scheduler.bind(pod("a", chips=4), "n")
    assert "annotations" not in cluster.pod("a")["metadata"]
    assert await scheduler.fits(pod("b", chips=16), "n")


async def test_a_node_that_filled_up_since_the_filter_is_refused(scheduler, cluster, pod):
    await bound(scheduler, cluster, pod("a", chips=16))
    await cluster.put("pods", pod("b", chips=1))
    assert "n: fewer than 1 free Neuron devices" in await scheduler.bind(pod("b", chips=1), "n")
    assert "nodeName" not in cluster.pod("b")["spec"]


async def test_a_second_try_while_the_first_is_under_way_is_refused(scheduler, cluster, pod):
    await cluster.put("pods", pod("a", chips=4))
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def wait():
        entered.set()
        await go_on.wait()

    cluster.before_binding = wait
    first = asyncio.create_task(scheduler.bind(pod("a", chips=4), "n"))
    await entered.wait()
    assert "being bound already" in await scheduler.bind(pod("a", chips=4), "elsewhere")
    go_on.set()
    assert await first == ""


def lost_answer():
    return web.json_response({"kind": "Status", "code": 504, "message": "timeout"}, status=504)


async def test_a_binding_whose_answer_was_lost_is_looked_up(scheduler, cluster, pod):
    cluster.after_binding = lost_answer
    assert await bound(scheduler, cluster, pod("a", chips=4)) == [0, 1, 2, 3]


async def test_the_try_after_an_answer_that_was_lost_does_not_take_twice(scheduler, cluster, pod):
    cluster.after_binding = lost_answer
    await bound(scheduler, cluster, pod("a", chips=16))
    assert "already assigned" in await scheduler.bind(pod("a", chips=16), "n")
    assert not await scheduler.fits(pod("b", chips=1), "n")


async def test_devices_of_an_uncertain_binding_stay_taken_for_a_while(scheduler, cluster, pod, until, monkeypatch):
    monkeypatch.setattr(state, "UNCERTAIN", 0.05)

    async def lose():
        cluster.unreadable = True
        raise web.HTTPGatewayTimeout(text="{}")

    await cluster.put("pods", pod("a", chips=16))
    cluster.before_binding = lose
    assert "no answer to the binding" in await scheduler.bind(pod("a", chips=16), "n")
    # for the pod itself they are free: kube-scheduler tries it again
    assert await scheduler.fits(pod("a", chips=16), "n")
    assert not await scheduler.fits(pod("b", chips=1), "n")
    await until(lambda: scheduler.fits(pod("b", chips=16), "n"))


# --- what is known of the cluster


async def test_a_watch_that_is_too_old_is_begun_anew(extender, cluster, pod, until, monkeypatch):
    monkeypatch.setattr(watching, "_PAUSE", 0.0)
    cluster.expired = 3  # one for each kind
    async with extender() as scheduler:
        await until(lambda: cluster.expired == 0)
        await cluster.put("pods", pod("a", chips=16, spec={"nodeName": "n"}))

        async def full():
            return not await scheduler.fits(pod("b", chips=1), "n")

        await until(full)


async def test_it_works_without_our_custom_resources(extender, cluster, pod):
    cluster.missing.add("neuronnodes")
    labels = {"node.kubernetes.io/instance-type": "trn1.32xlarge"}
    capacity = {"aws.amazon.com/neuron": "16", "aws.amazon.com/neuroncore": "32"}
    await cluster.put("nodes", {"metadata": {"name": "n", "labels": labels}, "status": {"capacity": capacity}})
    async with extender() as scheduler:
        assert await bound(scheduler, cluster, pod("a", chips=4)) == [0, 1, 2, 3]


def maps(cluster):
    annotations = cluster.objects["nodes"]["n"]["metadata"].get("annotations", {})
    return [annotations.get(key, "").count("true") for key in ("NEURON_DEV_USAGE_MAP", "NEURON_CORE_USAGE_MAP")]


async def test_usage_maps_follow_the_pods_and_come_back_when_removed(scheduler, cluster, pod, until):
    await bound(scheduler, cluster, pod("a", chips=4))
    await until(lambda: maps(cluster) == [4, 8])
    await cluster.change("nodes", "n", lambda item: item["metadata"].pop("annotations"))
    await until(lambda: maps(cluster) == [4, 8])
    await cluster.drop("pods", "default/a")
    await until(lambda: maps(cluster) == [0, 0])


async def test_usage_maps_go_when_the_node_is_none_of_ours_any_more(scheduler, cluster, until):
    await until(lambda: cluster.objects["nodes"]["n"]["metadata"].get("annotations"))
    await cluster.drop("neuronnodes", "n")
    await until(lambda: cluster.objects["nodes"]["n"]["metadata"]["annotations"] == {})


async def test_somebody_elses_usage_maps_are_left_alone(extender, cluster, pod, until):
    theirs = {"NEURON_DEV_USAGE_MAP": "true"}
    await cluster.put("nodes", {"metadata": {"name": "real", "annotations": theirs}})
    async with extender():
        await until(lambda: cluster.objects["nodes"]["n"]["metadata"].get("annotations"))
        assert cluster.objects["nodes"]["real"]["metadata"]["annotations"] == theirs


async def test_calls_are_counted(scheduler, cluster, pod):
    await bound(scheduler, cluster, pod("a", chips=4))
    await scheduler.filter(pod("b", chips=7), "n")
    status, text = await scheduler.get("metrics")
    assert status == 200
    assert 'neuron_sim_extender_requests_total{result="done",verb="bind"}' in text
    assert 'neuron_sim_extender_requests_total{result="refused",verb="filter"}' in text


async def test_the_process_ends_on_sigterm(kubeconfig, cluster, unused_tcp_port, until):
    process = asyncio.create_task(running.run(port=unused_tcp_port, kubeconfig=kubeconfig))
    await until(lambda: cluster.objects["nodes"]["n"]["metadata"].get("annotations"))
    os.kill(os.getpid(), signal.SIGTERM)
    assert await process == 0
