"""The HTTP client, against servers that do what servers do."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from neuron_dra_driver.api_server import http_client
from neuron_dra_driver.api_server.http_client import Access, HttpClient
from neuron_dra_driver.api_server.http_client import _Connection as Connection

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
async def serving() -> AsyncIterator[Any]:
    servers: list[asyncio.Server] = []
    clients: list[HttpClient] = []

    async def serving(handler: Handler) -> HttpClient:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await handler(reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        servers.append(server)
        port = server.sockets[0].getsockname()[1]
        client = HttpClient(Access(f"http://127.0.0.1:{port}/prefix"))
        clients.append(client)
        return client

    yield serving
    for client in clients:
        client.close()
    for server in servers:
        server.close()


async def head(reader: asyncio.StreamReader) -> list[str]:
    return (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")


async def test_a_request_and_its_answer(serving: Any) -> None:
    seen: list[Any] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            seen.append(await head(reader))
            seen.append(await reader.readexactly(4))
            writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: 5\r\n\r\nhello")

    client = await serving(handler)
    answer = await client.request("PUT", "/x?y=z", body=b"data", content_type="text/plain", timeout=5)
    assert answer == (201, b"hello")
    assert seen[0][0] == "PUT /prefix/x?y=z HTTP/1.1"
    assert "Content-Type: text/plain" in seen[0]
    assert seen[1] == b"data"


@pytest.mark.parametrize("cut", range(1, 80, 7))
async def test_an_answer_in_chunks_however_it_is_cut(serving: Any, cut: int) -> None:
    content = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n"

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        for place in range(0, len(content), cut):
            writer.write(content[place : place + cut])
            await writer.drain()
            await asyncio.sleep(0)
        await reader.read()

    client = await serving(handler)
    assert await client.request("GET", "/", timeout=5) == (200, b"hello world")


async def test_connections_are_used_again_until_the_server_closes_them(serving: Any) -> None:
    """Also when it closes them without a word, just as the next request is on its way."""
    connections = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        for _ in range(2):
            await head(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await head(reader)  # and closes

    client = await serving(handler)
    answers = [await client.request("GET", "/", timeout=5) for _ in range(5)]
    assert answers == [(200, b"")] * 5
    assert connections == 3


async def test_what_would_create_something_is_not_sent_twice(serving: Any) -> None:
    asked = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        await head(reader)
        asked += 1

    client = await serving(handler)
    with pytest.raises(ConnectionError, match="closed the connection"):
        await client.request("POST", "/", timeout=5)
    assert asked == 1


@pytest.mark.parametrize(("warm", "expected"), [(5.0, 1), (-1.0, 2)])
async def test_what_would_create_something_goes_to_a_connection_that_was_just_used(
    serving: Any, monkeypatch: pytest.MonkeyPatch, warm: float, expected: int
) -> None:
    monkeypatch.setattr(http_client, "WARM", warm)
    connections = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while True:
            await head(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    client = await serving(handler)
    await client.request("GET", "/", timeout=5)
    assert await client.request("POST", "/", timeout=5) == (200, b"")
    assert connections == expected


@pytest.mark.parametrize(
    "content", [b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", b""]
)
async def test_half_an_answer_is_an_outage(serving: Any, content: bytes) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        writer.write(content)

    client = await serving(handler)
    with pytest.raises(ConnectionError):
        await client.request("POST", "/", timeout=5)


async def test_a_server_that_does_not_answer(serving: Any) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    client = await serving(handler)
    with pytest.raises(TimeoutError):
        await client.request("GET", "/", timeout=0.02)


async def test_a_stream_is_read_line_by_line_and_knows_what_waits(serving: Any) -> None:
    go_on = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\na\nb\n\r\n2\r\nc\n\r\n1\r\nd\r\n")
        await go_on.wait()
        writer.write(b"2\r\ne\n\r\n0\r\n\r\n")

    client = await serving(handler)
    async with client.stream("/", timeout=5) as stream:
        assert stream.status == 200
        lines = stream.lines(silence=5)
        assert [await anext(lines) for _ in range(3)] == [b"a", b"b", b"c"]
        assert not stream.waiting()
        go_on.set()
        assert [line async for line in lines] == [b"de"]


async def test_a_stream_that_falls_silent(serving: Any) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\na\n\r\n")
        await reader.read()

    client = await serving(handler)
    seen: list[bytes] = []
    async with client.stream("/", timeout=5) as stream:
        with pytest.raises(TimeoutError, match="nothing was heard"):
            await stream.each(seen.append, silence=0.05)
    assert seen == [b"a"]


async def test_a_refused_stream_has_its_reason(serving: Any) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        writer.write(b"HTTP/1.1 410 Gone\r\nContent-Length: 4\r\n\r\ngone")

    client = await serving(handler)
    async with client.stream("/", timeout=5) as stream:
        assert (stream.status, await stream.content()) == (410, b"gone")


async def test_an_answer_that_comes_after_its_call_was_cancelled_is_nobodys() -> None:
    aborted: list[bool] = []

    class Transport(asyncio.Transport):
        def write(self, data: bytes | bytearray | memoryview) -> None:
            pass

        def abort(self) -> None:
            aborted.append(True)

    connection = Connection()
    connection.connection_made(Transport())
    connection.ask(b"GET / HTTP/1.1\r\n\r\n", lambda _: None)
    connection.head.cancel()
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    connection.get_buffer(-1)[: len(answer)] = answer
    connection.buffer_updated(len(answer))
    assert aborted
    assert not connection.end.done(), "nobody would ever retrieve it"
