"""The ways of the data: a connection between any two processes of a group, over which all exchange at once.

Each sends to each other what that one needs and nothing else, so no process carries what is not its own, and all send
and receive at the same time. Both sides of a connection know how much comes next: a message is a frame of a length that
is expected, and whatever else comes is an error. Who receives says what it expects, so that data is compared as it
comes, in a buffer that the processor still has in its cache, and only what differs is kept.
"""

from __future__ import annotations

import select
import socket
import time
from dataclasses import dataclass

from neuron_runtime.nccom import frames
from neuron_runtime.nccom.peers import Door, GroupError, Peer, connected, refuse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Data = bytes | memoryview

_PARTS_AT_ONCE = 512
_SEND_BYTES = 1 << 22
"""More than a connection takes at once."""
_JOINED_BYTES = 1 << 15
_RECEIVE_BYTES = 1 << 18


@dataclass(frozen=True)
class Way:
    """Where a process of the group can be reached, and what it is called in messages."""

    address: str
    port: int
    name: str


class Mesh:
    """The connections of a process to all others, by their numbers."""

    def __init__(self, links: Mapping[int, Peer], *, seconds: float) -> None:
        self._links = links
        self._seconds = seconds
        # of all connections: what comes is compared at once
        self._buffer = bytearray(_RECEIVE_BYTES)
        for link in links.values():
            link.socket.setblocking(False)

    def exchange(
        self, outgoing: Mapping[int, Sequence[Data]], expected: Mapping[int, Sequence[Data]], control: Sequence[Peer]
    ) -> dict[int, Sequence[Data]]:
        """Send these parts, and receive others: what came; parts that are as expected are the objects that were given.

        Ends early when somebody says over `control` that the group has failed. Raises GroupError.
        """
        sending = {number: _Sending(self._links[number], data) for number, data in outgoing.items()}
        receiving = {number: _Receiving(self._links[number], parts) for number, parts in expected.items()}
        came = dict(receiving)
        by_socket = {link.socket.fileno(): number for number, link in self._links.items()}
        listening = {peer.socket.fileno(): peer for peer in control}
        moved = time.monotonic()
        while sending or receiving:
            reading = [self._links[number].socket.fileno() for number in receiving]
            writing = [self._links[number].socket.fileno() for number in sending]
            readable, writable, _ = select.select([*listening, *reading], writing, [], self._seconds)
            if not readable and not writable and time.monotonic() - moved >= self._seconds:
                missing = self._links[next(iter(receiving or sending))]
                raise GroupError(missing.words(TimeoutError()))
            for descriptor in sorted(readable, key=listening.__contains__, reverse=True):
                if descriptor in listening:
                    listening[descriptor].listen()
                elif receiving[by_socket[descriptor]].goes_on(self._buffer):
                    del receiving[by_socket[descriptor]]
            for descriptor in writable:
                if sending[by_socket[descriptor]].goes_on():
                    del sending[by_socket[descriptor]]
            moved = time.monotonic()
        return {number: one.came() for number, one in came.items()}

    def close(self) -> None:
        """End all of them."""
        for link in self._links.values():
            link.close()


class _Sending:
    """A message on its way."""

    __slots__ = ("_at_once", "_link", "_parts", "_place", "_sent")

    def __init__(self, link: Peer, data: Sequence[Data]) -> None:
        self._link = link
        length = sum(map(len, data))
        self._parts: list[Data] = [frames.header(frames.DATA, length), *data]
        if length <= _JOINED_BYTES:
            self._parts = [b"".join(self._parts)]
        self._at_once = min(_PARTS_AT_ONCE, 1 + _SEND_BYTES * len(self._parts) // (length + 1))
        self._place = 0
        self._sent = 0
        """Bytes of the part at that place."""

    def goes_on(self) -> bool:
        """Send what can be sent now; whether that was the last of it. Raises GroupError."""
        some = self._parts[self._place : self._place + self._at_once]
        try:
            count = self._link.socket.sendmsg([memoryview(some[0])[self._sent :], *some[1:]])
        except BlockingIOError:
            return False
        except OSError as error:
            raise GroupError(self._link.words(error)) from None
        count += self._sent
        for part in some:
            if count < len(part):
                break
            count -= len(part)
            self._place += 1
        self._sent = count
        return self._place == len(self._parts)


class _Receiving:
    """A message that comes, and what is expected of it."""

    __slots__ = ("_differs", "_link", "_other", "_part", "_parts", "_place", "_rest")

    def __init__(self, link: Peer, expected: Sequence[Data]) -> None:
        self._link = link
        length = sum(map(len, expected))
        self._parts: list[Data] = [frames.header(frames.DATA, length), *expected]
        self._rest = frames.HEADER_BYTES + length
        """Bytes that are still to come."""
        self._part = 0
        self._place = 0
        """In that part."""
        self._other = bytearray()
        """That part as it came, where it is another one."""
        self._differs: dict[int, bytes] = {}

    def goes_on(self, buffer: bytearray) -> bool:
        """Receive what is there, by way of a buffer; whether that was the last of it. Raises GroupError."""
        try:
            count = self._link.socket.recv_into(buffer, min(len(buffer), self._rest))
        except BlockingIOError:
            return False
        except OSError as error:
            raise GroupError(self._link.words(error)) from None
        if not count:
            raise GroupError(f"{self._link.name} has ended")
        self._rest -= count
        begin = 0
        while begin < count:
            part = self._parts[self._part]
            some = min(len(part) - self._place, count - begin)
            expected = part if some == len(part) else memoryview(part)[self._place : self._place + some]
            if self._other or not buffer.startswith(expected, begin):
                self._other = (self._other or bytearray(part[: self._place])) + buffer[begin : begin + some]
            begin += some
            self._place += some
            if self._place == len(part):
                self._end_of_part()
        return not self._rest

    def came(self) -> Sequence[Data]:
        """All parts, those that were expected as they were given."""
        return [self._differs.get(number, part) for number, part in enumerate(self._parts[1:], start=1)]

    def _end_of_part(self) -> None:
        if self._other:
            if not self._part:
                length = sum(map(len, self._parts[1:]))
                raise GroupError(f"{self._link.name} sent something else than {length} bytes of data")
            self._differs[self._part] = bytes(self._other)
            self._other = bytearray()
        self._part += 1
        self._place = 0


def connect(
    number: int,
    listener: socket.socket,
    ways: Sequence[Way],
    token: str,
    control: Sequence[Peer],
    *,
    seconds: float,
) -> Mesh:
    """Go to those with lower numbers, wait for those with higher ones. Raises GroupError."""
    deadline = time.monotonic() + seconds
    links: dict[int, Peer] = {}
    door = Door(listener, seconds=seconds)
    try:
        for other, way in enumerate(ways[:number]):
            try:
                link = Peer(connected(way.address, way.port), way.name, seconds=seconds, address=way.address)
            except OSError as error:
                raise GroupError(f"{way.name} cannot be reached at port {way.port}: {error}") from None
            links[other] = link
            link.send(frames.LINK, f"{number} {token}".encode())
        while len(links) < len(ways) - 1:
            if time.monotonic() > deadline:
                missing = next(way.name for other, way in enumerate(ways) if other != number and other not in links)
                raise GroupError(
                    f"{missing} has not connected in {seconds:g} s: let pods reach one another on all ports"
                )
            came, said = door.wait({peer.socket.fileno() for peer in control}, deadline - time.monotonic())
            for peer in control:
                if peer.socket.fileno() in said:
                    peer.listen()
            for stranger, kind, content in came:
                who = number_of(kind, content, token)
                if who is None or not number < who < len(ways) or who in links:
                    refuse(stranger.socket, "the group is complete: use another root id for another job")
                else:
                    links[who] = stranger.of_the_group(ways[who].name)
    except GroupError:
        for link in links.values():
            link.close()
        raise
    finally:
        door.shut()
    return Mesh(links, seconds=seconds)


def number_of(kind: int, content: bytes, token: str) -> int | None:
    """Who somebody says to be; None if nobody of the group."""
    said, _, secret = content.partition(b" ")
    if kind != frames.LINK or not said.isdigit() or len(said) > 6 or secret != token.encode():
        return None
    return int(said)
