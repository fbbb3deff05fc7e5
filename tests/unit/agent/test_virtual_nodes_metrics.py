"""The devices' metrics of virtual nodes: as an agent on each of them would show them, on one page."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from neuron_device_model.catalog import instance_type
from neuron_dra_driver.activity.exposition import FAMILIES
from neuron_dra_driver.kubeletplugin import ApiError
from neuron_dra_driver.virtual_nodes import device_page
from neuron_dra_driver.virtual_nodes.device_page import DevicePage
from neuron_dra_driver.virtual_nodes.workloads import Workloads
from neuron_dra_driver.virtual_nodes.workloads_api import WorkloadsApi
from prometheus_client.parser import text_string_to_metric_families
from virtual_fleet import DRIVER, claim, neuron_node, occupy, pod, tell

Object = dict[str, Any]
Series = dict[tuple[str, frozenset[tuple[str, str]]], float]

BORN_AT = 1767225600.0
FAULT = {"name": "f", "type": "HBMUncorrectable", "chip": 3, "effect": "NoSchedule", "since": "2026-01-01T00:10:00Z"}


class Fleet:
    """A page, what it is made of, and its clock, which stands ten minutes after the pods were made."""

    def __init__(self) -> None:
        self.now = BORN_AT + 600
        self.workloads = Workloads(driver=DRIVER)
        self.workloads.claims_are(())
        self.workloads.pods_are(())
        self.page = DevicePage(self.workloads, clock=lambda: self.now)

    def restart(self, *nodes: Object) -> None:
        """Another process, which finds these nodes, their claims and their pods."""
        self.page = DevicePage(self.workloads, clock=lambda: self.now)
        for node in nodes:
            tell(self.page, node)

    async def series(self, part: int = 0, parts: int = 1) -> Series:
        """All that the page shows now."""
        self.page._pages.clear()
        text = b"".join([block async for block in self.page.blocks(part, parts)]).decode()
        found: Series = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                key = (sample.name, frozenset(sample.labels.items()))
                assert key not in found, "a series twice"
                found[key] = sample.value
        assert len({line for line in text.splitlines() if line.startswith("# TYPE")}) == text.count("# TYPE")
        return found


def picked(series: Series, name: str, **labels: str) -> dict[str, float]:
    """The values of a name's series with these labels, by the label that is of interest."""
    return {
        dict(key).get("neuroncore") or dict(key).get("neuron_device_index") or dict(key).get("node", ""): value
        for (found, key), value in series.items()
        if found == name and labels.items() <= dict(key).items()
    }


def total(series: Series, name: str, **labels: str) -> float:
    return sum(value for (found, key), value in series.items() if found == name and labels.items() <= dict(key).items())


def values(series: Series, names: Iterable[str]) -> Series:
    return {key: value for key, value in series.items() if key[0] in names}


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


async def test_a_node_where_nothing_runs_says_what_a_real_one_says(fleet: Fleet) -> None:
    for name in ("a-0", "a-1"):
        tell(fleet.page, neuron_node(name))
    series = await fleet.series()
    for name in ("a-0", "a-1"):
        ecc = {key: value for key, value in series.items() if key[0] == "hardware_ecc_events_total"}
        mine = [value for (_, labels), value in ecc.items() if {("node", name), ("instance_id", f"i-{name}")} <= labels]
        assert mine == [0] * 64
        assert total(series, "neuron_hardware_info", node=name, neuron_device_count="16") == 1
        usages = {key: value for key, value in series.items() if key[0] == "system_vcpu_usage_ratio"}
        of_node = {dict(labels)["usage_type"]: v for (_, labels), v in usages.items() if ("node", name) in labels}
        assert of_node == {"user": 0, "system": 0}
        assert total(series, "system_memory_total_bytes", node=name) == instance_type("trn2.48xlarge").memory_gib << 30
    shown = {name for name, _ in series}
    assert shown.isdisjoint(
        {name for name in FAMILIES if name.startswith(("execution", "neuroncore", "neuron_runtime"))}
    )


async def test_the_profile_of_the_pod_that_has_the_devices_drives_their_series(fleet: Fleet) -> None:
    tell(fleet.page, neuron_node("a-0"))
    fleet.workloads.pod(pod("job", claims="mine", profile="training"))
    fleet.workloads.claim(
        claim("mine", node="a-0", devices=("neuron-device-2", "neuron-device-5"), users=("job", "unknown"))
    )
    busy = await fleet.series()
    who = {"node": "a-0", "namespace": "team", "pod": "job", "container": "main", "runtime_tag": "training"}
    used = picked(busy, "neuroncore_utilization_ratio", **who)
    assert sorted(map(int, used)) == [8, 9, 10, 11, 20, 21, 22, 23]
    assert min(used.values()) > 0.9
    assert total(busy, "execution_status_total", status_type="completed", **who) > 100
    assert 0 < total(busy, "system_vcpu_usage_ratio", node="a-0", usage_type="user") < 1
    assert total(busy, "neuron_sim_agent_prepared_claims", node="a-0") == 1

    fleet.workloads.pod_is_gone("job")
    assert not picked(await fleet.series(), "neuroncore_utilization_ratio")
    fleet.workloads.pod(pod("job", claims="mine"))
    fleet.workloads.claim_is_gone("claim-mine")
    assert not picked(await fleet.series(), "neuroncore_utilization_ratio")
    fleet.page.node_is_gone("a-0")
    assert not await fleet.series()


@pytest.mark.parametrize(
    ("user", "of_claim"),
    [
        (pod("job", claims="mine", profile=None), {}),
        (pod("job", claims="mine", profile="strange"), {}),
        (pod("job", claims="mine", phase="Succeeded"), {}),
        (pod("job", claims="mine"), {"allocation": None}),
        (pod("job", claims="mine"), {"reservedFor": []}),
    ],
)
async def test_what_does_not_run_or_has_no_profile_is_idle(fleet: Fleet, user: Object, of_claim: Object) -> None:
    tell(fleet.page, neuron_node("a-0"))
    fleet.workloads.pod(user)
    fleet.workloads.claim(claim("mine", node="a-0", devices=("neuron-device-0",), users=("job",), **of_claim))
    assert not picked(await fleet.series(), "neuroncore_utilization_ratio")


async def test_pods_and_claims_may_be_known_before_their_node(fleet: Fleet) -> None:
    occupy(fleet.workloads, "a-0", chips=1)
    assert not await fleet.series()
    tell(fleet.page, neuron_node("a-0"))
    assert len(picked(await fleet.series(), "neuroncore_utilization_ratio", node="a-0")) == 4


async def test_faults_show_and_their_counters_stay_over_their_end_and_a_restart(fleet: Fleet) -> None:
    occupy(fleet.workloads, "a-0")
    broken = neuron_node("a-0", faults=(FAULT, {**FAULT, "name": "g", "type": "HBMCorrectable", "chip": 4}))
    tell(fleet.page, neuron_node("a-0"))
    tell(fleet.page, broken)
    fleet.now += 60
    during = await fleet.series()
    assert total(during, "hardware_ecc_events_total", neuron_device_index="3", event_type="mem_ecc_uncorrected") == 1
    assert total(during, "hardware_ecc_events_total", neuron_device_index="4", event_type="mem_ecc_corrected") == 7
    assert total(during, "neuron_sim_fault_active", node="a-0", fault="f") == 1
    assert total(during, "neuron_sim_agent_unhealthy_devices", node="a-0") == 1
    failed = {"pod": "a-0-pod-3", "status_type": "completed_with_err"}
    assert total(during, "execution_status_total", **failed) > 0
    assert total(during, "execution_status_total", pod="a-0-pod-2", status_type="completed_with_err") == 0

    healed = neuron_node("a-0")
    counters = ("hardware_ecc_events_total", "execution_status_total", "execution_errors_total")
    tell(fleet.page, healed)
    after = values(await fleet.series(), counters)
    assert after == values(during, counters)
    fleet.restart(neuron_node("a-0", record=fleet.page.record("a-0")))
    assert values(await fleet.series(), counters) == after
    fleet.now += 3600
    later = values(await fleet.series(), counters)
    assert all(later[key] >= value for key, value in after.items())
    assert total(later, "execution_status_total", **failed) == total(after, "execution_status_total", **failed)


async def test_a_fault_that_ended_while_nobody_looked_has_counted_no_less_than_was_shown(fleet: Fleet) -> None:
    rated = neuron_node("a-0", faults=({**FAULT, "type": "HBMCorrectable", "eventsPerMinute": 60},))
    tell(fleet.page, rated)
    fleet.now += 100
    shown = total(await fleet.series(), "hardware_ecc_events_total")
    record = fleet.page.record("a-0")
    fleet.now += 50
    fleet.restart(neuron_node("a-0", record=record))
    assert total(await fleet.series(), "hardware_ecc_events_total") >= shown > 100


async def test_a_record_that_cannot_be_read_is_no_reason_to_fail(fleet: Fleet) -> None:
    tell(fleet.page, neuron_node("a-0", record='{"over": 3}'))
    assert total(await fleet.series(), "hardware_ecc_events_total") == 0


async def test_of_several_parts_each_node_is_in_one(fleet: Fleet) -> None:
    for number in range(20):
        tell(fleet.page, neuron_node(f"a-{number}"))
    parts = [await fleet.series(part, 3) for part in range(3)]
    everything = await fleet.series()
    assert sum(map(len, parts)) == len(everything)
    assert {key for part in parts for key in part} == everything.keys()
    assert all(parts)


async def test_clients_that_come_together_share_what_was_worked_out(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_page, "FRESH", 60)  # the machine may be slow
    for number in range(3):
        tell(fleet.page, neuron_node(f"a-{number}"))
        occupy(fleet.workloads, f"a-{number}")

    async def text() -> bytes:
        page = b""
        async for block in fleet.page.blocks():
            page += block
            fleet.now += 1
        return page

    first, *others = await asyncio.gather(*(text() for _ in range(10)))
    assert all(other == first for other in others)


class Cluster:
    """Claims and pods of an API server; stands in for Kube."""

    def __init__(self, **items: list[Object]) -> None:
        self.items = items
        self.events: list[tuple[str, Object]] = []

    async def request(self, method: str, path: str, *, params: dict[str, str], accept: str) -> Object:
        kind = path.rpartition("/")[2]
        place, size = int(params.get("continue", 0)), 2
        more = str(place + size) if place + size < len(self.items[kind]) else None
        return {
            "items": self.items[kind][place : place + size],
            "metadata": {"resourceVersion": "7"} | ({"continue": more} if more else {}),
        }

    @asynccontextmanager
    async def stream(self, path: str, *, params: dict[str, str], accept: str) -> AsyncIterator[Any]:
        assert params["resourceVersion"] == "7"
        yield self

    async def each(self, handle: Callable[[bytes], object], *, silence: float) -> None:
        for kind, item in self.events:
            handle(orjson.dumps({"type": kind, "object": item}))


async def test_lists_and_watches_tell_what_runs(fleet: Fleet) -> None:
    names = [f"p-{number}" for number in range(5)]
    server: Any = Cluster(
        pods=[pod(name, claims=name) for name in names],
        resourceclaims=[
            claim(name, node="a-0", devices=(f"neuron-device-{number}",), users=(name,))
            for number, name in enumerate(names)
        ],
    )
    tell(fleet.page, neuron_node("a-0"))
    users = WorkloadsApi(server, fleet.workloads)
    await users.follow_claims()
    await users.follow_pods()
    assert len(picked(await fleet.series(), "neuroncore_utilization_ratio")) == 5 * 4

    server.events = [("DELETED", server.items["pods"][0]), ("BOOKMARK", {"metadata": {}}), ("ERROR", {"code": 410})]
    with pytest.raises(ApiError):
        await users.follow_pods()
    assert len(picked(await fleet.series(), "neuroncore_utilization_ratio")) == 4 * 4

    server.events.clear()
    del server.items["resourceclaims"][1]
    await users.follow_claims()
    assert len(picked(await fleet.series(), "neuroncore_utilization_ratio")) == 3 * 4


def test_a_strange_profile_is_told_once(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    server: Any = Cluster(pods=[pod("p", claims="c", profile="strange")])
    users = WorkloadsApi(server, fleet.workloads)
    for _ in range(2):
        asyncio.run(users.follow_pods())
    assert [record.message for record in caplog.records if "'strange'" in record.message] == [
        "pod team/p asks for the activity profile 'strange': write training, inference, collective-bound in its "
        "annotation neuron-sim.dev/activity-profile"
    ]
