"""SIGKILL at any line: a forked process does the work and ends itself, without any clean-up, at line 1, 2, 3, …

After each death a new process finds what is there, as a restarted agent does, and everything comes right: no device
is given twice, a retry succeeds, and unprepare leaves nothing.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
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

Work = Callable[[ClaimStore], object]


def killed_at(line: int, work: Callable[[], object], *, modules: frozenset[str] = CLAIMS) -> bool:
    """Do the work in a process that dies at the given line of the modules that write; whether it came so far."""
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
                if seen == line:
                    os._exit(KILLED)
            return trace

        try:
            sys.settrace(trace)
            work()
            sys.settrace(None)
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, KILLED), "the work itself failed"
    return code == KILLED


def every_death(host: Any, *, before: Work, work: Work) -> Iterator[ClaimStore]:
    """For each line at which `work` can be killed, the node as a new process finds it."""
    line = 0
    killed = True
    while killed:
        line += 1
        store = fresh(host)
        before(store)
        store.close()
        store = fresh(host)
        killed = killed_at(line, lambda store=store: work(store))  # type: ignore[misc]
        store.close()
        store = fresh(host)
        yield store
        store.close()
        host.journal.unlink()
    assert line > 30, "the work was traced"


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
    for store in every_death(host, before=lambda _: None, work=lambda s: s.prepare(mine, trn2)):
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
    for store in every_death(host, before=lambda _: None, work=lambda s: s.prepare(mine, trn2)):
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
    runtimes = host.runtimes
    line = 0
    while killed_at(line := line + 1, lambda: host.store().install_runtime(), modules=RUNTIME):
        store = fresh(host)
        store.install_runtime()
        store.prune_runtimes(serving=True)
        (tree,) = runtimes.iterdir()
        assert (tree / "bin" / "neuron-ls").read_text() == "#!/bin/false\n"
        store.prune_runtimes(serving=False)
        assert not runtimes.exists()
    assert line > 20
