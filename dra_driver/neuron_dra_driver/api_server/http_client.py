"""HTTP/1.1 to one server: what the API server needs, in a tenth of the memory of a full client.

An agent runs on every node, and an HTTP library with its codecs, proxies, cookies and redirects was a fifth of its
memory. The API server needs none of that: it is asked without compression, never redirects, and answers with a length
or in chunks. Connections are kept and used again, one call at a time on each; a stream holds its own.

A protocol and not asyncio's streams: a watch hands each line to its reader in the same turn of the event loop, for half
of the price. With a buffer of its own, because uvloop would make one of 256 KiB for whatever arrives.

Raises ConnectionError, TimeoutError or another OSError when there is no whole answer: an outage.
"""

import asyncio
import contextlib
import fcntl
import math
import ssl
import struct
import termios
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

HEAD_LIMIT = 1 << 16
JSON = "application/json"
KEPT = 4
"""Idle connections at most: the agent seldom asks for more at once, and each costs both sides memory."""
BUFFER = 1 << 14
"""Bytes read at once: a record of TLS has no more."""
WARM = 5.0
"""Seconds after its last use in which no server or proxy closes an idle connection."""


async def no_authorization() -> str:
    """For a server that asks for none, or that knows the client by its certificate."""
    return ""


@dataclass(frozen=True)
class Access:
    """Where a server is, and what shows it who asks."""

    url: str
    tls: ssl.SSLContext | None = None
    """None: plain HTTP."""
    tls_name: str | None = None
    """The name in the server's certificate, when it is not the host's in the URL."""
    authorization: Callable[[], Awaitable[str]] = field(default=no_authorization)
    """The Authorization header of the next call: tokens change while the process runs."""


class _Connection(asyncio.BufferedProtocol):
    """One call after the other: `ask`, then `head`, then `end`; the content goes to `take`, as it comes."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._clock = loop.time
        self._future = loop.create_future
        self.take: Callable[[bytes], object]
        self.head: asyncio.Future[int]
        """The status."""
        self.end: asyncio.Future[bool]
        """Whether the connection can be used again."""
        self.heard = 0.0
        self._parser: Generator[None, bytes, None] | None = None
        self._ends_with_connection = False
        self._transport: asyncio.Transport
        self._buffer = memoryview(bytearray(BUFFER))  # TLS writes into slices of it, and those of bytes are copies

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def ask(self, request: bytes, take: Callable[[bytes], object]) -> None:
        """Send a request."""
        self.take = take
        self.head, self.end = self._future(), self._future()
        self.heard = self._clock()
        self._parser = self._parse()
        next(self._parser)
        self._transport.write(request)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        data = bytes(self._buffer[:nbytes])
        self.heard = self._clock()
        if self._parser is None or self.head.cancelled():
            self.close()  # nobody asked, or nobody waits any more
            return
        try:
            self._parser.send(data)
        except StopIteration:
            self._parser = None
        except Exception as error:
            self._fail(error)

    def connection_lost(self, error: Exception | None) -> None:
        if self._parser and self._ends_with_connection and error is None:
            self._parser = None
            self.end.set_result(False)
        self._fail(ConnectionError(f"the API server closed the connection ({error or 'without a word'})"))

    def usable(self) -> bool:
        """Whether another call can be sent."""
        return self._parser is None and not self._transport.is_closing()

    def quiet(self) -> float:
        """Seconds since it was used."""
        return self._clock() - self.heard

    def waiting(self) -> bool:
        """Whether something has arrived that nobody has read, an end included."""
        if self._transport.is_closing():
            return True
        found = fcntl.ioctl(self._transport.get_extra_info("socket").fileno(), termios.FIONREAD, b"\0" * 4)
        return bool(struct.unpack("i", found)[0])

    def close(self) -> None:
        """At once: a goodbye in TLS would wait for a server that may be gone."""
        self._parser = None
        self._transport.abort()

    def _fail(self, error: Exception) -> None:
        if self._parser:
            self._parser = None
            waited_for = self.end if self.head.done() else self.head
            if not waited_for.done():
                waited_for.set_exception(error)
            self.close()

    def _parse(self) -> Generator[None, bytes, None]:
        """Is sent what arrives; comes to its end with the answer's."""
        data = yield
        while (end := data.find(b"\r\n\r\n")) < 0:
            if len(data) > HEAD_LIMIT:
                raise ConnectionError("this is no HTTP server: its answer has no end of headers")
            data += yield
        head = data[: end + 2].lower()
        data = data[end + 4 :]
        self._ends_with_connection = False
        reusable = _header(head, b"connection") != b"close"
        chunked = _header(head, b"transfer-encoding") == b"chunked"
        length = _header(head, b"content-length")
        self.head.set_result(_status(head))
        if chunked:
            place = 0
            while True:
                while (end := data.find(b"\r\n", place)) < 0:
                    data, place = data[place:] + (yield), 0
                after = end + 2 + int(data[place:end].partition(b";")[0], 16)
                if after + 2 > len(data):
                    data = yield from _at_least(after + 2 - place, data[place:])
                    end, after, place = end - place, after - place, 0
                if after == end + 2:
                    break
                self.take(data[end + 2 : after])
                place = after + 2
        elif length:
            data = yield from _at_least(int(length), data)
            self.take(data[: int(length)])
        else:
            self._ends_with_connection = True
            while True:
                self.take(data)
                data = yield
        self.end.set_result(reusable)


def _at_least(length: int, data: bytes) -> Generator[None, bytes, bytes]:
    pieces = [data]
    missing = length - len(data)
    while missing > 0:
        pieces.append((yield))
        missing -= len(pieces[-1])
    return b"".join(pieces) if len(pieces) > 1 else data


def _status(head: bytes) -> int:
    try:
        return int(head.split(b" ", 2)[1])
    except (IndexError, ValueError) as error:
        first = head.partition(b"\r\n")[0].decode("latin-1")
        raise ConnectionError(f"this is no HTTP server: it says {first[:80]!r}") from error


def _header(head: bytes, name: bytes) -> bytes:
    """One of the few that matter, in lower case as the head is; empty if there is none."""
    return head.partition(b"\r\n" + name + b":")[2].partition(b"\r\n")[0].strip()


class Stream:
    """An answer that goes on and on, in lines."""

    def __init__(self, connection: _Connection, pieces: list[bytes]) -> None:
        self._connection = connection
        self._pieces = pieces
        self._rest = b""
        self._handle: Callable[[bytes], object]

    @property
    def status(self) -> int:
        """The status of the answer."""
        return self._connection.head.result()

    async def content(self) -> bytes:
        """All of it, for one that ends."""
        await self._connection.end
        return b"".join(self._pieces)

    async def each(self, handle: Callable[[bytes], object], *, silence: float) -> None:
        """Call for each line, in the moment in which it is here, until the server ends the answer.

        Raises TimeoutError when nothing comes for `silence` seconds.
        """
        self._handle = handle
        connection = self._connection
        for piece in self._pieces:
            self._take(piece)
        self._pieces.clear()
        connection.take = self._take
        clock = asyncio.get_running_loop().time
        while not connection.end.done():
            left = connection.heard + silence - clock()
            if left <= 0:
                raise TimeoutError(f"nothing was heard for {silence:.0f} s")
            await asyncio.wait([connection.end], timeout=left)
        connection.end.result()

    async def lines(self, *, silence: float) -> AsyncGenerator[bytes, None]:
        """The same for who takes them one by one."""
        lines: asyncio.Queue[bytes | None] = asyncio.Queue()
        following = asyncio.create_task(self.each(lines.put_nowait, silence=silence))
        following.add_done_callback(lambda _: lines.put_nowait(None))
        try:
            while (line := await lines.get()) is not None:
                yield line
            following.result()
        finally:
            following.cancel()

    def waiting(self) -> bool:
        """Whether something has arrived that nobody has read, an end included."""
        return self._connection.waiting()

    def _take(self, piece: bytes) -> None:
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            self._handle(line)


class HttpClient:
    """See the module."""

    def __init__(self, access: Access, *, kept: int = KEPT) -> None:
        """`kept`: idle connections at most."""
        self._access = access
        self._most_kept = kept
        url = urlsplit(access.url)
        self._host = url.hostname or "localhost"
        self._port = url.port or (443 if access.tls else 80)
        self._prefix = url.path.rstrip("/")
        self._host_header = url.netloc.rpartition("@")[2]
        self._idle: list[_Connection] = []

    async def request(
        self,
        method: str,
        target: str,
        *,
        body: bytes | None = None,
        content_type: str = "",
        accept: str = JSON,
        harmless_twice: bool | None = None,
        timeout: float,
    ) -> tuple[int, bytes]:
        """One call: status and content. `harmless_twice`: None means all but a POST."""
        async with asyncio.timeout(timeout):
            request = await self._request(method, target, body, content_type, accept)
            # A connection may have been closed while it was idle. What is harmless twice is then sent again, and the
            # rest goes to one that was in use a moment ago.
            again = method != "POST" if harmless_twice is None else harmless_twice
            while kept := self._kept(within=math.inf if again else WARM):
                try:
                    return await self._call(kept, request)
                except ConnectionError:
                    if not again:
                        raise
            return await self._call(await self._connect(), request)

    @contextlib.asynccontextmanager
    async def stream(self, target: str, *, timeout: float, accept: str = JSON) -> AsyncIterator[Stream]:
        """GET with an answer that does not end; `timeout` for its beginning."""
        pieces: list[bytes] = []
        async with asyncio.timeout(timeout):
            request = await self._request("GET", target, None, "", accept)
            connection = await self._connect()
        try:
            connection.ask(request, pieces.append)
            async with asyncio.timeout(timeout):
                await connection.head
            yield Stream(connection, pieces)
        finally:
            connection.close()

    def close(self) -> None:
        """Let go of the connections."""
        while self._idle:
            self._idle.pop().close()

    async def _call(self, connection: _Connection, request: bytes) -> tuple[int, bytes]:
        pieces: list[bytes] = []
        again = False
        try:
            connection.ask(request, pieces.append)
            status = await connection.head
            again = await connection.end
        finally:
            if again and len(self._idle) < self._most_kept:
                self._idle.append(connection)
            else:
                connection.close()
        return status, b"".join(pieces)

    def _kept(self, *, within: float) -> _Connection | None:
        """The idle connection that was used last, if that is not longer ago."""
        while self._idle and self._idle[-1].quiet() <= within:
            connection = self._idle.pop()
            if connection.usable():
                return connection
        return None

    async def _connect(self) -> _Connection:
        tls = self._access.tls
        name = (self._access.tls_name or self._host) if tls else None
        _, connection = await asyncio.get_running_loop().create_connection(
            _Connection, self._host, self._port, ssl=tls, server_hostname=name
        )
        return connection

    async def _request(self, method: str, target: str, body: bytes | None, content_type: str, accept: str) -> bytes:
        """All of it. Small as ours are, it leaves in one packet."""
        lines = [
            f"{method} {self._prefix}{target} HTTP/1.1",
            f"Host: {self._host_header}",
            f"Accept: {accept}",
            "User-Agent: neuron-sim-agent",
        ]
        if authorization := await self._access.authorization():
            lines.append(f"Authorization: {authorization}")
        if body is not None:
            lines += [f"Content-Type: {content_type}", f"Content-Length: {len(body)}"]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")
