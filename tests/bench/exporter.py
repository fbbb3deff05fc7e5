"""What a node's page costs: a trn2.48xlarge with 16 pods, each of which reports once a second.

    python tests/bench/exporter.py

The agent's own server and sockets run in a process of their own, which is scraped over TCP; the pods are connections
to the claims' sockets. Beside it, the same data through prometheus_client's `generate_latest`, in one process and in
turn, so that only the ratio counts. The goals are those of the project.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from neuron_dra_driver.activity import claim_socket
from neuron_dra_driver.activity.board import Board
from neuron_dra_driver.activity.exposition import Shown
from neuron_dra_driver.agent import http_server
from neuron_dra_driver.metrics import Metrics
from node_page import busy_node, page_of, rendered, report_of, requests
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families

PODS = 16
OPENMETRICS = b"Accept: application/openmetrics-text;version=1.0.0\r\n"


async def export(folder: Path) -> None:
    """The agent's part: sockets, boards, page. Prints its port, then a line of CPU seconds for each on its input."""
    node = busy_node("worker-1")
    template = requests(node)
    boards = [Board(range(4)) for _ in template]
    serving = []
    for number, board in enumerate(boards):
        (folder / str(number)).mkdir()
        listener = claim_socket.bind(folder / str(number))
        served = claim_socket.ClaimSocket(listener, board, name=str(number))
        serving.append(asyncio.create_task(served.serve()))
    own = Metrics()

    async def page() -> tuple[int, bytes]:
        shown = [
            Shown(one.claim, one.view, one.pods, board.processes()) for one, board in zip(template, boards, strict=True)
        ]
        return 200, own.render() + rendered(node, shown)

    server = await http_server.serve({"/metrics": page}, port=0, host="127.0.0.1")
    print(server.sockets[0].getsockname()[1], flush=True)
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        spent = os.times()
        print(spent.user + spent.system, flush=True)


class Exporter:
    """The process with the agent's part."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self._process = process
        self._port = port

    async def cpu(self) -> float:
        """Seconds that it has used."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(b"\n")
        return float(await self._process.stdout.readline())

    async def scrape(self, header: bytes = b"") -> tuple[float, bytes]:
        """Seconds, and the page."""
        begin = time.perf_counter()
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(b"GET /metrics HTTP/1.1\r\n" + header + b"\r\n")
        answer = await reader.read()
        took = time.perf_counter() - begin
        writer.close()
        await writer.wait_closed()
        return took, answer.partition(b"\r\n\r\n")[2]


async def report(folder: Path) -> None:
    """A pod that reports once a second."""
    number = int(folder.name)
    _, writer = await asyncio.open_unix_connection(str(folder / claim_socket.NAME))
    begin = time.monotonic()
    try:
        while True:
            said = report_of(number, age=100 + time.monotonic() - begin)
            writer.write(json.dumps(said).encode() + b"\n")
            await asyncio.sleep(1)
    finally:
        writer.close()


async def news(folder: Path, exporter: Exporter, rounds: int) -> tuple[list[float], int]:
    """Seconds from a process' report to the end of the first scrape that shows it, and how often that was the next one.

    So a sample in Prometheus is as old as its scrape interval and this, at most.
    """
    reader, writer = await asyncio.open_unix_connection(str(folder / claim_socket.NAME))
    taken, next_one = [], 0
    for number in range(rounds):
        said = {**report_of(0, age=100), "tag": f"round-{number}"}
        mark = f'runtime_tag="round-{number}"'.encode()
        begin = time.perf_counter()
        writer.write(json.dumps(said).encode() + b"\n")
        scrapes = 1
        while mark not in (await exporter.scrape())[1]:
            assert not reader.at_eof(), "the report was refused"
            scrapes += 1
        taken.append(time.perf_counter() - begin)
        next_one += scrapes == 1
        await asyncio.sleep(claim_socket.INTERVAL)  # or it would be slowed down
    writer.close()
    return taken, next_one


def spread(taken: list[float]) -> str:
    """p50 and p99 in milliseconds."""
    ordered = sorted(taken)
    return f"{statistics.median(ordered) * 1000:.1f} / {ordered[int(len(ordered) * 0.99)] * 1000:.1f}"


def beside_the_client_library(rounds: int) -> tuple[float, float]:
    """Seconds of CPU to render the page, by us and by prometheus_client."""
    node = busy_node("worker-1")
    shown = requests(node)
    own = Metrics()
    text = page_of(node).decode()
    families = list(text_string_to_metric_families(text))

    class Known:
        def collect(self) -> list[Metric]:
            return families

    registry = CollectorRegistry()
    registry.register(Known())  # type: ignore[arg-type]
    ours, theirs = [], []
    for _ in range(rounds):
        begin = time.process_time()
        own.render() + rendered(node, shown)
        between = time.process_time()
        generate_latest(registry)
        ours.append(between - begin)
        theirs.append(time.process_time() - between)
    return statistics.median(ours), statistics.median(theirs)


async def measure(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            __file__,
            "--export",
            name,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout
        exporter = Exporter(process, int(await process.stdout.readline()))
        pods = [asyncio.create_task(report(folder / str(number))) for number in range(PODS)]
        await asyncio.sleep(2)
        before, begin = await exporter.cpu(), time.monotonic()
        await asyncio.sleep(args.seconds)
        percent = 100 * (await exporter.cpu() - before) / (time.monotonic() - begin)
        rows: list[tuple[str, str, str]] = []
        for what, header in (("text", b""), ("OpenMetrics", OPENMETRICS)):
            found: Any = [await exporter.scrape(header) for _ in range(args.scrapes)]
            rows.append((f"a scrape as {what}, p50 / p99 ms", spread([took for took, _ in found]), "p99 < 20"))
        page = found[-1][1].decode()
        before = await exporter.cpu()
        for _ in range(args.scrapes):
            await exporter.scrape()
        of_scrape = (await exporter.cpu() - before) / args.scrapes
        for pod in pods:
            pod.cancel()
        await asyncio.gather(*pods, return_exceptions=True)
        await exporter.scrape()  # by then it has heard that their cores are free
        heard, next_one = await news(folder / "0", exporter, args.reports)
        process.kill()
        await process.wait()
    ours, theirs = beside_the_client_library(args.scrapes)
    series = sum(not line.startswith("#") for line in page.splitlines())
    rows += [
        ("series / KiB", f"{series} / {len(page) / 1024:.0f}", ""),
        ("from a report to the end of a scrape that shows it, p50 / p99 ms", spread(heard), ""),
        ("reports that the next scrape shows", f"{next_one} of {args.reports}", "all"),
        ("CPU of a scrape, ms", f"{of_scrape * 1000:.1f}", ""),
        (
            "CPU to render, ms: ours / generate_latest of the same",
            f"{ours * 1000:.1f} / {theirs * 1000:.1f} = 1 : {theirs / ours:.1f}",
            "≥ 3",
        ),
        ("CPU for 16 reports a second, percent of a core", f"{percent:.2f}", "< 2"),
    ]
    print(f"| trn2.48xlarge, {PODS} active pods | | goal |\n| --- | --- | --- |")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scrapes", type=int, default=500)
    parser.add_argument("--reports", type=int, default=100, help="whose way to a page is measured")
    parser.add_argument("--seconds", type=float, default=30, help="of reports whose CPU is measured")
    parser.add_argument("--export", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    asyncio.run(export(args.export) if args.export else measure(args))


if __name__ == "__main__":
    main()
