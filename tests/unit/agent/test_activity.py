"""What the agent hears from processes about their cores, and what it makes of profiles."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from neuron_device_model.faults import Fault
from neuron_device_model.view import GivenChip, container_view
from neuron_dra_driver.activity import claim_socket, machine, profiles, reports
from neuron_dra_driver.activity.board import Board
from neuron_dra_driver.activity.exposition import Shown, System, render
from neuron_dra_driver.activity.pods import PROFILE, SEED, containers_of, users, wish_of
from neuron_dra_driver.activity.service import ActivityService
from neuron_dra_driver.hardware.service import Hardware
from neuron_dra_driver.lock import NodeLock
from neuron_dra_driver.node import SimulatedNode
from neuron_dra_driver.prepared.claim_folders import ClaimFolders
from neuron_dra_driver.records.checkpoint import Entry
from prometheus_client.parser import text_string_to_metric_families

CORES = (0, 1, 2, 3)


def said(**fields: Any) -> dict[str, Any]:
    return {"pid": 7, "cores": {"0": {"utilization": 50}}, **fields}


# --- what is a report


def test_what_is_left_out_is_zero_and_the_tag_is_the_pid() -> None:
    found = reports.report(said(), cores=CORES)
    assert found["tag"] == "7"
    assert found["cores"]["0"]["memory"] == dict.fromkeys(reports.CORE_MEMORY, 0)
    assert found["executions"] == dict.fromkeys(reports.EXECUTIONS, 0)
    assert (found["latency"], found["models"]) == (None, [])


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"cores": {}}, "needs pid and cores"),
        (said(utilisation=3), "report has no field 'utilisation'"),
        (said(cores={"0": {"utilization": 101}}), "report.cores.0.utilization is a number from 0 to 100"),
        (said(cores={"0": {"utilization": True}}), "is a number from 0 to 100"),
        (said(cores={"4": {}}), "core 4 is not of this request, which has 0, 1, 2, 3"),
        (said(cores={"00": {}}), "core 00 is not of this request"),
        (said(pid=-1), "report.pid is a whole number"),
        (said(tag="a\nb"), "printable"),
        (said(executions={"completed": 1.5}), "report.executions.completed is a whole number"),
        (said(latency={"total": {"p50": 1}}), "report.latency.total lacks p0, p1"),
        (said(models=[{"name": "m"}]), "report.models[0] lacks uuid, model_id, core"),
        (said(models=[{"name": "m", "uuid": "x", "model_id": 1, "core": 0}]), "32 hexadecimal digits"),
    ],
)
def test_a_wrong_report_is_answered_with_a_sentence(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(reports.WrongMessage, match=sentence.replace("[", r"\[").replace("]", r"\]")):
        reports.report(fields, cores=CORES)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*reports._FIELDS, "0", "x"]), inner),
    max_leaves=12,
)


@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_whatever_is_sent_is_a_report_or_a_sentence(line: bytes) -> None:
    try:
        found = reports.report(reports.message(line), cores=CORES)
    except reports.WrongMessage:
        return
    assert found["cores"].keys() <= {"0", "1", "2", "3"}


# --- who may say what


def test_a_core_is_reported_by_one_process_at_a_time() -> None:
    board = Board(CORES)
    board.put("a", reports.report(said(), cores=CORES))
    with pytest.raises(reports.WrongMessage, match="core 0 is process 7's"):
        board.put("b", reports.report(said(pid=8), cores=CORES))
    board.drop("a")
    board.put("b", reports.report(said(pid=8), cores=CORES))
    assert [process["pid"] for process in board.processes()] == [8]


def test_counts_of_a_process_never_go_back() -> None:
    board = Board(CORES)
    board.put("a", reports.report(said(errors={"numerical": 2}), cores=CORES))
    with pytest.raises(reports.WrongMessage, match=r"report.errors.numerical was 2"):
        board.put("a", reports.report(said(errors={"numerical": 1}), cores=CORES))


def test_a_process_began_when_it_says_or_when_it_was_first_heard() -> None:
    now = [100.0]
    board = Board(CORES, clock=lambda: now[0])

    def began() -> list[float]:
        return [process["began"] for process in board.processes()]

    board.put("a", reports.report(said(), cores=CORES))
    now[0] = 200.0
    board.put("a", reports.report(said(), cores=CORES))
    board.put("b", reports.report(said(pid=8, cores={"1": {}}, began=12.5), cores=CORES))
    assert began() == [100.0, 12.5]


def test_a_profile_fills_the_cores_of_which_nobody_reports() -> None:
    board = Board(CORES)
    board.profile = lambda cores: {"cores": {str(core): {} for core in cores}}
    board.put("a", reports.report(said(), cores=CORES))
    assert [list(process["cores"]) for process in board.processes()] == [["0"], ["1", "2", "3"]]


# --- profiles


def at(profile: str, age: float, seed: str = "s") -> dict[str, Any]:
    return profiles.report(profile, seed=seed, cores=(0, 1), age=age, core_memory=24 << 30, core_flops=1e14)


@pytest.mark.parametrize("profile", profiles.PROFILES)
@settings(max_examples=25)
@given(ages=st.lists(st.floats(-5, 1e7), min_size=2, max_size=6).map(sorted), seed=st.text(max_size=5))
def test_a_profile_says_what_a_process_could_and_its_counts_never_go_back(
    profile: str, ages: list[float], seed: str
) -> None:
    said = [at(profile, age, seed) for age in ages]
    counts = [report["executions"]["completed"] for report in said]
    assert counts == sorted(counts)
    for report in said:
        assert reports.report(report, cores=CORES) == report
        assert sum(report["cores"]["0"]["memory"].values()) <= 24 << 30
    assert said == [at(profile, age, seed) for age in ages], "the same twice"


def test_profiles_differ_as_the_jobs_do() -> None:
    level = {name: at(name, 200)["cores"]["0"]["utilization"] for name in profiles.PROFILES}
    assert level["training"] > 90 > level["inference"] > 5
    assert level["collective-bound"] < 31
    assert at("training", 5)["executions"]["completed"] == 0, "it is still loading"
    assert at("training", 310)["cores"]["0"]["utilization"] == 0, "a checkpoint"


def pod(name: str = "p", **metadata: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "n", "creationTimestamp": "2026-11-21T10:00:00Z", **metadata},
        "spec": {"resourceClaims": [{"name": "c", "resourceClaimName": "claim"}]},
    }


def test_a_pods_wish_is_its_annotation() -> None:
    assert wish_of(pod()) is None
    assert wish_of(pod(annotations={PROFILE: "gaming"})) is None
    wish = wish_of(pod(annotations={PROFILE: "training"}))
    assert wish is not None
    assert (wish.profile, wish.seed, wish.since) == ("training", "n/p", 1795255200.0)
    seeded = wish_of(pod(annotations={PROFILE: "training", SEED: "7"}))
    assert seeded is not None
    assert seeded.seed == "7"


def test_pods_are_found_by_each_way_to_a_claim() -> None:
    made = pod("made") | {
        "spec": {},
        "status": {"resourceClaimStatuses": [{"name": "c", "resourceClaimName": "made-c"}]},
    }
    plain = pod("plain") | {"spec": {}, "status": {"extendedResourceClaimStatus": {"resourceClaimName": "plain-x"}}}
    plugin = pod("plugin") | {"spec": {}}
    entries = [Entry(uid, "n", uid, (), "") for uid in ("claim", "made-c", "plain-x", "nobody")]
    entries.append(Entry("plugin", "n", "plugin", (), "", "device-plugin"))
    found = users(entries, [pod("b"), pod("a"), made, plain, plugin])
    names = {uid: [one["metadata"]["name"] for one in pods] for uid, pods in found.items()}
    assert names == {"claim": ["a", "b"], "made-c": ["made"], "plain-x": ["plain"], "nobody": [], "plugin": ["plugin"]}


# --- the socket


class Process:
    """A process in a container: what it writes, and what it is told."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def say(self, line: object) -> None:
        self._writer.write(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n")

    async def ask(self) -> list[dict[str, Any]]:
        self.say({"ask": "activity"})
        return list((await self.answer())["processes"])

    async def answer(self) -> Any:
        return json.loads(await asyncio.wait_for(self._reader.readline(), 10))

    async def end(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()

    async def is_sent_away(self) -> bool:
        return await asyncio.wait_for(self._reader.read(), 10) == b""


@asynccontextmanager
async def process(folder: Path) -> AsyncIterator[Process]:
    path = folder / claim_socket.NAME
    directory = os.open(folder, os.O_RDONLY)
    try:
        reader, writer = await asyncio.open_unix_connection(f"/proc/self/fd/{directory}/{path.name}")
    finally:
        os.close(directory)
    try:
        yield Process(reader, writer)
    finally:
        writer.close()


@pytest.fixture
async def service(
    host: Any, cut: SimulatedNode, make: SimpleNamespace, request: pytest.FixtureRequest
) -> AsyncIterator[SimpleNamespace]:
    """A service over a store with one prepared claim of a chip; its parameter: the pods of the node."""
    store = host.opened()
    store.prepare(make.allocation(make.claim(uid="a", devices={"neurons": [3]})), cut)

    async def list_pods() -> list[Any]:
        return getattr(request, "param", [])

    told: list[str] = []

    async def tell_pod(pod: Any, sentence: str) -> None:
        told.append(sentence)

    node = [cut]
    running = ActivityService(
        store=store,
        lock=NodeLock(host.root / "plugins" / "neuron.aws.com"),
        folders=ClaimFolders(host.views),
        node=lambda: node[0],
        list_pods=list_pods,
        hardware=Hardware(host.root, node=lambda: node[0]),
        directory=host.root,
        tell_pod=tell_pod,
    )
    tasks = [asyncio.create_task(running.run()), asyncio.create_task(running.follow_pods())]
    yield SimpleNamespace(it=running, store=store, folder=host.views / "a" / "neurons", node=node, told=told)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    store.close()


@pytest.fixture
async def folder(service: SimpleNamespace, eventually: Callable[..., Any]) -> Path:
    """The claim's folder, with its socket."""
    socket: Path = service.folder / claim_socket.NAME
    await eventually(socket.exists)
    found: Path = service.folder
    return found


async def test_what_one_process_says_another_reads_until_the_first_ends(folder: Path) -> None:
    async with process(folder) as monitor, process(folder) as worker:
        assert await monitor.ask() == []
        worker.say(said(cores={"1": {"utilization": 63.5}}))
        assert await worker.ask() == await monitor.ask()
        (seen,) = await monitor.ask()
        assert (seen["pid"], seen["cores"]["1"]["utilization"]) == (7, 63.5)
        await worker.end()
        while await monitor.ask():
            pass


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (b"{\n", "not JSON"),
        (b"[]\n", "one JSON object per line"),
        (b"x" * (1 << 17) + b"\n", "at most 65536 bytes"),
        (b'{"ask": "everything"}\n', "needs pid and cores"),
    ],
)
async def test_whoever_writes_nonsense_is_told_and_others_do_not_notice(
    folder: Path, line: bytes, sentence: str
) -> None:
    async with process(folder) as good, process(folder) as bad:
        good.say(said())
        bad.say(line)
        assert sentence in (await bad.answer())["error"]
        assert await bad.is_sent_away()
        assert len(await good.ask()) == 1


async def test_a_line_without_an_end_is_no_report(folder: Path) -> None:
    async with process(folder) as monitor:
        async with process(folder) as killed:
            killed.say(json.dumps(said()).encode())
            await killed.end()
        assert await monitor.ask() == []


async def test_whoever_comes_too_many_waits_and_others_do_not(folder: Path) -> None:
    async with process(folder) as first:
        assert await first.ask() == []
        crowd = [process(folder) for _ in range(claim_socket.CONNECTIONS)]
        inside = [await one.__aenter__() for one in crowd]
        assert await asyncio.gather(*(one.ask() for one in inside[:-1])) == [[]] * (claim_socket.CONNECTIONS - 1)
        late = asyncio.create_task(inside[-1].ask())
        assert await first.ask() == []
        assert not late.done()
        await crowd[0].__aexit__(None, None, None)
        assert await late == []
        for one in crowd[1:]:
            await one.__aexit__(None, None, None)


async def test_the_socket_goes_with_its_claim_and_its_processes_are_sent_away(
    service: SimpleNamespace, folder: Path
) -> None:
    async with process(folder) as worker:
        worker.say(said())
        assert len(await worker.ask()) == 1
        service.store.unprepare("a")
        service.it.wake()
        assert await worker.is_sent_away()
        assert not folder.parent.exists()


async def test_the_next_agent_takes_the_sockets_over(
    host: Any, service: SimpleNamespace, folder: Path, cut: SimulatedNode, eventually: Callable[..., Any]
) -> None:
    async def tell_nobody(pod: Any, sentence: str) -> None:
        raise AssertionError(sentence)

    async def no_pods() -> list[Any]:
        return []

    before = (folder / claim_socket.NAME).stat().st_ino
    store = host.opened()
    second = ActivityService(
        store=store,
        lock=NodeLock(host.root / "plugins" / "neuron.aws.com"),
        folders=ClaimFolders(host.views),
        node=lambda: cut,
        list_pods=no_pods,
        hardware=Hardware(host.root, node=lambda: cut),
        directory=host.root,
        tell_pod=tell_nobody,
    )
    async with process(folder) as old:
        assert await old.ask() == []
        task = asyncio.create_task(second.run())
        await eventually(lambda: (folder / claim_socket.NAME).stat().st_ino != before)
        async with process(folder) as worker:
            worker.say(said())
            assert len(await worker.ask()) == 1
            assert await old.ask() == [], "who spoke to the first one goes on"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        store.close()


def wishing(profile: str = "collective-bound") -> dict[str, Any]:
    """The pod of the service's claim, with a profile."""
    found = pod(annotations={PROFILE: profile}, namespace="team")
    found["spec"]["resourceClaims"][0]["resourceClaimName"] = "mine"
    return found


@pytest.mark.parametrize("service", [[wishing()]], indirect=True)
async def test_a_profile_shows_as_a_process_of_its_pod(
    service: SimpleNamespace, folder: Path, eventually: Callable[..., Any]
) -> None:
    async with process(folder) as monitor:
        (place,) = service.it.places
        await eventually(lambda: place.board.profile)
        (seen,) = await monitor.ask()
        assert (seen["tag"], seen["pid"], set(seen["cores"])) == ("collective-bound", 1, {"0", "1", "2", "3"})
        assert 'pod="p"' in service.it.metrics()


@pytest.mark.parametrize("service", [[wishing("colective")]], indirect=True)
async def test_a_pod_is_told_once_of_a_profile_that_nobody_knows(
    service: SimpleNamespace, eventually: Callable[..., Any]
) -> None:
    await eventually(lambda: service.told)
    for _ in range(3):
        await service.it._read_annotations()
    (sentence,) = service.told
    assert "asks for the activity profile 'colective': write training, inference, collective-bound in" in sentence


@pytest.mark.parametrize("service", [[wishing()]], indirect=True)
async def test_a_fault_breaks_the_job_of_a_profile_and_its_count_stays(
    service: SimpleNamespace, folder: Path, eventually: Callable[..., Any]
) -> None:
    (place,) = service.it.places
    await eventually(lambda: place.board.profile)
    created = datetime.fromisoformat(wishing()["metadata"]["creationTimestamp"]).timestamp()
    begin = max(created + 60, time.time() - 3600)
    stamp = datetime.fromtimestamp(begin, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    service.node[0] = replace(service.node[0], faults=(Fault("hot", "Hang", 3, None, "None", "", stamp),))
    service.it.faults_changed()
    async with process(folder) as monitor:
        (broken,) = await monitor.ask()
        assert broken["executions"]["timed_out"] == broken["errors"]["hardware"] > 0
        assert {core["utilization"] for core in broken["cores"].values()} == {0}
        (entry,) = json.loads((folder / "faults.json").read_text())["faults"]
        assert (entry["name"], entry["status"]) == ("hot", 5)
        service.it.faults_change()
        service.node[0] = replace(service.node[0], faults=())
        service.it.faults_changed()
        (whole,) = await monitor.ask()
        assert whole["executions"]["timed_out"] >= broken["executions"]["timed_out"]
        assert not (folder / "faults.json").exists()


async def test_admin_access_looks_at_what_others_do_and_reports_nothing(
    service: SimpleNamespace, folder: Path, cut: SimulatedNode, make: SimpleNamespace, eventually: Callable[..., Any]
) -> None:
    looking = make.claim("looking", uid="b", devices={"all": list(range(16))}, admin=True)
    service.store.prepare(make.allocation(looking), cut)
    service.it.wake()
    elsewhere = folder.parents[1] / "b" / "all"
    await eventually((elsewhere / claim_socket.NAME).exists)
    async with process(folder) as worker, process(elsewhere) as monitor:
        worker.say(said(cores={"1": {"utilization": 63.5}}))
        assert len(await worker.ask()) == 1
        (seen,) = await monitor.ask()
        # the worker's only chip is number 3 of the node, where its cores are 12 to 15
        assert {core: what["utilization"] for core, what in seen["cores"].items()} == {"13": 63.5}
        assert service.it.metrics().count("neuroncore_utilization_ratio{") == 1
        monitor.say(said())
        assert "which has none" in (await monitor.answer())["error"]


# --- the page for Prometheus


MACHINE = System(vcpus=4, usage={"user": 0.25}, memory={"memory_total_bytes": 8 << 30})


def shown(node: SimulatedNode, *processes: dict[str, Any], pods: Any = (), claim: str = "claim") -> Shown:
    given = [GivenChip(3, cores=(1, 2))]
    view: Any = container_view(
        node.instance_type,
        given=given,
        first_index=0,
        logical_neuron_core=2,
        instance_id=node.instance_id,
        sdk=node.sdk,
    )
    checked = [reports.report(process, cores=(1, 2)) for process in processes]
    return Shown(claim, view, pods, checked)


def samples(page: str) -> dict[str, dict[tuple[str, ...], float]]:
    """Every sample by its name and the values of the labels that tests look at, as Prometheus' own parser reads it."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            key = tuple(f"{name}={value}" for name, value in sorted(sample.labels.items()) if name not in INSTANCE)
            assert key not in found.setdefault(sample.name, {}), "a series twice"
            found[sample.name][key] = sample.value
    return found


INSTANCE = ("availability_zone", "instance_id", "instance_name", "instance_type", "region", "subnet_id")


def test_the_page_has_the_names_labels_and_units_of_the_script(cut: SimulatedNode) -> None:
    process = said(
        cores={"1": {"utilization": 50, "memory": {"tensors": 4096}}},
        executions={"completed": 12},
        errors={"numerical": 1},
        latency={"total": dict.fromkeys(reports.PERCENTILES, 0.25)},
        tag='a "tag"',
    )
    containers = [{"name": "ctr0", "resources": {"claims": [{"name": "c"}]}}, {"name": "log"}]
    user = pod()
    user["spec"]["containers"] = containers
    found = samples(render(cut, [shown(cut, process, pods=[user])], MACHINE, {}))
    who = ("container=ctr0", "namespace=n")
    what = ("pid=7", "pod=p", 'runtime_tag=a "tag"')
    # core 1 of chip 3, of which each has 4
    assert found["neuroncore_utilization_ratio"] == {(who[0], who[1], "neuroncore=13", *what): 0.5}
    tensors = found["neuroncore_memory_usage_tensors"]
    assert tensors == {(who[0], "memory_location=None", who[1], "neuroncore=13", *what): 4096}
    assert found["execution_status_total"][*who, *what, "status_type=completed"] == 12
    assert found["execution_errors_total"]["container=ctr0", "error_type=numerical", "namespace=n", *what] == 1
    assert len(found["execution_latency_seconds"]) == 7
    assert found["instance_info"] == {(): 1}
    assert found["neuron_hardware_info"] == {("neuron_device_count=16", "neuroncore_per_device_count=4"): 1}
    assert len(found["hardware_ecc_events_total"]) == 64
    assert found["system_memory_total_bytes"] == {(): 8 << 30}


def test_faults_show_on_the_page(cut: SimulatedNode) -> None:
    hot = Fault("hot", "HBMUncorrectable", 3, None, "NoSchedule", "", "2026-01-02T00:00:00Z")
    lost = replace(hot, name="lost", type="DeviceLost", chip=5)
    down = replace(hot, name="down", type="EFADown", chip=None, efa=1)
    broken = replace(cut, faults=(hot, lost, down))
    found = samples(render(broken, [], MACHINE, {3: {"mem_ecc_uncorrected": 1, "mem_ecc_repairable_uncorrected": 1}}))
    ecc = found["hardware_ecc_events_total"]
    assert ecc["event_type=mem_ecc_uncorrected", "neuron_device_index=3"] == 1
    assert ecc["event_type=mem_ecc_uncorrected", "neuron_device_index=4"] == 0
    assert len(ecc) == 15 * 4, "a lost chip tells nothing, and AWS's exporter knows four kinds of events"
    assert found["neuron_hardware_info"] == {("neuron_device_count=15", "neuroncore_per_device_count=4"): 1}
    assert found["neuron_sim_fault_active"] == {
        ("fault=hot", "neuron_device_index=3", "type=HBMUncorrectable"): 1,
        ("fault=lost", "neuron_device_index=5", "type=DeviceLost"): 1,
        ("fault=down", "neuron_device_index=", "type=EFADown"): 1,
    }


def test_without_a_process_there_are_no_series_of_one(cut: SimulatedNode) -> None:
    found = samples(render(cut, [shown(cut)], MACHINE, {}))
    assert not [name for name in found if name.startswith(("neuroncore_", "execution_", "neuron_runtime_"))]


def test_processes_that_cannot_be_told_apart_are_one_series(cut: SimulatedNode) -> None:
    twice = [said(cores={"1": {}}, executions={"completed": 3}), said(cores={"2": {}}, executions={"completed": 4})]
    found = samples(render(cut, [shown(cut, *twice)], MACHINE, {}))
    completed = [value for key, value in found["execution_status_total"].items() if "status_type=completed" in key]
    assert completed == [7]


def test_the_machine_is_read_from_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "FRESH", 0)
    (tmp_path / "stat").write_text("cpu  10 0 10 80 0 0 0 0 0 0\n")
    (tmp_path / "meminfo").write_text("MemTotal: 8 kB\nMemAvailable: 6 kB\nSwapTotal: 2 kB\nSwapFree: 1 kB\n")
    found = machine.Machine(tmp_path)
    system = found.look()
    assert system.memory == {
        "memory_total_bytes": 8192,
        "memory_used_bytes": 2048,
        "swap_total_bytes": 2048,
        "swap_used_bytes": 1024,
    }
    assert set(system.usage.values()) == {0}, "no time has passed"
    (tmp_path / "stat").write_text("cpu  30 10 20 120 11 6 3 0 0 0\n")
    # as AWS's script: user and nice, system and all that waits or interrupts; the sum is how busy it is
    assert found.look().usage == {"user": 0.3, "system": 0.3}


def test_containers_are_those_that_name_the_claim_or_ask_for_plain_devices() -> None:
    made = pod() | {
        "spec": {
            "resourceClaims": [{"name": "c", "resourceClaimTemplateName": "t"}],
            "containers": [{"name": "a", "resources": {"claims": [{"name": "c"}]}}, {"name": "b"}],
        },
        "status": {"resourceClaimStatuses": [{"name": "c", "resourceClaimName": "p-c-x"}]},
    }
    assert containers_of(made, "p-c-x") == ["a"]
    limits = {"limits": {"aws.amazon.com/neuroncore": "1"}}
    plain = pod() | {"spec": {"containers": [{"name": "a"}, {"name": "b", "resources": limits}]}}
    assert containers_of(plain, "generated") == ["b"]
