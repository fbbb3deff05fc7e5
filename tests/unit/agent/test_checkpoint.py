"""The journal under everything that can happen to a file: two writers, kills, torn tails, damage, compaction."""

import errno
import json
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from neuron_dra_driver.errors import DiskError
from neuron_dra_driver.records.checkpoint import FILE_NAME, Checkpoint, Entry
from neuron_dra_driver.records.holdings import HeldDevice

UIDS = st.sampled_from(["a", "b", "c"])


def entry(uid: str, number: int = 0) -> Entry:
    device = HeldDevice(request="r", pool="worker-1", device=f"neuron-device-{number}", admin_access=bool(number % 2))
    return Entry(uid=uid, namespace="team", name=f"claim-{uid}", devices=(device,), runtime="tree")


def opened(folder: Path) -> Checkpoint:
    checkpoint = Checkpoint(folder)
    checkpoint.refresh()
    return checkpoint


def reread(folder: Path) -> dict[str, Entry]:
    checkpoint = opened(folder)
    try:
        return dict(checkpoint.entries)
    finally:
        checkpoint.close()


class TwoAgents(RuleBasedStateMachine):
    """Two processes take turns, are killed in the middle of writing, and start again; one always knows the truth."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
        self.folder = Path(self._folder.name)
        self.agents = [Checkpoint(self.folder, compact_after=3) for _ in range(2)]
        self.truth: dict[str, Entry] = {}

    @rule(agent=st.integers(0, 1), uid=UIDS, number=st.integers(0, 15))
    def put(self, agent: int, uid: str, number: int) -> None:
        self.agents[agent].refresh()
        self.agents[agent].put(entry(uid, number))
        self.truth[uid] = entry(uid, number)

    @rule(agent=st.integers(0, 1), uid=UIDS)
    def delete(self, agent: int, uid: str) -> None:
        self.agents[agent].refresh()
        self.agents[agent].delete(uid)
        self.truth.pop(uid, None)

    @rule(agent=st.integers(0, 1))
    def restart(self, agent: int) -> None:
        self.agents[agent].close()
        self.agents[agent] = Checkpoint(self.folder, compact_after=3)

    @rule(agent=st.integers(0, 1), uid=UIDS, part=st.floats(0.01, 0.99))
    def killed_while_appending(self, agent: int, uid: str, part: float) -> None:
        """What a kill leaves: the beginning of a line that nobody was told about."""
        self.agents[agent].refresh()
        before = (self.folder / FILE_NAME).stat().st_size
        self.agents[agent].put(entry(uid, 9))
        whole = (self.folder / FILE_NAME).read_bytes()
        if len(whole) > before:
            os.truncate(self.folder / FILE_NAME, before + max(1, int((len(whole) - before - 1) * part)))
        self.restart(agent)
        other = self.agents[1 - agent]
        other.close()  # it may have seen the whole line, which no process can in truth
        self.agents[1 - agent] = Checkpoint(self.folder, compact_after=3)

    @rule(agent=st.integers(0, 1))
    def killed_while_compacting(self, agent: int) -> None:
        (self.folder / f"{FILE_NAME}.tmp").write_bytes(b'{"kind":"neuron-sim-che')
        self.restart(agent)

    @invariant()
    def everybody_knows_the_truth(self) -> None:
        for agent in self.agents:
            agent.refresh()
            assert dict(agent.entries) == self.truth

    @invariant()
    def nothing_was_put_aside(self) -> None:
        assert not self.agents[0].quarantined()

    def teardown(self) -> None:
        for agent in self.agents:
            agent.close()
        self._folder.cleanup()


TestTwoAgents = TwoAgents.TestCase
TestTwoAgents.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


@pytest.mark.parametrize(
    ("content", "trace"),
    [
        (b"", "corrupt-1"),
        (b"\n", "corrupt-1"),
        (b"not a journal\n", "corrupt-1"),
        (b'{"kind":"neuron-sim-che', "corrupt-1"),
        (b'{"kind":"something-else","version":1}\n', "corrupt-1"),
        (b'{"kind":"neuron-sim-checkpoint","version":"1"}\n', "corrupt-1"),
        (b'{"kind":"neuron-sim-checkpoint","version":2,"new":1}\nanything\n', "newer-v2"),
        (b'{"kind":"neuron-sim-checkpoint","version":1}\n00000000 {"op":"put"}\n', "corrupt-1"),
        (b'{"kind":"neuron-sim-checkpoint","version":1}\n\n', "corrupt-1"),
        (b"\x00" * 5000, "corrupt-1"),
        (b"\xff\xfe\n\xff\n", "corrupt-1"),
    ],
)
def test_what_cannot_be_read_is_put_aside_whole(memory: Path, content: bytes, trace: str) -> None:
    (memory / FILE_NAME).write_bytes(content)
    checkpoint = opened(memory)
    assert dict(checkpoint.entries) == {}
    (aside,) = checkpoint.quarantined()
    assert aside.name == f"{FILE_NAME}.{trace}"
    assert aside.read_bytes() == content
    checkpoint.put(entry("a"))
    checkpoint.close()
    assert reread(memory) == {"a": entry("a")}


def test_a_second_damaged_file_does_not_replace_the_first(memory: Path) -> None:
    for _ in range(2):
        (memory / FILE_NAME).write_bytes(b"")
        opened(memory).close()
    assert sorted(p.name for p in memory.iterdir()) == [FILE_NAME, f"{FILE_NAME}.corrupt-1", f"{FILE_NAME}.corrupt-2"]


@pytest.mark.parametrize("position", [0.3, 0.6, 0.95])
def test_a_flipped_bit_is_noticed(memory: Path, position: float) -> None:
    checkpoint = opened(memory)
    for uid in "abc":
        checkpoint.put(entry(uid))
    checkpoint.close()
    path = memory / FILE_NAME
    content = bytearray(path.read_bytes())
    header = content.index(b"\n")
    content[header + 1 + int((len(content) - header - 2) * position)] ^= 4
    path.write_bytes(content)
    assert reread(memory) == {}
    assert (memory / f"{FILE_NAME}.corrupt-1").exists()


def test_damage_while_running_is_noticed_when_the_file_shrank(memory: Path) -> None:
    checkpoint = opened(memory)
    checkpoint.put(entry("a"))
    os.truncate(checkpoint.path, 0)
    assert checkpoint.refresh()
    assert dict(checkpoint.entries) == {}
    assert checkpoint.quarantined()
    checkpoint.close()


def test_a_record_that_lacks_a_field_is_no_reason_to_crash(memory: Path) -> None:
    record = json.dumps({"op": "put", "uid": "a"}).encode()
    header = b'{"kind":"neuron-sim-checkpoint","version":1}\n'
    (memory / FILE_NAME).write_bytes(header + b"%08x %s\n" % (crc32(record), record))
    assert reread(memory) == {}
    assert (memory / f"{FILE_NAME}.corrupt-1").exists()


def test_what_a_later_version_added_survives_compaction(memory: Path) -> None:
    record = json.dumps({"op": "put", **entry("kept").as_record(), "later": [1, 2]}).encode()
    checkpoint = opened(memory)
    checkpoint.close()
    with (memory / FILE_NAME).open("ab") as file:
        file.write(b"%08x %s\n" % (crc32(record), record))
    checkpoint = Checkpoint(memory, compact_after=2)
    checkpoint.refresh()
    inode = checkpoint.path.stat().st_ino
    for _ in range(6):
        checkpoint.put(entry("a"))
        checkpoint.delete("a")
    assert checkpoint.path.stat().st_ino != inode, "it was compacted"
    assert b'"later": [1, 2]' in checkpoint.path.read_bytes()
    checkpoint.close()


def test_a_put_again_is_told_from_the_one_before(memory: Path) -> None:
    checkpoint = opened(memory)
    checkpoint.put(entry("a"))
    first = checkpoint.entries["a"]
    checkpoint.put(entry("a"))
    assert checkpoint.entries["a"] == first
    assert checkpoint.entries["a"].serial != first.serial
    checkpoint.close()


def compacted(folder: Path) -> Checkpoint:
    """One that has just written the file anew."""
    checkpoint = Checkpoint(folder, compact_after=2)
    checkpoint.refresh()
    inode = checkpoint.path.stat().st_ino
    while checkpoint.path.stat().st_ino == inode:
        checkpoint.put(entry("other"))
        checkpoint.delete("other")
    return checkpoint


def test_a_put_is_the_same_after_compaction_and_for_every_reader(memory: Path) -> None:
    checkpoint = opened(memory)
    for uid in ("gone", "a"):
        checkpoint.put(entry(uid))
    checkpoint.delete("gone")
    looked_at = checkpoint.entries["a"].serial
    compacting = compacted(memory)
    checkpoint.refresh()
    readers = [checkpoint, compacting, opened(memory)]
    assert [reader.entries["a"].serial for reader in readers] == [looked_at] * 3
    compacting.put(entry("a"))
    for reader in readers:
        reader.refresh()
        assert reader.entries["a"].serial == compacting.entries["a"].serial != looked_at
        reader.close()


def test_a_put_after_compaction_is_never_taken_for_one_before(memory: Path) -> None:
    """Numbers that begin anew with the file would come again."""
    checkpoint = opened(memory)
    checkpoint.put(entry("a"))
    looked_at = checkpoint.entries["a"].serial
    checkpoint.delete("a")
    checkpoint.close()
    again = compacted(memory)
    again.close()
    again = opened(memory)
    again.put(entry("a"))
    assert again.entries["a"].serial != looked_at
    again.close()


def test_records_of_an_agent_that_numbered_nothing(memory: Path) -> None:
    """Nobody can tell whether they are the same: each reading makes them others, and they are left alone once."""
    record = json.dumps({"op": "put", **entry("a").as_record()}).encode()
    checkpoint = opened(memory)
    with (memory / FILE_NAME).open("ab") as file:
        file.write(b"%08x %s\n" % (crc32(record), record))
    checkpoint.refresh()
    looked_at = checkpoint.entries["a"].serial
    other = opened(memory)
    assert other.entries == {"a": entry("a")}
    assert 0 != other.entries["a"].serial != looked_at
    checkpoint.refresh()
    assert checkpoint.entries["a"].serial == looked_at
    other.close()
    checkpoint.close()


def failing(monkeypatch: pytest.MonkeyPatch, name: str, when: Callable[[Any], bool]) -> None:
    """A call of the operating system fails once."""
    real, failed = getattr(os, name), []

    def call(first: Any, *more: Any) -> Any:
        if not failed and when(first):
            failed.append(first)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(first, *more)

    monkeypatch.setattr(os, name, call)


def is_folder(descriptor: int) -> bool:
    return stat.S_ISDIR(os.fstat(descriptor).st_mode)


@pytest.mark.parametrize("where", ["opening", "syncing the folder"])
def test_a_new_file_that_cannot_be_used_is_an_error_of_the_disk(
    memory: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """The file has its name already: whatever went to the old one would be lost."""
    checkpoint = Checkpoint(memory, compact_after=0)
    checkpoint.refresh()
    checkpoint.put(entry("a"))
    if where == "opening":
        failing(monkeypatch, "open", lambda path: path == checkpoint.path)
    else:
        failing(monkeypatch, "fsync", is_folder)
    with pytest.raises(DiskError, match="Input/output error"):
        checkpoint.delete("a")
    with pytest.raises(DiskError, match="has to be read again"):
        checkpoint.put(entry("b"))
    checkpoint.refresh()
    checkpoint.put(entry("b"))
    checkpoint.close()
    assert reread(memory) == {"b": entry("b")}


def test_a_file_put_aside_whose_successor_cannot_be_opened(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (memory / FILE_NAME).write_bytes(b"")
    checkpoint = Checkpoint(memory)
    opens = iter([False, True])
    failing(monkeypatch, "open", lambda path: path == checkpoint.path and next(opens))
    with pytest.raises(DiskError, match="Input/output error"):
        checkpoint.refresh()
    checkpoint.refresh()
    assert len(checkpoint.quarantined()) == 1
    checkpoint.close()


def test_half_a_record_that_cannot_be_cut_off_is_followed_by_none(
    memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = opened(memory)
    checkpoint.put(entry("a"))
    for name in ("fdatasync", "ftruncate"):
        failing(monkeypatch, name, lambda _: True)
    for error in ("Input/output error", "has to be read again"):
        with pytest.raises(DiskError, match=error):
            checkpoint.delete("a")
    checkpoint.refresh()
    assert not checkpoint.quarantined()
    checkpoint.close()


def test_it_tells_what_others_wrote(memory: Path) -> None:
    told: list[str | None] = []
    mine, other = opened(memory), opened(memory)
    mine.by_others = told.append
    mine.put(entry("mine"))
    other.refresh()
    other.put(entry("a"))
    other.put(entry("b"))
    other.delete("a")
    assert told == []
    mine.refresh()
    assert told == ["a", "b", "a"]
    compacted(memory).close()
    mine.refresh()
    assert told[3:] == [None]
    mine.close()
    other.close()


def test_the_journal_does_not_grow_for_ever(memory: Path) -> None:
    checkpoint = opened(memory)
    for _ in range(2000):
        checkpoint.put(entry("a"))
        checkpoint.delete("a")
    assert checkpoint.path.stat().st_size < 200_000
    checkpoint.close()
    assert reread(memory) == {}


def test_header_and_records_as_documented(memory: Path) -> None:
    checkpoint = opened(memory)
    checkpoint.put(entry("a"))
    checkpoint.delete("a")
    checkpoint.close()
    header, put, delete = (memory / FILE_NAME).read_text().splitlines()
    assert header == '{"kind":"neuron-sim-checkpoint","version":1}'
    assert json.loads(put.partition(" ")[2]).items() >= {"op": "put", "uid": "a"}.items()
    assert json.loads(delete.partition(" ")[2]) == {"op": "del", "uid": "a"}


def test_a_full_disk_leaves_the_journal_whole(full_disk: Path) -> None:
    checkpoint = opened(full_disk)

    def fill() -> None:
        for number in range(1000):
            checkpoint.put(entry(f"claim-{number}"))

    with pytest.raises(DiskError, match="No space left on device; free space"):
        fill()
    known = dict(checkpoint.entries)
    checkpoint.close()
    assert len(known) > 10
    assert reread(full_disk) == known
    assert not list(full_disk.glob("*.corrupt*"))
