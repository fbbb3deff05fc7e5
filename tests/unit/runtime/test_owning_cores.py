"""A core has one owner, and it is a process: real processes that open, race, fork, exec and die.

They run the module as people do who have it on their PYTHONPATH: one file, and a Python without site-packages.
"""

from __future__ import annotations

import ast
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from neuron_runtime import activity, nrt

TORUS = "trn2n.48xlarge"
# Started by its name, as people do: a listed command is cut after 40 characters, a path may be longer.
PYTHON = Path(sys.executable).resolve()
NOT_AVAILABLE = "NRT Error NRT_FAILURE(1): NeuronCore(s) not available - Requested:"
REFUSED = NOT_AVAILABLE + "{} Available:{}"

PREAMBLE = """
import os, signal, sys
from neuron_sim_nrt import NrtError, nrt_close, nrt_init, open_cores

ROOT = sys.argv[1]

def say(*words):
    print(*words, flush=True)

def wait():
    return sys.stdin.readline()

def opened(count=None):
    try:
        cores = open_cores(count, run_root=ROOT)
    except NrtError as error:
        say(error)
        return None
    say(*cores.ids)
    return cores
"""


class Program:
    """A process of a user's, which is told by a line when to go on."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    @property
    def pid(self) -> int:
        return self.process.pid

    def says(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


Start = Callable[..., Program]


@pytest.fixture
def client(tmp_path: Path) -> Path:
    """The folder for the PYTHONPATH, as the runtime tree has it."""
    folder = tmp_path / "python-client"
    folder.mkdir()
    shutil.copy(nrt.__file__, folder / "neuron_sim_nrt.py")
    return folder


@pytest.fixture
def start(container: Any, client: Path) -> Iterator[Start]:
    """Starts a script in the container."""
    programs: list[Program] = []

    def run(script: str, *, python: Path = PYTHON, **environment: str) -> Program:
        variables = {f"NEURON_RT_{name}": value for name, value in environment.items()}
        process = subprocess.Popen(
            [python.name, "-SBW", "error", "-c", PREAMBLE + script, str(container.run_root)],
            executable=python,
            env={"PYTHONPATH": str(client), "PATH": f"{python.parent}:{os.environ['PATH']}"} | variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        programs.append(Program(process))
        return programs[-1]

    yield run
    for program in programs:
        program.process.kill()
        program.process.communicate()


HOLD = "cores = opened(); wait()"


def listed(container: Any, *flags: str) -> list[list[tuple[int, str, str]]]:
    result = container.neuron_ls("-j", *flags, proc_root=Path("/proc"))
    return [
        [(p["pid"], p["command"].split()[0], p["neuron_runtime_version"]) for p in device["neuron_processes"]]
        for device in json.loads(result.stdout)
    ]


def test_a_second_claimant_is_refused_until_the_owner_ends(container: Any, some_of: Any, start: Start) -> None:
    container.add_view(some_of(TORUS, 4))
    owner = start(HOLD, VISIBLE_CORES="1-2")
    assert owner.says() == "1 2"
    assert start(HOLD, VISIBLE_CORES="1").says() == REFUSED.format("nc1-nc1", 0)
    assert start(HOLD).says() == REFUSED.format(4, 1)
    assert start(HOLD, VISIBLE_CORES="0,3").says() == "0 3"
    owner.go_on()
    owner.process.wait()
    assert start(HOLD, VISIBLE_CORES="1").says() == "1"


def test_refused_claimants_hold_nothing_and_leave_the_runtimes_line(container: Any, some_of: Any, start: Start) -> None:
    container.add_view(some_of(TORUS, 4))
    start(HOLD, VISIBLE_CORES="3").says()
    refused = start("opened(); say(sys.stdin.readline()); open_cores(run_root=ROOT)")
    refused.says()
    assert start(HOLD, VISIBLE_CORES="0-2").says() == "0 1 2"
    refused.go_on()
    _, stderr = refused.process.communicate()
    line = "ERROR   NRT:nrt_allocate_neuron_cores               NeuronCore(s) not available - Requested:4 Available:"
    assert f"{line}3\n" in stderr
    assert f"{line}0\n" in stderr
    assert refused.process.returncode == nrt.NRT_FAILURE


def test_cores_come_free_when_the_owner_is_killed(container: Any, some_of: Any, start: Start) -> None:
    container.add_view(some_of(TORUS, 4))
    owner = start(HOLD)
    assert owner.says() == "0 1 2 3"
    owner.kill()
    assert start(HOLD).says() == "0 1 2 3"


def test_children_own_nothing_and_keep_nothing_when_the_owner_is_killed(
    container: Any, some_of: Any, start: Start
) -> None:
    container.add_view(some_of(TORUS, 4))
    owner = start(
        """
cores = opened()
child = os.fork()
if not child:
    opened()
    say(os.getpid())
    wait()
    opened()
    cores.close()
    say("closed the parent's")
    signal.pause()
wait()
"""
    )
    assert owner.says() == "0 1 2 3"
    assert owner.says() == REFUSED.format(4, 0)
    child = int(owner.says())
    try:
        assert listed(container) == [[(owner.pid, PYTHON.name, "2.34.10")]]
        owner.kill()
        assert listed(container) == [[]]
        # the child is still there, and may have them now
        owner.go_on()
        assert [owner.says(), owner.says()] == ["0 1 2 3", "closed the parent's"]
        assert listed(container) == [[(child, PYTHON.name, "2.34.10")]]
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_command_that_the_owner_becomes_owns_on(container: Any, some_of: Any, start: Start) -> None:
    container.add_view(some_of(TORUS, 4))
    owner = start(
        """
from neuron_sim_nrt import given_cores, given_views, open_given
open_given(given_cores(given_views(ROOT)), count=2, environment={}, inheritable=True)
os.execv("/bin/sh", ["/bin/sh", "-c", "sh -c 'echo on; read line'; exit 3"])
"""
    )
    assert owner.says() == "on"
    assert listed(container) == [[(owner.pid, "/bin/sh", "2.34.10")]]
    assert start(HOLD, VISIBLE_CORES="1").says() == REFUSED.format("nc1-nc1", 0)
    owner.process.kill()
    owner.process.wait()
    # though its child lives, with the same descriptors
    assert start(HOLD).says() == "0 1 2 3"


def test_a_program_may_open_what_it_was_started_with(container: Any, some_of: Any, start: Start) -> None:
    container.add_view(some_of(TORUS, 4))
    program = start(
        """
if "again" not in sys.argv:
    from neuron_sim_nrt import given_cores, given_views, open_given
    open_given(given_cores(given_views(ROOT)), count=3, environment={}, inheritable=True)
    os.environ["NEURON_RT_VISIBLE_CORES"] = "0-2"
    os.execv(sys.executable, [*sys.orig_argv, "again"])
opened(9)
cores = opened()
wait()
cores.close()
say("closed")
wait()
"""
    )
    assert program.says() == REFUSED.format(9, 3)
    assert program.says() == "0 1 2"
    # what it asked for in vain, and had already, is still its own
    assert start(HOLD, VISIBLE_CORES="2").says() == REFUSED.format("nc2-nc2", 0)
    program.go_on()
    assert program.says() == "closed"
    assert start(HOLD).says() == "0 1 2 3"


def test_one_of_many_wins(container: Any, some_of: Any, start: Start) -> None:
    container.add_view(some_of(TORUS, 4))
    claimants = [start("say('ready'); wait(); opened(); wait()") for _ in range(6)]
    for claimant in claimants:
        assert claimant.says() == "ready"
    for claimant in claimants:
        claimant.go_on()
    assert sorted(claimant.says() for claimant in claimants) == ["0 1 2 3"] + [REFUSED.format(4, 0)] * 5


def test_workers_that_start_together_all_find_their_share(container: Any, some_of: Any, start: Start) -> None:
    container.add_view(some_of(TORUS, 4, 5))
    workers = [start("say('ready'); wait(); opened(); wait()", NUM_CORES="2") for _ in range(4)]
    for worker in workers:
        assert worker.says() == "ready"
    for worker in workers:
        worker.go_on()
    assert sorted(worker.says() for worker in workers) == ["0 1", "2 3", "4 5", "6 7"]


def test_in_hundreds_of_races_no_two_are_in_at_once(container: Any, some_of: Any, start: Start, tmp_path: Path) -> None:
    container.add_view(some_of(TORUS, 4))
    # each core has a mark of its own, which only one process at a time can make
    script = f"""
sys.stderr = None
say("ready")
wait()
wins = turn = 0
# not a number of turns: all of them pass in vain while the owner waits for a processor
while wins < 30:
    turn += 1
    try:
        cores = open_cores(1 + turn % 3, run_root=ROOT)
    except NrtError:
        continue
    marks = ["{tmp_path}/mark-%d" % core for core in cores.ids]
    for mark in marks:
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
    for mark in marks:
        os.unlink(mark)
    cores.close()
    wins += 1
say(wins)
"""
    racers = [start(script) for _ in range(4)]
    for racer in racers:
        assert racer.says() == "ready"
    for racer in racers:
        racer.go_on()
    wins = [racer.says() for racer in racers]
    errors = [racer.process.communicate()[1] for racer in racers]
    assert errors == [""] * 4
    assert wins == ["30"] * 4


def test_one_process_does_not_get_a_core_twice(container: Any, some_of: Any, start: Start) -> None:
    container.add_view(some_of(TORUS, 4))
    program = start(
        """
first = opened(1)
with opened(2):
    opened(2)
    opened(1)
    first.close()
    first.close()
    opened(1)
opened(2)
wait()
"""
    )
    said = [program.says() for _ in range(6)]
    assert said == ["0", "1 2", REFUSED.format(2, 1), "3", "0", "1 2"]
    assert listed(container) == [[(program.pid, PYTHON.name, "2.34.10")]]


def test_runtime_functions(container: Any, some_of: Any, start: Start) -> None:
    container.add_view(some_of(TORUS, 4))
    program = start(
        """
import neuron_sim_nrt
neuron_sim_nrt.open_cores.__kwdefaults__["run_root"] = ROOT
say(*nrt_init().ids)
say(*nrt_init().ids)
nrt_close()
nrt_close()
opened()
"""
    )
    assert [program.says() for _ in range(3)] == ["0 1 2 3"] * 3


def test_claims_of_one_container_are_numbered_as_they_are_listed(container: Any, some_of: Any, start: Start) -> None:
    container.add_view(some_of(TORUS, 5, 6), claim="b")
    container.add_view(some_of(TORUS, 9), claim="a")
    owner = start(HOLD, VISIBLE_CORES="3-4")
    assert owner.says() == "3 4"
    holder = (owner.pid, PYTHON.name, "2.34.10")
    assert listed(container) == [[holder], [holder], []]


def test_part_of_a_chip(container: Any, some_of: Any, start: Start) -> None:
    view = some_of(TORUS, 4)
    view["devices"][0] |= {"core_count": 3, "core_ids": [0, 2, 3], "memory_bytes": 3 * 24 << 30}
    container.add_view(view)
    assert "| 0      | 3      | 0,2-3    | 72 GB  |" in container.neuron_ls().stdout
    owner = start(HOLD)
    assert owner.says() == "0 2 3"
    owner.kill()
    assert start(HOLD, NUM_CORES="3").says() == "NRT Error NRT_INVALID(2): Neuron cores are not contiguous"
    assert start(HOLD, NUM_CORES="2").says() == "2 3"


def test_no_device(start: Start) -> None:
    program = start("open_cores(run_root=ROOT)")
    _, stderr = program.process.communicate()
    assert "ERROR  TDRV:tdrv_get_dev_info                       No neuron device available\n" in stderr


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "view.json").write_text("{"), "view.json: not a readable view"),
        (lambda folder: shutil.rmtree(folder / "cores"), "No such file or directory"),
        (lambda folder: (folder / "cores" / "2").unlink(), "No such file or directory"),
    ],
)
def test_a_broken_claim_says_what_to_do(
    container: Any, some_of: Any, start: Start, damage: Callable[[Path], object], words: str
) -> None:
    folder = container.add_view(some_of(TORUS, 4)).parent
    damage(folder)
    said = start(HOLD).says()
    assert words in said
    assert "start the pod anew" in said


def test_the_listing_does_without_core_files(container: Any, some_of: Any) -> None:
    folder = container.add_view(some_of(TORUS, 4)).parent
    shutil.rmtree(folder / "cores")
    assert listed(container) == [[]]


def test_owners_are_listed_like_runtimes_that_opened_the_device(container: Any, some_of: Any, start: Start) -> None:
    container.add_view(some_of(TORUS, 4, 5))
    first = start(HOLD, VISIBLE_CORES="0-3")
    first.says()
    second = start(HOLD, VISIBLE_CORES="4")
    second.says()
    owners = {program.pid: device for device, program in enumerate([first, second])}
    by_locks = listed(container, "-a")
    assert by_locks == [[(first.pid, PYTHON.name, "2.34.10")], [(second.pid, PYTHON.name, "2.34.10")]]
    # the same two, as the library's users are found
    for pid, device in owners.items():
        container.add_process(pid, PYTHON.name, devices=[device])
    first.kill()
    second.kill()
    result = container.neuron_ls("-j", "-a")
    by_library = [[p["pid"] for p in device["neuron_processes"]] for device in json.loads(result.stdout)]
    assert by_library == [[first.pid], [second.pid]]


@pytest.mark.parametrize("module", [nrt, activity])
def test_the_modules_are_python_3_8_and_load_the_standard_library_alone(module: ModuleType) -> None:
    source = Path(str(module.__file__)).read_text()
    tree = ast.parse(source, feature_version=(3, 8))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    guarded = {
        id(node)
        for block in tree.body
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    names = itertools.chain.from_iterable(
        [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        for node in imports
        if id(node) not in guarded
    )
    assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names


def _other_pythons() -> list[str]:
    """The older and newer interpreters of this machine that run."""
    found = []
    for minor in range(8, 16):
        path = shutil.which(f"python3.{minor}")
        works = path and subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode == 0
        if path and works and minor != sys.version_info.minor:
            found.append(path)
    return found


def test_other_pythons_of_this_machine(container: Any, some_of: Any, start: Start) -> None:
    container.add_view(some_of(TORUS, 4))
    for python in _other_pythons():
        owner = start("cores = opened(2); opened(); wait()", python=Path(python))
        assert owner.says() == "0 1"
        assert owner.says() == REFUSED.format(4, 2)
        owner.kill()
