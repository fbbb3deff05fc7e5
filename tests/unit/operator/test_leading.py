"""Of several replicas one leads. Time is virtual: the loop's clock jumps to whatever is waited for."""

import asyncio

import pytest
from neuron_operator import kube
from neuron_operator.kube import ApiError
from neuron_operator.leader import LeaderElection, LeadershipLost


def election(cluster, identity):
    return LeaderElection(cluster, name="lease", namespace="ns", identity=identity)


def holder(cluster):
    return cluster.of(kube.LEASES)["ns/lease"]["spec"]["holderIdentity"]


def now():
    return asyncio.get_running_loop().time()


def test_the_first_leads_at_once_and_the_second_waits(cluster, live):
    async def scenario():
        first, second = election(cluster, "first"), election(cluster, "second")
        await first.acquire()
        assert now() == 1000.0
        keeping = asyncio.create_task(first.keep())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(second.acquire(), timeout=300)
        assert holder(cluster) == "first"
        assert not keeping.done()
        keeping.cancel()

    live(scenario())


def test_when_the_first_lets_go_the_second_leads_within_one_retry(cluster, live):
    async def scenario():
        first, second = election(cluster, "first"), election(cluster, "second")
        await first.acquire()
        waiting = asyncio.create_task(second.acquire())
        await asyncio.sleep(5)
        await first.release()
        released = now()
        await waiting
        assert now() - released <= 2
        assert (holder(cluster), cluster.of(kube.LEASES)["ns/lease"]["spec"]["leaseTransitions"]) == ("second", 1)

    live(scenario())


def test_when_the_first_is_killed_the_second_leads_after_the_duration(cluster, live):
    async def scenario():
        first, second = election(cluster, "first"), election(cluster, "second")
        await first.acquire()
        await second.acquire()
        assert 15 <= now() - 1000 <= 17
        assert holder(cluster) == "second"

    live(scenario())


def test_a_restarted_container_goes_on_as_the_same_pod(cluster, live):
    async def scenario():
        await election(cluster, "pod-a").acquire()
        await election(cluster, "pod-a").acquire()
        assert now() == 1000.0

    live(scenario())


def test_an_empty_lease_that_a_chart_made_is_free(cluster, live):
    async def scenario():
        cluster.put(kube.LEASES, {"metadata": {"name": "lease", "namespace": "ns"}})
        first = election(cluster, "first")
        await first.acquire()
        assert (now(), holder(cluster)) == (1000.0, "first")
        await first.release()
        assert holder(cluster) == ""

    live(scenario())


def test_who_waits_never_releases_what_another_holds(cluster, live):
    async def scenario():
        first, second = election(cluster, "first"), election(cluster, "second")
        await first.acquire()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(second.acquire(), timeout=3)
        await second.release()
        assert holder(cluster) == "first"

    live(scenario())


def test_a_leader_that_cannot_renew_gives_up_before_another_can_start(cluster, live):
    async def scenario():
        first = election(cluster, "first")
        await first.acquire()
        cluster.faults = [ApiError(0, "", "connection refused")] * 100
        with pytest.raises(LeadershipLost, match="not renewed for 10 s"):
            await first.keep()
        assert now() - 1000 <= 10

    live(scenario())


def test_an_api_server_that_hangs_does_not_hold_up_the_end(cluster, live, monkeypatch):
    async def hang(*_, **__):
        await asyncio.sleep(3600)

    async def scenario():
        first = election(cluster, "first")
        await first.acquire()
        monkeypatch.setattr(cluster, "get", hang)
        with pytest.raises(LeadershipLost):
            await first.keep()
        assert now() - 1000 <= 10

    live(scenario())


def test_a_short_outage_is_survived(cluster, live):
    async def scenario():
        first = election(cluster, "first")
        await first.acquire()
        keeping = asyncio.create_task(first.keep())
        cluster.faults = [ApiError(503, "ServiceUnavailable", "away")] * 3
        await asyncio.sleep(60)
        assert not keeping.done()
        keeping.cancel()

    live(scenario())


def test_a_leader_that_was_replaced_gives_up(cluster, live):
    async def scenario():
        first = election(cluster, "first")
        await first.acquire()
        lease = cluster.of(kube.LEASES)["ns/lease"]
        cluster.put(kube.LEASES, {**lease, "spec": {**lease["spec"], "holderIdentity": "usurper"}})
        with pytest.raises(LeadershipLost, match="usurper"):
            await first.keep()

    live(scenario())


def test_ten_candidates_at_once_make_one_leader(cluster, live):
    async def scenario():
        candidates = [asyncio.create_task(election(cluster, str(n)).acquire()) for n in range(10)]
        await asyncio.sleep(3)
        assert sum(task.done() for task in candidates) == 1
        for task in candidates:
            task.cancel()

    live(scenario())
