"""The ways of the data: a connection between any two processes of a group, over which all exchange at once.

Each sends to each other what that one needs and nothing else, so no process carries what is not its own, and all send
and receive at the same time. Both sides of a connection know how much comes next: a message is a frame of a length that
is expected, and whatever else comes is an error.
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

_AT_ONCE = 1 << 20


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
        for link in links.values():
            link.socket.setblocking(False)

    def exchange(
        self, outgoing: Mapping[int, Sequence[bytes]], incoming: Mapping[int, int], control: Sequence[Peer]
    ) -> dict[int, bytearray]:
        """Send these, receive so many bytes; what came begins after `frames.HEADER_BYTES`.

        Ends early when somebody says over `control` that the group has failed. Raises GroupError.
        """
        sending = {
            number: memoryview(b"".join((frames.header(frames.DATA, sum(map(len, data))), *data)))
            for number, data in outgoing.items()
        }
        found = {number: bytearray(frames.HEADER_BYTES + length) for number, length in incoming.items()}
        receiving = {number: memoryview(buffer) for number, buffer in found.items()}
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
                else:
                    self._receive(by_socket[descriptor], found, receiving)
            for descriptor in writable:
                self._send(by_socket[descriptor], sending)
            moved = time.monotonic()
        return found

    def close(self) -> None:
        """End all of them."""
        for link in self._links.values():
            link.close()

    def _send(self, number: int, sending: dict[int, memoryview]) -> None:
        link = self._links[number]
        try:
            sent = link.socket.send(sending[number][:_AT_ONCE])
        except BlockingIOError:
            return
        except OSError as error:
            raise GroupError(link.words(error)) from None
        sending[number] = sending[number][sent:]
        if not sending[number]:
            del sending[number]

    def _receive(self, number: int, found: Mapping[int, bytearray], receiving: dict[int, memoryview]) -> None:
        link, buffer, rest = self._links[number], found[number], receiving[number]
        had = len(buffer) - len(rest)
        try:
            count = link.socket.recv_into(rest)
        except BlockingIOError:
            return
        except OSError as error:
            raise GroupError(link.words(error)) from None
        if not count:
            raise GroupError(f"{link.name} has ended")
        if had < frames.HEADER_BYTES <= had + count:
            length = len(buffer) - frames.HEADER_BYTES
            expected = frames.header(frames.DATA, length)
            if not buffer.startswith(expected):
                raise GroupError(f"{link.name} sent something else than {length} bytes of data")
        receiving[number] = rest[count:]
        if not receiving[number]:
            del receiving[number]


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
