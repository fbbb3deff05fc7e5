"""Publishing for many nodes against an API server in memory, in virtual time."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson
import pytest
from neuron_device_model.catalog import instance_type
from neuron_dra_driver.hardware.history import History
from neuron_dra_driver.kubeletplugin import ApiError
from neuron_dra_driver.names import SIMULATED, VIRTUAL
from neuron_dra_driver.virtual_nodes.device_page import DevicePage
from neuron_dra_driver.virtual_nodes.ledger import Record, Write, plan, read
from neuron_dra_driver.virtual_nodes.listing import Take
from neuron_dra_driver.virtual_nodes.metrics import FleetMetrics
from neuron_dra_driver.virtual_nodes.publisher import Publisher
from neuron_dra_driver.virtual_nodes.wanted import wanted
from neuron_dra_driver.virtual_nodes.workloads import Workloads
from virtual_time import run

Object = dict[str, Any]

DRIVER = "neuron.aws.com"


def neuron_node(name: str, *, uid: str = "", faults: tuple[Object, ...] = (), **spec: Any) -> Object:
    return {
        "metadata": {
            "name": name,
            "generation": 1,
            "ownerReferences": [{"kind": "Node", "name": name, "uid": uid or f"uid-{name}"}],
        },
        "spec": {
            "pool": "big",
            "instanceType": "trn2.48xlarge",
            "resources": "DRA",
            "partitions": "none",
            "devices": "chips",
            "instanceID": f"i-{name}",
            "networkNodes": ["nn-1", "nn-2", f"nn-of-{name}"],
            **({"faults": list(faults)} if faults else {}),
            **spec,
        },
    }


FAULT = {"name": "f", "type": "HBMUncorrectable", "chip": 3, "effect": "NoSchedule", "since": "2026-01-01T00:00:00Z"}


class Server:
    """Slices and NeuronNodes of an API server: versions, generations, preconditions, watches. Implements SlicesApi."""

    def __init__(self) -> None:
        self.version = 0
        self.slice_objects: dict[str, Object] = {}
        self.nodes: dict[str, Object] = {}
        self.writes: list[str] = []
        self.trouble: Callable[[], Exception | None] = lambda: None
        self.done_all_the_same = False
        """Whether a write that fails was carried out."""
        self._watches: dict[str, list[asyncio.Queue[tuple[str, Object]]]] = {"slices": [], "nodes": []}

    # --- what others do

    def put_node(self, item: Object) -> None:
        before = self.nodes.get(item["metadata"]["name"])
        kind = "MODIFIED" if before else "ADDED"
        if before:
            item["metadata"]["generation"] = before["metadata"]["generation"] + (item["spec"] != before["spec"])
        self._stamp(item)
        self.nodes[item["metadata"]["name"]] = item
        self._tell("nodes", kind, item)

    def drop_node(self, name: str) -> None:
        item = self.nodes.pop(name)
        self._stamp(item)
        self._tell("nodes", "DELETED", item)

    def edit(self, name: str) -> None:
        item = self.slice_objects[name]
        item["spec"]["devices"] = []
        item["metadata"]["generation"] += 1
        self._stamp(item)
        self._tell("slices", "MODIFIED", item)

    def label(self, name: str, *, team: str) -> None:
        item = self.slice_objects[name]
        item["metadata"]["labels"]["team"] = team
        item["metadata"]["finalizers"] = [f"example.com/{team}"]
        self._stamp(item)
        self._tell("slices", "MODIFIED", item)

    def drop(self, name: str) -> None:
        item = self.slice_objects.pop(name)
        self._stamp(item)
        self._tell("slices", "DELETED", item)

    def break_watches(self) -> None:
        for watches in self._watches.values():
            for watch in watches:
                watch.put_nowait(("ERROR", {"code": 410, "message": "gone"}))
            watches.clear()

    def devices(self, name: str) -> list[Object]:
        return list(self.slice_objects[name]["spec"]["devices"])

    # --- what the publisher does

    async def slices(self) -> tuple[list[Record], str]:
        await asyncio.sleep(0.01)
        return [read(item) for item in self.slice_objects.values()], str(self.version)

    async def neuron_nodes(self) -> tuple[list[Object], str]:
        await asyncio.sleep(0.01)
        return [orjson.loads(orjson.dumps(item)) for item in self.nodes.values()], str(self.version)

    async def watch_slices(self, version: str, take: Take) -> None:
        await self._watch("slices", take)

    async def watch_neuron_nodes(self, version: str, take: Take) -> None:
        await self._watch("nodes", take)

    async def slice(self, name: str) -> Record | None:
        return read(self.slice_objects[name]) if name in self.slice_objects else None

    async def write(self, write: Write) -> Record:
        return await self._carefully(f"write {write.name}", lambda: self._written(write))

    async def delete(self, record: Record) -> None:
        await self._carefully(f"delete {record.name}", lambda: self._deleted(record))

    async def report(self, node: str, status: Object) -> None:
        await self._carefully(f"status {node}", lambda: self._reported(node, status))

    async def _carefully(self, what: str, work: Callable[[], Any]) -> Any:
        await asyncio.sleep(0.005)
        trouble = self.trouble()
        if trouble is not None and not self.done_all_the_same:
            raise trouble
        self.writes.append(what)
        result = work()
        if trouble is not None:
            raise trouble
        return result

    def _written(self, write: Write) -> Record:
        body = orjson.loads(orjson.dumps(write.body))
        current = self.slice_objects.get(write.name)
        if write.record is None:
            if current is not None:
                raise ApiError(409, "already exists")
            body["metadata"] |= {"uid": f"s-{self.version}", "generation": 1}
            self.slice_objects[write.name] = body
            self._stamp(body)
            self._tell("slices", "ADDED", body)
            return read(body)
        if current is None:
            raise ApiError(404, "not found")
        if body["metadata"]["resourceVersion"] != current["metadata"]["resourceVersion"]:
            raise ApiError(409, "modified meanwhile")
        kept = {"uid": current["metadata"]["uid"], "generation": current["metadata"]["generation"] + 1}
        current = self.slice_objects[write.name] = {**body, "metadata": {**body["metadata"], **kept}}
        self._stamp(current)
        self._tell("slices", "MODIFIED", current)
        return read(current)

    def _deleted(self, record: Record) -> None:
        current = self.slice_objects.get(record.name)
        if current is not None and current["metadata"]["uid"] == record.uid:
            self.drop(record.name)

    def _reported(self, node: str, status: Object) -> None:
        if node not in self.nodes:
            raise ApiError(404, "not found")
        self.put_node({**self.nodes[node], "status": status})

    def _stamp(self, item: Object) -> None:
        self.version += 1
        item["metadata"]["resourceVersion"] = str(self.version)

    def _tell(self, kind: str, what: str, item: Object) -> None:
        for watch in self._watches[kind]:
            watch.put_nowait((what, orjson.loads(orjson.dumps(item))))

    async def _watch(self, kind: str, take: Take) -> None:
        queue: asyncio.Queue[tuple[str, Object]] = asyncio.Queue()
        self._watches[kind].append(queue)
        while True:
            what, item = await queue.get()
            if what == "ERROR":
                raise ApiError(item["code"], item["message"])
            take(what, item)


@contextlib.asynccontextmanager
async def publishing(server: Server) -> AsyncIterator[FleetMetrics]:
    """A process of its own."""
    metrics = FleetMetrics()

    async def counters() -> bool:
        return True

    api: Any = server
    devices = DevicePage(Workloads(driver=DRIVER), clock=lambda: 1_767_300_000.0)
    publisher = Publisher(api, driver=DRIVER, efa=False, counters=counters, metrics=metrics, devices=devices)

    async def again(follow: Callable[[], Any]) -> None:
        while True:
            with contextlib.suppress(ApiError):
                await follow()
            await asyncio.sleep(0.5)

    work = [again(publisher.follow_neuron_nodes), again(publisher.follow_slices), publisher.write(), publisher.write()]
    tasks = [asyncio.create_task(each) for each in work]
    try:
        yield metrics
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def as_wished(server: Server) -> bool:
    """Whether every slice is what its NeuronNode says, and there is no other."""
    expected = {}
    for name, item in server.nodes.items():
        (write,) = plan(wanted(item, driver=DRIVER, efa=False, counters=True), {}).writes
        expected[f"{name}-{DRIVER}"] = orjson.loads(orjson.dumps(write.body))["spec"]["devices"]
    return {name: item["spec"]["devices"] for name, item in server.slice_objects.items()} == expected


def slice_writes(server: Server) -> list[str]:
    return [write for write in server.writes if not write.startswith("status")]


def fleet(count: int) -> Server:
    server = Server()
    for number in range(count):
        server.put_node(neuron_node(f"big-{number}"))
    return server


def test_every_node_is_published_with_one_write_and_a_restart_writes_nothing() -> None:
    async def test() -> None:
        server = fleet(20)
        async with publishing(server):
            await asyncio.sleep(5)
        assert as_wished(server)
        assert sorted(server.writes) == sorted(
            [f"write big-{n}-{DRIVER}" for n in range(20)] + [f"status big-{n}" for n in range(20)]
        )
        assert server.devices(f"big-7-{DRIVER}")[0]["attributes"]["networkNodeLayer3"] == {"string": "nn-of-big-7"}
        server.writes.clear()
        async with publishing(server):
            await asyncio.sleep(5)
        assert server.writes == []

    run(test())


def test_a_chip_that_changes_is_one_write_of_one_slice() -> None:
    async def test() -> None:
        server = fleet(5)
        async with publishing(server):
            await asyncio.sleep(5)
            server.writes.clear()
            broken = neuron_node("big-2", faults=(FAULT,))
            server.put_node({**broken, "status": server.nodes["big-2"]["status"]})
            await asyncio.sleep(1)
        assert slice_writes(server) == [f"write big-2-{DRIVER}"]
        assert [d["name"] for d in server.devices(f"big-2-{DRIVER}") if "taints" in d] == ["neuron-device-3"]
        assert server.slice_objects[f"big-2-{DRIVER}"]["spec"]["pool"]["generation"] == 2

    run(test())


def test_what_others_wrote_into_a_slices_metadata_outlives_a_change() -> None:
    async def test() -> None:
        server = fleet(1)
        name = f"big-0-{DRIVER}"
        async with publishing(server):
            await asyncio.sleep(5)
            server.label(name, team="red")
            await asyncio.sleep(5)
            server.put_node(neuron_node("big-0", faults=(FAULT,)))
            await asyncio.sleep(5)
        assert "taints" in server.devices(name)[3]
        metadata = server.slice_objects[name]["metadata"]
        assert metadata["labels"] == {"team": "red", SIMULATED: "true", VIRTUAL: "true"}
        assert metadata["finalizers"] == ["example.com/red"]

    run(test())


def test_what_faults_leave_behind_is_kept_in_the_status_when_one_begins_or_ends() -> None:
    async def test() -> None:
        server = fleet(2)

        async def put(*faults: Object) -> str:
            server.writes.clear()
            server.put_node({**neuron_node("big-1", faults=faults), "status": server.nodes["big-1"]["status"]})
            await asyncio.sleep(1)
            assert server.writes.count("status big-1") == 1
            return str(server.nodes["big-1"]["status"]["hardwareRecord"])

        async with publishing(server):
            await asyncio.sleep(5)
            broken = History(await put(FAULT))
            healed = History(await put())
        for history in (broken, healed):
            counters = history.counters(instance_type("trn2.48xlarge"), now=2e9)
            assert counters == {3: {"mem_ecc_uncorrected": 1}}
        assert broken.faults()
        server.writes.clear()
        async with publishing(server):
            await asyncio.sleep(5)
        assert server.writes == []
        assert "hardwareRecord" not in server.nodes["big-0"]["status"]

    run(test())


@pytest.mark.parametrize("what", ["edit", "drop"])
@pytest.mark.parametrize("while_away", [False, True])
def test_what_others_did_to_a_slice_is_undone(what: str, while_away: bool) -> None:
    async def test() -> None:
        server = fleet(3)
        async with publishing(server):
            await asyncio.sleep(5)
            if not while_away:
                getattr(server, what)(f"big-1-{DRIVER}")
                await asyncio.sleep(2)
        if while_away:
            getattr(server, what)(f"big-1-{DRIVER}")
            async with publishing(server):
                await asyncio.sleep(2)
        assert as_wished(server)
        assert slice_writes(server)[-1] == f"write big-1-{DRIVER}"

    run(test())


def test_somebody_who_keeps_at_it_is_undone_less_and_less_often() -> None:
    async def test() -> None:
        server = fleet(1)
        async with publishing(server):
            await asyncio.sleep(5)
            server.writes.clear()
            for _ in range(600):
                if server.devices(f"big-0-{DRIVER}"):
                    server.edit(f"big-0-{DRIVER}")
                await asyncio.sleep(0.1)
        assert len(slice_writes(server)) < 15

    run(test())


@pytest.mark.parametrize("while_away", [False, True])
def test_slices_go_with_their_node(while_away: bool) -> None:
    async def test() -> None:
        server = fleet(3)
        async with publishing(server):
            await asyncio.sleep(5)
            if not while_away:
                server.drop_node("big-1")
                await asyncio.sleep(2)
        if while_away:
            server.drop_node("big-1")
            async with publishing(server):
                await asyncio.sleep(2)
        assert sorted(server.slice_objects) == [f"big-0-{DRIVER}", f"big-2-{DRIVER}"]

    run(test())


def test_a_node_that_was_made_anew_owns_its_slice() -> None:
    async def test() -> None:
        server = fleet(1)
        async with publishing(server):
            await asyncio.sleep(5)
        server.drop_node("big-0")
        server.put_node(neuron_node("big-0", uid="another"))
        async with publishing(server):
            await asyncio.sleep(5)
        (owner,) = server.slice_objects[f"big-0-{DRIVER}"]["metadata"]["ownerReferences"]
        assert owner["uid"] == "another"

    run(test())


def test_cores_are_slices_of_one_generation() -> None:
    async def test() -> None:
        server = Server()
        server.put_node(neuron_node("big-0", partitions="logical"))
        async with publishing(server):
            await asyncio.sleep(5)
            broken = neuron_node("big-0", partitions="logical", faults=(FAULT,))
            server.put_node({**broken, "status": server.nodes["big-0"]["status"]})
            await asyncio.sleep(5)
            pools = [item["spec"]["pool"] for item in server.slice_objects.values()]
            assert len(pools) > 1
            assert {pool["generation"] for pool in pools} == {2}
            assert {pool["resourceSliceCount"] for pool in pools} == {len(pools)}
            server.put_node(neuron_node("big-0"))
            await asyncio.sleep(5)
        assert as_wished(server)

    run(test())


def test_a_node_that_cannot_be_offered_says_why() -> None:
    async def test() -> None:
        server = Server()
        server.put_node(neuron_node("big-0", instanceType="trn9.large"))
        async with publishing(server):
            await asyncio.sleep(5)
        (condition,) = server.nodes["big-0"]["status"]["conditions"]
        assert (condition["status"], condition["reason"]) == ("False", "UnknownInstanceType")
        assert not server.slice_objects

    run(test())


@pytest.mark.parametrize("seed", range(30))
def test_whatever_fails_it_ends_as_it_should_be(seed: int) -> None:
    """Writes fail, some after they were carried out; watches break; nodes and slices come, change and go."""

    async def test() -> None:
        chance = random.Random(seed)
        server = fleet(6)
        errors: list[Exception] = [ApiError(429, "slow down"), ApiError(500, "oops"), ApiError(409, "no"), OSError()]
        server.trouble = lambda: chance.choice(errors) if chance.random() < 0.3 else None
        server.done_all_the_same = chance.random() < 0.5
        for _ in range(2):
            async with publishing(server):
                for _ in range(40):
                    name = f"big-{chance.randrange(8)}"
                    match chance.randrange(6):
                        case 0:
                            server.put_node(neuron_node(name, uid=f"uid-{chance.randrange(3)}"))
                        case 1:
                            server.put_node(neuron_node(name, faults=(FAULT,)))
                        case 2 if name in server.nodes:
                            server.drop_node(name)
                        case 3 if f"{name}-{DRIVER}" in server.slice_objects:
                            server.edit(f"{name}-{DRIVER}")
                        case 4 if f"{name}-{DRIVER}" in server.slice_objects:
                            server.drop(f"{name}-{DRIVER}")
                        case 5:
                            server.break_watches()
                    await asyncio.sleep(chance.random() * 0.2)
                server.trouble = lambda: None
                await asyncio.sleep(200)
                assert as_wished(server)
                conditions = [node["status"]["conditions"][0]["status"] for node in server.nodes.values()]
                assert conditions == ["True"] * len(server.nodes)

    run(test())
