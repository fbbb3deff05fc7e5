"""The processes of a group: how they meet at the root, what each has to do with the others, how all of them end.

The root is the process at the address of NEURON_RT_ROOT_COMM_ID. It listens there while it runs; who connects has some
seconds to say who it is, and is let in or told why not. Then all connect with one another, and data goes from each to
whom it is for (`mesh`); over the first connection, that with the root, goes what concerns all. Processes walk through
the same pieces in the same order, so no message names what it is about. Whoever waits does so for a bounded time;
whoever sees that another one has failed tells the root, which tells everybody, so that all give the same reason.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import socket
import time
from dataclasses import dataclass, replace

from neuron_runtime.nccom import frames, membership, mesh, peers
from neuron_runtime.nccom.peers import HELLO_SECONDS, Door, GroupError, Peer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from neuron_runtime.nccom.claims import Place
    from neuron_runtime.nccom.membership import Hello
    from neuron_runtime.nccom.mesh import Data, Mesh

RETRY_SECONDS = 0.2
_STREAM = socket.SOCK_STREAM


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


class Root:
    """The first process of a group, and its connections to the others."""

    number = 0

    def __init__(
        self, listener: socket.socket, peers: Sequence[Peer], hellos: Sequence[Hello], ways: Mesh, seed: int
    ) -> None:
        self._listener = listener
        self._peers = peers
        self._mesh = ways
        self.places = tuple(hello.place for hello in hellos)
        self.seed = seed

    def exchange(
        self, outgoing: Mapping[int, Sequence[Data]], expected: Mapping[int, Sequence[Data]]
    ) -> Mapping[int, Sequence[Data]]:
        """Data to and from other processes: what came, as `Mesh.exchange` has it. Raises GroupError."""
        return self._mesh.exchange(outgoing, expected, self._peers)

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
        self._mesh.close()
        for peer in self._peers:
            peer.close()
        self._listener.close()

    def _turn_away(self) -> None:
        """Those who come now are of another job."""
        while select.select([self._listener], [], [], 0)[0]:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            peers.refuse(connection, "the group is complete: use another root id for another job")


class Member:
    """Another process of a group, and its connections to the root and the others."""

    def __init__(self, root: Peer, number: int, places: Sequence[Place], ways: Mesh, seed: int) -> None:
        self._root = root
        self._mesh = ways
        self.number = number
        self.places = tuple(places)
        self.seed = seed

    def exchange(
        self, outgoing: Mapping[int, Sequence[Data]], expected: Mapping[int, Sequence[Data]]
    ) -> Mapping[int, Sequence[Data]]:
        """Data to and from other processes: what came, as `Mesh.exchange` has it. Raises GroupError."""
        try:
            return self._mesh.exchange(outgoing, expected, (self._root,))
        except GroupError as error:
            raise GroupError(_verdict(self._root, str(error))) from None

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
        """End all connections."""
        self._mesh.close()
        self._root.close()


def _verdict(root: Peer, reason: str) -> str:
    """What the root, which hears of it, says of the end of the group; this process' own words where it says nothing."""
    try:
        root.send(frames.FAILED, reason.encode())
        root.patience(HELLO_SECONDS)
        return root.receive(frames.FAILED).decode(errors="replace")
    except GroupError:
        return reason


def form(meeting: Meeting, hello: Hello, *, seed: int) -> Root | Member:
    """The group; this process is its root if the address of the root is its own. Raises GroupError."""
    deadline = time.monotonic() + meeting.join_seconds
    address = _addresses(meeting.host, deadline)[0]
    order = {place: number for number, name in enumerate(meeting.order) for place in _addresses(name, deadline)}
    listener = socket.socket(peers.family(address), _STREAM)
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
    door = Door(listener, seconds=meeting.silence_seconds)
    joined: dict[int, tuple[Peer, Hello]] = {}
    while len(joined) < hello.processes - 1:
        if time.monotonic() > deadline:
            missing = hello.processes - 1 - len(joined)
            reason = (
                f"{missing} of {hello.processes} processes did not come in {meeting.join_seconds:g} s: "
                f"run the same command with the same flags in each pod{refused}"
            )
            door.shut(reason)
            for peer, _ in joined.values():
                peers.refuse(peer.socket, reason)
            listener.close()
            raise GroupError(reason)
        came, said = door.wait(joined, RETRY_SECONDS)
        for stranger, kind, content in came:
            why = _let_in(stranger, kind, content, joined, hello)
            refused = f" (refused: {why})" if why else refused
        for number in said:
            if not _lives(joined[number][0]):
                # whoever restarts may come again
                joined.pop(number)[0].close()
    door.shut()
    found = list(joined.values())
    wanted = [order.get(peer.address) for peer, _ in found]
    members = [found[place] for place in membership.ordered([who for _, who in found], wanted)]
    return _welcome(listener, [peer for peer, _ in members], [hello, *(who for _, who in members)], meeting, seed)


def _welcome(
    listener: socket.socket, members: Sequence[Peer], hellos: Sequence[Hello], meeting: Meeting, seed: int
) -> Root:
    """Tell everybody who and where the others are, and connect with them. Raises GroupError."""
    token = os.urandom(16).hex()
    said = {
        "seed": seed,
        "token": token,
        "places": [membership.place_document(who.place) for who in hellos],
        # the root is where they have found it
        "ways": [[peer.address, who.port, peer.name] for peer, who in zip(members, hellos[1:], strict=True)],
    }
    ways = [mesh.Way("", 0, ""), *(mesh.Way(peer.address, 0, peer.name) for peer in members)]
    try:
        for number, peer in enumerate(members, start=1):
            peer.send(frames.WELCOME, json.dumps({"number": number, **said}).encode())
        links = mesh.connect(0, listener, ways, token, members, seconds=meeting.silence_seconds)
    except GroupError as error:
        Root(listener, members, hellos, mesh.Mesh({}, seconds=0), seed).give_up(str(error))
        raise
    root = Root(listener, members, hellos, links, seed)
    try:
        root.agree("")  # from now on all connections carry data only
    except GroupError as error:
        root.give_up(str(error))
        raise
    return root


def join(meeting: Meeting, hello: Hello, *, deadline: float) -> Member:
    """Go to the root and be let in. Raises GroupError."""
    while True:
        try:
            address = _addresses(meeting.host, deadline)[0]
            connection = peers.connected(address, meeting.port)
            break
        except OSError as error:
            if time.monotonic() > deadline:
                raise GroupError(f"nobody listens at the root {meeting.root_id}: {error}") from None
            time.sleep(RETRY_SECONDS)
    # until all others have come
    root = Peer(connection, f"the root {meeting.root_id}", seconds=meeting.join_seconds + HELLO_SECONDS)
    listener = socket.socket(connection.family, _STREAM)
    try:
        listener.bind((connection.getsockname()[0], 0))
        listener.listen(128)
        return _let_in_by(root, meeting, replace(hello, port=listener.getsockname()[1]), listener, address)
    except (GroupError, OSError) as error:
        root.close()
        raise GroupError(str(error)) from None
    finally:
        listener.close()


def _let_in_by(root: Peer, meeting: Meeting, hello: Hello, listener: socket.socket, address: str) -> Member:
    """Say hello to the root, hear who the others are, and connect with them. Raises GroupError."""
    root.send(frames.HELLO, membership.encoded(hello))
    try:
        found = json.loads(root.receive(frames.WELCOME))
        places = [membership.place_of(place) for place in found["places"]]
        number, seed, token = int(found["number"]), int(found["seed"]), str(found["token"])
        others = [mesh.Way(str(place), int(port), str(name)) for place, port, name in found["ways"]]
    except (ValueError, KeyError, TypeError) as error:
        raise GroupError(f"the root {meeting.root_id} is not understood: {error!r}") from None
    # who is waited for may wait for another one, and the root is to say for whom
    patience = meeting.silence_seconds + HELLO_SECONDS
    root.patience(patience)
    ways = [mesh.Way(address, meeting.port, root.name), *others]
    try:
        links = mesh.connect(number, listener, ways, token, (root,), seconds=patience)
    except GroupError as error:
        raise GroupError(_verdict(root, str(error))) from None
    member = Member(root, number, places, links, seed)
    member.agree("")
    return member


def _let_in(
    stranger: Peer, kind: int, content: bytes, joined: dict[int, tuple[Peer, Hello]], root: Hello
) -> str | None:
    """Let a stranger in, or turn it away; the reason where one was given."""
    try:
        if kind != frames.HELLO:
            raise membership.HelloError("no hello")
        hello = membership.decoded(content)
    except membership.HelloError:
        stranger.close()
        return None
    reason = membership.refusal(root, hello, [found for _, found in joined.values()])
    if reason is not None:
        peers.refuse(stranger.socket, reason)
        return reason
    name = f"the process in {hello.host} ({stranger.address})"
    joined[stranger.socket.fileno()] = (stranger.of_the_group(name), hello)
    return None


def _lives(peer: Peer) -> bool:
    try:
        return peer.read_some() is None
    except GroupError:
        return False


def resolved(names: Collection[str], *, seconds: float) -> None:
    """Wait until these hosts have addresses. Raises GroupError."""
    deadline = time.monotonic() + seconds
    for name in names:
        _addresses(name, deadline)


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
