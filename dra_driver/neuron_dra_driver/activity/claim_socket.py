"""The socket of one request, `activity.sock` in its folder: processes report there, tools ask.

Anybody's container writes to it. So each socket has a small number of connections, and when they are taken nobody is
accepted: whoever comes then waits in the kernel's queue, at no cost to the agent. Whoever sends faster than ten lines a
second is read more slowly, and his own writes wait. A line that is wrong is answered with a sentence and ends the
connection; others do not notice.

The socket is bound under another name and moved into place, over that of an agent before. It is not removed here: it
goes with the folder of its claim.
"""

import asyncio
import contextlib
import functools
import logging
import os
import socket
import time
from pathlib import Path

import orjson

from .board import Board
from .reports import MAX_MESSAGE, WrongMessage, message, report

NAME = "activity.sock"
CONNECTIONS = 64
INTERVAL, BURST = 0.1, 20
"""Seconds between two lines of a connection in the long run, and how many may come at once."""
PAUSE = 1.0
"""Seconds after a connection could not be accepted: the process has no descriptor left."""
FAREWELL = 1.0
"""Seconds in which whoever is sent away may read why."""

log = logging.getLogger(__name__)


def bind(folder: Path) -> socket.socket:
    """Listen in a folder; raises OSError.

    By the folder's descriptor, because the path of a folder may be longer than an address.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    unfinished = f"{NAME}.tmp"
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(unfinished, dir_fd=directory)
        listener.bind(f"/proc/self/fd/{directory}/{unfinished}")
        os.chmod(unfinished, 0o666, dir_fd=directory)
        listener.listen(CONNECTIONS)
        os.rename(unfinished, NAME, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        listener.close()
        raise
    finally:
        os.close(directory)
    return listener


class ClaimSocket:
    """Serves a bound socket until cancelled."""

    def __init__(self, listener: socket.socket, board: Board, *, name: str) -> None:
        self._listener = listener
        self._board = board
        self._name = name
        self._slots = asyncio.Semaphore(CONNECTIONS)
        self._talks: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Accept whoever comes, as long as there is room."""
        try:
            while True:
                await self._slots.acquire()
                try:
                    connection = await self._accept()
                except OSError as error:
                    log.warning("%s: a process could not be heard: %s", self._name, error)
                    self._slots.release()
                    await asyncio.sleep(PAUSE)
                    continue
                talk = asyncio.create_task(self._talk(connection))
                self._talks.add(talk)
                talk.add_done_callback(functools.partial(self._ended, connection))
        finally:
            for talk in self._talks:
                talk.cancel()
            await asyncio.gather(*self._talks, return_exceptions=True)
            self._listener.close()

    async def _accept(self) -> socket.socket:
        """Take the next connection in the step that returns it: the loop's `sock_accept`, cancelled, may lose one."""
        loop = asyncio.get_running_loop()
        while True:
            with contextlib.suppress(BlockingIOError):
                connection, _ = self._listener.accept()
                connection.setblocking(False)
                return connection
            somebody = loop.create_future()
            loop.add_reader(self._listener, _come, somebody)
            try:
                await somebody
            finally:
                loop.remove_reader(self._listener)

    def _ended(self, connection: socket.socket, talk: asyncio.Task[None]) -> None:
        connection.close()  # of a conversation that was cancelled before its begin
        self._talks.discard(talk)
        self._slots.release()
        if not talk.cancelled() and (error := talk.exception()):
            log.error("%s: a conversation failed", self._name, exc_info=error)

    async def _talk(self, connection: socket.socket) -> None:
        reader, writer = await asyncio.open_unix_connection(sock=connection, limit=MAX_MESSAGE)
        try:
            await self._listen(reader, writer)
        except WrongMessage as wrong:
            writer.write(_line({"error": str(wrong)}))
        except (asyncio.LimitOverrunError, ValueError):
            writer.write(_line({"error": f"a line has at most {MAX_MESSAGE} bytes"}))
        except OSError:
            pass  # it went away while it was answered
        except asyncio.CancelledError:
            writer.transport.abort()
            raise
        finally:
            self._board.drop(writer)
            await _close(writer)

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        due = 0.0  # whoever begins may write a burst
        while (line := await reader.readline()).endswith(b"\n"):
            now = time.monotonic()
            due = max(due, now - BURST * INTERVAL) + INTERVAL
            if due > now:
                await asyncio.sleep(due - now)
            found = message(line)
            if found == {"ask": "activity"}:
                writer.write(_line({"processes": self._board.processes(), "hardware": self._board.hardware()}))
                await writer.drain()
            else:
                self._board.put(writer, report(found, cores=self._board.cores))


def _come(somebody: asyncio.Future[None]) -> None:
    if not somebody.done():
        somebody.set_result(None)


async def _close(writer: asyncio.StreamWriter) -> None:
    """Let the last words out, but wait for nobody who does not read them."""
    writer.close()
    try:
        async with asyncio.timeout(FAREWELL):
            await writer.wait_closed()
    except (OSError, TimeoutError):
        writer.transport.abort()


def _line(answer: object) -> bytes:
    return orjson.dumps(answer, option=orjson.OPT_APPEND_NEWLINE)
