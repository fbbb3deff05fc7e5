"""The process around the agent: command line, log lines, pages, what a node is, its status."""

import asyncio
import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from neuron_dra_driver.__main__ import arguments, main, settings
from neuron_dra_driver.agent.agent import http_server
from neuron_dra_driver.agent.logging_json import JsonFormatter
from neuron_dra_driver.agent.status import Readiness, neuron_node_status
from neuron_dra_driver.errors import AgentError, NodeError
from neuron_dra_driver.node import from_neuron_node, standalone
from neuron_dra_driver.prepared.runtime_tree import RuntimeTrees


def test_defaults_are_the_nodes_own_folders() -> None:
    found = settings(arguments().parse_args(["--node-name", "worker-1"]))
    assert found.plugins_dir == Path("/var/lib/kubelet/plugins")
    assert found.cdi_dir == Path("/var/run/cdi")
    assert (found.driver_name, found.metrics_port, found.standalone) == ("neuron.aws.com", 8000, None)


def test_alone_the_node_is_what_the_flags_say() -> None:
    flags = ["--node-name", "n", "--instance-type", "trn2.48xlarge", "--logical-neuron-core", "1"]
    found = settings(arguments().parse_args(flags)).standalone
    assert found
    assert (len(found.devices), found.logical_neuron_core) == (16, 1)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ([], "give --node-name or set NODE_NAME"),
        (["--node-name", "n", "--sdk-version", "2.32.0"], "need --instance-type"),
        (["--node-name", "n", "--instance-type", "trn2.48xl"], "trn2.48xlarge"),
        (["--node-name", "n", "--instance-type", "trn2.48xlarge", "--logical-neuron-core", "4"], "set it to 1 or 2"),
    ],
)
def test_flags_that_make_no_sense_say_so(flags: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NODE_NAME", raising=False)
    with pytest.raises(AgentError, match=sentence):
        settings(arguments().parse_args(flags))


def test_the_process_ends_with_a_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("NODE_NAME", raising=False)
    root = logging.getLogger()
    before = (root.level, root.handlers[:])
    assert main([]) == 1
    root.level, root.handlers = before[0], before[1]
    assert "NODE_NAME" in json.loads(capsys.readouterr().err)["message"]


def test_log_lines_are_json_with_what_the_caller_added() -> None:
    record = logging.makeLogRecord({"msg": "claim %s", "args": ("a",), "claim_uid": "u", "levelname": "INFO"})
    line = json.loads(JsonFormatter().format(record))
    assert (line["message"], line["claim_uid"], line["level"]) == ("claim a", "u", "info")


def test_the_agent_imports_nothing_heavy() -> None:
    """Its memory is a budget on every node: no models of Kubernetes, no YAML."""
    code = "import sys, neuron_dra_driver.__main__; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"yaml", "tomllib", "pydantic", "kubernetes", "kopf", "aiohttp", "prometheus_client", "importlib.metadata"}
    assert heavy.isdisjoint(loaded)


async def page() -> tuple[int, bytes]:
    return 200, b"here\n"


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET /metrics HTTP/1.1", b"200"),
        (b"GET /metrics?x=1 HTTP/1.1", b"200"),
        (b"GET / HTTP/1.1", b"404"),
        (b"POST /metrics HTTP/1.1", b"400"),
        (b"nonsense", b"400"),
    ],
)
async def test_pages(request_line: bytes, status: bytes) -> None:
    server = await http_server.serve({"/metrics": page}, port=0, host="127.0.0.1")
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(request_line + b"\r\nHost: h\r\n\r\n")
    answer = await reader.read()
    assert answer.split(b" ")[1] == status
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()


NEURON_NODE: dict[str, Any] = {
    "metadata": {"name": "worker-1", "generation": 3},
    "spec": {"instanceType": "trn2.48xlarge", "logicalNeuronCore": 1, "instanceID": "i-1", "networkNodes": ["a", "b"]},
}


def test_a_neuron_node_is_resolved() -> None:
    node = from_neuron_node(NEURON_NODE)
    attributes = node.devices["neuron-device-5"]["attributes"]
    assert (node.logical_neuron_core, node.instance_id) == (1, "i-1")
    assert attributes["networkNodeLayer2"] == {"string": "b"}
    assert attributes["neuronDriverVersion"] == {"string": node.sdk.driver_version}
    assert attributes["neuron-sim.dev/simulated"] == {"bool": True}


def test_alone_a_node_keeps_its_identity() -> None:
    one, again, other = (standalone(name=n, type_name="trn2.48xlarge").instance_id for n in ("a", "a", "b"))
    assert one == again != other


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"instanceType": "trn9.large"}, "UnknownInstanceType"),
        ({"instanceType": "trn2.48xlarge", "sdkVersion": "0.1"}, "UnknownSdkVersion"),
        ({"instanceType": "trn2.48xlarge", "logicalNeuronCore": 3}, "InvalidLogicalNeuronCore"),
    ],
)
def test_a_neuron_node_that_makes_no_sense(spec: dict[str, Any], reason: str) -> None:
    with pytest.raises(NodeError) as refused:
        from_neuron_node(NEURON_NODE | {"spec": spec})
    assert refused.value.reason == reason


def test_status_keeps_the_time_of_a_condition_that_did_not_change() -> None:
    def status(node: dict[str, Any], *, ready: bool, now: str, quarantined: tuple[str, ...] = ()) -> dict[str, Any]:
        readiness = Readiness(ready, "Serving" if ready else "NotRegistered", "a sentence")
        return neuron_node_status(
            node,
            readiness=readiness,
            devices=16,
            prepared_claims=2,
            other_road_claims=0,
            quarantined=quarantined,
            now=now,
        )

    first = status(NEURON_NODE, ready=False, now="1")
    second = status(NEURON_NODE | {"status": first}, ready=False, now="2")
    third = status(NEURON_NODE | {"status": second}, ready=True, now="3", quarantined=("checkpoint.jsonl.corrupt-1",))
    assert first == second
    assert first["observedGeneration"] == 3
    ready, quarantined = third["conditions"]
    assert (ready["status"], ready["lastTransitionTime"]) == ("True", "3")
    assert (quarantined["type"], quarantined["status"]) == ("CheckpointQuarantined", "True")
    assert "corrupt-1" in quarantined["message"]


def test_a_damaged_copy_of_the_tools_is_made_anew(tree: Path, tmp_path: Path) -> None:
    copy = RuntimeTrees(tree, tmp_path / "runtime").ensure()
    assert copy.tools == ("neuron-ls", "neuron-top")
    assert (copy.path / "lib").is_symlink()
    (copy.path / "bin" / "neuron-ls").write_text("")
    assert (RuntimeTrees(tree, tmp_path / "runtime").ensure().path / "bin" / "neuron-ls").read_text()


def test_tools_of_another_version_stay_while_used(tree: Path, tmp_path: Path) -> None:
    trees = RuntimeTrees(tree, tmp_path / "runtime")
    old = trees.ensure()
    (tree / "bin" / "neuron-ls").write_text("new\n")
    newer = RuntimeTrees(tree, tmp_path / "runtime")
    new = newer.ensure()
    newer.prune(used={old.digest}, keep_own=True)
    assert old.path.is_dir()
    assert new.path.is_dir()
    newer.prune(used=(), keep_own=True)
    assert not old.path.exists()
    assert trees.ensure().path.is_dir(), "an agent of the old version that still runs brings its own back"


def test_an_image_without_tools_says_so(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="--runtime-tree"):
        RuntimeTrees(tmp_path / "none", tmp_path / "runtime").ensure()
