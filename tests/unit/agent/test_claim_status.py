"""`status.devices` of prepared claims: what is written, when, and that nothing else suffers from it."""

import asyncio
import json
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from neuron_device_model.catalog import instance_type
from neuron_device_model.efa import efa_devices
from neuron_device_model.faults import Fault
from neuron_dra_driver.kubeletplugin import ApiError
from neuron_dra_driver.names import EFA_DRIVER_NAME
from neuron_dra_driver.node import SimulatedNode
from neuron_dra_driver.records.checkpoint import Entry
from neuron_dra_driver.records.holdings import HeldDevice
from neuron_dra_driver.reporting.claim_status import PAUSE, ClaimStatus
from neuron_dra_driver.reporting.device_health import faults_of_held, faults_of_held_card
from neuron_dra_driver.reporting.prepared_claims import Source

sys.path.insert(0, str(Path(__file__).parents[1] / "kubeletplugin"))

from virtual_time import run

DRIVER = "neuron.aws.com"
CLAIMS = "/apis/resource.k8s.io/v1/namespaces/team/resourceclaims/"
BROKEN = Fault("x", "HBMUncorrectable", 3, None, "NoSchedule", "", "2026-11-21T10:00:00Z")
CARD = "pci-0000-c9-00-0"
"""The one beside chip 0 of a trn2.48xlarge."""
(CARD_NUMBER,) = (card.verbs for card in efa_devices(instance_type("trn2.48xlarge")) if card.name == CARD)
CARD_DOWN = replace(BROKEN, name="y", type="EFADown", chip=None, efa=CARD_NUMBER)
OTHER_CARD_DOWN = replace(CARD_DOWN, name="z", efa=CARD_NUMBER - 1)

Object = dict[str, Any]


def entry(name: str, *chips: int, serial: int = 0, **fields: Any) -> Entry:
    devices = tuple(HeldDevice("r", "worker-1", f"neuron-device-{n}", cores=((n, -1),)) for n in chips)
    return Entry(f"uid-of-{name}", "team", name, devices, "tree", serial=serial, **fields)


@dataclass
class Api:
    """Claims, and JSON Patch for their status as far as it matters."""

    claims: dict[str, Object] = field(default_factory=dict)
    writes: list[tuple[float, str]] = field(default_factory=list)
    reads: int = 0
    refusal: Exception | None = None
    overtaken: int = 0
    """So many reads are followed by somebody else's write."""

    async def read_claim(self, namespace: str, name: str) -> Object | None:
        self.reads += 1
        found = json.loads(json.dumps(self.claims.get(name)))
        if self.overtaken:
            self.overtaken -= 1
            self.claims[name]["metadata"]["resourceVersion"] += "1"
        return found

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> Object:
        assert method == "PATCH"
        assert params == {"fieldManager": DRIVER}
        assert content_type == "application/json-patch+json"
        name = path.removeprefix(CLAIMS).removesuffix("/status")
        self.writes.append((asyncio.get_running_loop().time(), name))
        if self.refusal:
            raise self.refusal
        claim = self.claims[name]
        for operation in body:
            apply(claim, operation)
        claim["metadata"]["resourceVersion"] += "0"
        return claim

    def conditions(self, name: str, device: str) -> dict[str, tuple[str, str]]:
        (found,) = [d for d in self.claims[name]["status"].get("devices", []) if d["device"] == device]
        return {c["type"]: (c["status"], c["reason"]) for c in found["conditions"]}


def apply(claim: Object, operation: Object) -> None:
    """One operation of a JSON Patch, as the API server does it."""
    *parents, last = operation["path"].split("/")[1:]
    target: Any = claim
    for part in parents:
        target = target[int(part) if isinstance(target, list) else part]
    if operation["path"] == "/metadata/resourceVersion" and target[last] != operation["value"]:
        raise ApiError(409, "the object has been modified")
    match operation["op"]:
        case "test":
            if target[last] != operation["value"]:
                raise ApiError(422, "testing value failed")
        case "add" if last == "-":
            target.append(operation["value"])
        case "add":
            target[last] = operation["value"]
        case "replace":
            place = int(last) if isinstance(target, list) else last
            assert target[place] is not None
            target[place] = operation["value"]


@pytest.fixture
def scene(make: Any, trn2: SimulatedNode) -> Any:
    """A node whose claims, devices and API server a test changes, and the writer of the status, running."""

    class Scene:
        def __init__(self) -> None:
            self.api = Api()
            self.prepared: list[Entry] = []
            self.cards: list[Entry] = []
            self.node: SimulatedNode | None = trn2

        def claim(self, name: str, *chips: int, **fields: Any) -> Entry:
            self.api.claims[name] = make.claim(name, devices={"r": chips}, **fields)
            self.api.claims[name]["metadata"]["resourceVersion"] = "7"
            prepared = entry(name, *chips)
            self.prepared.append(prepared)
            return prepared

        async def __aenter__(self) -> Any:
            self.status = ClaimStatus(
                field_manager=DRIVER,
                request=self.api.request,
                read_claim=self.api.read_claim,
                sources=[
                    Source(DRIVER, lambda: self.prepared, faults_of_held),
                    Source(EFA_DRIVER_NAME, lambda: self.cards, faults_of_held_card),
                ],
                node=lambda: self.node,
            )
            self.task = asyncio.create_task(self.status.run())
            return self

        async def __aexit__(self, *_: object) -> None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
            assert self.task.cancelled(), "it works until it is cancelled"

        async def later(self, seconds: float = 5) -> None:
            self.status.wake()
            await asyncio.sleep(seconds)

    return Scene()


def test_a_prepared_claim_is_told_to_be_ready_and_healthy(scene: Any) -> None:
    async def scenario() -> None:
        async with scene:
            scene.claim("mine", 3, 4)
            await scene.later()
            for device in ("neuron-device-3", "neuron-device-4"):
                assert scene.api.conditions("mine", device) == {
                    "Ready": ("True", "Prepared"),
                    "Healthy": ("True", "NoFault"),
                }
            (device, _) = scene.api.claims["mine"]["status"]["devices"]
            assert set(device) == {"driver", "pool", "device", "conditions"}
            assert all(
                {"type", "status", "reason", "message", "lastTransitionTime"} == set(condition)
                for condition in device["conditions"]
            )
            await scene.later(3600)
            assert len(scene.api.writes) == 1

    run(scenario())


def test_a_fault_changes_the_claims_that_hold_what_is_broken_and_no_other(scene: Any) -> None:
    async def scenario() -> None:
        async with scene:
            scene.claim("mine", 3, 4)
            scene.claim("other", 5)
            await scene.later()
            for one in scene.api.claims["mine"]["status"]["devices"]:
                for condition in one["conditions"]:
                    condition["lastTransitionTime"] = "then"
            scene.node = replace(scene.node, faults=(BROKEN,))
            await scene.later()
            assert scene.api.conditions("mine", "neuron-device-3")["Healthy"] == ("False", "HBMUncorrectable")
            assert scene.api.conditions("mine", "neuron-device-4")["Healthy"] == ("True", "NoFault")
            times = {
                (one["device"], c["type"]): c["lastTransitionTime"]
                for one in scene.api.claims["mine"]["status"]["devices"]
                for c in one["conditions"]
            }
            changed = {key for key, when in times.items() if when != "then"}
            assert changed == {("neuron-device-3", "Healthy")}, "what did not change keeps its time"
            assert [name for _, name in scene.api.writes] == ["mine", "other", "mine"]
            scene.node = replace(scene.node, faults=())
            await scene.later()
            assert scene.api.conditions("mine", "neuron-device-3")["Healthy"] == ("True", "NoFault")

    run(scenario())


def test_cards_stand_beside_the_chips_of_their_claim_and_break_by_themselves(scene: Any) -> None:
    async def scenario() -> None:
        async with scene:
            chips = scene.claim("mine", 3)
            card = {"request": "efa", "driver": EFA_DRIVER_NAME, "pool": "worker-1", "device": CARD}
            scene.api.claims["mine"]["status"]["allocation"]["devices"]["results"].append(card)
            held = (HeldDevice("efa", "worker-1", CARD),)
            scene.cards.append(Entry(chips.uid, "team", "mine", held, runtime="", serial=1))
            await scene.later()
            well = {"Ready": ("True", "Prepared"), "Healthy": ("True", "NoFault")}
            assert scene.api.conditions("mine", CARD) == scene.api.conditions("mine", "neuron-device-3") == well
            scene.node = replace(scene.node, faults=(CARD_DOWN, OTHER_CARD_DOWN))
            await scene.later()
            assert scene.api.conditions("mine", CARD)["Healthy"] == ("False", "EFADown")
            assert scene.api.conditions("mine", "neuron-device-3") == well
            assert [name for _, name in scene.api.writes] == ["mine", "mine"], "one write for both drivers"
            scene.node = replace(scene.node, faults=(OTHER_CARD_DOWN,))
            await scene.later()
            assert scene.api.conditions("mine", CARD) == well

    run(scenario())


@pytest.mark.parametrize("ours", [[], [None], [[]], [["gang"]], [["gang", "Ready"]]], ids=str)
def test_what_others_wrote_stays(scene: Any, ours: list[Any]) -> None:
    """`ours`: the conditions in our entry, if there is one already."""

    async def scenario() -> None:
        async with scene:
            scene.claim("mine", 3, 4)
            theirs = {"driver": "other.example.com", "pool": "p", "device": "d", "data": {"b": 1, "a": 1}}
            condition = {"status": "Unknown", "reason": "Whole", "message": "", "lastTransitionTime": "then"}
            entries = [
                {
                    "driver": DRIVER,
                    "pool": "worker-1",
                    "device": "neuron-device-4",
                    "conditions": types and [{"type": kind, **condition} for kind in types],
                }
                for types in ours
            ]
            scene.api.claims["mine"]["status"]["devices"] = [theirs, *entries]
            await scene.later()
            assert scene.api.claims["mine"]["status"]["devices"][0] is theirs, "not even written anew"
            assert scene.api.conditions("mine", "neuron-device-3").keys() == {"Ready", "Healthy"}
            written = scene.api.conditions("mine", "neuron-device-4")
            assert written.pop("gang", ("Unknown", "Whole")) == ("Unknown", "Whole")
            assert written == {"Ready": ("True", "Prepared"), "Healthy": ("True", "NoFault")}
            assert len(scene.api.writes) == 1

    run(scenario())


def test_claims_that_come_and_go_cost_no_call(scene: Any) -> None:
    async def scenario() -> None:
        async with scene:
            for n in range(300):
                scene.claim(f"short-{n}", 3)
                scene.status.wake()
                await asyncio.sleep(0.05)
                scene.prepared.clear()
                scene.status.wake()
            await asyncio.sleep(60)
            assert scene.api.reads == 0
            assert scene.api.writes == []

    run(scenario())


def test_a_burst_is_spread_out(scene: Any) -> None:
    async def scenario() -> None:
        async with scene:
            for n in range(100):
                scene.claim(f"c-{n}", n % 16)
            await scene.later(60)
            times = [when for when, _ in scene.api.writes]
            assert len(times) == 100
            gaps = [later - earlier for earlier, later in pairwise(times)]
            assert min(gaps) >= PAUSE * 0.99

    run(scenario())


def test_a_new_process_writes_only_what_differs(scene: Any) -> None:
    async def scenario() -> None:
        async with scene:
            scene.claim("mine", 3)
            scene.claim("other", 4)
            await scene.later()
        scene.api.writes.clear()
        scene.node = replace(scene.node, faults=(BROKEN,))
        async with scene:
            await scene.later()
            assert [name for _, name in scene.api.writes] == ["mine"]

    run(scenario())


def test_a_claim_that_was_prepared_anew_is_written_anew(scene: Any) -> None:
    """The API server removed the entries when the allocation ended."""

    async def scenario() -> None:
        async with scene:
            scene.claim("mine", 3)
            await scene.later()
            del scene.api.claims["mine"]["status"]["devices"]
            scene.prepared[:] = [entry("mine", 3, serial=7)]
            await scene.later()
            assert scene.api.conditions("mine", "neuron-device-3")["Ready"] == ("True", "Prepared")

    run(scenario())


@pytest.mark.parametrize("what", ["gone", "made anew", "deallocated", "given other devices", "device plugin"])
def test_what_is_not_that_claim_any_more_is_not_written(scene: Any, what: str) -> None:
    async def scenario() -> None:
        async with scene:
            scene.claim("mine", 3)
            match what:
                case "gone":
                    scene.api.claims.clear()
                case "made anew":
                    scene.api.claims["mine"]["metadata"]["uid"] = "another"
                case "deallocated":
                    del scene.api.claims["mine"]["status"]
                case "given other devices":
                    scene.prepared[:] = [entry("mine", 9)]
                case "device plugin":
                    scene.prepared[:] = [entry("mine", 3, origin="device-plugin")]
            await scene.later(3600)
            assert scene.api.writes == []
            assert scene.api.reads <= 1

    run(scenario())


def test_a_claim_that_ended_while_it_was_written_is_let_go(scene: Any) -> None:
    async def scenario() -> None:
        async with scene:
            scene.api.refusal = ApiError(404, "no such claim")
            scene.claim("mine", 3)
            await scene.later(3600)
            assert len(scene.api.writes) == 1

    run(scenario())


def test_a_claim_that_changed_since_it_was_read_is_read_again(scene: Any) -> None:
    async def scenario() -> None:
        scene.api.overtaken = 1
        async with scene:
            scene.claim("mine", 3)
            await scene.later()
            assert scene.api.conditions("mine", "neuron-device-3")["Ready"] == ("True", "Prepared")
            assert len(scene.api.writes) == 2

    run(scenario())


@pytest.mark.parametrize(
    "error",
    [
        ApiError(403, "patch is forbidden"),
        ApiError(422, "status.devices: Forbidden: changing it requires resourceclaims/driver"),
        ConnectionError("refused"),
        TimeoutError(),
    ],
)
def test_what_cannot_be_written_is_tried_ever_more_slowly_and_then_succeeds(
    scene: Any, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with scene:
            scene.api.refusal = error
            scene.claim("mine", 3)
            await scene.later(3600)
            times = [when for when, _ in scene.api.writes]
            gaps = [later - earlier for earlier, later in pairwise(times)]
            assert gaps[0] < 3
            assert 250 < gaps[-1] < 310
            warnings = [r for r in caplog.records if r.levelno == logging.WARNING]
            assert len(warnings) == 1, "an outage is told once"
            scene.api.refusal = None
            await scene.later(310)
            assert scene.api.conditions("mine", "neuron-device-3")["Ready"] == ("True", "Prepared")

    run(scenario())


def test_while_the_node_is_nothing_nothing_is_said(scene: Any) -> None:
    async def scenario() -> None:
        node, scene.node = scene.node, None
        async with scene:
            scene.claim("mine", 3)
            await scene.later(60)
            assert scene.api.reads == 0
            scene.node = node
            await scene.later()
            assert len(scene.api.writes) == 1

    run(scenario())


def test_shared_and_repeated_devices_have_one_entry_each(scene: Any) -> None:
    async def scenario() -> None:
        async with scene:
            scene.claim("mine", 3)
            (result,) = scene.api.claims["mine"]["status"]["allocation"]["devices"]["results"]
            results = [result, {**result, "request": "again"}, {**result, "shareID": "s"}]
            scene.api.claims["mine"]["status"]["allocation"]["devices"]["results"] = results
            await scene.later()
            found = scene.api.claims["mine"]["status"]["devices"]
            assert [one.get("shareID") for one in found] == [None, "s"]

    run(scenario())
