"""The loop: what wakes it, what it survives, and that nothing is written twice."""

import asyncio

import kopf
import pytest
from neuron_operator import kube, names, planning
from neuron_operator import reconciler as reconciling
from neuron_operator.handlers import watches
from neuron_operator.kube import ApiError
from neuron_operator.reconciler import Reconciler


@pytest.fixture
def reconciler(cluster, fleet):
    return Reconciler(api=cluster, fleet=fleet, driver_name=names.AWS_DRIVER_NAME)


async def test_the_answers_to_our_own_writes_spare_a_second_round(cluster, fleet, node, pool, reconciler):
    cluster.put(kube.NODES, node("worker"))
    cluster.put(kube.POOLS, pool())
    await reconciler.reconcile()
    await reconciler.reconcile()
    written = list(cluster.writes)
    await reconciler.reconcile()
    assert cluster.writes == written
    assert written.count("apply neuronnodes/worker") == 1
    assert written.count("apply nodes/worker") == 1


async def test_a_write_that_fails_is_made_up_for(cluster, node, pool, reconciler):
    cluster.put(kube.NODES, node("worker"))
    cluster.put(kube.POOLS, pool())
    cluster.faults = [ApiError(500, "InternalError", "etcd"), ApiError(429, "TooManyRequests", "slow")]
    await reconciler.reconcile()
    await reconciler.reconcile()
    assert list(cluster.of(kube.NEURON_NODES)) == ["worker"]


async def test_without_its_event_a_status_is_not_written(cluster, pool, reconciler):
    cluster.put(kube.POOLS, pool())
    cluster.faults = [ApiError(403, "Forbidden", "events")]
    await reconciler.reconcile()
    assert not [write for write in cluster.writes if write.startswith("status")]
    await reconciler.reconcile()
    assert "status" in cluster.of(kube.POOLS)["default"]


async def test_a_kill_between_event_and_status_tells_nothing_twice(cluster, fleet, pool, reconciler):
    cluster.put(kube.POOLS, pool())
    await reconciler.reconcile()
    told = dict(cluster.of(kube.EVENTS))
    forgotten = cluster.of(kube.POOLS)["default"]
    del forgotten["status"]
    fleet.pools.observe(cluster.put(kube.POOLS, forgotten))
    await reconciler.reconcile()
    assert cluster.of(kube.EVENTS).keys() == told.keys()


async def test_a_label_taken_at_the_same_moment_is_looked_at_again(
    cluster, fleet, node, pool, managed_fields, reconciler
):
    cluster.put(kube.NODES, node("worker"))
    cluster.put(kube.POOLS, pool())
    await reconciler._survey()
    taken = cluster.of(kube.NODES)["worker"]
    taken["metadata"]["labels"][names.LABEL_INSTANCE_TYPE] = "m5.large"
    taken["metadata"]["managedFields"].append(managed_fields("cloud", [names.LABEL_INSTANCE_TYPE]))
    cluster.put(kube.NODES, taken)
    await reconciler.reconcile()
    await reconciler.reconcile()
    labels = cluster.of(kube.NODES)["worker"]["metadata"]["labels"]
    assert (labels[names.LABEL_INSTANCE_TYPE], labels[names.LABEL_POOL]) == ("m5.large", "default")


async def test_a_node_that_went_at_the_same_moment_is_not_created_by_its_labels(cluster, node, pool, reconciler):
    cluster.put(kube.NODES, node("worker"))
    cluster.put(kube.POOLS, pool())
    await reconciler._survey()
    cluster.drop(kube.NODES, "worker")
    await reconciler.reconcile()
    assert cluster.of(kube.NODES) == {}


async def test_an_api_server_that_is_away_is_waited_for(cluster, node, pool, reconciler, monkeypatch):
    async def away(*_, **__):
        raise ApiError(0, "", "connection refused")

    cluster.put(kube.NODES, node("worker"))
    cluster.put(kube.POOLS, pool())
    with monkeypatch.context() as patch:
        patch.setattr(cluster, "list", away)
        assert await reconciler.reconcile() is None
    await reconciler.reconcile()
    assert list(cluster.of(kube.NEURON_NODES)) == ["worker"]


async def test_a_device_class_that_may_not_be_read_stops_nothing(cluster, node, pool, reconciler, monkeypatch):
    async def get(*_, **__):
        raise ApiError(403, "Forbidden", "deviceclasses")

    monkeypatch.setattr(cluster, "get", get)
    cluster.put(kube.NODES, node("worker"))
    cluster.put(kube.POOLS, pool())
    await reconciler.reconcile()
    assert list(cluster.of(kube.NEURON_NODES)) == ["worker"]
    conditions = cluster.of(kube.POOLS)["default"]["status"]["conditions"]
    assert [c["status"] for c in conditions if c["type"] == "PlainPods"] == ["Unknown"]


async def test_watched_events_reach_the_fleet_and_wake_the_loop(cluster, fleet, node):
    woken = []
    listed, seen = watches.observers(fleet.nodes, woken.append)
    first = cluster.put(kube.NODES, node("worker"))
    listed([first], 0.0)
    assert woken == [True]
    seen(cluster.put(kube.NODES, first), False)
    assert woken == [True]
    seen(cluster.drop(kube.NODES, "worker"), True)
    assert woken == [True, False]
    assert fleet.nodes.values() == []


async def test_a_reservation_by_a_gang_wakes_only_those_who_ask_for_it(fleet, node):
    """A plan of all pools for each node that each gang gets would cost more than the gang."""
    gang = {"key": names.TAINT_RESERVED, "value": "a-1", "effect": "NoSchedule"}
    others = {"key": "example.com/other", "effect": "NoSchedule"}
    news = [[], [gang], [gang, others], []]

    class Api:
        async def list(self, resource, **_):
            return kube.Listing([], 1)

        async def watch(self, resource, **_):
            if resource == kube.NODES:
                for version, taints in enumerate(news, start=2):
                    item = node("worker", taints=taints)
                    yield "MODIFIED", {**item, "metadata": {**item["metadata"], "uid": "u", "resourceVersion": version}}
                seen.set()
            await asyncio.Event().wait()

    told, seen = [], asyncio.Event()
    following = asyncio.create_task(
        watches.follow_nodes(
            Api(), fleet=fleet, wake=lambda relist: told.append(relist), reserved=lambda: told.append("reserved")
        )
    )
    async with asyncio.timeout(20):
        await seen.wait()
    following.cancel()
    await asyncio.wait([following])
    assert [word for word in told if word is not True] == [False, "reserved", False, False]


async def test_faults_reach_the_fleet_and_are_told(cluster, fleet, fault):
    woken, told = [], []
    registry = kopf.OperatorRegistry()
    watches.register(registry, fleet=fleet, wake=woken.append, fault=told.append)
    handlers = {handler.selector.any_name or handler.selector.plural: handler.fn
                for handler in registry._watching.get_all_handlers()}  # fmt: skip
    made = cluster.put(kube.FAULTS, fault("hot", "worker", chip=1))
    await handlers["neuronfaults"](event={"type": "ADDED", "object": made})
    await handlers["neuronfaults"](event={"type": "DELETED", "object": cluster.drop(kube.FAULTS, "hot")})
    assert woken == [False, False]
    assert [item["metadata"]["name"] for item in told] == ["hot", "hot"]
    assert fleet.faults.values() == []


async def test_the_loop_sleeps_until_it_is_woken(cluster, fleet, node, pool, reconciler, monkeypatch):
    """Woken by nothing but a pool that comes later, long before it would look by itself."""
    made = asyncio.Event()

    async def apply(resource, body, *, force):
        made.set()
        return await type(cluster).apply(cluster, resource, body, force=force)

    monkeypatch.setattr(cluster, "apply", apply)
    monkeypatch.setattr(reconciling, "_DEBOUNCE", 0.0)
    cluster.put(kube.NODES, node("worker"))
    task = asyncio.create_task(reconciler.run())
    await asyncio.sleep(0)
    fleet.pools.observe(cluster.put(kube.POOLS, pool()))
    reconciler.wake()
    await asyncio.wait_for(made.wait(), timeout=5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_no_plan_is_made_where_nothing_changed(cluster, fleet, node, pool, reconciler, monkeypatch):
    plans = []

    def counted(snapshot, *, now):
        plans.append(planning.plan(snapshot, now=now))
        return plans[-1]

    monkeypatch.setattr(reconciling, "plan", counted)
    worker = cluster.put(kube.NODES, node("worker"))
    cluster.put(kube.POOLS, pool())
    while not plans or not plans[-1].empty:
        await reconciler.reconcile()
    made = len(plans)
    done = await reconciler.reconcile()
    assert done is plans[-1]
    worker = cluster.of(kube.NODES)["worker"]
    worker["spec"]["taints"] = [{"key": names.TAINT_RESERVED, "value": "gang", "effect": "NoSchedule"}]
    fleet.nodes.observe(cluster.put(kube.NODES, worker))
    await reconciler.reconcile()
    assert len(plans) == made  # a gang's reservation is not the pools' business
    worker["spec"]["unschedulable"] = True
    fleet.nodes.observe(cluster.put(kube.NODES, worker))
    await reconciler.reconcile()
    assert len(plans) == made + 1
    reconciler._plan_at = 1.0  # a fault breaks by its schedule
    await reconciler.reconcile()
    assert len(plans) == made + 2
