"""Processes of a job find one another, exchange real data, and end in bounded time when one does not play along."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from neuron_runtime.nccom import arguments, checking, frames, group, membership, streams
from neuron_runtime.nccom.claims import GivenCore, Place
from neuron_runtime.nccom.group import Meeting, Member, Root
from neuron_runtime.nccom.membership import Hello
from neuron_runtime.nccom.peers import GroupError

SEED = 11


def hello(number: int, *, processes: int = 3, ranks: int = 2) -> Hello:
    cores = tuple(GivenCore(core, core // 4, core % 4) for core in range(ranks))
    place = Place("trn2.48xlarge", f"i-{number}", 2, cores, network=("spine", f"row-{number}", f"leaf-{number}"))
    return Hello(f"job-{number}", "1", "flags", None, processes, place)


class Job:
    """A root and its members, each in a thread."""

    def __init__(self, *, join_seconds: float = 20, silence_seconds: float = 20) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.meeting = Meeting(
            "127.0.0.1", self.listener.getsockname()[1], (), join_seconds=join_seconds, silence_seconds=silence_seconds
        )
        self._threads = ThreadPoolExecutor(8)

    def root(self, who: Hello) -> Future[Root]:
        deadline = time.monotonic() + self.meeting.join_seconds
        return self._threads.submit(
            group.host, self.listener, self.meeting, who, seed=SEED, deadline=deadline, order={}
        )

    def member(self, who: Hello) -> Future[Member]:
        return self._threads.submit(group.join, self.meeting, who, deadline=time.monotonic() + 20)

    def formed(self, processes: int = 3, ranks: int = 2) -> list[Root | Member]:
        members = [self.member(hello(n, processes=processes, ranks=ranks)) for n in range(1, processes)]
        root = self.root(hello(0, processes=processes, ranks=ranks)).result()
        return [root, *sorted((member.result() for member in members), key=lambda one: one.number)]

    def all(self, what: Callable[[Root | Member], object], of: list[Root | Member]) -> list[Future[object]]:
        return [self._threads.submit(what, one) for one in of]

    def close(self) -> None:
        self.listener.close()
        self._threads.shutdown()


@pytest.fixture
def job() -> Iterator[Job]:
    made = Job()
    yield made
    made.close()


@pytest.fixture
def hasty() -> Iterator[Job]:
    """Waits for half a second only."""
    made = Job(join_seconds=0.5, silence_seconds=0.5)
    yield made
    made.close()


def test_ranks_follow_the_numbers_of_the_pods() -> None:
    hellos = [replace(hello(1), host=name) for name in ("job-10", "job-9", "job-1", "other")]
    assert membership.ordered(hellos, [None] * 4) == [2, 1, 0, 3]
    assert membership.ordered(hellos, [None, 1, 2, 0]) == [3, 1, 2, 0]


def test_all_know_all_places_and_the_seed(job: Job) -> None:
    members = job.formed()
    assert [one.number for one in members] == [0, 1, 2]
    for one in members:
        assert [place.instance_id for place in one.places] == ["i-0", "i-1", "i-2"]
        assert [place.network[2] for place in one.places] == ["leaf-0", "leaf-1", "leaf-2"]
        assert one.seed == SEED
    finished = job.all(lambda one: one.finish(), members)
    assert [future.result() for future in finished] == [None] * 3


@pytest.mark.parametrize("operation", ["allr", "redsct", "allg", "alltoall", "sendrecv", "permute", "alltoallv"])
@pytest.mark.parametrize("datatype", ["uint8", "bf16"])
def test_data_goes_round_and_adds_up(job: Job, operation: str, datatype: str) -> None:
    words = ["-r", "6", "-b", "24", "-e", "1500kb", "-f", "250", "-d", datatype, "-c", operation]
    (stream,) = streams.planned(arguments.parse(words))

    def run(one: Root | Member) -> None:
        check = checking.Check(stream, [0, 0, 1, 1, 2, 2], seed=one.seed, group=one)
        for size in stream.sizes:
            check.run(size)
            assert one.agree("") == ""
        one.finish()

    for future in job.all(run, job.formed()):
        future.result()


def test_what_is_wrong_in_one_process_is_told_in_all(job: Job) -> None:
    (stream,) = streams.planned(arguments.parse(["-r", "6", "-b", "1kb", "-e", "1kb", "-d", "bf16", "-c", "allr"]))

    def run(one: Root | Member) -> str:
        def corrupt(source: int, target: int, data: bytes) -> bytes:
            return data[:-1] + bytes([data[-1] ^ 1]) if one.number == 2 else data

        check = checking.Check(stream, [0, 0, 1, 1, 2, 2], seed=one.seed, group=one, wire=corrupt)
        problem = ""
        try:
            check.run(1024)
        except checking.Mismatch as mismatch:
            problem = str(mismatch)
        said = one.agree(problem)
        one.finish()
        return said

    told = [future.result() for future in job.all(run, job.formed())]
    assert told[0] != ""
    assert len(set(told)) == 1


@pytest.mark.parametrize("operation", ["allr", "redsct", "alltoall"])
def test_a_link_that_corrupts_in_one_process_is_found_there(job: Job, operation: str) -> None:
    words = ["-r", "6", "-b", "600kb", "-e", "600kb", "-d", "bf16", "-c", operation]
    (stream,) = streams.planned(arguments.parse(words))

    def corrupt(source: int, target: int, data: bytes) -> bytes:
        return data[:-1] + bytes([data[-1] ^ 1]) if (source, target) == (4, 5) else data

    def run(one: Root | Member) -> str:
        wire = corrupt if one.number == 2 else None
        problem = ""
        try:
            checking.Check(stream, [0, 0, 1, 1, 2, 2], seed=one.seed, group=one, wire=wire).run(stream.sizes[0])
        except checking.Mismatch as mismatch:
            problem = str(mismatch)
        said = one.agree(problem)
        one.finish()
        return said

    told = {str(future.result()) for future in job.all(run, job.formed())}
    assert len(told) == 1
    assert "Data check failed: rank" in told.pop()


@pytest.mark.parametrize("end", ["closes", "is silent", "talks nonsense"])
def test_everybody_hears_of_one_that_fails(hasty: Job, end: str) -> None:
    root, lasting, failing = hasty.formed()
    (stream,) = streams.planned(arguments.parse(["-r", "6", "-b", "1kb", "-e", "1kb", "-c", "allr"]))
    if end == "closes":
        failing.close()
    elif end == "talks nonsense":
        failing._mesh._links[0].send(frames.DATA, b"too short")

    def run(one: Root | Member) -> str:
        try:
            checking.Check(stream, [0, 0, 1, 1, 2, 2], seed=SEED, group=one).run(1024)
        except GroupError as error:
            one.give_up(str(error))
            return str(error)
        return ""

    begin = time.monotonic()
    told = [str(future.result()) for future in hasty.all(run, [root, lasting])]
    assert time.monotonic() - begin < 10
    expected = {
        "closes": "has ended",
        "is silent": "suspected hang in collectives",
        "talks nonsense": "sent something else than 1024 bytes",
    }
    assert "job-2" in told[0]
    assert expected[end] in told[0]
    assert told[1] == told[0]
    failing.close()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (replace(hello(1), versions="2"), "use one version in all pods"),
        (replace(hello(1), job="other"), "runs another job"),
        (replace(hello(1), processes=2), "runs another job"),
        (replace(hello(1), seed=SEED + 1), "give the same --seed"),
        (hello(1, ranks=1), "has 1 ranks"),
        (hello(0), "cores that are in the group already"),
    ],
)
def test_who_does_not_fit_is_told_why_and_others_may_still_come(job: Job, other: Hello, message: str) -> None:
    root = job.root(hello(0))
    with pytest.raises(GroupError, match=message):
        job.member(other).result()
    members = [job.member(hello(number)) for number in (1, 2)]
    for made in (root.result(), *(member.result() for member in members)):
        made.close()


def test_waiting_for_others_ends(hasty: Job) -> None:
    root = hasty.root(hello(0))
    member = hasty.member(hello(1))
    for made in (root, member):
        with pytest.raises(GroupError, match=r"1 of 3 processes did not come in 0\.5 s"):
            made.result()


def test_nobody_at_the_root(hasty: Job) -> None:
    hasty.listener.close()
    with pytest.raises(GroupError, match="nobody listens at the root"):
        group.join(hasty.meeting, hello(1), deadline=time.monotonic())


def test_hosts_that_do_not_resolve() -> None:
    meeting = Meeting("no-such-host.invalid", 1, join_seconds=0)
    with pytest.raises(GroupError, match=r"no-such-host\.invalid does not resolve"):
        group.form(meeting, hello(0), seed=1)


def test_two_jobs_on_one_root_id(job: Job) -> None:
    with pytest.raises(GroupError, match="another job uses 127"):
        group.form(job.meeting, hello(0), seed=1)
    members = job.formed()
    late = job.member(hello(7))
    told = job.all(lambda one: one.agree(""), members)
    for future in told:
        future.result()
    # it came before or after the others agreed; at the latest the end of the group tells it
    for one in members:
        one.close()
    with pytest.raises(GroupError):
        late.result()


def test_strangers_on_the_port_do_no_harm(job: Job) -> None:
    root = job.root(hello(0))
    silent = [socket.create_connection(("127.0.0.1", job.meeting.port)) for _ in range(70)]
    noises = [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        frames.frame(frames.HELLO, b"{}"),
        frames.frame(frames.DATA, b"x"),
        b"NcS1\xff",
    ]
    for noise in noises:
        with socket.create_connection(("127.0.0.1", job.meeting.port)) as stranger:
            stranger.sendall(noise)
    members = [job.member(hello(number)) for number in (1, 2)]
    for made in (root.result(), *(member.result() for member in members)):
        made.close()
    for stranger in silent:
        stranger.close()
    assert threading.active_count() < 20


@given(st.lists(st.binary(max_size=40), max_size=5))
def test_any_bytes_are_frames_or_an_error(parts: list[bytes]) -> None:
    reader = frames.Reader(64)
    with contextlib.suppress(frames.FrameError):
        for part in parts:
            reader.feed(part)
            while reader.next() is not None:
                pass


@given(st.lists(st.tuples(st.integers(0, frames.KINDS - 1), st.binary(max_size=64)), max_size=6), st.data())
def test_frames_come_out_as_they_went_in(sent: list[tuple[int, bytes]], data: st.DataObject) -> None:
    stream = b"".join(frames.frame(kind, content) for kind, content in sent)
    reader, found = frames.Reader(), []
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        reader.feed(stream[:cut])
        stream = stream[cut:]
        while (one := reader.next()) is not None:
            found.append(one)
    assert found == sent


wild = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["host", "place", "cores", "seed"]), inner),
    max_leaves=6,
)


@settings(max_examples=50)
@given(st.binary() | wild.map(lambda value: repr(value).encode()))
def test_any_hello_is_understood_or_refused(content: bytes) -> None:
    with contextlib.suppress(membership.HelloError):
        membership.decoded(content)


def test_a_hello_comes_back_as_it_was() -> None:
    assert membership.decoded(membership.encoded(hello(3))) == hello(3)
