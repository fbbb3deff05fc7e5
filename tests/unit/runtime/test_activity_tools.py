"""Load on cores, and what the tools show of it: the tools as they are, and the agent's own socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from neuron_dra_driver.activity import claim_socket
from neuron_dra_driver.activity.board import Board
from neuron_runtime import activity, chips, json_text, load_plan, monitor_config, neuron_sim_load, neuron_sim_sysfs, nrt
from neuron_runtime import neuron_monitor as monitor
from neuron_runtime.neuron_top import keys
from neuron_runtime.observed import NOBODY_ANSWERS, Observer, Process
from neuron_runtime.top_screen import Look, Screen, size

ONE_TRN2 = "one-of-trn2.48xlarge"


def view(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(__file__).parent / "views" / f"{name}.json").read_text())
    return found


class Agent:
    """The agent's sockets for some requests, in a thread of their own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._serving: list[asyncio.Task[None]] = []

    def listen(self, folder: Path) -> None:
        found = json.loads((folder / "view.json").read_text())
        board = Board([core for device in found["devices"] for core in device["core_ids"]])
        served = claim_socket.ClaimSocket(claim_socket.bind(folder), board, name=str(folder))

        async def serve() -> None:
            self._serving.append(asyncio.create_task(served.serve()))

        asyncio.run_coroutine_threadsafe(serve(), self._loop).result(10)

    def stop(self) -> None:
        async def end() -> None:
            for task in self._serving:
                task.cancel()
            await asyncio.gather(*self._serving, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        self._serving.clear()

    def close(self) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


@pytest.fixture
def agent() -> Iterator[Agent]:
    found = Agent()
    yield found
    found.close()


@pytest.fixture
def run_root(container: Any, agent: Agent) -> Path:
    """A container with one Trainium2, on a node whose agent listens."""
    agent.listen(container.add_view(view(ONE_TRN2)).parent)
    root: Path = container.run_root
    return root


class Owned:
    """Cores as their owner has them. Nobody owns them here: a process that looks loses what it owns itself."""

    def __init__(self, run_root: Path, *ids: int) -> None:
        given = nrt.given_cores(nrt.given_views(str(run_root)))
        self.ids = ids
        self.paths = {core.id: core.path for core in given if core.id in ids}


@pytest.fixture
def cores(run_root: Path) -> Owned:
    """Two of the four cores."""
    return Owned(run_root, 0, 1)


@pytest.fixture
def owner(container: Any) -> Iterator[int]:
    """The pid of a process that owns all cores of a container, and says nothing."""
    container.add_view(view(ONE_TRN2))
    ready, opened = os.pipe()
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            held = nrt.open_cores(run_root=str(container.run_root))
            os.write(opened, bytes(held.ids) or b"x")
            signal.pause()
        os._exit(1)
    os.read(ready, 8)
    yield child
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(ready)
    os.close(opened)


def looked(run_root: Path) -> list[Process]:
    """What there is now."""
    with contextlib.closing(Observer(nrt.given_views(str(run_root)))) as observer:
        return observer.look()


def wait(condition: Callable[[], Any]) -> Any:
    """The condition's answer, once there is one: what a process says is not there when it has said it."""
    for _ in range(1000):
        if answer := condition():
            return answer
    raise AssertionError("not in a thousand looks")


# --- reporting, and what is seen


def test_nothing_runs_and_nothing_is_seen(run_root: Path) -> None:
    assert looked(run_root) == []


def test_who_owns_cores_and_says_nothing_is_idle(container: Any, owner: int, agent: Agent) -> None:
    agent.listen(container.run_root / "claim" / "neuron")
    (seen,) = looked(container.run_root)
    assert (seen.pid, seen.error, set(seen.cores)) == (owner, "", {0, 1, 2, 3})
    assert {what["utilization"] for what in seen.cores.values()} == {0}


def test_an_agent_that_is_away_is_named(container: Any, owner: int) -> None:
    (seen,) = looked(container.run_root)
    assert (seen.pid, seen.error) == (owner, NOBODY_ANSWERS)


def test_a_report_is_seen_until_its_end(run_root: Path, cores: Owned) -> None:
    with activity.Reporter(cores, tag="job") as reporter:
        assert reporter.report({0: {"utilization": 40}, 1: {"utilization": 60}}, executions={"completed": 3})
        (seen,) = wait(lambda: looked(run_root))
        assert (seen.pid, seen.tag, seen.executions["completed"]) == (os.getpid(), "job", 3)
        assert {core: what["utilization"] for core, what in seen.cores.items()} == {0: 40, 1: 60}
    wait(lambda: not looked(run_root))


def test_a_refused_report_tells_why(cores: Owned) -> None:
    with activity.Reporter(cores) as reporter:
        reporter.report({0: {"utilization": 400}})
        with pytest.raises(activity.ReportError, match="utilization is a number from 0 to 100"):
            wait(lambda: not reporter.report({0: {"utilization": 40}}))


def test_without_an_agent_a_program_goes_on_and_with_the_next_one_it_is_heard(
    container: Any, agent: Agent, run_root: Path, cores: Owned
) -> None:
    with activity.Reporter(cores) as reporter:
        assert reporter.report({0: {"utilization": 40}})
        wait(lambda: looked(run_root))
        agent.stop()
        wait(lambda: not reporter.report({0: {"utilization": 41}}))
        agent.listen(container.run_root / "claim" / "neuron")
        assert reporter.report({0: {"utilization": 42}})
        assert wait(lambda: looked(run_root))[0].cores[0]["utilization"] == 42


def test_cores_of_several_claims_are_one_process(container: Any, agent: Agent) -> None:
    for claim in ("first", "second"):
        agent.listen(container.add_view(view("trn1.2xlarge"), claim=claim).parent)
    cores = Owned(container.run_root, 0, 1, 2, 3)
    with activity.Reporter(cores) as reporter:
        models = [{"name": "m", "uuid": f"{core:032x}", "model_id": 10001 + core, "core": core} for core in cores.ids]
        assert reporter.report(
            {core: {"utilization": 10 * core} for core in cores.ids}, models=models, executions={"completed": 5}
        )
        (seen,) = wait(lambda: [one for one in looked(container.run_root) if len(one.cores) == 4])
        assert {core: what["utilization"] for core, what in seen.cores.items()} == {0: 0, 1: 10, 2: 20, 3: 30}
        assert [model["core"] for model in seen.models] == [0, 1, 2, 3]
        assert seen.executions["completed"] == 5


# --- neuron-sim-load


def test_load_ramps_grows_and_counts() -> None:
    plan = load_plan.parse_arguments(
        ["--ramp", "10:90:60s", "--memory=2GiB", "--memory-growth", "10MiB", "--rate", "4", "--inject", "numerical=0.5",
         "--inject", "timed_out=1", "--latency", "20ms"]
    )  # fmt: skip
    assert [plan.utilization(t) for t in (0, 30, 60, 600)] == [10, 50, 90, 90]
    assert plan.core_memory(30)["tensors"] == (2 << 30) + 300 * (1 << 20)
    damage = load_plan.Damage()
    damage.look(10, [])
    said = plan.process(10, cores=(0,), damage=damage)
    assert said["executions"]["completed"] == 40
    assert (said["errors"]["numerical"], said["executions"]["completed_with_num_err"]) == (5, 5)
    assert said["executions"]["timed_out"] == 10
    assert said["latency"]["device"]["p50"] == 0.02


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--fast"], "unknown option --fast"),
        (["--utilization"], "--utilization needs a value"),
        (["--utilization", "101"], "--utilization 101: give percent"),
        (["--ramp", "1:2"], "write it like 0:90:60s"),
        (["--memory", "2GB"], "give a size like"),
        (["--duration", "soon"], "give a time like"),
        (["--inject", "fire=1"], "write NAME=N with one of generic, numerical"),
        (["--interval", "10ms"], "give 100ms or more"),
        (["--cores", "0"], "1 or more"),
    ],
)
def test_a_wrong_load_is_told_how_to_write_it(arguments: list[str], sentence: str) -> None:
    with pytest.raises(load_plan.UsageError, match=sentence):
        load_plan.parse_arguments(arguments)


def test_a_load_is_refused_nothing_and_ends(run_root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["--duration", "0s", "--inject", "hardware=1", "--tag", "t"]
    assert neuron_sim_load.run(arguments, run_root=str(run_root)) == 0
    assert capfd.readouterr().err == ""


def test_a_full_core_ends_the_load_as_the_runtime_does(run_root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert neuron_sim_load.run(["--memory", "24GiB"], run_root=str(run_root)) == 4
    assert "NRT_RESOURCE" in capfd.readouterr().err


# --- neuron-monitor


class Shown:
    """What neuron-monitor prints; its connections end with the test."""

    opened: ClassVar[list[Shown]] = []

    def __init__(self, run_root: Path, config: dict[str, Any] | None = None) -> None:
        parsed = monitor_config.parse(json.dumps(config)) if config else monitor_config.DEFAULT
        self._monitor = monitor.Monitor(parsed, run_root=str(run_root))
        self.opened.append(self)

    def close(self) -> None:
        self._monitor.close()

    def record(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.line())
        return found

    def line(self) -> str:
        return json_text.compact(self._monitor.record())


@pytest.fixture(autouse=True)
def no_monitor_stays_open() -> Iterator[None]:
    yield
    while Shown.opened:
        Shown.opened.pop().close()


FAST = {
    "period": "1us",
    "neuron_runtimes": [{"metrics": [{"type": kind} for kind in monitor_config.RUNTIME_GROUPS]}],
    "system_metrics": [{"type": kind} for kind in monitor_config.SYSTEM_GROUPS],
}


def shape(value: Any) -> Any:
    """The names of a document in their order, with the kinds of its values."""
    if isinstance(value, dict):
        return {name: shape(item) for name, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value[:1]]
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def test_the_first_record_without_a_runtime_is_that_of_the_capture(container: Any) -> None:
    """Of tools 2.28 on a trn1.2xlarge."""
    container.add_view(view("trn1.2xlarge"))
    line = Shown(container.run_root).line()
    capture = (Path(__file__).parent / "golden" / "neuron-monitor-no-runtime.json").read_text().strip()

    def blanked(text: str) -> str:
        """Without what differs from machine to machine."""
        text = re.sub(r'"(instance_\w*|ami_id|subnet_id)":"[^"]*"', r'"\1":""', text)
        return re.sub(r'"(period|memory_\w+_bytes|swap_\w+_bytes)":[0-9.]+', r'"\1":0', text)

    assert blanked(line) == blanked(capture)


def test_a_running_process_has_the_fields_of_the_capture_in_their_order(
    container: Any, agent: Agent, run_root: Path
) -> None:
    """Of a trn1.32xlarge with tools of 2024."""
    capture = json.loads((Path(__file__).parent / "golden" / "neuron-monitor-runtime.json").read_text())
    plan = load_plan.parse_arguments(["--rate", "0"])
    shown = Shown(run_root, FAST)
    cores = Owned(run_root, 0)
    with activity.Reporter(cores, tag="367") as reporter:
        memory = plan.core_memory(0)
        reporter.report(
            {0: {"utilization": 50, "flops": 7, "memory": memory}},
            **plan.process(0, cores=cores.ids, damage=load_plan.Damage()),
        )
        wait(lambda: looked(run_root))
        shown.record()
        (entry,) = shown.record()["neuron_runtime_data"]
    core = entry["report"]["neuroncore_counters"]["neuroncores_in_use"]["0"]
    # since Trainium2
    assert core.pop("flops") == 7
    assert core.pop("v3d") == {
        "nc_v3.0": {"neuroncore_utilization": 50},
        "nc_v3.1": {"neuroncore_utilization": 50},
    }
    assert json.dumps(shape(entry)) == json.dumps(shape(capture["neuron_runtime_data"][0]))


def test_counts_are_of_the_period_and_an_idle_owner_has_no_latency(run_root: Path, cores: Owned) -> None:
    shown = Shown(run_root, FAST)
    with activity.Reporter(cores) as reporter:
        reporter.report({0: {}, 1: {}}, executions={"completed": 100})
        wait(lambda: looked(run_root))
        assert list(shown.record()["neuron_runtime_data"][0]["report"]) == ["memory_used"], "what is so at a moment"
        reporter.report({0: {}, 1: {}}, executions={"completed": 104}, errors={"numerical": 1})
        wait(lambda: looked(run_root)[0].errors["numerical"])
        stats = shown.record()["neuron_runtime_data"][0]["report"]["execution_stats"]
        assert (stats["execution_summary"]["completed"], stats["error_summary"]["numerical"]) == (4, 1)
        assert stats["latency_stats"] == {"total_latency": None, "device_latency": None}
        stats = shown.record()["neuron_runtime_data"][0]["report"]["execution_stats"]
        assert stats["execution_summary"]["completed"] == 0
    wait(lambda: not looked(run_root))
    assert shown.record()["neuron_runtime_data"] == []


def test_the_filter_and_the_groups_are_the_files(run_root: Path, cores: Owned) -> None:
    groups = {"neuron_runtimes": [{"tag_filter": "^train", "period": "1us", "metrics": [{"type": "memory_used"}]}]}
    shown = Shown(run_root, groups)
    with activity.Reporter(cores, tag="train-1") as reporter:
        reporter.report({0: {}})
        wait(lambda: looked(run_root))
        record = shown.record()
        assert [list(one["report"]) for one in record["neuron_runtime_data"]] == [["memory_used"]]
        assert record["system_data"] == {}
        reporter.close()
        wait(lambda: not looked(run_root))
    with activity.Reporter(cores, tag="serve-1") as reporter:
        reporter.report({0: {}})
        wait(lambda: looked(run_root))
        assert shown.record()["neuron_runtime_data"] == []


def test_a_process_of_another_container_has_no_usage_and_the_error_of_the_capture(run_root: Path) -> None:
    shown = Shown(run_root, FAST)
    shown.record()
    connection = activity.Connection(str(run_root / "claim" / "neuron"))
    connection.send({"pid": 1 << 30, "cores": {"0": {}}})
    wait(lambda: looked(run_root))
    usage = shown.record()["neuron_runtime_data"][0]["report"]["neuron_runtime_vcpu_usage"]
    connection.close()
    assert usage["error"] == f"open /proc/{1 << 30}/stat: no such file or directory"
    assert usage["vcpu_usage"] == {"user": 0, "system": 0}


@pytest.mark.parametrize(
    ("text", "seconds"), [("5s", 5), ("500ms", 0.5), ("1m30s", 90), ("1.5s", 1.5), ("2h", 7200), ("10us", 1e-5)]
)
def test_periods_are_go_durations(text: str, seconds: float) -> None:
    assert monitor_config.duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ("{", "not JSON"),
        ('{"periods": "5s"}', "the file has no field 'periods'"),
        ('{"period": 5}', "write a duration like 5s"),
        ('{"period": "0s"}', "more than nothing"),
        ('{"system_metrics": [{"type": "memory_used"}]}', "write one of memory_info, neuron_hw_counters, vcpu_usage"),
        ('{"neuron_runtimes": [{"tag_filter": "("}]}', "is no regular expression"),
        ('{"neuron_runtimes": {}}', "neuron_runtimes is a list"),
    ],
)
def test_a_wrong_file_is_told_in_a_sentence(
    config: str, sentence: str, tmp_path: Path, run_root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "monitor.conf"
    path.write_text(config)
    assert monitor.run(["-c", str(path)], run_root=str(run_root)) == 1
    assert sentence in capfd.readouterr().err


def test_the_innermost_period_holds() -> None:
    parsed = monitor_config.parse(
        json.dumps(
            {
                "period": "1s",
                "neuron_runtimes": [{"period": "2s", "metrics": [{"type": "memory_used"}]}],
                "system_metrics": [{"type": "vcpu_usage"}, {"type": "memory_info", "period": "3s"}],
            }
        )
    )
    assert parsed.runtimes[0].groups == {"memory_used": 2}
    assert parsed.system == {"memory_info": 3, "vcpu_usage": 1}


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (42.01, "42.01"), (4.999666547, "4.999666547"), (0.00047258, "0.00047258"),
                        (1e12, "1000000000000"), (None, "null"), ({"a": [1, True]}, '{"a":[1,true]}')]
)  # fmt: skip
def test_numbers_are_written_as_go_writes_them(value: object, text: str) -> None:
    assert json_text.compact(value) == text


# --- neuron-top


def busy() -> list[Process]:
    process = Process(257726, "257726")
    process.cores = {
        core: {"utilization": 50 + core, "flops": 8e13, "memory": load_plan.Plan().core_memory(0)} for core in (0, 1)
    }
    model = {
        "name": "nccom",
        "model_id": 10027,
        "core": 1,
        "host": {"tensors": 1 << 20},
        "device": {"tensors": 1 << 30},
    }
    process.models = [model]
    return [process]


def look(processes: list[Process]) -> Look:
    shown: Any = view(ONE_TRN2)
    return Look(shown, processes, system=(0.72, 9.13), vcpu={257726: (0.5, 0.25)})


def test_the_screen_has_the_sections_of_the_guide() -> None:
    screen = Screen()
    text = "\n".join(screen.draw(look(busy()), width=120, height=40))
    for words in (
        "NeuronCore v3d Utilization (Avg: 25.25%)",
        "51.00%]",
        "System vCPU Usage  [ 0.72%, 9.13%]",
        "Runtime vCPU Usage [ 0.50%, 0.25%]",
        "Memory Usage Summary",
        "Model Scratchpad\n",
        "[-] NC 1",
        "[+] nccom 10027",
        "Neuron Apps >[1]:all< [2]:257726",
    ):
        assert words in text


def test_the_keys_of_the_guide() -> None:
    screen = Screen()
    now = look(busy())
    screen.draw(now, width=120, height=40)
    assert screen.press("f", now)
    assert "NeuronCore v3d TFLOPS (Total: 160.00)" in "\n".join(screen.draw(now, width=120, height=40))
    screen.press("d", now)
    assert ">[2]:257726<" in screen.draw(now, width=120, height=40)[-2]
    screen.press("1", now)
    screen.press("enter", now)
    assert "nccom" not in "\n".join(screen.draw(now, width=120, height=40)), "its device is folded"
    assert not screen.press("q", now)
    assert keys("\x1b[Aq\x1b[B\r") == ["up", "q", "down", "enter"]


@pytest.mark.parametrize("width", [1, 20, 80, 300])
@pytest.mark.parametrize("height", [1, 3, 10, 60])
def test_the_screen_fits_any_terminal(width: int, height: int) -> None:
    lines = Screen().draw(look(busy()), width=width, height=height)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize("end", [b"q", b"\x03", signal.SIGTERM])
def test_it_draws_on_a_terminal_and_leaves_it_as_it_was(run_root: Path, end: bytes | signal.Signals) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (30, 100))
    before = termios.tcgetattr(theirs)
    roots = f"given = views.given; views.given = lambda: given({str(run_root)!r})"
    code = f"from neuron_runtime import neuron_top, views; {roots}; neuron_top.main()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=theirs, stdout=theirs, stderr=theirs) as top:
        said = b""
        while b"\x1b[J" not in said:  # the end of a screen
            assert select.select([ours], [], [], 30)[0], said
            said += os.read(ours, 1 << 16)
        assert termios.tcgetattr(theirs) != before, "keys come at once, and are not shown"
        if isinstance(end, bytes):
            os.write(ours, end)
        else:
            top.send_signal(end)
        assert top.wait(30) == 0
    while b"\x1b[?1049l" not in said:
        assert select.select([ours], [], [], 30)[0], said
        said += os.read(ours, 1 << 16)
    assert termios.tcgetattr(theirs) == before
    assert said.startswith(b"\x1b[?1049h\x1b[?25l\x1b[H"), "another screen, so that the shell's comes back"
    assert b"neuron-top " in said
    assert b"trn2.48xlarge" in said
    assert said.endswith(b"\x1b[?25h\x1b[?1049l")
    os.close(ours)
    os.close(theirs)


def test_sizes_are_for_people() -> None:
    assert [size(count) for count in (0, 1023, 1536, 24 << 30)] == ["0B", "1023B", "1.5KB", "24.0GB"]


# --- the sysfs tree


def test_the_drivers_files_tell_the_same_story(
    run_root: Path, cores: Owned, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with activity.Reporter(cores) as reporter:
        memory = {"tensors": 4096, "model_code": 0}
        reporter.report({0: {"utilization": 80, "memory": memory}}, executions={"completed": 9})
        wait(lambda: looked(run_root))
        assert neuron_sim_sysfs.run(["--once", str(tmp_path / "s")], run_root=str(run_root)) == 0
    root = tmp_path / "s/devices/virtual/neuron_device/neuron0"

    def read(path: str) -> str:
        return (root / path).read_text()

    assert read("connected_devices") == "12, 1, 9, 14\n"
    assert read("core_count") == "8\n"
    assert (read("info/architecture/arch_type"), read("neuron_core7/info/architecture/arch_type")) == (
        "NDv3\n",
        "NCv3\n",
    )
    assert read("info/architecture/device_name") == "Trainium2\n"
    assert re.fullmatch(r"[0-9a-f]{16}\n", read("info/serial_number"))
    assert read("neuron_core1/stats/memory_usage/device_mem/tensors/present") == "2048\n", "half of a logical core's"
    assert read("neuron_core0/stats/status/success/total") == "9\n"
    assert read("neuron_core2/stats/status/success/total") == "0\n"
    assert re.fullmatch(r"POWER_STATUS_VALID,\d+,0.00,80.00,20.00\n", read("stats/power/utilization"))
    assert not list(root.rglob("*.tmp"))


# --- what the tools know of chips


def test_the_tools_know_the_chips_of_the_catalogue() -> None:
    from neuron_device_model.catalog import instance_types

    for kind in instance_types():
        shown: Any = {"instance_type": kind.name, "logical_neuroncore_config": None}
        chip = chips.chip_of(shown)
        assert (chip.type, chip.title, chip.physical_cores, chip.core_version, chip.tflops) == (
            kind.chip.name,
            kind.chip.title,
            kind.chip.physical_cores,
            kind.chip.neuron_core_version,
            kind.chip.tflops["bf16"],
        )
