"""Jobs that train and serve in time only: what they print and report, alone and together, and what ends them."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from neuron_device_model import identity
from neuron_device_model.catalog import DEFAULT_SDK_VERSION, instance_type, sdk_release
from neuron_device_model.collectives.fabric import single_node
from neuron_device_model.collectives.layouts import Layout
from neuron_device_model.faults import Fault
from neuron_device_model.steps.training import step
from neuron_device_model.steps.transformer import Transformer
from neuron_device_model.view import GivenChip, View, container_view
from neuron_dra_driver.hardware.effects import told
from neuron_runtime import nrt, views
from neuron_runtime.nccom import claims, costs, group
from neuron_runtime.nccom.group import Meeting, Member, Root
from neuron_runtime.nccom.membership import Hello
from neuron_runtime.steps import arguments, job
from neuron_runtime.steps.job import Ended, Job

TINY = ("--layers", "2", "--hidden", "64", "--sequence", "32", "--interval", "100ms")
TYPE = "trn2.48xlarge"


class Reports:
    """Instead of the agent."""

    def __init__(self) -> None:
        self.cores: list[Any] = []
        self.processes: list[dict[str, Any]] = []

    def report(self, cores: Any, **process: Any) -> bool:
        self.cores.append(cores)
        self.processes.append(process)
        return True


class Pod:
    """A container with two chips of an instance."""

    def __init__(self, root: Path, *, number: int = 0) -> None:
        self.run_root = root / f"pod-{number}"
        self.folder = self.run_root / "claim" / "neuron"
        (self.folder / "cores").mkdir(parents=True)
        self.view: View = container_view(
            instance_type(TYPE),
            given=[GivenChip(0), GivenChip(1)],
            first_index=0,
            logical_neuron_core=2,
            instance_id=identity.instance_id(f"node-{number}"),
            sdk=sdk_release(DEFAULT_SDK_VERSION),
        )
        (self.folder / "view.json").write_text(json.dumps(self.view))
        for core in range(8):
            (self.folder / "cores" / str(core)).touch(mode=0o444)
        self.reports = Reports()
        self._opened: list[nrt.Cores] = []

    def break_(self, kind: str, **more: Any) -> None:
        fault = Fault("hot", kind, 1, None, "None", "", "2026-01-02T00:00:00Z", **more)
        document = told(self.view, [fault], physical_cores=8)
        (self.folder / nrt.FAULTS).write_text(json.dumps(document))

    def place(self) -> claims.Place:
        return claims.place(views.given(str(self.run_root)), range(8), {})

    def cores(self) -> nrt.Cores:
        given = nrt.given_cores(views.given(str(self.run_root)))
        self._opened.append(nrt.open_given(given, count=None, environment={}))
        return self._opened[-1]

    def close(self) -> None:
        for cores in self._opened:
            cores.close()

    def job(self, words: Sequence[str], places: Sequence[claims.Place], members: Root | Member | None) -> Job:
        flags = arguments.parse_train(words)
        return Job(flags, self.cores(), costs.Board(tuple(places)), members, self.reports)  # type: ignore[arg-type]


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Pod]:
    made = Pod(tmp_path)
    yield made
    made.close()


def run(pod: Pod, *words: str, serve: bool = False) -> int:
    flags = arguments.parse_serve(words) if serve else arguments.parse_train(words)
    return job.run(flags, environment={}, run_root=str(pod.run_root))


def milliseconds(line: str) -> float:
    return float(line.split("  ")[1].removesuffix(" ms"))


def test_a_step_takes_what_the_model_says(pod: Pod, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(pod, *TINY, "--layout", "tp=4,dp=2", "--batch", "16", "--steps", "5") == 0
    header, *_, last = capfd.readouterr().out.splitlines()
    fabric = single_node(TYPE)
    expected = step(fabric, fabric.cores()[:8], Layout(4, 2), Transformer(2, 64, 32, 16))
    assert header == "8 ranks on 1 × trn2.48xlarge: tensor 4, data 2, pipeline 1"
    assert last.startswith("step 5  ")
    assert milliseconds(last) == round(expected.seconds * 1e3, 2)


def test_a_server_prints_its_tokens(pod: Pod, capfd: pytest.CaptureFixture[str]) -> None:
    words = ("--layers", "2", "--hidden", "64", "--prompt", "32", "--tokens", "4", "--batches", "3")
    assert run(pod, *words, serve=True) == 0
    header, *_, last = capfd.readouterr().out.splitlines()
    assert "tensor 8, data 1" in header, "the process is a tensor group"
    assert last.startswith("batch 3  ")
    assert "first token" in last


def test_the_agent_hears_what_the_cores_do(pod: Pod) -> None:
    pod.job((*TINY, "--steps", "4"), [pod.place()], None).run(core_memory=1 << 34)
    core = pod.reports.cores[-1][0]
    assert set(pod.reports.cores[-1]) == set(range(8))
    assert 0 < core["utilization"] <= 100
    assert core["flops"] > 0
    assert core["memory"]["tensors"] > 0
    last = pod.reports.processes[-1]
    assert last["executions"] == {"completed": 4}
    assert last["latency"]["total"]["p50"] > 0


def test_a_throttled_chip_slows_all_cores(pod: Pod, capfd: pytest.CaptureFixture[str]) -> None:
    words = ("--layout", "dp=8", "--batch", "256", "--layers", "2", "--hidden", "512", "--sequence", "512")
    times = []
    for percent in (0, 50):
        if percent:
            pod.break_("ThermalThrottle", percent=percent)
        assert run(pod, *words, "--steps", "1", "--interval", "100ms") == 0
        times.append(milliseconds(capfd.readouterr().out.splitlines()[-1]))
    assert times[1] > 1.5 * times[0]


@pytest.mark.parametrize(("kind", "status"), [("HBMUncorrectable", 255), ("Hang", 5), ("DeviceLost", 1)])
def test_a_broken_chip_ends_it_with_the_runtimes_words(
    pod: Pod, capfd: pytest.CaptureFixture[str], kind: str, status: int
) -> None:
    pod.break_(kind)
    assert run(pod, *TINY, "--steps", "1") == status
    assert "ERROR" in capfd.readouterr().err


def test_what_does_not_fit_the_cores_ends_before_the_first_step(pod: Pod, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(pod, "--layers", "96", "--hidden", "12288", "--layout", "tp=8") == nrt.NRT_RESOURCE
    assert "more ranks in tp or pp" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--layout", "tp=4"), "needs 4 ranks, and there are 8: change --layout"),
        (("--layout", "tp=3,dp=2", "--cores", "6"), "groups of 3 ranks"),
        (("--layout", "tp=2,pp=4", "--layers", "6"), "6 layers cannot be divided"),
        (("--nnodes", "2"), "NEURON_RT_ROOT_COMM_ID=: set it"),
        (("--dtype", "fp64"), "dtype=fp64: use one of"),
    ],
)
def test_what_cannot_be_run_is_told_in_a_line(
    pod: Pod, capfd: pytest.CaptureFixture[str], words: tuple[str, ...], reason: str
) -> None:
    assert run(pod, *words, "--steps", "1") == nrt.NRT_INVALID
    assert reason in capfd.readouterr().err


@pytest.mark.parametrize(
    "words", [("--layers", "0"), ("--layout", "ep=2"), ("--efficiency", "101"), ("--interval", "1h"), ("--overlap",)]
)
def test_a_wrong_command_line_is_told(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        arguments.parse_train(words)
    assert left.value.code == 2
    assert "neuron-sim-train: error: argument" in capsys.readouterr().err


class Pods:
    """Two pods on two instances that are one job, each in a thread."""

    def __init__(self, root: Path) -> None:
        self.pods = [Pod(root, number=number) for number in (0, 1)]
        self._threads = ThreadPoolExecutor(2)
        self._listener = socket.create_server(("127.0.0.1", 0))

    def start(self, *words: str) -> list[Future[int]]:
        where = Meeting("127.0.0.1", self._listener.getsockname()[1], join_seconds=20, silence_seconds=20)
        hellos = [Hello(f"pod-{number}", "1", "job", None, 2, pod.place()) for number, pod in enumerate(self.pods)]
        deadline = time.monotonic() + 20

        def root() -> int:
            formed = group.host(self._listener, where, hellos[0], seed=0, deadline=deadline, order={})
            return self.pods[0].job(words, formed.places, formed).run(core_memory=1 << 34)

        def member() -> int:
            formed = group.join(where, hellos[1], deadline=deadline)
            return self.pods[1].job(words, formed.places, formed).run(core_memory=1 << 34)

        return [self._threads.submit(root), self._threads.submit(member)]

    def close(self) -> None:
        self._threads.shutdown()
        self._listener.close()
        for pod in self.pods:
            pod.close()


@pytest.fixture
def pods(tmp_path: Path) -> Iterator[Pods]:
    made = Pods(tmp_path)
    yield made
    made.close()


def test_two_pods_are_one_job_and_go_at_the_pace_of_the_slower(pods: Pods, capfd: pytest.CaptureFixture[str]) -> None:
    pods.pods[1].break_("ThermalThrottle", percent=40)
    for ended in pods.start(*TINY, "--layout", "tp=8,dp=2", "--steps", "3"):
        assert ended.result() == 0
    header, *_, last = capfd.readouterr().out.splitlines()
    assert header.startswith("16 ranks on 2 × trn2.48xlarge")
    assert last.startswith("step 3  ")
    assert last.endswith("at 60% of the cores' speed")
    assert [one.reports.processes[-1]["executions"] for one in pods.pods] == [{"completed": 3}] * 2


@pytest.mark.parametrize("broken", [0, 1])
def test_a_chip_that_breaks_in_one_pod_ends_the_job_in_both(pods: Pods, broken: int) -> None:
    pods.pods[broken].break_("HBMUncorrectable")
    futures = pods.start(*TINY)
    with pytest.raises(nrt.NrtError) as own:
        futures[broken].result()
    assert own.value.status == 1201
    with pytest.raises(Ended, match="missing collectives status on Neuron Device"):
        futures[1 - broken].result()
