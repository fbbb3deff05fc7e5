"""``neuron-sim-exec``: a command becomes the owner of cores; it gets its environment and signals as they were."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from neuron_runtime import neuron_sim_exec

RUNTIME = Path(__file__).parents[3] / "runtime"
TORUS = "trn2n.48xlarge"
# -IS: as the launcher in the runtime tree starts it
START = [
    *(sys.executable, "-ISB", "-c"),
    "import sys; sys.path.insert(0, sys.argv.pop(1)); root = sys.argv.pop(1)\n"
    "from neuron_runtime import neuron_sim_exec; sys.exit(neuron_sim_exec.run(sys.argv[1:], run_root=root))",
    str(RUNTIME),
]
LINE = re.compile(r"\d{4}-[A-Z][a-z]{2}-\d\d \d\d:\d\d:\d\d\.0\d{3} +(\d+):\1 +ERROR +(?P<said>.*)\n")
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin"}


def said(stderr: str) -> str:
    match = LINE.fullmatch(stderr)
    assert match
    return re.sub(" +", " ", match["said"])


Popen = subprocess.Popen[str]


@pytest.fixture
def start(container: Any) -> Iterator[Callable[..., Popen]]:
    processes: list[Popen] = []

    def run(*arguments: str | bytes, environment: dict[str, str] | None = None, stdin: int = subprocess.PIPE) -> Popen:
        process = subprocess.Popen(
            [*START, str(container.run_root), *arguments],
            env=ENVIRONMENT | (environment or {}),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="surrogateescape",
        )
        processes.append(process)
        return process

    yield run
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def ran(start: Callable[..., Popen]) -> Callable[..., tuple[str, str, int]]:
    def run(*arguments: str | bytes, **environment: str) -> tuple[str, str, int]:
        variables = {f"NEURON_RT_{name}": value for name, value in environment.items()}
        process = start(*arguments, environment=variables)
        stdout, stderr = process.communicate()
        return stdout, stderr, process.returncode

    return run


@pytest.mark.parametrize(
    ("arguments", "environment", "cores"),
    [
        ([], {}, "0-3"),
        (["--cores", "2"], {}, "0-1"),
        (["--cores=1"], {"VISIBLE_CORES": "2-3"}, "2"),
        ([], {"VISIBLE_CORES": "0,2-3", "NUM_CORES": "1"}, "0,2-3"),
        ([], {"NUM_CORES": "1"}, "0"),
    ],
)
def test_the_command_finds_its_cores_in_the_environment(
    container: Any, some_of: Any, ran: Any, arguments: list[str], environment: dict[str, str], cores: str
) -> None:
    container.add_view(some_of(TORUS, 4))
    show = ["sh", "-c", 'echo "$NEURON_RT_VISIBLE_CORES"; exit 7']
    assert ran(*arguments, "--", *show, **environment) == (f"{cores}\n", "", 7)


def test_the_command_is_the_owner_until_it_is_killed(container: Any, some_of: Any, start: Any, ran: Any) -> None:
    container.add_view(some_of(TORUS, 4))
    owner = start("--cores", "2", "sh", "-c", "echo started; read line; echo not reached")
    assert owner.stdout.readline() == "started\n"
    result = container.neuron_ls("-j", proc_root=Path("/proc"))
    ((process,),) = [device["neuron_processes"] for device in json.loads(result.stdout)]
    assert process == {
        "pid": owner.pid,
        "command": "sh -c echo started; read line; echo n...",
        "neuron_runtime_version": "2.34.10",
    }
    stdout, stderr, status = ran("--", "true", VISIBLE_CORES="1")
    assert (stdout, status) == ("", 1)
    assert said(stderr) == "NRT:nrt_allocate_neuron_cores NeuronCore(s) not available - Requested:nc1-nc1 Available:0"
    assert ran("--cores", "2", "--", "true") == ("", "", 0)
    owner.kill()
    owner.wait()
    assert ran("--", "true") == ("", "", 0)


def test_a_shell_that_uses_low_descriptors_keeps_its_cores(container: Any, some_of: Any, start: Any, ran: Any) -> None:
    container.add_view(some_of(TORUS, 4))
    redirections = " ".join(f"{fd}>&-" for fd in range(3, 10))
    owner = start("sh", "-c", f"exec {redirections}; echo started; read line")
    assert owner.stdout.readline() == "started\n"
    assert ran("true")[2] == 1


def test_the_command_gets_what_we_were_given(container: Any, some_of: Any, ran: Any) -> None:
    container.add_view(some_of(TORUS, 4))
    stdout, _, _ = ran("--", "env")
    assert sorted(stdout.splitlines()) == ["NEURON_RT_VISIBLE_CORES=0-3", f"PATH={ENVIRONMENT['PATH']}"]
    stdout, _, _ = ran("--", "sh", "-c", 'echo "$#" "$@"', "sh", "", "--cores", b"\xff\xc3\xa9")
    assert os.fsencode(stdout) == b"3  --cores \xff\xc3\xa9\n"
    # the interpreter ignores these two signals, which a pipeline in the command relies on
    stdout, _, _ = ran("--", "sed", "-n", "s/SigIgn:\t//p", "/proc/self/status")
    assert int(stdout, 16) & (1 << 12 | 1 << 24) == 0


@pytest.mark.parametrize(
    ("environment", "line", "status"),
    [
        ({"VISIBLE_CORES": "9"}, "NEURON_RT_VISIBLE_CORES=9: name cores of this container, which has 0-3", 2),
        ({"VISIBLE_CORES": "a"}, "'a' is neither a core nor a range of cores: write it like 3, 0-2 or 0,2-3", 2),
        ({"NUM_CORES": "x"}, "NRT:nrt_init NEURON_RT_NUM_CORES=x: give a number of cores, 0 means all", 2),
        ({"NUM_CORES": "5"}, "NeuronCore(s) not available - Requested:5 Available:4", 1),
    ],
)
def test_refusals(container: Any, some_of: Any, ran: Any, environment: dict[str, str], line: str, status: int) -> None:
    container.add_view(some_of(TORUS, 4))
    stdout, stderr, code = ran("--", "echo", "not reached", **environment)
    assert (stdout, code) == ("", status)
    assert said(stderr).endswith(line)


def test_no_device(ran: Any) -> None:
    stdout, stderr, status = ran("--", "true")
    assert (stdout, status) == ("", 1)
    assert said(stderr) == "TDRV:tdrv_get_dev_info No neuron device available"


def test_a_broken_view_says_what_to_do(container: Any, ran: Any) -> None:
    container.add_view("{")
    _, stderr, status = ran("--", "true")
    assert status == 1
    assert "view.json: not a readable view" in said(stderr)
    assert "start the pod anew" in said(stderr)


@pytest.mark.parametrize(
    ("command", "message", "status"),
    [
        ("no-such-command", "neuron-sim-exec: no-such-command: command not found\n", 127),
        ("/no/such", "neuron-sim-exec: /no/such: command not found\n", 127),
        ("/etc/passwd", "neuron-sim-exec: /etc/passwd: Permission denied\n", 126),
    ],
)
def test_commands_that_cannot_be_run(
    container: Any, some_of: Any, ran: Any, command: str, message: str, status: int
) -> None:
    container.add_view(some_of(TORUS, 4))
    assert ran("--", command) == ("", message, status)


@pytest.mark.parametrize(
    ("arguments", "count", "command"),
    [
        (["true"], None, ["true"]),
        (["--", "true", "--cores", "2"], None, ["true", "--cores", "2"]),
        (["--cores", "2", "--", "--cores"], 2, ["--cores"]),
        (["--cores=2", "a", "--", "b"], 2, ["a", "--", "b"]),
        (["-h"], None, []),
        (["--cores", "1", "--help"], None, []),
    ],
)
def test_command_line(arguments: list[str], count: int | None, command: list[str]) -> None:
    assert neuron_sim_exec.parse_arguments(arguments) == (count, command)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a command: neuron-sim-exec [--cores N] -- COMMAND [ARGUMENT...]"),
        (["--"], "give a command: neuron-sim-exec [--cores N] -- COMMAND [ARGUMENT...]"),
        (["--cores", "2"], "give a command: neuron-sim-exec [--cores N] -- COMMAND [ARGUMENT...]"),
        (["--", ""], "give a command: neuron-sim-exec [--cores N] -- COMMAND [ARGUMENT...]"),
        (["--cores"], "--cores : give the number of cores, 1 or more"),
        (["--cores", "0", "true"], "--cores 0: give the number of cores, 1 or more"),
        (["--cores=two", "true"], "--cores two: give the number of cores, 1 or more"),
        (["-c", "2"], "unknown option -c: options are --cores N and --help, the command follows them"),
    ],
)
def test_a_wrong_command_line_is_told(ran: Any, arguments: list[str], message: str) -> None:
    assert ran(*arguments) == ("", f"neuron-sim-exec: {message}\n", 2)


def test_help_needs_no_device(ran: Any) -> None:
    assert ran("--help") == (neuron_sim_exec.USAGE, "", 0)
