"""The processes of a group, joined by TCP: everybody is connected with the root, and data goes over it.

The root is the process at the address of NEURON_RT_ROOT_COMM_ID. It listens there while it runs; who connects has some
seconds to say who it is, and is let in or told why not. All processes walk through the same pieces in the same order,
so no message names what it is about. Whoever waits does so for a bounded time, and the end of one is seen by the root,
which tells everybody.
"""

from __future__ import annotations

import contextlib
import errno
import json
import select
import socket
import time
from dataclasses import dataclass

from neuron_runtime.nccom import buffers, frames, membership

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from neuron_runtime.nccom.claims import Place
    from neuron_runtime.nccom.membership import Hello

HELLO_SECONDS = 5.0
"""A stranger's time to say who it is."""
RETRY_SECONDS = 0.2
_STRANGERS_MOST = 64
_STREAM = socket.SOCK_STREAM
_HELLO_MOST_BYTES = 1 << 17


class GroupError(Exception):
    """The group cannot be formed, or has broken; the message says why."""


@dataclass(frozen=True)
class Meeting:
    """Where and how long a group forms."""

    host: str
    port: int
    order: Sequence[str] = ()
    """The hosts in the order of their ranks."""
    join_seconds: float = 120.0
    silence_seconds: float = 30.0
    """How long a process of the group may be silent."""

    @property
    def root_id(self) -> str:
        """As NEURON_RT_ROOT_COMM_ID has it."""
        return f"{self.host}:{self.port}"


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

    def send(self, kind: int, content: bytes = b"") -> None:
        """Raises GroupError when the other one is gone or takes nothing."""
        try:
            self.socket.settimeout(self._seconds)
            self.socket.sendall(frames.frame(kind, content))
        except OSError as error:
            raise GroupError(self._words(error)) from None

    def receive(self, *kinds: int) -> bytes:
        """The content of the next frame, which is of one of these kinds. Raises GroupError."""
        try:
            while (found := self._reader.next()) is None:
                self.socket.settimeout(self._seconds)
                data = self.socket.recv(1 << 20)
                if not data:
                    raise GroupError(f"{self.name} has ended")
                self._reader.feed(data)
        except OSError as error:
            raise GroupError(self._words(error)) from None
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
            raise GroupError(self._words(error)) from None
        except frames.FrameError as error:
            raise GroupError(f"{self.name}: {error}") from None

    def of_the_group(self, name: str) -> Peer:
        """The same connection, now of somebody who is known and sends data."""
        return Peer(self.socket, name, seconds=self._seconds, address=self.address)

    def patience(self, seconds: float) -> None:
        """From now on the other one may be silent for so long."""
        self._seconds = seconds

    def close(self) -> None:
        """End it."""
        self.socket.close()

    def _words(self, error: OSError) -> str:
        if isinstance(error, TimeoutError):
            return f"{self.name} has been silent for {self._seconds:g} s: suspected hang in collectives"
        return f"{self.name} has ended ({error.strerror or error})"


class Root:
    """The first process of a group, and its connections to the others."""

    number = 0

    def __init__(self, listener: socket.socket, peers: Sequence[Peer], hellos: Sequence[Hello], seed: int) -> None:
        self._listener = listener
        self._peers = peers
        self.places = tuple(hello.place for hello in hellos)
        self.seed = seed

    def combine(
        self, owners: Sequence[int], own: bytes | None, adding: Callable[[bytes, bytes], bytes], length: int
    ) -> bytes | None:
        """The sum of what these processes have; None at those that are not the root."""
        parts = [self._data(number, length) if number else own for number in owners]
        return buffers.tree_sum([part for part in parts if part is not None], adding)

    def spread(self, receivers: Sequence[int], total: bytes | None, length: int) -> bytes | None:
        """Bring the sum to these processes; what this one has of it."""
        for number in receivers:
            if number and total is not None:
                self._peers[number - 1].send(frames.DATA, total)
        return total

    def agree(self, problem: str) -> str:
        """What went wrong in any process, in words; empty if nothing did."""
        self._turn_away()
        found = [problem, *(peer.receive(frames.RESULT).decode(errors="replace") for peer in self._peers)]
        said = next(filter(None, found), "")
        for peer in self._peers:
            peer.send(frames.RESULT, said.encode())
        return said

    def finish(self) -> None:
        """All is done, and who ends before hearing of it has missed nothing."""
        for peer in self._peers:
            with contextlib.suppress(GroupError):
                peer.send(frames.DONE)
        self.close()

    def give_up(self, reason: str) -> None:
        """Tell everybody why, as far as they can hear it."""
        for peer in self._peers:
            with contextlib.suppress(GroupError):
                peer.send(frames.FAILED, reason.encode())
        self.close()

    def close(self) -> None:
        """End all connections."""
        for peer in self._peers:
            peer.close()
        self._listener.close()

    def _data(self, number: int, length: int) -> bytes:
        peer = self._peers[number - 1]
        data = peer.receive(frames.DATA)
        if len(data) != length:
            raise GroupError(f"{peer.name} sent {len(data)} bytes instead of {length}")
        return data

    def _turn_away(self) -> None:
        """Those who come now are of another job."""
        while select.select([self._listener], [], [], 0)[0]:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            _refuse(connection, "the group is complete: use another root id for another job")


class Member:
    """Another process of a group, and its connection to the root."""

    def __init__(self, root: Peer, number: int, places: Sequence[Place], seed: int) -> None:
        self._root = root
        self.number = number
        self.places = tuple(places)
        self.seed = seed

    def combine(
        self, owners: Sequence[int], own: bytes | None, adding: Callable[[bytes, bytes], bytes], length: int
    ) -> bytes | None:
        """Send this process' part to the root."""
        if own is not None and self.number in owners:
            self._root.send(frames.DATA, own)
        return None

    def spread(self, receivers: Sequence[int], total: bytes | None, length: int) -> bytes | None:
        """The sum, if this process gets it."""
        if self.number not in receivers:
            return None
        data = self._root.receive(frames.DATA)
        if len(data) != length:
            raise GroupError(f"{self._root.name} sent {len(data)} bytes instead of {length}")
        return data

    def agree(self, problem: str) -> str:
        """Tell the root; it says what went wrong in any process."""
        self._root.send(frames.RESULT, problem.encode())
        return self._root.receive(frames.RESULT).decode(errors="replace")

    def finish(self) -> None:
        """Wait for the end of the whole."""
        self._root.receive(frames.DONE)
        self.close()

    def give_up(self, reason: str) -> None:
        """The root sees the connection end, and tells the others."""
        self.close()

    def close(self) -> None:
        """End the connection."""
        self._root.close()


def form(meeting: Meeting, hello: Hello, *, seed: int) -> Root | Member:
    """The group; this process is its root if the address of the root is its own. Raises GroupError."""
    deadline = time.monotonic() + meeting.join_seconds
    address = _addresses(meeting.host, deadline)[0]
    order = {place: number for number, name in enumerate(meeting.order) for place in _addresses(name, deadline)}
    listener = socket.socket(_family(address), _STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address, meeting.port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRNOTAVAIL:
            return join(meeting, hello, deadline=deadline)
        if error.errno == errno.EADDRINUSE:
            raise GroupError(f"another job uses {meeting.root_id}: use another root id") from None
        raise GroupError(f"cannot listen at {meeting.root_id}: {error.strerror}") from None
    return host(listener, meeting, hello, seed=seed, deadline=deadline, order=order)


def host(
    listener: socket.socket,
    meeting: Meeting,
    hello: Hello,
    *,
    seed: int,
    deadline: float,
    order: Mapping[str, int],
) -> Root:
    """Wait at this socket until all other processes have come; `order` is that of addresses. Raises GroupError."""
    refused = ""
    strangers: dict[int, tuple[Peer, float]] = {}
    joined: dict[int, tuple[Peer, Hello]] = {}
    listener.setblocking(False)
    while len(joined) < hello.processes - 1:
        now = time.monotonic()
        if now > deadline:
            missing = hello.processes - 1 - len(joined)
            reason = (
                f"{missing} of {hello.processes} processes did not come in {meeting.join_seconds:g} s: "
                f"run nccom-test with the same flags in each pod{refused}"
            )
            for peer, _ in (*strangers.values(), *joined.values()):
                _refuse(peer.socket, reason)
            listener.close()
            raise GroupError(reason)
        for number in [number for number, (_, until) in strangers.items() if until < now]:
            strangers.pop(number)[0].close()
        watched = [listener.fileno(), *strangers, *joined]
        readable, _, _ = select.select(watched, [], [], RETRY_SECONDS)
        for number in readable:
            if number == listener.fileno():
                _welcome_stranger(listener, strangers, seconds=meeting.silence_seconds)
            elif number in strangers:
                why = _hear(number, strangers, joined, hello)
                refused = f" (refused: {why})" if why else refused
            elif number in joined and not _lives(joined[number][0]):
                # whoever restarts may come again
                joined.pop(number)[0].close()
    for peer, _ in strangers.values():
        peer.close()
    came = list(joined.values())
    wanted = [order.get(peer.address) for peer, _ in came]
    peers = [came[place] for place in membership.ordered([found for _, found in came], wanted)]
    hellos = [hello, *(found for _, found in peers)]
    places = [membership.place_document(found.place) for found in hellos]
    root = Root(listener, [peer for peer, _ in peers], hellos, seed)
    try:
        for number, (peer, _) in enumerate(peers, start=1):
            peer.send(frames.WELCOME, json.dumps({"number": number, "seed": seed, "places": places}).encode())
    except GroupError as error:
        root.give_up(str(error))
        raise
    return root


def join(meeting: Meeting, hello: Hello, *, deadline: float) -> Member:
    """Go to the root and be let in. Raises GroupError."""
    while True:
        try:
            connection = _connected(_addresses(meeting.host, deadline)[0], meeting.port)
            break
        except OSError as error:
            if time.monotonic() > deadline:
                raise GroupError(f"nobody listens at the root {meeting.root_id}: {error}") from None
            time.sleep(RETRY_SECONDS)
    # until all others have come
    waiting = Peer(connection, f"the root {meeting.root_id}", seconds=meeting.join_seconds + HELLO_SECONDS)
    try:
        waiting.send(frames.HELLO, membership.encoded(hello))
        answer = waiting.receive(frames.WELCOME)
        found = json.loads(answer)
        places = [membership.place_of(place) for place in found["places"]]
        number, seed = int(found["number"]), int(found["seed"])
    except GroupError:
        waiting.close()
        raise
    except (ValueError, KeyError, TypeError) as error:
        waiting.close()
        raise GroupError(f"the root {meeting.root_id} is not understood: {error!r}") from None
    # the root itself may wait for another one
    waiting.patience(meeting.silence_seconds + HELLO_SECONDS)
    return Member(waiting, number, places, seed)


def _welcome_stranger(listener: socket.socket, strangers: dict[int, tuple[Peer, float]], *, seconds: float) -> None:
    try:
        connection, address = listener.accept()
    except OSError:
        return
    if len(strangers) >= _STRANGERS_MOST:
        strangers.pop(next(iter(strangers)))[0].close()
    peer = Peer(connection, "a stranger", seconds=seconds, most=_HELLO_MOST_BYTES, address=str(address[0]))
    strangers[connection.fileno()] = (peer, time.monotonic() + HELLO_SECONDS)


def _hear(
    number: int,
    strangers: dict[int, tuple[Peer, float]],
    joined: dict[int, tuple[Peer, Hello]],
    root: Hello,
) -> str | None:
    """Let a stranger in, or turn it away; the reason where one was given."""
    peer, _ = strangers[number]
    try:
        said = peer.read_some()
        if said is None:
            return None
        if said[0] != frames.HELLO:
            raise GroupError("no hello")
        hello = membership.decoded(said[1])
    except (GroupError, membership.HelloError):
        strangers.pop(number)[0].close()
        return None
    del strangers[number]
    reason = membership.refusal(root, hello, [found for _, found in joined.values()])
    if reason is not None:
        _refuse(peer.socket, reason)
        return reason
    joined[number] = (peer.of_the_group(f"the process in {hello.host} ({peer.address})"), hello)
    return None


def _refuse(connection: socket.socket, reason: str) -> None:
    try:
        connection.settimeout(HELLO_SECONDS)
        connection.sendall(frames.frame(frames.REFUSED, reason.encode()))
        connection.shutdown(socket.SHUT_WR)
    except OSError:
        pass
    connection.close()


def _lives(peer: Peer) -> bool:
    try:
        return peer.read_some() is None
    except GroupError:
        return False


def _addresses(name: str, deadline: float) -> list[str]:
    """What a name means; the name of a pod is there a little later than the pod. Raises GroupError."""
    while True:
        try:
            # bytes: of text, Python would load a table of Unicode first
            return [str(entry[4][0]) for entry in socket.getaddrinfo(name.encode("ascii"), None, type=_STREAM)]
        except (OSError, UnicodeError):
            if time.monotonic() > deadline:
                raise GroupError(f"the host {name} does not resolve") from None
            time.sleep(RETRY_SECONDS)


def _connected(address: str, port: int) -> socket.socket:
    connection = socket.socket(_family(address), _STREAM)
    connection.settimeout(HELLO_SECONDS)
    try:
        connection.connect((address, port))
    except OSError:
        connection.close()
        raise
    return connection


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET
