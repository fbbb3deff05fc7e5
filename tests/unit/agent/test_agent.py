"""The whole agent in one process: a fake API server over HTTP, real sockets, and this test as the kubelet."""

import asyncio
import json
import shutil
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import pytest
from neuron_dra_driver.agent.agent import Agent, RealDriverFound
from neuron_dra_driver.errors import LockTimeout
from neuron_dra_driver.kubeletplugin.proto import dra_v1_pb2 as dra
from neuron_dra_driver.kubeletplugin.proto import pluginregistration_v1_pb2 as registration
from neuron_dra_driver.lock import NodeLock
from neuron_dra_driver.node import SimulatedNode
from neuron_dra_driver.prepared.runtime_tree import digest_of

NODE = "worker-1"
SERVICE = "/k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin"
Wait = Callable[..., Any]
REAL_SLICE: dict[str, Any] = {
    "metadata": {"name": "real-slice"},
    "spec": {"driver": "neuron.aws.com", "nodeName": NODE, "pool": {"name": NODE, "generation": 1}, "devices": []},
}


class Kubelet:
    """Registers the plugin and calls it."""

    def __init__(self, host: Any, instance: str = "") -> None:
        suffix = instance and f"-{instance}"
        self._socket = host.root / "plugins" / "neuron.aws.com" / f"dra{suffix}.sock"
        self._registry = host.root / "registry" / f"neuron.aws.com{suffix}-reg.sock"

    async def _found(self) -> None:
        while not self._registry.exists():  # noqa: ASYNC110 - a kubelet looks every second, too
            await asyncio.sleep(0.005)

    async def register(self) -> None:
        await self._found()
        path = "/pluginregistration.Registration"
        async with grpc.aio.insecure_channel(f"unix://{self._registry}") as channel:
            info = channel.unary_unary(f"{path}/GetInfo", response_deserializer=registration.PluginInfo.FromString)
            assert (await info(b"")).name == "neuron.aws.com"
            done = registration.RegistrationStatus(plugin_registered=True)
            await channel.unary_unary(f"{path}/NotifyRegistrationStatus")(done.SerializeToString())

    async def prepare(self, *claims: dict[str, Any]) -> Any:
        request = dra.NodePrepareResourcesRequest(claims=[self._ref(claim) for claim in claims])
        return await self._call("NodePrepareResources", request, dra.NodePrepareResourcesResponse)

    async def unprepare(self, *claims: dict[str, Any]) -> Any:
        request = dra.NodeUnprepareResourcesRequest(claims=[self._ref(claim) for claim in claims])
        return await self._call("NodeUnprepareResources", request, dra.NodeUnprepareResourcesResponse)

    async def _call(self, method: str, request: Any, response: Any) -> Any:
        await self._found()
        async with grpc.aio.insecure_channel(f"unix://{self._socket}") as channel:
            call = channel.unary_unary(f"{SERVICE}/{method}", response_deserializer=response.FromString)
            return (await call(request.SerializeToString())).claims

    @staticmethod
    def _ref(claim: dict[str, Any]) -> Any:
        metadata = claim["metadata"]
        return dra.Claim(namespace=metadata["namespace"], name=metadata["name"], uid=metadata["uid"])


@asynccontextmanager
async def running(agent: Agent) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(agent.run(stop))
    try:
        yield
    finally:
        stop.set()
        await task


@pytest.fixture
def kubelet(host: Any) -> Kubelet:
    return Kubelet(host)


def neuron_node(**spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": NODE, "generation": 1},
        "spec": {
            "pool": "default",
            "instanceType": "trn2.48xlarge",
            "logicalNeuronCore": 2,
            "sdkVersion": "2.32.0",
            "instanceID": "i-0a1b2c3d4e5f60718",
            "networkNodes": ["nn-1", "nn-2", "nn-3"],
            **spec,
        },
    }


def ready(api: Any) -> Any:
    """The Ready condition's reason, None while there is no status."""
    node = next(iter(api.items("neuronnodes")), {})
    conditions = node.get("status", {}).get("conditions", [])
    return next((c["reason"] for c in conditions if c["type"] == "Ready"), None)


async def test_nothing_is_offered_before_the_kubelet_knows_the_driver(
    api: Any, kube: Any, host: Any, kubelet: Kubelet, eventually: Wait
) -> None:
    """A pod that were allocated a device before would fail, and wait for a minute. A rollout waits for it, too."""
    api.put("neuronnodes", neuron_node())
    agent = Agent(host.settings(kubelet_patience=60), kube)
    async with running(agent):
        await eventually(lambda: ready(api) == "NotRegistered")
        assert (await agent._ready_page())[0] == 503
        assert not api.items("resourceslices")
        await kubelet.register()
        await eventually(lambda: ready(api) == "Serving")
        assert api.items("resourceslices")
        assert (await agent._ready_page())[0] == 200


async def test_a_pod_from_prepare_to_unprepare(
    api: Any, kube: Any, host: Any, kubelet: Kubelet, make: Any, eventually: Wait
) -> None:
    api.put("neuronnodes", neuron_node())
    mine = api.put("resourceclaims", make.claim(devices={"neurons": [5, 4]}))
    async with running(Agent(host.settings(), kube)):
        await eventually(lambda: ready(api) == "NotRegistered", "a status before the kubelet came")
        await kubelet.register()
        await eventually(lambda: ready(api) == "Serving")
        (published,) = api.items("resourceslices")
        assert len(published["spec"]["devices"]) == 16
        assert published["metadata"]["labels"] == {"neuron-sim.dev/simulated": "true"}

        answer = (await kubelet.prepare(mine))["uid-of-mine"]
        assert answer.error == ""
        assert [d.device_name for d in answer.devices] == ["neuron-device-4", "neuron-device-5"]
        assert {i for d in answer.devices for i in d.cdi_device_ids} >= {"neuron.aws.com/claim=uid-of-mine_neurons"}
        await eventually(lambda: api.items("neuronnodes")[0]["status"]["preparedClaims"] == 1)

        api.delete("resourceclaims", "mine", "team")
        assert (await kubelet.unprepare(mine))["uid-of-mine"].error == ""
        await eventually(lambda: api.items("neuronnodes")[0]["status"]["preparedClaims"] == 0)
    assert host.leftovers() == []
    assert len(api.items("resourceslices")) == 1, "slices stay when the agent stops"


async def test_a_node_without_neuron_node_still_lets_pods_end(
    api: Any, kube: Any, host: Any, kubelet: Kubelet, make: Any, eventually: Wait
) -> None:
    api.put("neuronnodes", neuron_node())
    mine = api.put("resourceclaims", make.claim())
    other = api.put("resourceclaims", make.claim("other", devices={"neurons": [1]}))
    runtime = host.runtimes
    async with running(Agent(host.settings(), kube)):
        await eventually(lambda: api.items("resourceslices"))
        assert (await kubelet.prepare(mine))["uid-of-mine"].error == ""

        api.delete("neuronnodes", NODE)
        await eventually(lambda: not api.items("resourceslices"), "slices withdrawn")
        assert "no NeuronNode" in (await kubelet.prepare(other))["uid-of-other"].error
        assert list(runtime.iterdir()), "the pod still has the tools mounted"
        assert (await kubelet.unprepare(mine))["uid-of-mine"].error == ""
        await eventually(lambda: not runtime.exists(), "the runtime gone with the last claim")
    assert host.leftovers() == []


async def test_it_leaves_nothing_on_a_node_that_is_no_neuron_node(
    api: Any, kube: Any, host: Any, eventually: Wait
) -> None:
    api.put("neuronnodes", neuron_node())
    agent = Agent(host.settings(), kube)
    async with running(agent):
        await eventually(lambda: api.items("resourceslices"))
        api.delete("neuronnodes", NODE)
        await eventually(lambda: not api.items("resourceslices"), "slices withdrawn")
    settings = host.settings()
    assert not (settings.plugins_dir / settings.driver_name).exists()
    assert [path for folder in (settings.state_dir, settings.run_dir) for path in folder.glob("*")] == []


async def test_it_leaves_the_checkpoint_while_a_claim_is_held(
    api: Any, kube: Any, host: Any, kubelet: Kubelet, make: Any, eventually: Wait
) -> None:
    api.put("neuronnodes", neuron_node())
    mine = api.put("resourceclaims", make.claim())
    async with running(Agent(host.settings(), kube)):
        await eventually(lambda: api.items("resourceslices"))
        assert (await kubelet.prepare(mine))["uid-of-mine"].error == ""
        api.delete("neuronnodes", NODE)
        await eventually(lambda: not api.items("resourceslices"), "slices withdrawn")
    async with running(Agent(host.settings(), kube)):
        assert (await kubelet.unprepare(mine))["uid-of-mine"].error == ""
    assert host.leftovers() == []


async def test_cores_are_published_with_the_counters_that_keep_them_apart(
    api: Any, kube: Any, host: Any, eventually: Wait
) -> None:
    api.put("neuronnodes", neuron_node(partitions="logical"))
    async with running(Agent(host.settings(), kube)):
        await eventually(lambda: len(api.items("resourceslices")) == 4, "two slices of devices and two of counters")
    slices = [found["spec"] for found in api.items("resourceslices")]
    assert [len(spec.get("devices", [])) for spec in slices] == [64, 16, 0, 0]
    assert [len(spec.get("sharedCounters", [])) for spec in slices] == [0, 0, 8, 8]


async def test_nothing_that_overlaps_is_offered_where_the_api_server_drops_counters(
    api: Any, kube: Any, host: Any, eventually: Wait
) -> None:
    api.keeps_counters = False
    api.put("neuronnodes", neuron_node(partitions="logical"))
    async with running(Agent(host.settings(), kube)):
        await eventually(lambda: api.items("resourceslices"))
    (found,) = api.items("resourceslices")
    assert [device["name"] for device in found["spec"]["devices"]] == [f"neuron-device-{n}" for n in range(16)]


async def test_a_changed_neuron_node_is_published_again(api: Any, kube: Any, host: Any, eventually: Wait) -> None:
    api.put("neuronnodes", neuron_node())
    async with running(Agent(host.settings(), kube)):
        await eventually(lambda: api.items("resourceslices"))
        api.put("neuronnodes", neuron_node(instanceType="trn2.3xlarge"))
        await eventually(lambda: len(api.items("resourceslices")[0]["spec"]["devices"]) == 1)
        api.put("neuronnodes", neuron_node(instanceType="trn2.48xlarge", logicalNeuronCore=3))
        await eventually(lambda: ready(api) == "InvalidLogicalNeuronCore")
        await eventually(lambda: not api.items("resourceslices"))
        api.put("neuronnodes", neuron_node(instanceType="trn9.large"))
        await eventually(lambda: ready(api) == "UnknownInstanceType")


async def test_a_real_drivers_slices_are_left_alone(
    api: Any, kube: Any, host: Any, kubelet: Kubelet, eventually: Wait
) -> None:
    api.put("neuronnodes", neuron_node())
    api.put("resourceslices", REAL_SLICE)
    async with running(Agent(host.settings(), kube)):
        await eventually(lambda: ready(api) == "RealDriverFound")
        assert [s["metadata"]["name"] for s in api.items("resourceslices")] == ["real-slice"]
        assert list((host.root / "registry").iterdir()) == [], "the kubelet is not told of a second driver"
        api.delete("resourceslices", "real-slice")
        await eventually(lambda: list((host.root / "registry").iterdir()))
        await kubelet.register()
        await eventually(lambda: ready(api) == "Serving", "published once the other driver is gone")


async def test_a_real_driver_that_comes_later_waits_for_the_last_simulated_pod(
    api: Any, kube: Any, host: Any, kubelet: Kubelet, make: Any, eventually: Wait
) -> None:
    api.put("neuronnodes", neuron_node())
    mine = api.put("resourceclaims", make.claim())
    other = api.put("resourceclaims", make.claim("other", devices={"neurons": [1]}))
    async with running(Agent(host.settings(), kube)):
        await eventually(lambda: api.items("resourceslices"))
        assert (await kubelet.prepare(mine))["uid-of-mine"].error == ""
        api.put("resourceslices", REAL_SLICE)
        await eventually(lambda: ready(api) == "RealDriverFound")
        await eventually(lambda: len(api.items("resourceslices")) == 1, "ours withdrawn")
        assert "another driver" in (await kubelet.prepare(other))["uid-of-other"].error
        assert (await kubelet.unprepare(mine))["uid-of-mine"].error == ""
        await eventually(lambda: not list((host.root / "registry").iterdir()))


async def test_alone_it_stops_at_a_real_driver(api: Any, kube: Any, host: Any, trn2: SimulatedNode) -> None:
    api.put("resourceslices", {"metadata": {"name": "real"}, "spec": {"driver": "neuron.aws.com", "nodeName": NODE}})
    with pytest.raises(RealDriverFound, match="chart value driverName"):
        await Agent(host.settings(standalone=trn2), kube).run(asyncio.Event())


async def test_alone_it_stops_when_a_real_driver_comes(
    api: Any, kube: Any, host: Any, trn2: SimulatedNode, eventually: Wait
) -> None:
    agent = asyncio.create_task(Agent(host.settings(standalone=trn2), kube).run(asyncio.Event()))
    await eventually(lambda: api.items("resourceslices"))
    api.put("resourceslices", REAL_SLICE)
    with pytest.raises(RealDriverFound, match="real-slice"):
        await agent


async def test_alone_it_reads_no_crd(api: Any, kube: Any, host: Any, trn2: SimulatedNode, eventually: Wait) -> None:
    async with running(Agent(host.settings(standalone=trn2), kube)):
        await eventually(lambda: api.items("resourceslices"))
    assert not [path for _, path in api.requests if "neuronnodes" in path]


async def test_the_lock_is_kept_until_the_tools_are_copied_though_the_agent_is_told_to_stop(
    kube: Any, host: Any, trn2: SimulatedNode, eventually: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next agent would else meet a folder that a thread of this one still writes."""
    copying, go_on = threading.Event(), threading.Event()
    copytree = shutil.copytree

    def slowly(*args: Any, **options: Any) -> Any:
        copying.set()
        go_on.wait()
        return copytree(*args, **options)

    monkeypatch.setattr(shutil, "copytree", slowly)
    stop = asyncio.Event()
    agent = asyncio.create_task(Agent(host.settings(standalone=trn2), kube).run(stop))
    try:
        await eventually(copying.is_set)
        stop.set()
        next_agent = NodeLock(host.journal.parent, patience=0.05)
        with pytest.raises(LockTimeout):
            async with next_agent.held():
                pass
    finally:
        go_on.set()
    await agent
    async with next_agent.held():
        assert [path.name for path in host.runtimes.iterdir()] == [digest_of(host.tree)]
    next_agent.close()


async def test_pods_end_while_the_api_server_is_away(
    api: Any, kube: Any, host: Any, kubelet: Kubelet, make: Any, eventually: Wait
) -> None:
    api.put("neuronnodes", neuron_node())
    mine = api.put("resourceclaims", make.claim())
    other = api.put("resourceclaims", make.claim("other", devices={"neurons": [1]}))
    async with running(Agent(host.settings(), kube)):
        await eventually(lambda: api.items("resourceslices"))
        assert (await kubelet.prepare(mine))["uid-of-mine"].error == ""
        api.away = True
        assert "cannot be read from the API server" in (await kubelet.prepare(other))["uid-of-other"].error
        assert (await kubelet.unprepare(mine))["uid-of-mine"].error == ""
    assert host.leftovers() == []


@pytest.mark.parametrize(
    ("content", "trace"),
    [
        (b"", "corrupt-1"),
        (b"not a journal\n", "corrupt-1"),
        (b'{"kind":"neuron-sim-checkpoint","version":999}\n', "newer-v999"),
    ],
)
async def test_a_damaged_checkpoint_is_put_aside_and_claims_in_use_are_found_again(
    api: Any, kube: Any, host: Any, kubelet: Kubelet, make: Any, eventually: Wait, content: bytes, trace: str
) -> None:
    api.put("neuronnodes", neuron_node())
    mine = api.put("resourceclaims", make.claim())
    other = api.put("resourceclaims", make.claim("other"))
    async with running(Agent(host.settings(), kube)):
        await eventually(lambda: api.items("resourceslices"))
        assert (await kubelet.prepare(mine))["uid-of-mine"].error == ""
    host.journal.write_bytes(content)
    async with running(Agent(host.settings(), kube)):
        await eventually(lambda: api.items("neuronnodes")[0]["status"]["preparedClaims"] == 1)
        assert "still prepared for claim team/mine" in (await kubelet.prepare(other))["uid-of-other"].error
        await eventually(
            lambda: f"checkpoint.jsonl.{trace}" in json.dumps(api.items("neuronnodes")[0]["status"]["conditions"])
        )
        assert (await kubelet.unprepare(mine))["uid-of-mine"].error == ""
    assert host.leftovers() == []


async def test_two_agents_overlap_in_a_rolling_update(
    api: Any, kube: Any, host: Any, make: Any, eventually: Wait
) -> None:
    """Each has sockets of its own; what one prepared the other unprepares, and neither gives away what is held."""
    api.put("neuronnodes", neuron_node())
    mine = api.put("resourceclaims", make.claim())
    same = api.put("resourceclaims", make.claim("same"))
    old, new = Kubelet(host, "old"), Kubelet(host, "new")
    async with running(Agent(host.settings(pod_uid="old"), kube)):
        await old.register()
        assert (await old.prepare(mine))["uid-of-mine"].error == ""
        async with running(Agent(host.settings(pod_uid="new"), kube)):
            await new.register()
            assert "still prepared for claim team/mine" in (await new.prepare(same))["uid-of-same"].error
            assert (await new.unprepare(mine))["uid-of-mine"].error == ""
            assert (await old.prepare(same))["uid-of-same"].error == ""
            assert (await new.prepare(same))["uid-of-same"].error == ""
            await eventually(lambda: api.items("neuronnodes")[0]["status"]["preparedClaims"] == 1)
            assert (await new.unprepare(same))["uid-of-same"].error == ""
        assert (await old.unprepare(same))["uid-of-same"].error == ""
    assert host.leftovers() == []
    assert len(api.items("resourceslices")) == 1
