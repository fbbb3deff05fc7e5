"""The connections of a group: one over which whole frames come and go, and the door through which strangers come in.

Whoever can reach a port can connect: who does so has some seconds for its first frame, and there is room for some only.
"""

from __future__ import annotations

import select
import socket
import time

from neuron_runtime.nccom import frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

HELLO_SECONDS = 5.0
"""A stranger's time to say who it is."""
_STRANGERS_MOST = 64
_HELLO_MOST_BYTES = 1 << 17


class GroupError(Exception):
    """The group cannot be formed, or has broken; the message says why."""


class Peer:
    """A connection over which whole frames come and go."""

    def __init__(
        self,
        connection: socket.socket,
        name: str,
        *,
        seconds: float,
        most: int = frames.MOST_BYTES,
        address: str = "",
    ) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = connection
        self.name = name
        self.address = address
        self._seconds = seconds
        self._reader = frames.Reader(most)
        self._kept: list[tuple[int, bytes]] = []

    def send(self, kind: int, content: bytes = b"") -> None:
        """Raises GroupError when the other one is gone or takes nothing."""
        try:
            self.socket.settimeout(self._seconds)
            self.socket.sendall(frames.frame(kind, content))
        except OSError as error:
            raise GroupError(self.words(error)) from None

    def receive(self, *kinds: int) -> bytes:
        """The content of the next frame, which is of one of these kinds. Raises GroupError."""
        try:
            while (found := self._kept.pop(0) if self._kept else self._reader.next()) is None:
                self.socket.settimeout(self._seconds)
                data = self.socket.recv(1 << 20)
                if not data:
                    raise GroupError(f"{self.name} has ended")
                self._reader.feed(data)
        except OSError as error:
            raise GroupError(self.words(error)) from None
        except frames.FrameError as error:
            raise GroupError(f"{self.name}: {error}") from None
        kind, content = found
        if kind in (frames.FAILED, frames.REFUSED) and kind not in kinds:
            raise GroupError(content.decode(errors="replace"))
        if kind not in kinds:
            raise GroupError(f"{self.name} sent a frame of kind {kind} out of turn")
        return content

    def read_some(self) -> tuple[int, bytes] | None:
        """What is there, without waiting; None while no frame is whole. Raises GroupError."""
        try:
            self.socket.settimeout(0)
            data = self.socket.recv(1 << 16)
            if not data:
                raise GroupError(f"{self.name} has ended")
            self._reader.feed(data)
            return self._reader.next()
        except BlockingIOError:
            return None
        except OSError as error:
            raise GroupError(self.words(error)) from None
        except frames.FrameError as error:
            raise GroupError(f"{self.name}: {error}") from None

    def listen(self) -> None:
        """Hear whether it says that the group has failed; anything else is kept. Raises GroupError."""
        found = self.read_some()
        if found is not None:
            if found[0] == frames.FAILED:
                raise GroupError(found[1].decode(errors="replace"))
            self._kept.append(found)

    def of_the_group(self, name: str) -> Peer:
        """The same connection, now of somebody who is known."""
        return Peer(self.socket, name, seconds=self._seconds, address=self.address)

    def patience(self, seconds: float) -> None:
        """From now on the other one may be silent for so long."""
        self._seconds = seconds

    def close(self) -> None:
        """End it."""
        self.socket.close()

    def words(self, error: OSError) -> str:
        """What an error of the socket means."""
        if isinstance(error, TimeoutError):
            return f"{self.name} has been silent for {self._seconds:g} s: suspected hang in collectives"
        return f"{self.name} has ended ({error.strerror or error})"


class Door:
    """A socket that listens, and those who came and have said nothing yet."""

    def __init__(self, listener: socket.socket, *, seconds: float) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._seconds = seconds
        self._strangers: dict[int, tuple[Peer, float]] = {}

    def wait(self, others: Collection[int], seconds: float) -> tuple[list[tuple[Peer, int, bytes]], list[int]]:
        """Wait for so long at most: who has come and sent a frame, and which of the other sockets can be read."""
        now = time.monotonic()
        for number in [number for number, (_, until) in self._strangers.items() if until < now]:
            self._strangers.pop(number)[0].close()
        watched = [self._listener.fileno(), *self._strangers, *others]
        readable, _, _ = select.select(watched, [], [], max(0.0, seconds))
        came = []
        for number in readable:
            if number == self._listener.fileno():
                self._welcome()
            elif number in self._strangers:
                peer, _ = self._strangers[number]
                try:
                    said = peer.read_some()
                except GroupError:
                    self._strangers.pop(number)[0].close()
                    continue
                if said is not None:
                    del self._strangers[number]
                    came.append((peer, *said))
        return came, [number for number in readable if number in others]

    def shut(self, reason: str = "") -> None:
        """Send away who has said nothing."""
        for peer, _ in self._strangers.values():
            if reason:
                refuse(peer.socket, reason)
            peer.close()
        self._strangers.clear()

    def _welcome(self) -> None:
        try:
            connection, address = self._listener.accept()
        except OSError:
            return
        if len(self._strangers) >= _STRANGERS_MOST:
            self._strangers.pop(next(iter(self._strangers)))[0].close()
        peer = Peer(connection, "a stranger", seconds=self._seconds, most=_HELLO_MOST_BYTES, address=str(address[0]))
        self._strangers[connection.fileno()] = (peer, time.monotonic() + HELLO_SECONDS)


def refuse(connection: socket.socket, reason: str) -> None:
    """Say why, and end it."""
    try:
        connection.settimeout(HELLO_SECONDS)
        connection.sendall(frames.frame(frames.REFUSED, reason.encode()))
        connection.shutdown(socket.SHUT_WR)
    except OSError:
        pass
    connection.close()


def connected(address: str, port: int) -> socket.socket:
    """A connection to somebody who listens there. Raises OSError."""
    connection = socket.socket(family(address), socket.SOCK_STREAM)
    connection.settimeout(HELLO_SECONDS)
    try:
        connection.connect((address, port))
    except OSError:
        connection.close()
        raise
    return connection


def family(address: str) -> socket.AddressFamily:
    """Of an address in figures."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET
