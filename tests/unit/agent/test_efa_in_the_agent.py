"""EFA cards beside the chips: the whole agent, a fake API server, and this test as the kubelet of the second driver."""

import asyncio
import json
import socket
from contextlib import asynccontextmanager

import grpc.aio
import pytest
from neuron_device_model.catalog import instance_type
from neuron_device_model.efa import efa_devices
from neuron_dra_driver.agent.agent import Agent
from neuron_dra_driver.kubeletplugin.health import SERVICES
from neuron_dra_driver.kubeletplugin.proto import dra_v1_pb2 as dra
from neuron_dra_driver.kubeletplugin.proto import health_v1_pb2 as health
from neuron_dra_driver.kubeletplugin.proto import pluginregistration_v1_pb2 as registration
from neuron_dra_driver.names import EFA_DRIVER_NAME
from neuron_dra_driver.reporting import claim_status

NODE = "worker-1"
CARD = "pci-0000-c9-00-0"
"""The one beside chip 0 of a trn2.48xlarge."""


class Kubelet:
    """Asks the EFA driver."""

    def __init__(self, host):
        self.folder = host.root / "plugins" / EFA_DRIVER_NAME
        self.registry = host.root / "registry"
        self.cdi = host.cdi

    def sockets(self):
        """What the kubelet sees of the driver."""
        return [path.name for path in self.registry.iterdir() if EFA_DRIVER_NAME in path.name]

    def files(self):
        found = self.cdi.iterdir() if self.cdi.exists() else ()
        return [path.name for path in found if path.name.startswith(EFA_DRIVER_NAME)]

    async def registered_name(self):
        method = "/pluginregistration.Registration/GetInfo"
        async with grpc.aio.insecure_channel(f"unix://{self.registry / self.sockets()[0]}") as channel:
            call = channel.unary_unary(method, response_deserializer=registration.PluginInfo.FromString)
            return (await call(b"")).name

    async def prepare(self, claim):
        request = dra.NodePrepareResourcesRequest(claims=[self._ref(claim)])
        return await self._call("NodePrepareResources", request, dra.NodePrepareResourcesResponse, claim)

    async def unprepare(self, claim):
        request = dra.NodeUnprepareResourcesRequest(claims=[self._ref(claim)])
        return await self._call("NodeUnprepareResources", request, dra.NodeUnprepareResourcesResponse, claim)

    async def _call(self, method, request, response, claim):
        async with grpc.aio.insecure_channel(f"unix://{self.folder / 'dra.sock'}") as channel:
            name = f"/k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin/{method}"
            call = channel.unary_unary(name, response_deserializer=response.FromString)
            return (await call(request.SerializeToString())).claims[claim["metadata"]["uid"]]

    @staticmethod
    def _ref(claim):
        metadata = claim["metadata"]
        return dra.Claim(namespace=metadata["namespace"], name=metadata["name"], uid=metadata["uid"])


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
    """As a process that just started."""
    return lambda **changes: Agent(host.settings(**{"efa": True, **changes}), kube)


@pytest.fixture
def aligned(api, make):
    """A claim of a chip and the card beside it."""
    results = [
        {"request": "neurons", "driver": "neuron.aws.com", "pool": NODE, "device": "neuron-device-0"},
        {"request": "efa", "driver": EFA_DRIVER_NAME, "pool": NODE, "device": CARD},
    ]
    return api.put("resourceclaims", make.claim("aligned", results=results))


def neuron_node(**spec):
    return {"metadata": {"name": NODE, "generation": 1}, "spec": {"instanceType": "trn2.48xlarge", **spec}}


def slices(api, driver=EFA_DRIVER_NAME):
    return [found for found in api.items("resourceslices") if found["spec"]["driver"] == driver]


async def test_cards_are_offered_by_a_driver_of_their_own(api, agent, kubelet, eventually):
    api.put("neuronnodes", neuron_node())
    async with running(agent()):
        await eventually(lambda: slices(api) and slices(api, "neuron.aws.com"))
        (found,) = slices(api)
        assert found["spec"]["pool"]["name"] == found["spec"]["nodeName"] == NODE
        assert found["metadata"]["labels"] == {"neuron-sim.dev/simulated": "true"}
        assert len(found["spec"]["devices"]) == 16
        await eventually(kubelet.sockets)
        assert await kubelet.registered_name() == EFA_DRIVER_NAME
    assert len(slices(api)) == 1, "slices stay when the agent stops"


async def test_a_claim_of_both_from_prepare_to_unprepare(api, agent, kubelet, aligned, eventually):
    api.put("neuronnodes", neuron_node())
    async with running(agent()):
        await eventually(kubelet.sockets)
        answer = await kubelet.prepare(aligned)
        assert answer.error == ""
        assert [(device.device_name, list(device.request_names)) for device in answer.devices] == [(CARD, ["efa"])]
        (name,) = kubelet.files()
        spec = json.loads((kubelet.cdi / name).read_text())
        ids = [f"{spec['kind']}={device['name']}" for device in spec["devices"]]
        assert [list(device.cdi_device_ids) for device in answer.devices] == [ids]
        api.delete("resourceclaims", "aligned", "team")
        assert (await kubelet.unprepare(aligned)).error == ""
        assert kubelet.files() == []


async def test_a_card_that_is_down_is_told_to_the_kubelet(api, agent, kubelet, eventually):
    since = {"effect": "NoSchedule", "since": "2026-01-01T00:00:00Z"}
    down = {"name": "cut", "type": "EFADown", "efa": 2, "message": "pulled out", **since}
    broken = {"name": "hot", "type": "HBMUncorrectable", "chip": 0, **since}
    api.put("neuronnodes", neuron_node(faults=[down, broken]))
    async with running(agent()):
        await eventually(kubelet.sockets)
        async with grpc.aio.insecure_channel(f"unix://{kubelet.folder / 'dra.sock'}") as channel:
            watch = channel.unary_stream(
                f"/{SERVICES[0]}/NodeWatchResources",
                response_deserializer=health.NodeWatchResourcesResponse.FromString,
            )(b"")
            told = await watch.read()
            watch.cancel()
    unhealthy = [one for one in told.devices if one.health == health.UNHEALTHY]
    assert len(told.devices) == 16
    assert [one.device.device_name for one in unhealthy] == [efa_devices(instance_type("trn2.48xlarge"))[2].name]
    assert "EFADown (NeuronFault cut): pulled out" in unhealthy[0].message


async def test_a_claim_is_told_of_its_card_by_every_agent(api, agent, kubelet, aligned, eventually, monkeypatch):
    """What is written stands in test_claim_status."""
    monkeypatch.setattr(claim_status, "SETTLE", 0.0)
    monkeypatch.setattr(claim_status, "SWARM", 0.0)

    def told():
        return any(method == "PATCH" and path.endswith("/aligned/status") for method, path in api.requests)

    api.put("neuronnodes", neuron_node())
    async with running(agent()):
        await eventually(kubelet.sockets)
        assert (await kubelet.prepare(aligned)).error == ""
        await eventually(told)
    api.requests.clear()
    async with running(agent()):
        await eventually(told)


@pytest.mark.parametrize(
    ("spec", "settings"),
    [
        pytest.param({"instanceType": "inf2.48xlarge"}, {}, id="no cards"),
        pytest.param({"resources": "DevicePlugin"}, {}, id="the other road"),
        pytest.param({}, {"efa": False}, id="switched off"),
    ],
)
async def test_where_there_is_nothing_to_offer_nobody_is_told(api, agent, kubelet, eventually, spec, settings):
    api.put("neuronnodes", neuron_node())
    async with running(agent()):
        await eventually(lambda: slices(api) and kubelet.sockets())
    api.put("neuronnodes", neuron_node(**spec))
    async with running(agent(**settings)):
        await eventually(lambda: not slices(api), "what an earlier agent published is taken back")
        assert kubelet.sockets() == []


async def test_a_node_that_leaves_keeps_the_driver_until_its_last_claim(api, agent, kubelet, aligned, eventually):
    api.put("neuronnodes", neuron_node())
    async with running(agent()):
        await eventually(kubelet.sockets)
        assert (await kubelet.prepare(aligned)).error == ""
        api.delete("neuronnodes", NODE)
        await eventually(lambda: not slices(api), "slices withdrawn")
        assert "no NeuronNode" in (await kubelet.prepare(aligned)).error
        assert (await kubelet.unprepare(aligned)).error == ""
        await eventually(lambda: not kubelet.sockets() and not kubelet.folder.exists(), "nothing left on the node")


async def test_the_next_agent_ends_what_the_last_one_began(api, agent, kubelet, aligned, eventually):
    """The node has become another one meanwhile, and the pod still runs."""
    api.put("neuronnodes", neuron_node())
    async with running(agent()):
        await eventually(kubelet.sockets)
        assert (await kubelet.prepare(aligned)).error == ""
    api.delete("neuronnodes", NODE)
    async with running(agent()):
        await eventually(kubelet.sockets, "the kubelet can ask for the pod's end")
        assert (await kubelet.unprepare(aligned)).error == ""
        await eventually(lambda: not kubelet.sockets())


async def test_what_a_killed_agent_left_is_removed(api, agent, kubelet, aligned, eventually):
    api.put("neuronnodes", neuron_node())
    async with running(agent()):
        await eventually(kubelet.sockets)
        assert (await kubelet.prepare(aligned)).error == ""
    api.delete("neuronnodes", NODE)
    api.delete("resourceclaims", "aligned", "team")
    kubelet.folder.mkdir(exist_ok=True)
    for path in (kubelet.folder / "dra.sock", kubelet.registry / f"{EFA_DRIVER_NAME}-reg.sock"):
        with socket.socket(socket.AF_UNIX) as killed:
            killed.bind(str(path))
    async with running(agent()):
        await eventually(lambda: not kubelet.files() and not kubelet.sockets() and not kubelet.folder.exists())


async def test_a_broken_node_breaks_its_cards(api, agent, eventually):
    fault = {"name": "dead", "type": "DeviceLost", "effect": "NoExecute", "since": "2026-01-01T00:00:00Z"}

    def tainted(driver):
        return sum("taints" in device for found in slices(api, driver) for device in found["spec"]["devices"])

    api.put("neuronnodes", neuron_node(faults=[fault | {"chip": 3}]))
    async with running(agent()):
        await eventually(lambda: tainted("neuron.aws.com") == 1 and slices(api))
        assert tainted(EFA_DRIVER_NAME) == 0
        api.put("neuronnodes", neuron_node(faults=[fault]))
        await eventually(lambda: tainted(EFA_DRIVER_NAME) == 16)
        api.put("neuronnodes", neuron_node())
        await eventually(lambda: tainted(EFA_DRIVER_NAME) == 0, "and heals")
