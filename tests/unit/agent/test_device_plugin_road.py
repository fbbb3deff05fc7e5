"""Pods get Neuron devices as extended resources: a kubelet's calls in, prepared devices and free ones out."""

import asyncio
import dataclasses
import json
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import grpc
import pytest
from neuron_device_model.contiguous import choose_chips, choose_cores
from neuron_device_model.faults import Fault
from neuron_dra_driver.api_server.kube import Kube
from neuron_dra_driver.device_plugin_road.pod_annotations import CHIPS, CORES
from neuron_dra_driver.device_plugin_road.road import DevicePluginRoad
from neuron_dra_driver.lock import NodeLock
from neuron_dra_driver.metrics import Metrics
from neuron_dra_driver.node import SimulatedNode, standalone
from neuron_dra_driver.prepared.store import ClaimStore
from neuron_dra_driver.records.checkpoint import Entry

sys.path.insert(0, str(Path(__file__).parents[1] / "deviceplugin"))

from device_plugin_fake_kubelet import FakeKubelet

NODE = "worker-1"
Object = dict[str, Any]


def on(type_name: str = "trn2.48xlarge", **changes: Any) -> SimulatedNode:
    node = standalone(name=NODE, type_name=type_name)
    return dataclasses.replace(node, resources="DevicePlugin", **changes)


def container(name: str = "main", **resources: Any) -> Object:
    limits = {{"chips": CHIPS, "cores": CORES}[kind]: str(count) for kind, count in resources.items()}
    return {"name": name, "resources": {"limits": limits}}


@dataclass
class World:
    """A node with its kubelet, its agent's half and the API server."""

    api: Any
    kubelet: FakeKubelet
    store: ClaimStore
    road: DevicePluginRoad
    cdi: Path
    remade: Callable[[], DevicePluginRoad]
    clock: int = 0
    pods: dict[str, Object] = field(default_factory=dict)

    def bind(
        self,
        name: str,
        *containers: Object,
        init: tuple[Object, ...] = (),
        ids: str | None = None,
        **annotations: str,
    ) -> Object:
        """The scheduler puts a pod on the node; `ids`: the scheduler extension did."""
        self.clock += 1
        if ids is not None:
            told = {"AWS_NEURON_IDS": ids, "NEURON_ALLOC_TIME": str(self.clock), "NEURON_ALLOCATED": "false"}
            annotations = told | annotations
        pod = {
            "metadata": {"namespace": "team", "name": name, "uid": f"{name}-{self.clock}", "annotations": annotations},
            "spec": {"nodeName": NODE, "containers": list(containers), "initContainers": list(init)},
            "status": {"phase": "Pending"},
        }
        self.pods[name] = self.api.put("pods", pod)
        return self.pods[name]

    async def start(self, name: str, *containers: Object, **more: Any) -> Object:
        """Bind a pod and admit it."""
        pod = self.bind(name, *(containers or (container(chips=1),)), **more)
        await self.admit(pod)
        return pod

    async def admit(self, pod: Object) -> Any:
        """The kubelet starts a pod; what its containers get."""
        answers = await self.kubelet.admit(pod)
        self._report(pod, {"phase": "Running", "startTime": "2026-01-01T00:00:00Z"})
        return answers

    def _report(self, pod: Object, status: Object) -> None:
        now = self.api.objects["pods", "team", pod["metadata"]["name"]]
        self.api.put("pods", {**now, "status": status})

    def end(self, name: str) -> None:
        """A pod runs to its end: the kubelet says so first to itself and then to the API server."""
        pod = self.pods.pop(name)
        self.kubelet.over(pod)
        self._report(pod, {"phase": "Succeeded"})

    def delete(self, name: str) -> None:
        self.kubelet.over(self.pods.pop(name))
        self.api.delete("pods", name, "team")

    def annotations(self, name: str) -> Object:
        found: Object = self.api.objects["pods", "team", name]["metadata"]["annotations"]
        return found

    @property
    def entries(self) -> list[Entry]:
        return sorted(self.store.prepared(), key=lambda entry: entry.uid)

    @property
    def held(self) -> list[list[str]]:
        """The devices of each container, in no order of containers."""
        return sorted([device.device for device in entry.devices] for entry in self.entries)

    async def ready(self, node: SimulatedNode) -> None:
        self.road.offer(node)
        await self.kubelet.watches(CHIPS, node.instance_type.chips)
        await self.kubelet.watches(CORES, node.instance_type.cores(node.logical_neuron_core))


@pytest.fixture
def folder() -> Iterator[Path]:
    root = Path(tempfile.mkdtemp(dir="/tmp", prefix="dpr"))
    yield root
    shutil.rmtree(root)


@pytest.fixture
async def world(folder: Path, host: Any, api: Any, kube: Kube) -> AsyncIterator[World]:
    kubelet = FakeKubelet(folder)
    await kubelet.start()
    store = host.opened()
    lock = NodeLock(host.root / "lock")

    def make() -> DevicePluginRoad:
        return DevicePluginRoad(
            node_name=NODE,
            store=store,
            lock=lock,
            kube=kube,
            metrics=Metrics(),
            changed=lambda: None,
            folder=folder,
            pod_resources=kubelet.pod_resources,
            look_every=0.02,
            tidy_every=3600,
        )

    world = World(api, kubelet, store, make(), host.cdi, make)
    running = asyncio.create_task(world.road.run())
    yield world
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await kubelet.stop()
    store.close()
    lock.close()


async def test_both_resources_are_offered_on_the_sockets_of_aws(world: World) -> None:
    await world.ready(on())
    assert list(world.kubelet.devices[CHIPS])[:2] == ["neuron-device-0", "neuron-device-1"]
    assert list(world.kubelet.devices[CORES])[-1] == "neuron-core-63"
    assert world.kubelet.clients[CHIPS].endpoint == "neuron-devplugin.sock"
    assert world.kubelet.clients[CORES].endpoint == "neuroncore-devplugin.sock"
    assert world.kubelet.numa["neuron-device-0"] == (on().instance_type.devices[0].numa_node,)
    assert world.road.status.registered


async def test_a_container_gets_what_a_claim_gets(world: World) -> None:
    await world.ready(on())
    pod = world.bind("one", container(chips=4))
    answer = (await world.admit(pod))["main"]
    [device] = answer.cdi_devices
    [entry] = world.entries
    assert device.name == f"neuron.aws.com/claim={entry.uid}_neuron"
    [path] = world.cdi.iterdir()
    [edits, *_] = [one["containerEdits"] for one in json.loads(path.read_text())["devices"]]
    assert [node["path"] for node in edits["deviceNodes"]] == [f"/dev/neuron{n}" for n in range(4)]
    assert "NEURON_LOGICAL_NC_CONFIG=2" in edits["env"]


async def test_cores_are_given_as_parts_of_a_chip(world: World) -> None:
    await world.ready(on())
    await world.start("one", container(cores=2))
    [path] = world.cdi.iterdir()
    [edits, *_] = [one["containerEdits"] for one in json.loads(path.read_text())["devices"]]
    assert [node["path"] for node in edits["deviceNodes"]] == ["/dev/neuron0"]
    assert "NEURON_RT_VISIBLE_CORES=0-1" in edits["env"]


async def test_without_the_extension_sets_follow_the_topology(world: World) -> None:
    await world.ready(on())
    await world.start("one", container(chips=1))
    await world.start("four", container(chips=4))
    assert world.held == [["neuron-device-0"], [f"neuron-device-{n}" for n in range(4, 8)]]


async def test_the_choice_of_the_extension_is_given_and_marked(world: World) -> None:
    await world.ready(on())
    await world.start("four", container(chips=4), ids="8,9,10,11", other="annotation")
    assert world.held == [[f"neuron-device-{n}" for n in range(8, 12)]]
    assert world.annotations("four") == {
        "AWS_NEURON_IDS": "8,9,10,11",
        "NEURON_ALLOC_TIME": "1",
        "NEURON_ALLOCATED": "true",
        "other": "annotation",
    }
    # The kubelet was asked to hand out the same, so that PodResources is right as well.
    [given] = world.kubelet.allocated.values()
    assert given[CHIPS] == {f"neuron-device-{n}" for n in range(8, 12)}


async def test_the_pod_that_was_bound_first_is_served_first(world: World) -> None:
    await world.ready(on())
    later = world.bind("later", container(chips=4), ids="0,1,2,3", NEURON_ALLOC_TIME="2000")
    first = world.bind("first", container(chips=4), ids="4,5,6,7", NEURON_ALLOC_TIME="1000")
    await world.admit(first)
    assert world.annotations("first")["NEURON_ALLOCATED"] == "true"
    assert world.annotations("later")["NEURON_ALLOCATED"] == "false"
    await world.admit(later)
    assert {entry.name for entry in world.entries} == {"first", "later"}
    assert world.annotations("later")["NEURON_ALLOCATED"] == "true"


async def test_all_devices_need_no_annotation_and_no_api_server(world: World) -> None:
    await world.ready(on())
    pod = world.bind("all", container(chips=16), ids=",".join(map(str, range(16))))
    world.api.away = True
    await world.admit(pod)
    assert len(world.held[0]) == 16
    world.api.away = False
    assert world.annotations("all")["NEURON_ALLOCATED"] == "false"


@pytest.mark.parametrize(
    ("annotation", "resources"),
    [
        ({"NEURON_RESOURCE_TYPE": CORES}, {"chips": 4}),
        ({"NEURON_ALLOCATED": "true"}, {"chips": 4}),
        ({"AWS_NEURON_IDS": "eight"}, {"chips": 4}),
        ({"AWS_NEURON_IDS": "8,9"}, {"chips": 4}),
    ],
)
async def test_an_annotation_that_does_not_fit_is_none(
    world: World, annotation: dict[str, str], resources: dict[str, int]
) -> None:
    await world.ready(on())
    await world.start("four", container(**resources), **({"ids": "8,9,10,11"} | annotation))
    assert world.held == [[f"neuron-device-{n}" for n in range(4)]]


async def test_a_pod_with_two_resources_says_by_its_annotation_which_ids_they_are(world: World) -> None:
    await world.ready(on())
    both = (container("a", chips=4), container("b", cores=2))
    await world.start("one", *both, ids="8,9,10,11", NEURON_RESOURCE_TYPE=CHIPS)
    assert world.held == [["neuron-core-0", "neuron-core-1"], [f"neuron-device-{n}" for n in (8, 9, 10, 11)]]


async def test_containers_of_a_pod_share_its_ids_in_their_order(world: World) -> None:
    await world.ready(on())
    sidecar = container("sidecar", cores=1) | {"restartPolicy": "Always"}
    await world.start("many", container("a", cores=2), container("b", cores=3), init=(sidecar,), ids="8,9,10,11,12,13")
    named = {entry.uid.partition(".")[2]: [d.device for d in entry.devices] for entry in world.entries}
    assert named == {
        "sidecar": ["neuron-core-8"],
        "a": ["neuron-core-9", "neuron-core-10"],
        "b": ["neuron-core-11", "neuron-core-12", "neuron-core-13"],
    }
    assert world.annotations("many")["NEURON_ALLOCATED"] == "true"


@pytest.mark.parametrize("ids", [None, "8,9,10,11"])
async def test_an_init_container_and_the_one_after_it_have_the_same_devices(world: World, ids: str | None) -> None:
    await world.ready(on())
    pod = world.bind("one", container(chips=4), init=(container("init", chips=1),), ids=ids)
    answers = await world.admit(pod)
    first = 8 if ids else 0
    assert world.held == [[f"neuron-device-{first}"], [f"neuron-device-{n}" for n in range(first, first + 4)]]
    assert answers["init"].cdi_devices != answers["main"].cdi_devices
    await world.road.tidy()
    assert len(world.entries) == 2
    world.end("one")
    await world.road.tidy()
    assert not world.entries


async def test_chips_and_their_cores_are_never_given_twice(world: World) -> None:
    await world.ready(on("trn1.2xlarge"))
    await world.start("cores", container(cores=1))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await world.start("chip", container(chips=1))
    assert refused.value.details() == (
        "1 aws.amazon.com/neuron are asked for and 0 are free on node worker-1; others are with pod team/cores: the "
        "kubelet counts aws.amazon.com/neuron and aws.amazon.com/neuroncore independently, so use one of the two "
        "resources on a node, or let the scheduler extension place the pods (schedulerName: my-scheduler)"
    )
    assert len(world.entries) == 1


async def test_the_kubelets_choice_gives_way_to_what_is_really_free(world: World) -> None:
    await world.ready(on())
    await world.start("cores", container(cores=1))
    pod = world.bind("chip", container(chips=1))
    world.kubelet.active.add(pod["metadata"]["uid"])
    await world.kubelet.allocate(CHIPS, "neuron-device-0")
    assert world.held == [["neuron-core-0"], ["neuron-device-1"]]


async def test_a_choice_of_the_extension_that_is_taken_is_refused(world: World) -> None:
    await world.ready(on())
    await world.start("first", container(cores=2))
    with pytest.raises(grpc.aio.AioRpcError, match="pod team/second was given neuron-device-0 by its scheduler"):
        await world.start("second", container(chips=4), ids="0,1,2,3")


async def test_a_choice_of_the_extension_that_the_node_has_not_is_refused(world: World) -> None:
    await world.ready(on())
    with pytest.raises(grpc.aio.AioRpcError, match=r"pod team/odd has 16 in its annotation AWS_NEURON_IDS, and node"):
        await world.start("odd", container(chips=2), ids="15,16")


async def test_what_is_promised_to_a_pod_goes_to_no_other(world: World) -> None:
    await world.ready(on("trn1.32xlarge"))
    promised = world.bind("promised", container(chips=8), ids="0,1,2,3,4,5,6,7")
    await world.start("stranger", container(chips=1))
    await world.admit(promised)
    assert ["neuron-device-8"] in world.held


async def test_devices_are_free_again_when_their_pod_is_over(world: World) -> None:
    await world.ready(on())
    for _ in range(3):
        await world.start("all", container(chips=16))
        world.end("all")
    await world.start("last", container(chips=16))
    await world.road.tidy()
    world.end("last")
    await world.road.tidy()
    assert not world.entries
    assert not list(world.cdi.iterdir())


async def test_a_running_pod_keeps_what_it_has(world: World) -> None:
    await world.ready(on())
    await world.start("one")
    for _ in range(3):
        await world.road.tidy()
    assert len(world.entries) == 1


async def test_what_a_pod_left_does_not_keep_the_extension_from_giving_it_anew(world: World) -> None:
    await world.ready(on())
    await world.start("one", container(cores=8), ids="0,1,2,3,4,5,6,7")
    world.end("one")
    await world.start("two", container(chips=4), ids="0,1,2,3")
    assert world.held == [[f"neuron-device-{n}" for n in range(4)]]


async def test_a_pod_deleted_and_made_anew_has_its_own_devices(world: World) -> None:
    await world.ready(on())
    for _ in range(3):
        await world.start("stateful-0", container(chips=4), ids="4,5,6,7")
        world.delete("stateful-0")
    await world.start("stateful-0", container(chips=4), ids="8,9,10,11")
    await world.road.tidy()
    assert world.held == [[f"neuron-device-{n}" for n in range(8, 12)]]


async def test_a_kubelet_that_lists_nothing_after_its_restart_costs_no_pod_its_devices(world: World) -> None:
    await world.ready(on())
    await world.start("plain", container(chips=4))
    await world.start("chosen", container(chips=4), ids="8,9,10,11")
    listed = dict(world.kubelet.given)
    world.kubelet.given.clear()
    await world.kubelet.restart()
    await world.kubelet.watches(CHIPS, 16)
    await world.road.tidy()
    assert len(world.entries) == 2
    world.kubelet.given.update(listed)
    await world.road.tidy()
    assert len(world.entries) == 2


async def test_an_agent_that_restarts_disturbs_nobody(world: World) -> None:
    await world.ready(on())
    await world.start("stays", container(chips=4))
    await world.start("ends", container(chips=4))
    world.kubelet.over(world.pods["ends"])
    world.api.delete("pods", "ends", "team")
    await world.remade().tidy()
    assert world.held == [[f"neuron-device-{n}" for n in range(4)]]


async def test_nothing_is_forgotten_while_the_api_server_or_the_kubelet_does_not_tell(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neuron_dra_driver.device_plugin_road.road.ASK_PATIENCE", 0.05)
    await world.ready(on())
    await world.start("one")
    world.end("one")
    world.api.away = True
    with pytest.raises(Exception, match="cannot be read from the API server"):
        await world.remade().tidy()
    world.api.away = False
    await world.kubelet.stop()
    with pytest.raises(Exception, match="does not answer"):
        await world.remade().tidy()
    assert len(world.entries) == 1


async def test_init_containers_alone_keep_their_devices_until_the_pod_is_over(world: World) -> None:
    await world.ready(on())
    await world.start("one", container(), init=(container("init", chips=2),))
    await world.remade().tidy()
    assert len(world.entries) == 1
    world.end("one")
    await world.remade().tidy()
    assert not world.entries


async def test_what_a_reboot_took_is_written_again(world: World) -> None:
    node = on()
    await world.ready(node)
    await world.start("one", container(cores=2))
    [path] = world.cdi.iterdir()
    before = path.read_text()
    path.unlink()
    await world.road.tidy()
    assert path.read_text() == before


async def test_devices_that_a_fault_hits_are_unhealthy(world: World) -> None:
    fault = Fault("f", "HBMUncorrectable", 1, None, "NoSchedule", "", "2026-01-01T00:00:00Z")
    informs = dataclasses.replace(fault, name="g", chip=2, effect="None")
    await world.ready(on())
    world.road.offer(on(faults=(fault, informs)))
    await world.kubelet.until(lambda: world.kubelet.devices[CHIPS]["neuron-device-1"] == "Unhealthy")
    await world.kubelet.until(lambda: world.kubelet.devices[CORES]["neuron-core-4"] == "Unhealthy")
    assert [d for d, health in world.kubelet.devices[CHIPS].items() if health != "Healthy"] == ["neuron-device-1"]
    assert len([1 for health in world.kubelet.devices[CORES].values() if health != "Healthy"]) == 4


async def test_a_node_that_takes_the_other_road_withdraws_its_devices_and_ends_no_pod(
    world: World, folder: Path
) -> None:
    await world.ready(on())
    await world.start("one")
    await world.road.tidy()
    world.road.offer(dataclasses.replace(on(), resources="DRA"))
    await world.kubelet.until(lambda: not list(folder.glob("neuron*.sock")))
    assert not world.road.status.offering
    assert len(world.entries) == 1
    world.end("one")
    await world.road.tidy()
    assert not world.entries
    await world.ready(on())


async def test_a_node_that_offers_nothing_any_more_says_so(world: World) -> None:
    await world.ready(on())
    world.road._node = None  # the kubelet's call comes before the sockets are gone
    with pytest.raises(grpc.aio.AioRpcError, match=r"node worker-1 does not offer aws.amazon.com/neuron \(any more\)"):
        await world.start("late")


async def test_an_api_server_that_is_away_fails_the_pod_with_a_sentence(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neuron_dra_driver.device_plugin_road.road.ASK_PATIENCE", 0.05)
    monkeypatch.setattr("neuron_dra_driver.device_plugin_road.road.WISH_PATIENCE", 0.05)
    await world.ready(on())
    pod = world.bind("one", container(chips=4))
    world.api.away = True
    with pytest.raises(grpc.aio.AioRpcError, match="the pods of node worker-1 cannot be read from the API server"):
        await world.admit(pod)
    assert not world.entries


async def test_a_mark_that_failed_is_made_up_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.ready(on())
    request = world.road._kube.request

    async def read_only(method: str, *args: Any, **more: Any) -> Any:
        if method == "PATCH":
            raise OSError("no route to host")
        return await request(method, *args, **more)

    monkeypatch.setattr(world.road._kube, "request", read_only)
    await world.start("four", container(chips=4), ids="8,9,10,11")
    assert world.annotations("four")["NEURON_ALLOCATED"] == "false"
    monkeypatch.undo()
    await world.road.tidy()
    assert world.annotations("four")["NEURON_ALLOCATED"] == "true"


@pytest.mark.parametrize("seed", range(3))
async def test_pods_that_come_and_go_never_share_a_core_and_are_never_refused_without_need(
    world: World, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = on()
    await world.ready(node)
    random = Random(seed)
    for step in range(40):
        if world.pods and random.random() < 0.45:
            name = random.choice(sorted(world.pods))
            random.choice([world.end, world.delete])(name)
        else:
            kind, count = random.choice([("chips", 1), ("chips", 4), ("chips", 3), ("cores", 1), ("cores", 6)])
            free = _free(world, node, kind)
            ids = None
            if random.random() < 0.5:  # the scheduler extension places this one
                chosen = _chosen(node, kind, free, count)
                if chosen is None:
                    continue
                ids = ",".join(map(str, chosen))
            pod = world.bind(f"pod-{step}", container(**{kind: count}), ids=ids)
            if ids or len(free) >= count:
                await world.admit(pod)
            else:
                with pytest.raises((grpc.aio.AioRpcError, RuntimeError)):
                    await world.admit(pod)
                world.end(f"pod-{step}")
        if random.random() < 0.3:
            await world.road.tidy()
        running = [core for cores in _running(world, node).values() for core in cores]
        assert len(running) == len(set(running))
    await world.road.tidy()
    for name in list(world.pods):
        world.end(name)
    monkeypatch.setattr("neuron_dra_driver.device_plugin_road.road.YOUNG", 0)
    await world.road.tidy()
    assert not world.entries


def _running(world: World, node: SimulatedNode) -> dict[str, list[int]]:
    """The physical cores of the pods that run, by what was prepared under the ids that the kubelet gave them."""
    found: dict[str, list[int]] = {}
    for (uid, _), given in world.kubelet.allocated.items():
        if uid in world.kubelet.active:
            [ids] = given.values()
            [entry] = [e for e in world.entries if set(e.kubelet_ids) == ids]
            assert len(entry.devices) == len(ids)
            found[uid] = [core for held in entry.devices for core in node.part(held.device).physical_cores]
    return found


def _free(world: World, node: SimulatedNode, kind: str) -> set[int]:
    used = {core for cores in _running(world, node).values() for core in cores}
    prefix, total = ("neuron-device-", 16) if kind == "chips" else ("neuron-core-", 64)
    return {n for n in range(total) if used.isdisjoint(node.part(f"{prefix}{n}").physical_cores)}


def _chosen(node: SimulatedNode, kind: str, free: set[int], count: int) -> tuple[int, ...] | None:
    if kind == "cores":
        return choose_cores(node.instance_type, node.logical_neuron_core, free, count)
    return choose_chips(node.instance_type, free, count) if count in (1, 4) else None


async def test_claims_that_a_node_still_holds_from_the_other_road_are_in_the_way(world: World, make: Any) -> None:
    await world.ready(on())
    world.store.prepare(make.allocation(make.claim(devices={"mine": list(range(15))})), on())
    await world.start("last", container(chips=1))
    assert ["neuron-device-15"] in world.held
    with pytest.raises(grpc.aio.AioRpcError, match="others are with claim team/mine, pod team/last:"):
        await world.start("none", container(cores=1))


async def test_the_next_container_of_a_pod_may_be_served_by_the_next_agent(world: World) -> None:
    await world.ready(on())
    pod = world.bind("two", container("a", chips=4), container("b", chips=4), ids="8,9,10,11,0,1,2,3")
    world.kubelet.active.add(pod["metadata"]["uid"])
    await world.kubelet.allocate(CHIPS, *(f"neuron-device-{n}" for n in range(8, 12)))
    after = world.remade()
    after.offer(on())
    running = asyncio.create_task(after.run())
    await world.kubelet.until(lambda: after.status.registered and not world.road.status.registered)
    await world.kubelet.until(lambda: world.kubelet.streams == 2 and CHIPS in world.kubelet.clients)
    await world.kubelet.allocate(CHIPS, *(f"neuron-device-{n}" for n in range(4)))
    assert {entry.uid.partition(".")[2]: entry.devices[0].device for entry in world.entries} == {
        "a": "neuron-device-8",
        "b": "neuron-device-0",
    }
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
