"""Gangs and NeuronUltraServerWorkloads on one fleet, in one operator: no node is promised to both.

The rest of the cluster is as slow as can be: no agent, no reconciler and no watch tells either side what the other one
did, so all that keeps them apart is what they tell each other.
"""

import asyncio
import copy

import hypothesis.strategies as st
from gangs_lab import Lab, plain_pod
from hypothesis import HealthCheck, given, settings
from neuron_operator import kube, names, survey
from neuron_operator.fleet import Fleet
from neuron_operator.kube import ApiError
from neuron_operator.ultraservers.loop import UltraServers


class Slow:
    """The API server: each call waits for some turns of the event loop before and after it; some answers are lost."""

    def __init__(self, api, turns, lost=()):
        self._api = api
        self._turns = list(turns)
        self._lost = list(lost)

    def __getattr__(self, verb):
        call = getattr(self._api, verb)

        async def slowly(*arguments, **more):
            for _ in range(self._turns.pop() if self._turns else 0):
                await asyncio.sleep(0)
            answer = await call(*arguments, **more)
            for _ in range(self._turns.pop() if self._turns else 0):
                await asyncio.sleep(0)
            if verb == "merge_status" and self._lost and self._lost.pop():
                raise ApiError(0, "", "the answer is lost")
            return answer

        return slowly


class Both:
    """The lab of gangs, whose nodes form UltraServers, and beside it the loop of workloads."""

    def __init__(self, cluster, *, ultraservers=1):
        self.lab = Lab(cluster, ultraservers=ultraservers)
        ready = {"conditions": [{"type": "Ready", "status": "True"}]}
        for item in list(cluster.of(kube.NEURON_NODES).values()):
            spec = {**item["spec"], "capacityBlockID": f"cr-{item['spec']['ultraServer']['id']}"}
            cluster.put(kube.NEURON_NODES, {**item, "spec": spec, "status": ready})
        self.lab.deliver()
        self.fleet = Fleet(driver_name=names.AWS_DRIVER_NAME)
        self.fleet.foreign = ()

    def workload(self, name="train", *, size=4, count=1):
        spec = {"instanceType": "trn2u.48xlarge", "topologySize": size, "serverCount": count}
        metadata = {"name": name, "namespace": "team", "generation": 1, "finalizers": [names.FINALIZER_ULTRASERVERS]}
        self.lab.api.put(kube.ULTRASERVER_WORKLOADS, {"metadata": metadata, "spec": spec})

    async def start(self, turns=(), lost=()):
        """Both loops know the cluster as it is now, and nothing more of it than their own answers from here on."""
        api = Slow(self.lab.api, turns, lost)
        await survey.list_objects(self.fleet, self.lab.api)
        self.lab.gangs._writer._api = api
        self.workloads = UltraServers(
            api=api,
            fleet=self.fleet,
            driver_name=names.AWS_DRIVER_NAME,
            namespace="neuron-sim-system",
            wrote=lambda: None,
            ledger=self.lab.ledger,
        )
        self.workloads._promised()
        self.lab.ledger.report("gangs", self.lab.gangs._held())

    async def look(self):
        return await self.workloads.look(self.lab.now, with_tables=False)

    def of_gangs(self):
        """Nodes that gangs are promised, or have."""
        statuses = [item.get("status", {}) for item in self.lab.api.of(kube.GANGS).values()]
        return {n for status in statuses if status.get("phase") in ("Reserved", "Bound") for n in status["nodes"]}

    def of_workloads(self):
        items = self.lab.api.of(kube.ULTRASERVER_WORKLOADS).values()
        return {n for item in items for each in item.get("status", {}).get("sets", ()) for n in each["nodes"]}


def test_the_last_ultraserver_goes_to_one_of_them(cluster):
    both = Both(cluster)
    both.lab.bare("ring", 4)
    both.workload()
    both.lab.deliver()

    async def race():
        await both.start()
        await asyncio.gather(both.lab.gangs.step(), both.look())

    asyncio.run(race())
    assert len(both.of_gangs()) + len(both.of_workloads()) == 4


def test_a_workload_is_told_that_a_gang_has_its_nodes_and_gets_them_when_it_is_done(cluster):
    both = Both(cluster)
    both.lab.bare("ring", 4)
    both.workload()
    both.lab.deliver()

    async def first():
        await both.start()
        await both.lab.gangs.step()
        await both.look()

    asyncio.run(first())
    assert (len(both.of_gangs()), both.of_workloads()) == (4, set())
    (item,) = cluster.of(kube.ULTRASERVER_WORKLOADS).values()
    assert "reserved for the gang default/ring" in item["status"]["conditions"][0]["message"]
    both.lab.settle()
    both.lab.stop("ring")
    both.lab.settle()

    async def then():
        await survey.list_objects(both.fleet, cluster)
        await both.look()

    asyncio.run(then())
    assert len(both.of_workloads()) == 4


def test_a_gang_is_told_that_a_workload_has_its_nodes_and_gets_them_when_it_is_gone(cluster):
    both = Both(cluster)
    both.workload()
    both.lab.bare("ring", 4)
    both.lab.deliver()

    async def first():
        await both.start()
        await both.look()
        await both.lab.gangs.step()

    asyncio.run(first())
    assert (both.of_gangs(), len(both.of_workloads())) == (set(), 4)
    assert "the NeuronUltraServerWorkload team/train" in both.lab.said("ring")
    cluster.drop(kube.ULTRASERVER_WORKLOADS, "team/train")

    async def then():
        await survey.list_objects(both.fleet, cluster)
        await both.look()

    asyncio.run(then())
    both.lab.wait(10)
    both.lab.settle()
    assert len(both.lab.bound("ring")) == 4


def test_pods_that_leave_have_their_node_until_they_are_gone(cluster):
    both = Both(cluster)
    both.lab.bare("ring", 4)
    both.lab.settle()
    claims = {key: copy.deepcopy(item) for key, item in cluster.of(kube.CLAIMS).items()}
    for key in claims:
        cluster.drop(kube.CLAIMS, key)  # not seen yet
    both.lab.stop("ring")
    both.lab.deliver()
    both.workload()

    async def look():
        await both.start()
        await both.lab.gangs.step()
        await both.look()

    asyncio.run(look())
    assert both.of_workloads() == set()


def test_gangs_without_chips_keep_no_node_from_workloads(cluster):
    both = Both(cluster)
    both.lab.bare("idle", 4, chips=0)
    both.lab.settle()
    assert len(both.lab.bound("idle")) == 4
    both.workload()

    async def look():
        await both.start()
        await both.look()

    asyncio.run(look())
    assert len(both.of_workloads()) == 4


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    gangs=st.lists(st.integers(1, 4), max_size=3),
    workloads=st.lists(st.sampled_from([(1, 1), (1, 2), (2, 1), (2, 2), (4, 1)]), max_size=3),
    turns=st.lists(st.integers(0, 6), max_size=60),
    lost=st.lists(st.booleans(), max_size=6),
    foreign=st.booleans(),
)
def test_no_node_is_promised_twice_whatever_overtakes_what(new_cluster, gangs, workloads, turns, lost, foreign):
    both = Both(new_cluster(), ultraservers=2)
    for number, size in enumerate(gangs):
        both.lab.bare(f"gang-{number}", size)
    for number, (size, count) in enumerate(workloads):
        both.workload(f"workload-{number}", size=size, count=count)
    if foreign:
        both.lab.put_pod("foreign", plain_pod(1))
        both.lab.schedule(limit=1)
    both.lab.deliver()

    def check():
        assert not both.of_gangs() & both.of_workloads()

    async def several(work):
        for _ in range(3):
            await work()
            check()

    async def race():
        await both.start(turns, lost)
        await asyncio.gather(several(both.lab.gangs.step), several(both.look))

    asyncio.run(race())
    check()
