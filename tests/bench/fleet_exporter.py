"""What the metrics of 1,000 virtual nodes cost, of which 100 have a pod with a profile on each of their 16 chips.

    python tests/bench/fleet_exporter.py

The page of the agent of virtual nodes, served by its own server in a process of its own and scraped over TCP. Beside
it, the same data through prometheus_client's `generate_latest`, in one process and in turn, so that only the ratio
counts. The goals are those of the project.
"""

import argparse
import asyncio
import os
import resource
import statistics
import sys
import time
from collections.abc import AsyncGenerator
from typing import Any

import uvloop
from neuron_dra_driver.agent import http_server
from neuron_dra_driver.virtual_nodes.device_page import FRESH, DevicePage
from neuron_dra_driver.virtual_nodes.workloads import Workloads
from virtual_fleet import DRIVER, neuron_node, occupy, tell

OPENMETRICS = b"Accept: application/openmetrics-text;version=1.0.0\r\n"


def fleet(nodes: int, active: int) -> DevicePage:
    """The page of so many nodes."""
    workloads = Workloads(driver=DRIVER)
    page = DevicePage(workloads, clock=time.time)
    for number in range(nodes):
        network = {"networkNodes": ["nn-1", "nn-2", f"nn-of-{number // 16}"]}
        tell(page, neuron_node(f"rainier-{number}", **network))
        if number < active:
            occupy(workloads, f"rainier-{number}")
    return page


async def export(nodes: int, active: int) -> None:
    """The agent's part. Prints its port, then for each line on its input CPU seconds and the most memory, in KiB."""
    devices = fleet(nodes, active)

    async def page() -> AsyncGenerator[bytes, None]:
        async for block in devices.blocks():
            yield block

    server = await http_server.serve({}, streams={"/metrics": page}, port=0, host="127.0.0.1")
    print(server.sockets[0].getsockname()[1], flush=True)
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        spent = os.times()
        print(spent.user + spent.system, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, flush=True)


async def scrape(port: int, header: bytes = b"") -> tuple[float, float, int, int]:
    """Seconds until the first byte and until the last, bytes, and series; nothing of the page is kept."""
    begin = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    writer.write(b"GET /metrics HTTP/1.1\r\n" + header + b"\r\n")
    await reader.readuntil(b"\r\n\r\n")
    first = time.perf_counter() - begin
    size = series = 0
    while length := int(await reader.readline(), 16):
        block = await reader.readexactly(length)
        await reader.readexactly(2)
        size += length
        series += 0 if block.startswith(b"#") else block.count(b"\n")
    took = time.perf_counter() - begin
    writer.close()
    await writer.wait_closed()
    return first, took, size, series


async def beside_the_client_library(nodes: int, active: int, rounds: int) -> tuple[float, float]:
    """Seconds of CPU to make the page, by us and by prometheus_client."""
    from prometheus_client import CollectorRegistry, Metric, generate_latest
    from prometheus_client.parser import text_string_to_metric_families

    page = fleet(nodes, active)
    text = b"".join([block async for block in page.blocks()]).decode()
    families = list(text_string_to_metric_families(text))
    del text

    class Known:
        def collect(self) -> list[Metric]:
            return families

    registry = CollectorRegistry()
    registry.register(Known())  # type: ignore[arg-type]
    ours, theirs = [], []
    for _ in range(rounds):
        begin = time.process_time()
        async for _block in page.blocks():
            pass
        between = time.process_time()
        generate_latest(registry)
        ours.append(between - begin)
        theirs.append(time.process_time() - between)
        await asyncio.sleep(FRESH)
    return statistics.median(ours), statistics.median(theirs)


async def measure(args: argparse.Namespace) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        __file__,
        "--export",
        f"--nodes={args.nodes}",
        f"--active={args.active}",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin
    assert process.stdout
    port = int(await process.stdout.readline())

    async def spent() -> tuple[float, float]:
        assert process.stdin
        assert process.stdout
        process.stdin.write(b"\n")
        seconds, kib = (await process.stdout.readline()).split()
        return float(seconds), int(kib) / 1024

    _, empty = await spent()
    await scrape(port)
    before, _ = await spent()
    found: list[tuple[float, float, int, int]] = []
    for number in range(args.scrapes):
        await asyncio.sleep(FRESH)  # or the work of the scrape before would be shared
        found.append(await scrape(port, OPENMETRICS if number % 2 else b""))
    after, memory = await spent()
    together = await asyncio.gather(*(scrape(port) for _ in range(10)))
    _, memory_of_ten = await spent()
    process.kill()
    await process.wait()
    ours, theirs = await beside_the_client_library(args.nodes, args.active, args.rounds)
    took = sorted(seconds for _, seconds, _, _ in found)
    rows: list[tuple[str, Any, str]] = [
        ("a scrape, p50 / worst s", f"{statistics.median(took):.2f} / {took[-1]:.2f}", "< 1"),
        ("until its first byte, worst s", f"{max(first for first, _, _, _ in found):.2f}", ""),
        ("CPU of a scrape, s", f"{(after - before) / args.scrapes:.2f}", ""),
        ("series / MiB", f"{found[0][3]} / {found[0][2] / (1 << 20):.1f}", ""),
        ("memory of the process, at most: before / with scrapes, MiB", f"{empty:.0f} / {memory:.0f}", "< 200"),
        (
            "ten scrapes at once: the last s / memory MiB",
            f"{max(seconds for _, seconds, _, _ in together):.2f} / {memory_of_ten:.0f}",
            "",
        ),
        (
            "CPU to make the page, s: ours / generate_latest of the same",
            f"{ours:.2f} / {theirs:.2f} = 1 : {theirs / ours:.1f}",
            "≥ 3",
        ),
    ]
    print(f"| {args.nodes} virtual nodes, {args.active} of them with 16 busy pods | | goal |\n| --- | --- | --- |")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--active", type=int, default=100)
    parser.add_argument("--scrapes", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5, help="of the comparison")
    parser.add_argument("--export", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.export:
        uvloop.run(export(args.nodes, args.active))
    else:
        asyncio.run(measure(args))


if __name__ == "__main__":
    main()
