"""/metrics and the health pages on one port, on the agent's own event loop: some GETs need no framework, no thread."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

from . import openmetrics

TIMEOUT = 10.0
STREAM_TIMEOUT = 60.0
"""Seconds: a scrape of thousands of nodes may take as long as its interval."""
TEXT = "text/plain; version=0.0.4; charset=utf-8"

log = logging.getLogger(__name__)

Page = Callable[[], Awaitable[tuple[int, bytes]]]
"""Status code and body."""
Stream = Callable[[], AsyncGenerator[bytes, None]]
"""A page that is too large to be in memory, piece by piece. Pieces that begin with # are heads, others have none."""

_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 503: "Service Unavailable"}
_HEAD = "HTTP/1.1 {status} {reason}\r\nContent-Type: {kind}\r\n{length}\r\nConnection: close\r\n\r\n"


async def serve(
    pages: Mapping[str, Page], *, streams: Mapping[str, Stream] | None = None, port: int, host: str | None = None
) -> asyncio.Server:
    """Serve pages by path until the server is closed."""
    streamed = streams or {}

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(TIMEOUT) as patience:
                head = await reader.readuntil(b"\r\n\r\n")
                path = _path(head)
                if path in streamed:
                    patience.reschedule(asyncio.get_running_loop().time() + STREAM_TIMEOUT)
                    await _stream(streamed[path], writer, modern=openmetrics.is_accepted(head))
                else:
                    status, kind, body = await _answer(pages, path, modern=openmetrics.is_accepted(head))
                    length = f"Content-Length: {len(body)}"
                    said = _HEAD.format(status=status, reason=_REASONS[status], kind=kind, length=length)
                    writer.write(said.encode() + body)
                    await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the other side went away, or is no HTTP client
        except Exception:
            log.exception("a page failed")
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    return await asyncio.start_server(connected, host=host, port=port, limit=1 << 14)


def _path(head: bytes) -> str:
    """Of a GET; empty: it is none."""
    words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
    return words[1].partition("?")[0] if len(words) == 3 and words[0] == "GET" else ""


async def _answer(pages: Mapping[str, Page], path: str, *, modern: bool) -> tuple[int, str, bytes]:
    """Status code, content type and body."""
    if not path:
        return 400, TEXT, b"only GET\n"
    if path not in pages:
        return 404, TEXT, f"{' or '.join(pages)}\n".encode()
    status, body = await pages[path]()
    if path == "/metrics" and status == 200 and modern:
        return status, openmetrics.CONTENT_TYPE, openmetrics.converted(body) + openmetrics.END
    return status, TEXT, body


async def _stream(stream: Stream, writer: asyncio.StreamWriter, *, modern: bool) -> None:
    """In chunks, so that a page that breaks off is known as one."""
    kind = openmetrics.CONTENT_TYPE if modern else TEXT
    writer.write(_HEAD.format(status=200, reason="OK", kind=kind, length="Transfer-Encoding: chunked").encode())
    async with contextlib.aclosing(stream()) as blocks:
        async for block in blocks:
            found = openmetrics.converted(block) if modern and block.startswith(b"#") else block
            writer.write(b"%x\r\n%b\r\n" % (len(found), found))
            await writer.drain()
    end = openmetrics.END if modern else b""
    writer.write((b"%x\r\n%b\r\n" % (len(end), end) if end else b"") + b"0\r\n\r\n")
    await writer.drain()
