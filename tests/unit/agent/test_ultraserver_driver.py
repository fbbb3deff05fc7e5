"""An UltraServer as a device of several nodes, at one of its nodes: the whole agent, and this test as the kubelet."""

import asyncio
import json
from contextlib import asynccontextmanager

import grpc.aio
import pytest
from neuron_dra_driver.agent.agent import Agent
from neuron_dra_driver.kubeletplugin.proto import dra_v1_pb2 as dra
from neuron_dra_driver.names import ULTRASERVER_DRIVER_NAME

NODE = "worker-1"
ID = "u5wy80u0o2saugxy"


class Kubelet:
    """Asks the UltraServer driver."""

    def __init__(self, host):
        self.folder = host.root / "plugins" / ULTRASERVER_DRIVER_NAME
        self.registry = host.root / "registry"
        self.cdi = host.cdi

    def sockets(self):
        return [path.name for path in self.registry.iterdir() if ULTRASERVER_DRIVER_NAME in path.name]

    def files(self):
        found = self.cdi.iterdir() if self.cdi.exists() else ()
        return [path for path in found if path.name.startswith(ULTRASERVER_DRIVER_NAME)]

    def edits(self, answer):
        """What the container gets for the one device of an answer."""
        (device,) = answer.devices
        (file,) = self.files()
        spec = json.loads(file.read_text())
        given = {f"{spec['kind']}={found['name']}": found["containerEdits"] for found in spec["devices"]}
        (name,) = device.cdi_device_ids
        return given[name]

    async def prepare(self, claim):
        return await self._call("NodePrepareResources", dra.NodePrepareResourcesRequest, claim)

    async def unprepare(self, claim):
        return await self._call("NodeUnprepareResources", dra.NodeUnprepareResourcesRequest, claim)

    async def _call(self, method, kind, claim):
        metadata = claim["metadata"]
        ref = dra.Claim(namespace=metadata["namespace"], name=metadata["name"], uid=metadata["uid"])
        response = getattr(dra, f"{method}Response")
        async with grpc.aio.insecure_channel(f"unix://{self.folder / 'dra.sock'}") as channel:
            name = f"/k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin/{method}"
            call = channel.unary_unary(name, response_deserializer=response.FromString)
            return (await call(kind(claims=[ref]).SerializeToString())).claims[metadata["uid"]]


@asynccontextmanager
async def running(agent):
    stop = asyncio.Event()
    task = asyncio.create_task(agent.run(stop))
    try:
        yield
    finally:
        stop.set()
        await task


@pytest.fixture
def kubelet(host):
    return Kubelet(host)


@pytest.fixture
def agent(host, kube):
    return lambda: Agent(host.settings(), kube)


@pytest.fixture
def shared(api, make):
    """A claim that is allocated the UltraServer."""

    def shared(pool=ID):
        results = [{"request": "domain", "driver": ULTRASERVER_DRIVER_NAME, "pool": pool, "device": "ultraserver"}]
        return api.put("resourceclaims", make.claim("shared", results=results))

    return shared


def neuron_node(*, kind="trn2u.48xlarge", size=4, node=2, generation=1, **spec):
    seat = {"ultraServer": {"id": ID, "size": size, "node": node}} if size else {}
    return {"metadata": {"name": NODE, "generation": generation}, "spec": {"instanceType": kind, **seat, **spec}}


async def test_a_container_learns_its_place_and_gets_nothing_else(api, agent, kubelet, shared, eventually):
    api.put("neuronnodes", neuron_node())
    claim = shared()
    async with running(agent()):
        await eventually(kubelet.sockets)
        answer = await kubelet.prepare(claim)
        assert answer.error == ""
        (device,) = answer.devices
        assert (device.pool_name, device.device_name, list(device.request_names)) == (ID, "ultraserver", ["domain"])
        assert kubelet.edits(answer) == {
            "env": [
                "NEURON_SIM_SIMULATED=true",
                "NEURON_RT_ULTRASERVER_MODE=1",
                f"NEURON_RT_ULTRASERVER_SERVER_ID={ID}",
                "NEURON_RT_ULTRASERVER_NODE_ID=2",
                "NEURON_GLOBAL_TOPOID=2",
            ]
        }
        api.delete("resourceclaims", "shared", "team")
        assert (await kubelet.unprepare(claim)).error == ""
        assert kubelet.files() == []
    assert not [s for s in api.items("resourceslices") if s["spec"]["driver"] == ULTRASERVER_DRIVER_NAME]


async def test_the_barrier_of_gangs_brings_nothing_to_the_container(api, make, agent, kubelet, eventually):
    api.put("neuronnodes", neuron_node())
    result = {"request": "barrier", "driver": ULTRASERVER_DRIVER_NAME, "pool": ID, "device": "gang-barrier"}
    share = "11111111-2222-3333-4444-555555555555"
    claim = api.put("resourceclaims", make.claim("barrier", results=[{**result, "shareID": share}]))
    async with running(agent()):
        await eventually(kubelet.sockets)
        answer = await kubelet.prepare(claim)
        assert answer.error == ""
        (device,) = answer.devices
        assert (device.device_name, device.share_id) == ("gang-barrier", share)
        assert kubelet.edits(answer) == {"env": ["NEURON_SIM_SIMULATED=true"]}


async def test_aws_has_no_words_for_thirty_six_servers(api, agent, kubelet, shared, eventually):
    api.put("neuronnodes", neuron_node(kind="trn3e.24xlarge", size=36, node=20))
    async with running(agent()):
        await eventually(kubelet.sockets)
        assert kubelet.edits(await kubelet.prepare(shared())) == {"env": ["NEURON_SIM_SIMULATED=true"]}


async def test_a_claim_for_another_ultraserver_is_refused(api, agent, kubelet, shared, eventually):
    api.put("neuronnodes", neuron_node())
    async with running(agent()):
        await eventually(kubelet.sockets)
        refused = await kubelet.prepare(shared("another0another0"))
        assert f"in another0another0 and none in {ID}" in refused.error
        assert kubelet.files() == []


async def test_a_node_that_left_its_ultraserver_refuses_and_ends_what_it_began(api, agent, kubelet, shared, eventually):
    api.put("neuronnodes", neuron_node())
    async with running(agent()):
        await eventually(kubelet.sockets)
        claim = shared()
        assert (await kubelet.prepare(claim)).error == ""
        api.put("neuronnodes", neuron_node(kind="trn2.48xlarge", size=0, generation=2))
        await eventually(lambda: api.items("neuronnodes")[0].get("status", {}).get("observedGeneration") == 2)
        assert "node worker-1 is in none" in (await kubelet.prepare(claim)).error
        assert (await kubelet.unprepare(claim)).error == ""
        await eventually(lambda: not kubelet.sockets() and not kubelet.folder.exists())


@pytest.mark.parametrize("spec", [{"size": 0, "kind": "trn2.48xlarge"}, {"resources": "DevicePlugin"}])
async def test_the_kubelet_is_not_told_where_there_is_no_ultraserver_to_claim(api, agent, kubelet, eventually, spec):
    api.put("neuronnodes", neuron_node())
    async with running(agent()):
        await eventually(kubelet.sockets)
        api.put("neuronnodes", neuron_node(**spec))
        await eventually(lambda: not kubelet.sockets() and not kubelet.folder.exists())
