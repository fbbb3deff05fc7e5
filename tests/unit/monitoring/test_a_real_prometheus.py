"""A real Prometheus scrapes the real pages: it takes every sample, and every query of every dashboard finds data."""

import asyncio
import json
import urllib.parse
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import yaml
from grafana_queries import AWS, RULES, asked, looked_at
from neuron_dra_driver.agent import http_server
from neuron_operator import metrics as operator_metrics
from neuron_operator.gangs.records import Phase
from neuron_operator.topology import UltraServer
from node_page import busy_node, page_of
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

FAULT = {"name": "drill", "type": "Hang", "chip": 3, "effect": "NoSchedule", "since": "2026-01-01T00:00:00Z"}


def pages() -> Mapping[str, bytes]:
    """By node: two busy servers of an UltraServer, and the operator, everything set as where something goes on."""
    for phase in get_args(Phase):
        operator_metrics.GANGS.labels(phase).set(0)
    states = get_type_hints(UltraServer.state.fget)["return"]
    for state in get_args(states):
        operator_metrics.ULTRASERVERS.labels(state).set(0)
    operator_metrics.FAULTS.labels("true").set(1)
    operator_metrics.POOL_NODES.labels("default").set(2)
    operator_metrics.POOL_READY_NODES.labels("default").set(2)
    operator_metrics.LEADER.set(1)
    return {
        "worker-1": page_of(busy_node("worker-1", server=0, faults=[FAULT])),
        "worker-2": page_of(busy_node("worker-2", server=1)),
        "control-plane": generate_latest(),
    }


class Server:
    """A running Prometheus."""

    def __init__(self, port: int, samples: int) -> None:
        self._port = port
        self.samples = samples
        """How many all pages together have."""

    async def query(self, expr: str) -> list[dict[str, Any]]:
        """The series of an instant query."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        path = f"/api/v1/query?{urllib.parse.urlencode({'query': expr})}"
        writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        _, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()
        answer = json.loads(body)
        assert answer["status"] == "success", f"{expr}: {answer}"
        return list(answer["data"]["result"])

    async def eventually(self, expr: str) -> list[dict[str, Any]]:
        """Its series, once there are any."""
        async with asyncio.timeout(60):
            while not (found := await self.query(expr)):  # noqa: ASYNC110 - a server does not call back
                await asyncio.sleep(0.05)
        return found


@pytest.fixture
async def server(prometheus: str, tmp_path: Path) -> AsyncIterator[Server]:
    shown = pages()
    serving = {node: await _serve(page) for node, page in shown.items()}
    targets = [
        {"targets": [f"127.0.0.1:{one.sockets[0].getsockname()[1]}"], "labels": {"node": node, "pod": f"of-{node}"}}
        for node, one in serving.items()
    ]
    config = {
        "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"},
        "rule_files": [str(RULES)],
        "scrape_configs": [{"job_name": "neuron-sim", "honor_labels": True, "static_configs": targets}],
    }
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    process = await asyncio.create_subprocess_exec(
        prometheus,
        f"--config.file={tmp_path / 'prometheus.yml'}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        "--web.listen-address=127.0.0.1:0",
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr
    async for line in process.stderr:
        if b'"Listening on"' in line:
            break
    port = int(line.rpartition(b":")[2])
    rest = asyncio.create_task(process.stderr.read())
    families = [text_string_to_metric_families(page.decode()) for page in shown.values()]
    yield Server(port, sum(len(family.samples) for page in families for family in page))
    process.kill()
    await process.wait()
    await rest
    for one in serving.values():
        one.close()
        await one.wait_closed()


async def _serve(page: bytes) -> asyncio.Server:
    async def answer() -> tuple[int, bytes]:
        return 200, page

    return await http_server.serve({"/metrics": answer}, port=0, host="127.0.0.1")


async def test_every_sample_is_taken_and_every_query_finds_data(server: Server) -> None:
    await server.eventually("sum(up) == 3")
    await server.eventually(f"sum(scrape_samples_post_metric_relabeling) == {server.samples}")
    # honor_labels: pods are those that use the cores, and where nobody does, the one that is scraped
    of_pods = await server.query('count by (pod) (neuroncore_utilization_ratio{node="worker-1"})')
    assert {one["metric"]["pod"] for one in of_pods} == {f'pod-{chip} "\\' for chip in range(16)}
    (of_agents,) = await server.query('count by (pod) (system_vcpu_count{node="worker-1"})')
    assert of_agents["metric"] == {"pod": "of-worker-1"}

    for expr in AWS:
        await server.eventually(expr)
    never = set()
    for place, expr in asked():
        try:
            await server.eventually(expr)
        except TimeoutError:
            never.add(place)
    assert not never


async def test_rules_look_at_what_is_there(server: Server) -> None:
    """With its labels: an alert that asks for a value that nobody writes never fires, and promtool cannot know."""
    never = set()
    for rule, selector in looked_at():
        try:
            await server.eventually(selector)
        except TimeoutError:
            never.add((rule, selector))
    assert not never


async def test_rules_are_evaluated(server: Server) -> None:
    (cores,) = await server.eventually("ultraserver:neuroncore_utilization:avg")
    assert cores["metric"]["ultraserver_id"] == "us-1"
    (fault,) = await server.eventually('ALERTS{alertname="NeuronFaultActive", alertstate="firing"}')
    assert (fault["metric"]["type"], fault["metric"]["node"]) == ("Hang", "worker-1")
