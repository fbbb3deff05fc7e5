"""Who is told by an Event that a device is broken: the pods that the kubelet tells nothing."""

import asyncio
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from neuron_device_model.faults import Fault
from neuron_dra_driver.kubeletplugin import ApiError
from neuron_dra_driver.names import DRIVER_NAME, EXTENDED_RESOURCE_CLAIM, POD_CLAIM_NAME
from neuron_dra_driver.node import SimulatedNode
from neuron_dra_driver.records.checkpoint import Entry
from neuron_dra_driver.records.holdings import HeldDevice
from neuron_dra_driver.reporting.device_health import faults_of_held
from neuron_dra_driver.reporting.pod_events import PodEvents, PodRef, event
from neuron_dra_driver.reporting.prepared_claims import Source

sys.path.insert(0, str(Path(__file__).parents[1] / "kubeletplugin"))

from virtual_time import run

BROKEN = Fault("x", "HBMUncorrectable", 3, None, "NoSchedule", "row 7", "2026-11-21T10:00:00Z")
TEMPLATE = {POD_CLAIM_NAME: "neurons"}
EXTENDED = {EXTENDED_RESOURCE_CLAIM: "true"}

Object = dict[str, Any]


@dataclass
class Api:
    """Claims by name, and Events as they are created."""

    claims: dict[str, Object] = field(default_factory=dict)
    events: dict[str, Object] = field(default_factory=dict)
    posts: list[float] = field(default_factory=list)
    reads: int = 0
    refusal: Exception | None = None

    async def read_claim(self, namespace: str, name: str) -> Object | None:
        self.reads += 1
        return self.claims.get(name)

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> Object:
        assert (method, path) == ("POST", "/apis/events.k8s.io/v1/namespaces/team/events")
        assert body is not None
        self.posts.append(asyncio.get_running_loop().time())
        if self.refusal:
            raise self.refusal
        name = body["metadata"]["name"]
        if name in self.events:
            raise ApiError(409, f'events "{name}" already exists')
        self.events[name] = dict(body)
        return dict(body)

    def told(self) -> list[tuple[str, str]]:
        return [(found["regarding"]["name"], found["note"].partition(" (")[0]) for found in self.events.values()]


@pytest.fixture
def scene(make: Any, trn2: SimulatedNode) -> Any:
    """A node whose claims and faults a test changes, and the Events' sender, running."""

    class Scene:
        def __init__(self) -> None:
            self.api = Api()
            self.prepared: list[Entry] = []
            self.node: SimulatedNode | None = trn2
            self.listens = True

        def claim(self, name: str, *chips: int, pods: tuple[str, ...] = (), **fields: Any) -> None:
            claim = make.claim(name, devices={"r": chips}, **{"annotations": EXTENDED} | fields)
            claim["status"]["reservedFor"] = [{"resource": "pods", "name": pod, "uid": f"u-{pod}"} for pod in pods]
            self.api.claims[name] = claim
            devices = tuple(HeldDevice("r", "worker-1", f"neuron-device-{n}", cores=((n, -1),)) for n in chips)
            self.prepared.append(Entry(claim["metadata"]["uid"], "team", name, devices, "tree"))

        def breaks(self, *faults: Fault) -> None:
            assert self.node is not None
            self.node = replace(self.node, faults=faults)
            self.events.wake()

        async def __aenter__(self) -> Any:
            self.events = PodEvents(
                node_name="worker-1",
                request=self.api.request,
                read_claim=self.api.read_claim,
                sources=[Source(DRIVER_NAME, lambda: self.prepared, faults_of_held)],
                node=lambda: self.node,
                kubelet_listens=lambda: self.listens,
            )
            self.task = asyncio.create_task(self.events.run())
            return self

        async def __aexit__(self, *_: object) -> None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
            assert self.task.cancelled(), "it works until it is cancelled"

    return Scene()


def test_a_plain_pod_is_told_once(scene: Any) -> None:
    async def scenario() -> None:
        async with scene:
            scene.claim("made-by-the-scheduler", 3, pods=("plain",))
            scene.claim("healthy", 4, pods=("lucky",))
            scene.breaks(BROKEN)
            await asyncio.sleep(3600)
            assert scene.api.told() == [("plain", "Neuron device 3 is unhealthy: HBM_UNCORRECTABLE_ERROR")]
            assert len(scene.api.posts) == 1
        async with scene:  # a new process
            await asyncio.sleep(3600)
        assert len(scene.api.events) == 1

    run(scenario())


@pytest.mark.parametrize(
    ("annotations", "listens", "told"),
    [
        (TEMPLATE, True, False),
        ({}, True, False),
        (TEMPLATE, False, True),
        (EXTENDED, True, True),
        (EXTENDED, False, True),
    ],
    ids=["template", "named claim", "kubelet does not listen", "extended resource", "neither"],
)
def test_only_pods_that_the_kubelet_does_not_tell_get_an_event(
    scene: Any, annotations: dict[str, str], listens: bool, told: bool
) -> None:
    async def scenario() -> None:
        scene.listens = listens
        async with scene:
            scene.claim("c", 3, pods=("p",), annotations=annotations)
            scene.breaks(BROKEN)
            await asyncio.sleep(60)
            assert bool(scene.api.events) == told

    run(scenario())


def test_a_kubelet_that_has_not_opened_its_stream_yet_is_waited_for(scene: Any) -> None:
    async def scenario() -> None:
        scene.listens = False
        async with scene:
            scene.claim("c", 3, pods=("p",), annotations=TEMPLATE)
            scene.breaks(BROKEN)
            await asyncio.sleep(6)
            scene.listens = True
            await asyncio.sleep(600)
            assert scene.api.events == {}

    run(scenario())


def test_one_event_for_each_pod_and_fault_whatever_devices_it_hits(scene: Any) -> None:
    async def scenario() -> None:
        async with scene:
            scene.claim("one", 3, 4, pods=("a", "b"))
            scene.claim("two", 5, pods=("a",))
            node_fault = replace(BROKEN, name="y", type="Hang", chip=None)
            scene.breaks(BROKEN, node_fault)
            await asyncio.sleep(60)
            assert sorted(scene.api.told()) == [
                ("a", "Neuron device 3 is unhealthy: HBM_UNCORRECTABLE_ERROR"),
                ("a", "Neuron devices 3-5 are unhealthy: HANG_ON_COLLECTIVES"),
                ("b", "Neuron device 3 is unhealthy: HBM_UNCORRECTABLE_ERROR"),
                ("b", "Neuron devices 3-4 are unhealthy: HANG_ON_COLLECTIVES"),
            ]

    run(scenario())


def test_a_fault_that_comes_back_is_told_again_and_a_pod_that_comes_later_too(scene: Any) -> None:
    async def scenario() -> None:
        async with scene:
            scene.claim("c", 3, pods=("p",))
            scene.breaks(BROKEN)
            await asyncio.sleep(60)
            scene.breaks()
            await asyncio.sleep(60)
            scene.breaks(replace(BROKEN, since="2026-11-21T11:00:00Z"))
            await asyncio.sleep(60)
            assert [pod for pod, _ in scene.api.told()] == ["p", "p"]
            consumers = scene.api.claims["c"]["status"]["reservedFor"]
            consumers.append({"resource": "pods", "name": "late", "uid": "u-late"})
            consumers.append({"apiGroup": "scheduling.k8s.io", "resource": "podgroups", "name": "g", "uid": "u-g"})
            await asyncio.sleep(60)
            assert [pod for pod, _ in scene.api.told()] == ["p", "p", "late"]

    run(scenario())


def test_while_nothing_is_broken_nothing_is_asked(scene: Any) -> None:
    async def scenario() -> None:
        async with scene:
            scene.claim("c", 3, pods=("p",))
            for _ in range(100):
                scene.events.wake()
                await asyncio.sleep(10)
            scene.node = None
            scene.events.wake()
            await asyncio.sleep(10)
            assert scene.api.reads == 0

    run(scenario())


@pytest.mark.parametrize("what", ["gone", "made anew", "device plugin"])
def test_a_claim_that_is_not_there_has_no_pods(scene: Any, what: str) -> None:
    async def scenario() -> None:
        async with scene:
            scene.claim("c", 3, pods=("p",))
            match what:
                case "gone":
                    scene.api.claims.clear()
                case "made anew":
                    scene.api.claims["c"]["metadata"]["uid"] = "another"
                case "device plugin":
                    scene.prepared[:] = [replace(scene.prepared[0], origin="device-plugin")]
            scene.breaks(BROKEN)
            await asyncio.sleep(60)
            assert scene.api.posts == []

    run(scenario())


@pytest.mark.parametrize(
    ("refusal", "again"),
    [(ConnectionError("refused"), True), (ApiError(503, "busy"), True), (ApiError(403, "is being terminated"), False)],
    ids=["outage", "busy", "forbidden"],
)
def test_an_event_that_could_not_be_sent_is_sent_later_unless_it_never_can(
    scene: Any, refusal: Exception, again: bool
) -> None:
    async def scenario() -> None:
        async with scene:
            scene.api.refusal = refusal
            scene.claim("c", 3, pods=("p",))
            scene.breaks(BROKEN)
            await asyncio.sleep(120)
            scene.api.refusal = None
            await asyncio.sleep(120)
            assert bool(scene.api.events) == again
            assert (len(scene.api.posts) > 1) == again

    run(scenario())


def test_many_events_are_spread_out(scene: Any) -> None:
    async def scenario() -> None:
        async with scene:
            scene.claim("c", 3, pods=tuple(f"p-{n}" for n in range(100)))
            scene.breaks(BROKEN)
            await asyncio.sleep(60)
            times = scene.api.posts
            assert len(times) == 100
            assert times[-1] - times[0] > 9

    run(scenario())


NOW = datetime(2026, 11, 21, 10, 0, 0, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("devices", "subject"),
    [
        (["neuron-core-14"], "NeuronCore 14 is"),
        (["neuron-physical-core-3", "neuron-physical-core-2"], "physical NeuronCores 2-3 are"),
        (["neuron-node"], "neuron-node is"),
        (["neuron-device-1", "neuron-core-9"], "Neuron device 1 and NeuronCore 9 are"),
    ],
)
def test_the_note_names_what_the_pod_has(devices: list[str], subject: str) -> None:
    note = event(PodRef("team", "p", "u"), BROKEN, devices, reporter="worker-1", now=NOW)["note"]
    assert note.startswith(f"{subject} unhealthy: HBM_UNCORRECTABLE_ERROR (NeuronFault x): row 7; ")


def test_the_api_server_accepts_an_event_of_any_length() -> None:
    fault = replace(BROKEN, name="f" * 253, message="ä" * 1024)
    pod = PodRef("team", "p" * 199 + "." + "x" * 53, "u")
    made = event(pod, fault, [f"neuron-core-{n}" for n in range(0, 128, 2)], reporter="n" * 253, now=NOW)
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", made["metadata"]["name"])
    assert len(made["metadata"]["name"]) <= 253
    assert len(made["note"].encode()) <= 1024
    assert len(made["reportingInstance"]) <= 128
    assert made["eventTime"] == "2026-11-21T10:00:00.000005Z"
    assert made["regarding"]["namespace"] == made["metadata"]["namespace"]
