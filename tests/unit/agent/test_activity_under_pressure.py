"""Scrapers and processes that ask too much, or too slowly: they get less, and nobody else notices."""

import asyncio
import json
import os
import random
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import pytest
from neuron_dra_driver.activity import claim_socket
from neuron_dra_driver.activity.board import Board
from neuron_dra_driver.agent import http_server
from node_page import busy_node, page_of

CORES = (0, 1, 2, 3)
REPORT = {"pid": 7, "cores": {"0": {"utilization": 50}}}
PATIENCE = 30


@pytest.fixture
async def exporter() -> AsyncIterator[tuple[str, int]]:
    node = busy_node("worker-1")

    async def page() -> tuple[int, bytes]:
        return 200, page_of(node)

    server = await http_server.serve({"/metrics": page}, port=0, host="127.0.0.1")
    yield server.sockets[0].getsockname()
    server.close()
    await server.wait_closed()


async def scrape(address: tuple[str, int]) -> bytes:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
    head, _, body = (await asyncio.wait_for(reader.read(), PATIENCE)).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    assert f"Content-Length: {len(body)}".encode() in head
    return body


async def test_ten_scrapers_at_once_get_the_whole_page(exporter: tuple[str, int]) -> None:
    pages = await asyncio.gather(*(scrape(exporter) for _ in range(10)))
    assert set(pages) == {page_of(busy_node("worker-1"))}


async def test_whoever_is_slow_holds_up_nobody(exporter: tuple[str, int]) -> None:
    """One asks and never reads, one never ends its question, one connects and says nothing."""
    with ExitStack() as stack:
        for said in (b"GET /metrics HTTP/1.1\r\n\r\n", b"GET /metr", b""):
            slow = stack.enter_context(socket.socket())
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.connect(exporter)
            slow.sendall(said)
        assert (await scrape(exporter)).endswith(b"\n")


class Claim:
    """The socket of a claim's request, and what is known of it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._path = folder / claim_socket.NAME
        self.board = Board(CORES)
        served = claim_socket.ClaimSocket(claim_socket.bind(folder), self.board, name=folder.name)
        self.serving = asyncio.create_task(served.serve())

    @property
    def address(self) -> str:
        # as the tools do it: a path may be longer than an address
        return os.path.relpath(self._path)

    async def talk(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connected as processes are: who finds the queue full waits."""
        one = socket.socket(socket.AF_UNIX)  # with a timeout it would not wait, but be told to try again
        await asyncio.to_thread(one.connect, self.address)
        return await asyncio.open_unix_connection(sock=one)


@pytest.fixture
async def claims(tmp_path: Path) -> AsyncIterator[tuple[Claim, Claim]]:
    pair = Claim(tmp_path / "abused"), Claim(tmp_path / "other")
    yield pair
    for one in pair:
        one.serving.cancel()
    await asyncio.gather(*(one.serving for one in pair), return_exceptions=True)


async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Any:
    """What a process is told when it asks."""
    writer.write(b'{"ask": "activity"}\n')
    return json.loads(await asyncio.wait_for(reader.readline(), PATIENCE))["processes"]


def nonsense(chance: random.Random) -> bytes:
    """A report with something wrong in it: bytes, JSON or a field."""
    line = json.dumps({**REPORT, chance.choice(["pid", "cores", "host", "x"]): chance.choice([-1, None, [], {"9": 1}])})
    damaged = bytearray(line.encode())
    for _ in range(chance.randrange(4)):
        damaged[chance.randrange(len(damaged))] = chance.randrange(256)
    return bytes(damaged).replace(b"\n", b" ") + b"\n"


async def test_a_flood_of_nonsense_is_answered_and_affects_no_other_claim(claims: tuple[Claim, Claim]) -> None:
    abused, other = claims
    async with AsyncExitStack() as stack:
        reader, writer = await other.talk()
        stack.callback(writer.close)
        writer.write(json.dumps(REPORT).encode() + b"\n")
        assert len(await answers(reader, writer)) == 1
        chance = random.Random(7)
        for _ in range(100):
            bad_reader, bad_writer = await abused.talk()
            bad_writer.writelines(nonsense(chance) for _ in range(5))
            bad_writer.write_eof()
            for line in (await asyncio.wait_for(bad_reader.read(), PATIENCE)).splitlines():
                assert set(json.loads(line)) == {"error"}
            bad_writer.close()
            await bad_writer.wait_closed()
        assert len(await answers(reader, writer)) == 1
    again = await abused.talk()
    assert await answers(*again) == []
    again[1].close()


def descriptors() -> int:
    """How many this process has."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def test_ten_thousand_connections_of_a_pod_take_sixty_four(claims: tuple[Claim, Claim]) -> None:
    abused, other = claims
    before = descriptors()
    with ExitStack() as stack:
        held = 0
        for number in range(10_000):
            one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            try:
                one.connect(abused.address)
            except BlockingIOError:  # the kernel's queue is full
                one.close()
            else:
                stack.enter_context(one)
                held += 1
            if number % 100 == 0:
                await asyncio.sleep(0)  # so that some are accepted
        ours = descriptors() - before - held
        assert ours <= claim_socket.CONNECTIONS
        assert held < 4 * claim_socket.CONNECTIONS, "the others were turned away at once"
        reader, writer = await other.talk()
        assert await answers(reader, writer) == []
        writer.close()
    reader, writer = await abused.talk()
    assert await answers(reader, writer) == [], "there is room again"
    writer.close()
