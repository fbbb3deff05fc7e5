"""Time nccom-test's data over four processes of 16 ranks each, beside the bare moving of the same bytes.

`make bench` runs this. It needs no cluster: the processes are joined over this machine's loopback, where moving costs
less than over any pod network, and everything else the same. What each process sends to each other one is counted in a
first run; then the same connections carry just as many bytes, which nobody makes, adds or looks at.

    python tests/bench/nccom_over_pods.py --repeat 3 allr alltoall
    python tests/bench/nccom_over_pods.py --pods POD POD POD POD   # over the network of pods of a kind cluster
"""

import argparse
import json
import select
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from neuron_device_model.collectives import operations
from neuron_ls import container_process, kubectl
from neuron_runtime import nccom_test, nrt
from neuron_runtime.nccom import arguments, costs, group, streams
from neuron_runtime.nccom.claims import GivenCore, Place
from neuron_runtime.nccom.group import Meeting, Member, Root
from neuron_runtime.nccom.membership import Hello

PROCESSES = 4
RANKS = 64
GOAL = 2
PORT = 48620
"""Of the first pod, which has its ports to itself."""
_CHUNK = 1 << 20
Data: TypeAlias = bytes | memoryview


class Counted:
    """A process of a group that counts what it sends and receives for each size."""

    def __init__(self, one: Root | Member) -> None:
        self._one = one
        self.number = one.number
        self.places = one.places
        self.seed = one.seed
        self.sent: list[dict[int, int]] = [{}]
        self.received: list[dict[int, int]] = [{}]

    def exchange(
        self, outgoing: Mapping[int, Sequence[Data]], expected: Mapping[int, Sequence[Data]]
    ) -> Mapping[int, Sequence[Data]]:
        for counted, parts in ((self.sent[-1], outgoing), (self.received[-1], expected)):
            for number, data in parts.items():
                counted[number] = counted.get(number, 0) + sum(map(len, data))
        return self._one.exchange(outgoing, expected)

    def agree(self, problem: str) -> str:
        self.sent.append({})
        self.received.append({})
        return self._one.agree(problem)


def move(links: Mapping[int, socket.socket], sent: Mapping[int, int], received: Mapping[int, int]) -> None:
    """Move so many bytes to and from each."""
    source, sink = memoryview(bytes(_CHUNK)), memoryview(bytearray(_CHUNK))
    sending, receiving = dict(sent), dict(received)
    while sending or receiving:
        by_socket = {links[number]: number for number in {*sending, *receiving}}
        readable, writable, _ = select.select(
            [links[number] for number in receiving], [links[number] for number in sending], []
        )
        for one in writable:
            number = by_socket[one]
            sending[number] -= one.send(source[: sending[number]])
            if not sending[number]:
                del sending[number]
        for one in readable:
            number = by_socket[one]
            receiving[number] -= one.recv_into(sink[: receiving[number]])
            if not receiving[number]:
                del receiving[number]


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Of time, and of this process' CPU."""
    begin, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - begin, time.process_time() - cpu


def process(number: int, meeting: Meeting, operation: str, datatype: str, repeat: int) -> None:
    """One of the four; the root prints its figures as JSON."""
    first = 8 if operations.operation(operation) is operations.ALL_REDUCE else 4 * RANKS
    words = ["-r", str(RANKS), "-N", str(PROCESSES), "-b", str(first), "-e", "64mb", "-f", "2"]
    flags = arguments.parse([*words, "-d", datatype, "--check", "random", operation])
    wanted = streams.planned(flags)
    cores = tuple(GivenCore(core, core // 4, core % 4) for core in range(RANKS // PROCESSES))
    hello = Hello(f"p-{number}", "1", "job", None, PROCESSES, Place("trn2.48xlarge", f"i-{number}", 2, cores))
    deadline = time.monotonic() + 60
    one: Root | Member
    if number:
        one = group.join(meeting, hello, deadline=deadline)
    else:
        listener = socket.create_server((meeting.host, meeting.port))
        one = group.host(listener, meeting, hello, seed=7, deadline=deadline, order={})
    counted = Counted(one)
    links = {other: link.socket for other, link in one._mesh._links.items()}
    board = costs.Board(one.places)

    def run(members: Root | Member | Counted) -> None:
        runner = nccom_test.Runner(flags, wanted)
        assert runner.run(board, {}, nrt.Cores({}), members) == 0  # type: ignore[arg-type]

    def move_all() -> None:
        for sent, received in zip(counted.sent, counted.received, strict=True):
            move(links, sent, received)
        one.agree("")

    run(counted)
    taken: dict[str, list[tuple[float, float]]] = {"tool": [], "bare": []}
    for _ in range(repeat):
        one.agree("")
        taken["tool"].append(seconds(lambda: run(one)))
        one.agree("")
        taken["bare"].append(seconds(move_all))
    if not number:
        document = {**taken, "sent": sum(sum(sent.values()) for sent in counted.sent)}
        print(json.dumps(document), file=sys.stderr)
    one.finish()


def measured(operation: str, datatype: str, repeat: int, pods: Sequence[str]) -> tuple[int, list[float], list[float]]:
    """The root's figures: bytes sent; seconds of time and of CPU of the tool, and of the bare moving."""
    root, enter = in_pods(pods) if pods else (on_loopback(), [[]] * PROCESSES)
    words = [operation, "--datatype", datatype, "--repeat", str(repeat), "--root", *root]
    started = [
        subprocess.Popen(
            [*enter[number], sys.executable, __file__, *words, "--process", str(number)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(PROCESSES)
    ]
    said = [one.communicate(timeout=600)[1] for one in started]
    if any(one.returncode for one in started):
        raise SystemExit("".join(said))
    found = json.loads(said[0])
    tool, bare = ([statistics.median(column) for column in zip(*found[name], strict=True)] for name in ("tool", "bare"))
    return found["sent"], tool, bare


def on_loopback() -> tuple[str, str]:
    """Where the root is met."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return "127.0.0.1", str(free.getsockname()[1])


def in_pods(names: Sequence[str]) -> tuple[tuple[str, str], list[list[str]]]:
    """Where the root is met, and what brings a command into the network of each pod."""
    address = json.loads(kubectl("get", "pod", names[0], "-o", "json"))["status"]["podIP"]
    return (address, str(PORT)), [["nsenter", "--net", "--target", container_process(name)] for name in names]


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("operations", nargs="*", default=["allr", "redsct", "allg", "alltoall"])
    parser.add_argument("--datatype", default="bf16")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--pods", nargs=PROCESSES, default=(), metavar="POD", help="running, of a kind cluster")
    parser.add_argument("--root", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--process", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args(words)
    if args.process is not None:
        where = Meeting(args.root[0], int(args.root[1]))
        process(args.process, where, args.operations[0], args.datatype, args.repeat)
        return 0
    print(
        f"{RANKS} ranks in {PROCESSES} processes, {args.datatype}, --check random, to 64 MiB; medians of {args.repeat}"
    )
    print("| operation | the root sends, MiB | nccom-test, s | bare moving, s | ratio | goal | CPU of the root, s |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for operation in args.operations:
        sent, tool, bare = measured(operation, args.datatype, args.repeat, args.pods)
        print(
            f"| {operation} | {sent / 2**20:.0f} | {tool[0]:.3f} | {bare[0]:.3f} | {tool[0] / bare[0]:.2f} | <= {GOAL} "
            f"| {tool[1]:.3f} / {bare[1]:.3f} |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
