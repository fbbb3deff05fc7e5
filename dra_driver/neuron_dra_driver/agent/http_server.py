"""/metrics and the health pages on one port, on the agent's own event loop: some GETs need no framework, no thread."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from . import openmetrics

TIMEOUT = 10.0
TEXT = "text/plain; version=0.0.4; charset=utf-8"

log = logging.getLogger(__name__)

Page = Callable[[], Awaitable[tuple[int, bytes]]]
"""Status code and body."""

_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 503: "Service Unavailable"}


async def serve(pages: dict[str, Page], *, port: int, host: str | None = None) -> asyncio.Server:
    """Serve pages by path until the server is closed."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(TIMEOUT):
                status, kind, body = await _answer(pages, await reader.readuntil(b"\r\n\r\n"))
                writer.write(
                    f"HTTP/1.1 {status} {_REASONS[status]}\r\n"
                    f"Content-Type: {kind}\r\n"
                    f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
                    + body
                )
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


async def _answer(pages: dict[str, Page], head: bytes) -> tuple[int, str, bytes]:
    """Status code, content type and body."""
    words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
    if len(words) != 3 or words[0] != "GET":
        return 400, TEXT, b"only GET\n"
    path = words[1].partition("?")[0]
    if path not in pages:
        return 404, TEXT, f"{' or '.join(pages)}\n".encode()
    status, body = await pages[path]()
    if path == "/metrics" and status == 200 and openmetrics.is_accepted(head):
        return status, openmetrics.CONTENT_TYPE, openmetrics.converted(body)
    return status, TEXT, body
