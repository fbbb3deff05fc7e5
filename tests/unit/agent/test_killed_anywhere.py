"""SIGKILL at any line: a forked process does the work and ends itself, without any clean-up, at a line of its choice.

After each death a new process finds what is there, as a restarted agent does, and everything comes right: no device
is given twice, a retry succeeds, and unprepare leaves nothing. A death takes the process's memory with it, so all
lines between two changes of the disk are one death: a first run finds out which lines see something new.
"""

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from neuron_dra_driver.allocations.allocation import Allocation, allocation_on
from neuron_dra_driver.errors import DeviceHeld
from neuron_dra_driver.node import SimulatedNode
from neuron_dra_driver.prepared.store import ClaimStore

CLAIMS = frozenset({"files.py", "checkpoint.py", "cdi.py", "claim_folders.py", "store.py"})
RUNTIME = frozenset({"files.py", "runtime_tree.py"})
KILLED = 9

Work = Callable[[], object]


def on_every_line(work: Work, modules: frozenset[str], reached: Callable[[int], None]) -> int:
    """Do the work in a forked process, which is told each line of the modules that write; its exit code."""
    child = os.fork()
    if child == 0:
        seen = 0

        def trace(frame: FrameType, event: str, _: object) -> Any:
            nonlocal seen
            folder, _, name = frame.f_code.co_filename.rpartition("/")
            if name not in modules or "/neuron_dra_driver/" not in f"{folder}/":
                return None
            if event == "line":
                seen += 1
                reached(seen)
            return trace

        try:
            sys.settrace(trace)
            work()
            sys.settrace(None)
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def telling_lines(host: Any, work: Work, modules: frozenset[str]) -> list[int]:
    """The lines that find another disk than the line before them, the first one included. The work is then done."""
    before: dict[Path, bytes | None] | None = None
    reading, writing = os.pipe()

    def reached(line: int) -> None:
        nonlocal before
        now = {path: path.read_bytes() if path.is_file() else None for path in host.root.rglob("*")}
        if now != before:
            before = now
            os.write(writing, b"%d\n" % line)

    assert on_every_line(work, modules, reached) == 0, "the work itself failed"
    os.close(writing)
    with os.fdopen(reading) as lines:
        return [int(line) for line in lines]


def every_death(
    host: Any,
    *,
    work: Callable[[ClaimStore], object],
    before: Callable[[ClaimStore], object] = lambda _: None,
    modules: frozenset[str] = CLAIMS,
) -> Iterator[ClaimStore]:
    """For each death that `work` can die, and for its success, the node as a new process finds it."""

    def begun() -> ClaimStore:
        store = fresh(host)
        before(store)
        store.close()
        return fresh(host)

    def found(store: ClaimStore) -> Iterator[ClaimStore]:
        store.close()
        store = fresh(host)
        yield store
        store.close()
        for folder in host.root.iterdir():  # what is made once counts as lines, too
            shutil.rmtree(folder)

    store = begun()
    lines = telling_lines(host, lambda: work(store), modules)
    assert len(lines) > 4, "the work was traced"
    yield from found(store)
    for fatal in lines:
        store = begun()
        code = on_every_line(
            lambda store=store: work(store),  # type: ignore[misc]
            modules,
            lambda line, fatal=fatal: os._exit(KILLED) if line == fatal else None,  # type: ignore[misc]
        )
        assert code == KILLED, "the same lines as before"
        yield from found(store)


def fresh(host: Any) -> ClaimStore:
    store: ClaimStore = host.store()
    store.refresh()
    return store


def given(store: ClaimStore) -> list[str]:
    return [held.device for entry in store.prepared() for held in entry.devices]


@pytest.fixture
def allocation(make: Any) -> Callable[..., Allocation]:
    def build(name: str, **devices: list[int]) -> Allocation:
        found = make.claim(name, devices=devices)
        return allocation_on(found, uid=found["metadata"]["uid"], driver="neuron.aws.com", pool="worker-1")

    return build


def leftovers(host: Any) -> list[str]:
    return [path.name for folder in (host.cdi, host.views) if folder.exists() for path in folder.iterdir()]


def test_prepare_killed(host: Any, trn2: SimulatedNode, allocation: Callable[..., Allocation]) -> None:
    mine, other = allocation("mine", a=[0, 1], b=[2]), allocation("other", c=[1])
    for store in every_death(host, work=lambda s: s.prepare(mine, trn2)):
        # The other claim gets its device only while nothing says that the first one has it.
        with contextlib.suppress(DeviceHeld):
            store.prepare(other, trn2)
        assert len(given(store)) == len(set(given(store)))
        store.unprepare(other.uid)
        assert len(store.prepare(mine, trn2)) == 3
        assert all(store.complete(entry) for entry in store.prepared())
        store.unprepare(mine.uid)
        assert leftovers(host) == []
        assert given(store) == []


def test_prepare_killed_and_never_asked_for_again(
    host: Any, trn2: SimulatedNode, allocation: Callable[..., Allocation]
) -> None:
    """The pod went away meanwhile: the kubelet unprepares, or nobody asks and what is left has a uid to find it by."""
    mine = allocation("mine", a=[0])
    for store in every_death(host, work=lambda s: s.prepare(mine, trn2)):
        assert all(mine.uid in name for name in leftovers(host))
        for trace in store.traces():
            store.unprepare(trace.uid)
        assert leftovers(host) == []


def test_unprepare_killed(host: Any, trn2: SimulatedNode, allocation: Callable[..., Allocation]) -> None:
    mine = allocation("mine", a=[0, 1])
    for store in every_death(host, before=lambda s: s.prepare(mine, trn2), work=lambda s: s.unprepare(mine.uid)):
        store.unprepare(mine.uid)
        assert leftovers(host) == []
        assert given(store) == []


def test_a_device_that_changes_hands_killed(
    host: Any, trn2: SimulatedNode, allocation: Callable[..., Allocation]
) -> None:
    gone, new = allocation("gone", a=[0]), allocation("new", a=[0])
    for store in every_death(
        host, before=lambda s: s.prepare(gone, trn2), work=lambda s: s.prepare(new, trn2, released={gone.uid})
    ):
        assert len(given(store)) <= 1
        store.prepare(new, trn2, released={gone.uid})
        assert given(store) == ["neuron-device-0"]
        store.unprepare(new.uid)
        store.unprepare(gone.uid)
        assert leftovers(host) == []


def test_a_claim_allocated_anew_killed(host: Any, trn2: SimulatedNode, allocation: Callable[..., Allocation]) -> None:
    before, after = allocation("same", a=[0]), allocation("same", a=[1])
    for store in every_death(host, before=lambda s: s.prepare(before, trn2), work=lambda s: s.prepare(after, trn2)):
        store.prepare(after, trn2)
        assert given(store) == ["neuron-device-1"]
        store.unprepare(after.uid)
        assert leftovers(host) == []


def test_the_runtimes_installation_killed(host: Any) -> None:
    """Whatever the copy looks like when the next process comes, it ends up whole and alone."""
    for store in every_death(host, work=lambda s: s.install_runtime(), modules=RUNTIME):
        store.install_runtime()
        store.prune_runtimes(serving=True)
        (tree,) = host.runtimes.iterdir()
        assert (tree / "bin" / "neuron-ls").read_text() == "#!/bin/false\n"
        store.prune_runtimes(serving=False)
        assert not host.runtimes.exists()
