"""The tool in a container: with the cores of its claims, and the errors of the real one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from neuron_device_model.catalog import instance_type
from neuron_device_model.collectives.fabric import single_node
from neuron_device_model.collectives.model import estimate
from neuron_device_model.faults import Fault
from neuron_dra_driver.hardware.effects import told
from neuron_runtime import nccom_test, nrt, views


class Pod:
    """A container's claims, and the tool run in it."""

    def __init__(self, container: Any, capfd: pytest.CaptureFixture[str], logs: Path) -> None:
        self.container = container
        self._capfd = capfd
        self._logs = logs

    def run(self, *words: str, **environment: str) -> tuple[int, list[str], str]:
        status = nccom_test.run(
            [*words, "--benchmark-log-directory", str(self._logs)],
            environment=environment,
            run_root=str(self.container.run_root),
        )
        said = self._capfd.readouterr()
        return status, said.out.splitlines(), said.err

    def log(self, line: str) -> str:
        """What is in the log that a row of a failure names."""
        return Path(line.rpartition(" ")[2]).read_text()


@pytest.fixture
def pod(container: Any, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Pod:
    return Pod(container, capfd, tmp_path)


@pytest.fixture
def trn2(pod: Pod, saved_view: Any) -> Pod:
    pod.container.add_view(saved_view("trn2n.48xlarge"))
    return pod


def test_times_are_those_of_the_model_on_these_cores(trn2: Pod) -> None:
    status, (_, row, last), _ = trn2.run("-r", "64", "-d", "bf16", "allr", "--show-algorithm")
    fabric = single_node("trn2n.48xlarge")
    answer = estimate(fabric, fabric.cores(), "all_reduce", 32 << 20, "bf16")
    size, count, name, time_us, algbw, busbw, algorithm = row.split()
    assert (size, count, name, algorithm) == ("33554432", "16777216", "bf16", answer.algorithm)
    assert float(time_us) == round(answer.time_us, 2)
    assert (algbw, busbw) == (f"{answer.algbw:.2f}", f"{answer.busbw:.2f}")
    assert (status, last) == (0, f"Avg bus bandwidth:\t{answer.busbw:.4f}GB/s")


def test_scattered_chips_cost_more_than_neighbours(pod: Pod, saved_view: Any) -> None:
    def time_us(hosts: list[int]) -> float:
        view = saved_view("trn2n.48xlarge")
        view["devices"] = view["devices"][:4]
        for device, host in zip(view["devices"], hosts, strict=True):
            device["host_index"] = host
        folder = pod.container.run_root / f"claim{hosts[1]}"
        pod.container.add_view(view, claim=folder.name)
        _, (_, row, _), _ = pod.run("-r", "16", "-b", "256M", "allr")
        for path in sorted(folder.rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        folder.rmdir()
        return float(row.split()[3])

    assert time_us([0, 1, 2, 3]) < time_us([0, 2, 8, 10])


def test_cores_are_owned_while_it_runs(trn2: Pod) -> None:
    given = nrt.given_cores(views.given(str(trn2.container.run_root)))
    with nrt.open_given(given, count=8, environment={}):
        status, (_, row, last), err = trn2.run("-r", "64", "allr")
    assert "Failure running neuron-bench - log file " in row
    assert "NeuronCore(s) not available - Requested:64 Available:56" in trn2.log(row)
    assert "NeuronCore(s) not available" in err
    assert (status, last) == (1, "1 errors found - test failed")


@pytest.mark.parametrize(
    ("words", "environment", "reason"),
    [
        (("-r", "8", "redsct"), {"NEURON_RT_VISIBLE_CORES": "4-11"}, "REDUCE_SCATTER is currently not supported: a"),
        (("-r", "3", "allr"), {}, "groups of 3 ranks on one trn2n.48xlarge"),
        (("-r", "64", "permute"), {}, "not neighbours"),
        (("-r", "8", "allr"), {"NEURON_LOGICAL_NC_CONFIG": "1"}, "NEURON_LOGICAL_NC_CONFIG=1, but the devices"),
        (("-r", "8", "-c", "allr"), {"NEURON_SIM_CORRUPT_LINK": "0-1"}, "Data check failed: rank "),
        (("-r", "8", "-c", "allr"), {"NEURON_SIM_CORRUPT_LINK": "x"}, "name the two chips of the link"),
    ],
)
def test_what_cannot_be_run_is_told_in_the_log_and_for_people(
    trn2: Pod, words: tuple[str, ...], environment: dict[str, str], reason: str
) -> None:
    status, (_, row, last), err = trn2.run(*words, **environment)
    assert reason in trn2.log(row)
    assert reason in err
    assert (status, last) == (1, "1 errors found - test failed")


def test_hardware_that_breaks_fails_the_sizes_that_run_meanwhile(
    trn2: Pod, saved_view: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = Fault("hot", "LinkDown", 0, None, "None", "", "2026-01-02T00:00:00Z", peer=1)
    path = trn2.container.run_root / "claim" / "neuron" / nrt.FAULTS
    document = json.dumps(told(saved_view("trn2n.48xlarge"), [fault], physical_cores=8))
    check, looks = nrt.Cores.check, iter([None, document, "{}"])

    def later(cores: nrt.Cores) -> None:
        if text := next(looks):
            path.write_text(text)
        check(cores)

    monkeypatch.setattr(nrt.Cores, "check", later)
    status, (_, first, broken, third, _, last), err = trn2.run("-r", "64", "-b", "1M", "-e", "4M", "-f", "2", "allr")
    assert (first.split()[0], third.split()[0]) == ("1048576", "4194304")
    assert "Failure running neuron-bench - log file " in broken
    assert "missing collectives status on Neuron Device 0 NC 0" in trn2.log(broken)
    assert "missing collectives status" in err
    assert (status, last) == (1, "1 errors found - test failed")


def test_a_broken_link_is_nothing_to_who_has_one_end_of_it(trn2: Pod, saved_view: Any) -> None:
    fault = Fault("hot", "LinkDown", 0, None, "None", "", "2026-01-02T00:00:00Z", peer=1)
    path = trn2.container.run_root / "claim" / "neuron" / nrt.FAULTS
    path.write_text(json.dumps(told(saved_view("trn2n.48xlarge"), [fault], physical_cores=8)))
    assert trn2.run("-r", "4", "allr")[0] == 0
    assert trn2.run("-r", "8", "allr")[0] == 1


@pytest.mark.parametrize(("a", "b"), [(0, 1), (5, 9), (3, 15), (12, 0)])
def test_any_corrupted_link_between_chips_is_found(trn2: Pod, a: int, b: int) -> None:
    assert b in instance_type("trn2n.48xlarge").devices[a].connected
    for operation in ("allr", "redsct", "allg", "alltoall"):
        status, _, _ = trn2.run(
            "-r", "64", "-b", "4kb", "-e", "4kb", "-c", operation, NEURON_SIM_CORRUPT_LINK=f"{a}-{b}"
        )
        assert status == 1


def test_tensors_that_are_wrong_are_kept(trn2: Pod, tmp_path: Path) -> None:
    trn2.run("-r", "8", "-b", "64", "-e", "64", "-c", "allg", NEURON_SIM_CORRUPT_LINK="0-1")
    output, golden = (next(tmp_path.glob(f"*_{name}.bin")).read_bytes() for name in ("output", "golden"))
    assert len(output) == len(golden)
    assert output != golden


def test_without_devices(pod: Pod) -> None:
    status, out, err = pod.run("-r", "2", "allr")
    assert (status, out) == (1, [])
    assert err.startswith("Neuron DKMS Driver is not running! Read the troubleshooting guide at: https://")


def test_slurm_is_refused(trn2: Pod) -> None:
    with pytest.raises(SystemExit):
        trn2.run("-r", "2", "-S", "allr")


def test_streams_print_a_block_each_and_slow_one_another_down(trn2: Pod, tmp_path: Path) -> None:
    one = {"operation": "allr", "datatype": "bf16", "minbytes": "64M", "maxbytes": "64M"}
    path = tmp_path / "streams.json"
    report = tmp_path / "report.json"

    def times(streams: list[object]) -> list[float]:
        path.write_text(json.dumps({"streams": streams}))
        trn2.run("-r", "64", "--streams-json", str(path), "--report-to-json-file", str(report))
        results = json.loads(report.read_text())["results"]
        rows = [row for block in results for row in block] if isinstance(results[0], list) else results
        return [row["time:avg(us)"] for row in rows]

    (alone,) = times([one])
    assert all(together > alone for together in times([one, one]))
    status, out, _ = trn2.run("-r", "64", "--streams-json", str(path))
    assert (status, len(out)) == (0, 6)


@pytest.mark.parametrize("view", ["inf2.24xlarge", "trn1.2xlarge", "one-of-trn2.48xlarge"])
def test_every_family_runs(pod: Pod, saved_view: Any, view: str) -> None:
    pod.container.add_view(saved_view(view))
    status, (_, row, _), _ = pod.run("-r", "2", "-c", "allr")
    assert (status, row.split()[:3]) == (0, ["33554432", "33554432", "uint8"])


def test_inferentia1_has_no_collectives(pod: Pod, saved_view: Any) -> None:
    pod.container.add_view(saved_view("inf1.6xlarge"))
    status, _, err = pod.run("-r", "4", "allr")
    assert status == 1
    assert "has no collectives" in err
