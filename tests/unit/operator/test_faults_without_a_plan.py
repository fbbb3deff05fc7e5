"""A fault reaches its node without a look at the fleet, and says what the plan would."""

import asyncio
from typing import Any

from neuron_operator import kube, survey
from neuron_operator.breaking import Breaking, broken
from neuron_operator.fleet import Fleet
from neuron_operator.kube import ApiError


async def looked(cluster: Any, fleet: Fleet) -> None:
    await survey.list_objects(fleet, cluster)


async def told(cluster: Any, fleet: Fleet, item: Any, *, deleted: bool = False) -> list[str]:
    """What is written when this fault is seen."""
    cluster.writes.clear()
    breaking = Breaking(api=cluster, fleet=fleet)
    fleet.faults.observe(item, deleted=deleted)
    breaking.seen(item)
    task = asyncio.create_task(breaking.run())
    for _ in range(20):
        await asyncio.sleep(0)
    task.cancel()
    return list(cluster.writes)


async def test_a_fault_is_one_write_and_the_plan_agrees(
    cluster: Any, fleet: Fleet, settle: Any, pool: Any, node: Any, fault: Any
) -> None:
    for name in ("a", "b"):
        cluster.put(kube.NODES, node(name))
    cluster.put(kube.POOLS, pool())
    await settle(cluster)
    await looked(cluster, fleet)
    made = cluster.put(kube.FAULTS, fault("hot", "b", chip=1))
    assert await told(cluster, fleet, made) == ["apply neuronnodes/b"]
    assert [found["name"] for found in cluster.of(kube.NEURON_NODES)["b"]["spec"]["faults"]] == ["hot"]
    planned = await settle(cluster)
    assert planned.neuron_nodes == ()
    await looked(cluster, fleet)
    assert broken(fleet, "b", now="2126-01-01T00:00:00Z") is None


async def test_a_fault_that_goes_or_moves_heals_where_it_was(
    cluster: Any, fleet: Fleet, settle: Any, pool: Any, node: Any, fault: Any
) -> None:
    for name in ("a", "b"):
        cluster.put(kube.NODES, node(name))
    cluster.put(kube.POOLS, pool())
    cluster.put(kube.FAULTS, fault("hot", "b", chip=1))
    await settle(cluster)
    await looked(cluster, fleet)
    moved = cluster.put(kube.FAULTS, fault("hot", "a", chip=1))
    assert sorted(await told(cluster, fleet, moved)) == ["apply neuronnodes/a", "apply neuronnodes/b"]
    gone = cluster.drop(kube.FAULTS, "hot")
    assert await told(cluster, fleet, gone, deleted=True) == ["apply neuronnodes/a"]
    assert not any(item["spec"].get("faults") for item in cluster.of(kube.NEURON_NODES).values())


async def test_what_names_nothing_or_cannot_be_written_is_left_to_the_plan(
    cluster: Any, fleet: Fleet, settle: Any, pool: Any, node: Any, fault: Any
) -> None:
    cluster.put(kube.NODES, node("a"))
    cluster.put(kube.POOLS, pool())
    await settle(cluster)
    await looked(cluster, fleet)
    assert await told(cluster, fleet, cluster.put(kube.FAULTS, fault("lost", "nowhere"))) == []
    assert await told(cluster, fleet, cluster.put(kube.FAULTS, fault("wrong", "a", chip=99))) == []
    cluster.faults.append(ApiError(429, "TooManyRequests", "slow down"))
    assert await told(cluster, fleet, cluster.put(kube.FAULTS, fault("hot", "a", chip=0))) == []
    await settle(cluster)
    assert [found["name"] for found in cluster.of(kube.NEURON_NODES)["a"]["spec"]["faults"]] == ["hot"]
