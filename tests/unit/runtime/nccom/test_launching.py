"""A launcher has others run the tool: what it starts, what it passes on, and how it ends when they do not."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from pathlib import Path

import pytest
from neuron_runtime import nccom_test, nrt
from neuron_runtime.nccom import arguments, launch

HOSTS = ("127.0.0.1", "127.0.0.2")
HEADER = "    size(B)    count(elems)     type    time:avg(us)    algbw(GB/s)    busbw(GB/s)"
ROW = "         64              64    uint8           13.38           0.08           0.13"
LAST = "Avg bus bandwidth:\t0.1300GB/s"
ERRORS = "1 errors found - test failed"
WORDS = ("-r", "32", "-N", "2", "-b", "64", "-e", "128", "-f", "2", "allr")


class Launcher:
    """A container without devices, with an mpirun that does what a test says."""

    def __init__(self, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capfd = capfd
        self.environment = {"PATH": str(folder), "NEURON_RT_ROOT_COMM_ID": "127.0.0.1:45000"}
        (folder / "run").mkdir()

    def mpirun(self, script: str) -> None:
        path = self.folder / "mpirun"
        path.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {self.folder}/words\n{script}\n')
        path.chmod(0o755)

    def prints(self, *lines: str, then: str = "") -> None:
        (self.folder / "out").write_text("".join(f"{line}\n" for line in lines))
        self.mpirun(f"cat {self.folder}/out; {then}".replace("cat", "/bin/cat"))

    @property
    def words(self) -> list[str]:
        return (self.folder / "words").read_text().splitlines()

    def run(self, *words: str) -> tuple[int, list[str], str]:
        logs = ("--benchmark-log-directory", str(self.folder))
        status = nccom_test.run([*words, *logs], environment=self.environment, run_root=str(self.folder / "run"))
        said = self._capfd.readouterr()
        return status, said.out.splitlines(), said.err


@pytest.fixture
def launcher(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Launcher:
    monkeypatch.setattr(launch, "_PLACES", ())
    return Launcher(tmp_path, capfd)


def test_one_process_on_each_host_runs_the_same_command(launcher: Launcher) -> None:
    launcher.prints(HEADER, ROW, ROW, LAST)
    launcher.environment |= {
        "NEURON_RT_EXEC_TIMEOUT": "3",
        "NEURON_RT_ULTRASERVER_NODE_ID": "1",
        "OMPI_MCA_plm_rsh_args": "-p 2222",
        "HOME": "/home/somebody",
    }
    status, out, err = launcher.run(*WORDS, "--hosts", *HOSTS)
    assert (status, out, err) == (0, [HEADER, ROW, ROW, LAST], "")
    words = launcher.words
    assert words[:4] == ["-np", "2", "--host", ",".join(HOSTS)]
    tool = words.index(launch.TOOL)
    assert words[tool + 1 :][: len(WORDS)] == list(WORDS)
    assert words[-3:] == ["--hosts", *HOSTS]
    passed = {name for flag, name in pairwise(words) if flag == "-x"}
    assert passed == {"NEURON_RT_ROOT_COMM_ID", "NEURON_RT_EXEC_TIMEOUT"}, "a place in an UltraServer is of one host"
    assert words[words.index("plm_rsh_args") + 1].startswith("-p 2222 -o BatchMode=yes")


def test_hosts_come_from_the_file_that_an_mpijob_brings(launcher: Launcher) -> None:
    launcher.prints(HEADER, ROW, ROW, LAST)
    (launcher.folder / "hostfile").write_text("127.0.0.1 slots=16\n127.0.0.2 slots=16\n")
    status, _, _ = launcher.run(*WORDS, "--hosts-file", str(launcher.folder / "hostfile"))
    assert status == 0
    assert launcher.words[-3:] == ["--hosts", *HOSTS], "where the ranks are there is no such file"


def test_the_report_comes_to_the_launcher(launcher: Launcher) -> None:
    document = json.dumps({"results": [{"size(B)": 64}]}, indent=4).splitlines()
    launcher.prints(HEADER, ROW, ROW, LAST, *document)
    path = launcher.folder / "report.json"
    status, out, _ = launcher.run(*WORDS, "--report-to-json-file", str(path), "--hosts", *HOSTS)
    assert (status, out) == (0, [HEADER, ROW, ROW, LAST])
    assert json.loads(path.read_text()) == {"results": [{"size(B)": 64}]}
    assert launcher.words[-2:] == ["--report-to-json-file", "/dev/stdout"]


@pytest.mark.parametrize(
    ("printed", "added"),
    [
        ((), ["size(B)", "64", "128", ERRORS.replace("1", "2", 1)]),
        ((HEADER,), ["64", ERRORS]),
        ((HEADER, ROW), ["128", ERRORS]),
        ((HEADER, f"{ROW[:11]}    Failure running neuron-bench - log file /tmp/x.log"), [ERRORS]),
        ((HEADER, ROW, f"{ROW[:11]}    Failure running neuron-bench - log file /tmp/x.log"), [ERRORS]),
        ((HEADER, ROW, f"{ROW[:11]}    Failure running neuron-bench - log file /tmp/x.log", ERRORS), []),
    ],
)
def test_what_a_lost_root_cannot_say_is_added(launcher: Launcher, printed: tuple[str, ...], added: list[str]) -> None:
    launcher.prints(*printed, then="exit 134")
    status, out, err = launcher.run(*WORDS, "--hosts", *HOSTS)
    assert status != 0
    assert out[: len(printed)] == list(printed)
    assert [
        line.split()[0] if line.startswith(" ") else line[: len(wanted)]
        for line, wanted in zip(out[len(printed) :], added, strict=True)
    ] == added
    if len(added) > 1:
        assert "mpirun has ended with status 134" in err


def test_mpirun_that_does_not_end_after_a_failure_is_ended(launcher: Launcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "END_SECONDS", 0.1)
    line = nrt.NrtError(nrt.NRT_FAILURE, "NRT:nrt_init", "a host hangs").log_line()
    launcher.prints(HEADER, ROW, then=f'echo "{line}" >&2; exec /bin/sleep 60')
    begin = time.monotonic()
    status, out, err = launcher.run(*WORDS, "--hosts", *HOSTS)
    assert time.monotonic() - begin < 20
    assert status == 1
    assert "a host hangs" in err
    assert out[2].split()[:2] == ["128", "Failure"]
    assert out[3] == ERRORS


def test_a_host_without_an_address(launcher: Launcher) -> None:
    launcher.prints()
    launcher.environment |= {"NEURON_SIM_JOIN_TIMEOUT": "1"}
    status, out, err = launcher.run(*WORDS, "--hosts", "127.0.0.1", "nobody.invalid")
    assert (status, out[-1]) == (1, "2 errors found - test failed")
    assert "the host nobody.invalid does not resolve" in err
    assert not (launcher.folder / "words").exists()


def test_a_launcher_without_mpirun(launcher: Launcher, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        launcher.run(*WORDS, "--hosts", *HOSTS)
    assert "mpirun is not found" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "environment", "has_devices"),
    [
        ((*WORDS, "--hosts", *HOSTS), {}, True),
        ((*WORDS, "--hosts", *HOSTS), {launch.RANK: "0"}, True),
        (("-r", "8", "allr", "--hosts", *HOSTS), {}, False),
        (WORDS, {}, False),
    ],
    ids=["no mpirun", "started by mpirun", "one node", "no hosts"],
)
def test_who_takes_part_itself(
    monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], environment: dict[str, str], has_devices: bool
) -> None:
    monkeypatch.setattr(launch, "_PLACES", ())
    assert not launch.hosts(arguments.parse(words), environment, has_devices=has_devices)


def test_a_rank_knows_what_its_container_was_given(tmp_path: Path) -> None:
    path = tmp_path / "environ"
    path.write_bytes(b"NEURON_RT_ULTRASERVER_NODE_ID=2\0PATH=/bin\0NEURON_RT_EXEC_TIMEOUT=9\0odd\0")
    found = launch.of_the_container({"PATH": "/usr/bin", "NEURON_RT_EXEC_TIMEOUT": "3"}, str(path))
    assert found == {"PATH": "/usr/bin", "NEURON_RT_EXEC_TIMEOUT": "3", "NEURON_RT_ULTRASERVER_NODE_ID": "2"}
    assert launch.of_the_container({"A": "1"}, str(tmp_path / "none")) == {"A": "1"}
