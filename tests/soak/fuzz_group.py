"""A million messages to the ports of a group: each is from somebody who can be let in, or is turned away.

    python tests/soak/fuzz_group.py --examples 1000000 --seed 7

Messages are hellos and links with something changed: a field, a type, a number, the length or the kind of the frame,
any bytes; some are whole, some are cut off, some come in pieces. All are read as the root reads them. For each hundred
of them (``--over-tcp 1``: for each) another one goes over TCP to the port of a root that waits, and to that of a
process that waits for the others; then the real processes come, and the group adds up real data. In the end no thread
and no socket is left.

The seed decides what is sent; it is printed, and so is the message that failed.
"""

import argparse
import copy
import json
import random
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from neuron_runtime.nccom import arguments, checking, frames, group, membership, mesh, streams
from neuron_runtime.nccom.claims import GivenCore, Place
from neuron_runtime.nccom.group import Meeting, Member, Root
from neuron_runtime.nccom.membership import Hello
from neuron_runtime.nccom.peers import Peer

PROCESSES = 3
JOIN_SECONDS = 6 * 3600
TOKEN = "0123456789abcdef"
STRANGE: tuple[Any, ...] = (
    None,
    True,
    -1,
    1e999,
    1 << 70,
    "",
    "\u2028",
    '"\\\n',
    "x" * 300,
    [],
    [[]],
    {},
    {"a": 1},
    0.5,
)


def hello(number: int, *, job: str = "flags") -> Hello:
    cores = tuple(GivenCore(core, core // 4, core % 4) for core in range(2))
    place = Place("trn2.48xlarge", f"i-{number}", 2, cores)
    return Hello(f"job-{number}", "1", job, None, PROCESSES, place, 4000 + number)


def message(chance: random.Random, *, job: str) -> bytes:
    """One of them, as bytes of a connection."""
    kind = chance.choice((frames.HELLO,) * 6 + (frames.LINK,) * 2 + tuple(range(frames.KINDS)))
    if kind == frames.LINK:
        content = chance.choice((b"1", b"2", b"-1", b"", b"9" * 40)) + b" " + chance.randbytes(8).hex().encode()
    else:
        said = json.loads(membership.encoded(hello(chance.randrange(1, 5), job=job)))
        if chance.random() < 0.3:
            said |= chance.choice(({"versions": "2"}, {"job": "third"}, {"seed": 3}, {"processes": 7}))
        for _ in range(chance.choice((0, 1, 1, 2))):
            inner = said.get("place")
            place: Any = chance.choice((said, inner)) if isinstance(inner, dict) and inner else said
            name = chance.choice(list(place))
            place[chance.choice((name, name, "strange"))] = copy.deepcopy(chance.choice(STRANGE))
        content = json.dumps(said).encode()
    data = bytearray(frames.frame(kind, content))
    if chance.random() < 0.3:
        for _ in range(chance.randrange(1, 4)):
            data[chance.choice((chance.randrange(frames.HEADER_BYTES), chance.randrange(len(data))))] = (
                chance.randrange(256)
            )
    if chance.random() < 0.2:
        del data[chance.randrange(len(data)) :]
    if chance.random() < 0.1:
        data += chance.randbytes(chance.randrange(40))
    return bytes(data)


def read(data: bytes, chance: random.Random, root: Hello) -> str:
    """What becomes of it at a port: let in, a sentence, or an end without words."""
    reader = frames.Reader(1 << 17)
    try:
        while data:
            cut = chance.choice((len(data), chance.randrange(1, len(data) + 1)))
            reader.feed(data[:cut])
            data = data[cut:]
            if (found := reader.next()) is not None:
                break
        else:
            return "waits"
        kind, content = found
        if mesh.number_of(kind, content, TOKEN) is not None:
            raise AssertionError("somebody without the token is of the group")
        if kind != frames.HELLO:
            return "ends"
        who = membership.decoded(content)
    except (frames.FrameError, membership.HelloError):
        return "ends"
    reason = membership.refusal(root, who, [hello(9)])
    assert reason is None or len(reason) < 2000
    return "refused" if reason else "let in"


def strangers(port: int, messages: Iterable[bytes]) -> None:
    """Say each of these over a connection of its own; some leave at once, the others hear the end."""
    for number, data in enumerate(messages):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            try:
                connection.sendall(data)
                if number % 2:
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(1 << 12):
                        pass
            except OSError:
                pass  # it was turned away before it had said all


def of_another_job(count: int, seed: int) -> Iterator[bytes]:
    """Messages of whom nobody lets in, whatever else they say."""
    chance = random.Random(seed)
    return (message(chance, job="other") for _ in range(count))


def over_tcp(count: int, seed: int) -> None:
    """Strangers at the port of a root and at that of a process that waits for links; then groups form, and work."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(8) as threads:
        meeting = Meeting("127.0.0.1", listener.getsockname()[1], join_seconds=JOIN_SECONDS, silence_seconds=60)
        deadline = time.monotonic() + JOIN_SECONDS
        root = threads.submit(group.host, listener, meeting, hello(0), seed=1, deadline=deadline, order={})
        strangers(meeting.port, of_another_job(count, seed))
        members = [threads.submit(group.join, meeting, hello(n), deadline=deadline) for n in range(1, PROCESSES)]
        formed: list[Root | Member] = [root.result(300), *(member.result(300) for member in members)]
        (stream,) = streams.planned(arguments.parse(["-r", "6", "-b", "96kb", "-e", "96kb", "-c", "allr"]))

        def run(one: Root | Member) -> None:
            checking.Check(stream, [0, 0, 1, 1, 2, 2], seed=one.seed, group=one).run(96 << 10)
            one.agree("")
            one.finish()

        for done in [threads.submit(run, one) for one in formed]:
            done.result(300)
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(8) as threads:
        port = listener.getsockname()[1]
        ways = [mesh.Way("127.0.0.1", port, "first"), mesh.Way("127.0.0.1", 0, "second")]
        first = threads.submit(mesh.connect, 0, listener, ways, TOKEN, (), seconds=JOIN_SECONDS)
        strangers(port, of_another_job(count, seed + 1))
        with socket.create_server(("127.0.0.1", 0)) as other:
            second = mesh.connect(1, other, ways, TOKEN, (), seconds=JOIN_SECONDS)
        assert isinstance(first.result(300)._links[1], Peer)
        second.close()
        first.result().close()


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=1_000_000)
    parser.add_argument("--over-tcp", type=int, default=100, metavar="N", help="send one for each N")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    args = parser.parse_args(words)
    print(f"seed {args.seed}")
    chance = random.Random(args.seed)
    descriptors, running = open_files(), threading.active_count()
    found = dict.fromkeys(("let in", "refused", "ends", "waits"), 0)
    for number in range(args.examples):
        data = message(chance, job="flags")
        try:
            found[read(data, chance, hello(0))] += 1
        except Exception:
            print(f"example {number}: {data!r}", file=sys.stderr)
            raise
    sent = -(-args.examples // args.over_tcp)
    over_tcp(sent, args.seed)
    assert all(found.values()), found
    assert threading.active_count() == running
    assert open_files() == descriptors
    said = ", ".join(f"{count} {what}" for what, count in found.items())
    print(f"{args.examples} messages: {said}; {2 * sent} over TCP, and the groups formed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
