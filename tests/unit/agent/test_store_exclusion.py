"""No core in two prepared claims and one LNC on a chip, in whatever way the node is cut when a claim comes."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from neuron_dra_driver.allocations.grants import grant
from neuron_dra_driver.errors import ClaimError, DeviceHeld
from neuron_dra_driver.node import SimulatedNode, standalone
from neuron_dra_driver.prepared.runtime_tree import RuntimeTrees
from neuron_dra_driver.prepared.store import ClaimStore
from neuron_dra_driver.records.checkpoint import Checkpoint, Entry

TYPE = "trn2.3xlarge"  # one chip: everything meets


def node(lnc: int, partitions: str = "physical", type_name: str = TYPE) -> SimulatedNode:
    return standalone(
        name="worker-1", type_name=type_name, logical_neuron_core=lnc, partitions=partitions, devices="both"
    )


@pytest.fixture
def store(host: Any) -> Iterator[ClaimStore]:
    opened = host.opened()
    yield opened
    opened.close()


def prepare(
    store: ClaimStore, make: Any, name: str, devices: Sequence[int | str], on: SimulatedNode, **more: Any
) -> Any:
    released = more.pop("released", ())
    return store.prepare(make.allocation(make.claim(name, devices={"n": devices}, **more)), on, released=released)


# --- what excludes what


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (["neuron-device-0"], ["neuron-core-3"]),
        (["neuron-core-3"], ["neuron-device-0"]),
        (["neuron-core-3"], ["neuron-physical-core-7"]),
        (["neuron-physical-core-0", "neuron-physical-core-7"], ["neuron-core-0"]),
        (["neuron-node"], ["neuron-physical-core-5"]),
        (["neuron-core-1"], ["neuron-node"]),
    ],
)
def test_overlapping_devices_exclude_one_another(store: ClaimStore, make: Any, first: Any, second: Any) -> None:
    prepare(store, make, "first", first, node(2))
    with pytest.raises(
        DeviceHeld, match=r"^claim team/second is given devices that are still prepared for claim team/f"
    ):
        prepare(store, make, "second", second, node(2), config=[make.lnc(1)])
    store.unprepare("uid-of-first")
    prepare(store, make, "second", second, node(2), config=[make.lnc(1)])


def test_cores_of_a_chip_are_given_to_several(store: ClaimStore, make: Any) -> None:
    for n in range(4):
        prepare(store, make, f"c{n}", [f"neuron-core-{n}"], node(2))
    assert len(store.prepared()) == 4


def test_a_name_keeps_its_meaning_when_the_node_is_cut_anew(store: ClaimStore, make: Any, host: Any) -> None:
    """Core 1 of two physical cores each is not core 1 of one each: the old one holds 2 and 3."""
    prepare(store, make, "old", ["neuron-core-1"], node(2), config=[make.lnc(1)])
    prepare(store, make, "new", ["neuron-core-1"], node(1))
    for taken in (2, 3):
        with pytest.raises(DeviceHeld, match="team/old"):
            prepare(store, make, "third", [f"neuron-core-{taken}"], node(1))
    again = host.opened()
    with pytest.raises(DeviceHeld, match="team/old"):
        prepare(again, make, "third", ["neuron-core-3"], node(1))
    again.close()


def test_what_an_earlier_agent_prepared_is_a_whole_chip(host: Any, store: ClaimStore, make: Any) -> None:
    """Its journal has no cores. The kubelet asks again, and running containers keep their files."""
    prepare(store, make, "old", [0], node(2, "none"))
    [entry] = store.prepared()
    store.close()
    record = entry.as_record()
    for device in record["devices"]:
        del device["cores"], device["logicalNeuronCore"]
    del record["origin"]
    host.journal.unlink()
    checkpoint = Checkpoint(host.journal.parent)
    checkpoint.refresh()
    checkpoint._append({"op": "put", **record})
    checkpoint.close()

    store.refresh()
    with pytest.raises(DeviceHeld, match="team/old"):
        prepare(store, make, "new", ["neuron-core-2"], node(2))
    folder = (host.views / "uid-of-old").stat().st_ino
    prepare(store, make, "old", [0], node(2))
    assert (host.views / "uid-of-old").stat().st_ino == folder
    [entry] = store.prepared()
    assert [device.cores for device in entry.devices] == [((0, 0xFF),)]


def test_what_is_lost_holds_nothing(store: ClaimStore, make: Any, host: Any) -> None:
    prepare(store, make, "lost", ["neuron-core-0"], node(2))
    for path in (*host.cdi.iterdir(), host.journal):
        path.write_bytes(b"")
    store.refresh()
    prepare(store, make, "new", ["neuron-device-0"], node(2))
    assert [entry.name for entry in store.prepared()] == ["new"]


@pytest.mark.parametrize("again", [False, True])
def test_of_two_cdi_files_with_a_core_the_later_prepare_survives(
    store: ClaimStore, make: Any, host: Any, again: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """One was left by a kill before it had a record; the checkpoint is lost. Preparing again counts as later."""
    agents = [host.opened(), host.opened()]
    for agent, name in zip(agents, ("first", "second"), strict=True):
        killed_before_its_record(agent, make, name)
    survivor, loser = ("first", "second") if again else ("second", "first")
    prepare(store, make, survivor, ["neuron-core-0"], node(2))
    prepare(store, make, "third", ["neuron-core-1"], node(2))
    host.journal.write_bytes(b"")
    store.refresh()
    assert {entry.name for entry in store.prepared()} == {survivor, "third"}
    assert f"claim team/{loser} is not found again by its CDI file: it names cores" in caplog.text
    assert f"given to claim team/{survivor} (uid uid-of-{survivor}) later" in caplog.text
    assert [trace.entry for trace in store.traces() if trace.uid == f"uid-of-{loser}"] == [None]


def killed_before_its_record(agent: ClaimStore, make: Any, name: str) -> None:
    """An agent prepares core 0 for a claim, and nothing but the CDI file tells of it."""

    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    with pytest.MonkeyPatch().context() as patch:
        patch.setattr(Checkpoint, "put", die)
        with pytest.raises(Killed):
            prepare(agent, make, name, ["neuron-core-0"], node(2))
    agent.close()


def test_what_the_checkpoint_has_goes_before_a_cdi_file(store: ClaimStore, make: Any, host: Any) -> None:
    """One agent is killed in a prepare, the other one gives the core away, and a third agent comes."""
    killed_before_its_record(host.opened(), make, "killed")
    prepare(store, make, "second", [0], node(2))
    third = host.opened()
    assert [entry.name for entry in third.prepared()] == ["second"]
    third.close()


# --- one LNC on a chip


def test_claims_on_a_chip_have_one_lnc(store: ClaimStore, make: Any) -> None:
    prepare(store, make, "first", ["neuron-core-0"], node(2))
    with pytest.raises(ClaimError) as error:
        prepare(store, make, "second", ["neuron-core-1"], node(2), config=[make.lnc(1)])
    assert str(error.value) == (
        "claim team/second is given cores of neuron-device-0 with logical NeuronCore configuration 1, and claim "
        "team/first (uid uid-of-first) uses other cores of that chip with 2, but a chip has one configuration: write "
        "logicalNeuronCore: 2 in a NeuronConfig of this claim, or ask for whole chips, or end the other's pods, the "
        "kubelet then tries again"
    )
    assert len(store.prepared()) == 1
    prepare(store, make, "second", ["neuron-core-1"], node(2))
    store.unprepare("uid-of-first")
    store.unprepare("uid-of-second")
    prepare(store, make, "third", ["neuron-core-1"], node(2), config=[make.lnc(1)])


def test_a_claim_that_is_gone_gives_way_to_another_lnc(store: ClaimStore, make: Any) -> None:
    prepare(store, make, "gone", ["neuron-core-0"], node(2))
    new = make.allocation(make.claim("new", devices={"n": ["neuron-core-1"]}, config=[make.lnc(1)]))
    assert [entry.name for entry in store.holders(new, node(2))] == ["gone"]
    store.prepare(new, node(2), released={"uid-of-gone"})
    assert [entry.name for entry in store.prepared()] == ["new"]


def test_admin_access_neither_holds_nor_minds(store: ClaimStore, make: Any) -> None:
    prepare(store, make, "first", ["neuron-core-0"], node(2), config=[make.lnc(1)])
    prepare(store, make, "admin", [0, "neuron-core-0", "neuron-physical-core-1"], node(2), admin=True)
    prepare(store, make, "second", ["neuron-core-1"], node(2), config=[make.lnc(1)])
    assert len(store.prepared()) == 3


# --- the other road


def test_what_a_device_plugin_gave_is_held_and_nobody_is_asked_about_it(store: ClaimStore, make: Any) -> None:
    plugin = replace(make.allocation(make.claim("pod", devices={"n": [0]})), origin="device-plugin")
    store.prepare(plugin, node(2))
    claim = make.allocation(make.claim("mine", devices={"n": [0]}))
    assert store.holders(claim, node(2)) == []
    with pytest.raises(DeviceHeld, match=r"still prepared for team/pod \(uid"):
        store.prepare(claim, node(2))


# --- any order of anything

NODES = [node(lnc, partitions) for lnc in (1, 2) for partitions in ("none", "logical", "physical")]


@dataclass(frozen=True)
class Prepare:
    claim: int
    devices: tuple[str, ...]
    on: int
    lnc: int | None
    admin: bool


@dataclass(frozen=True)
class Unprepare:
    claim: int


@dataclass(frozen=True)
class Reopen:
    pass


@st.composite
def prepares(draw: Any) -> Prepare:
    on = draw(st.integers(0, len(NODES) - 1))
    offered = sorted(NODES[on].devices)
    return Prepare(
        claim=draw(st.integers(0, 5)),
        devices=tuple(draw(st.lists(st.sampled_from(offered), min_size=1, max_size=2, unique=True))),
        on=on,
        lnc=draw(st.sampled_from([None, 1, 2])),
        admin=draw(st.sampled_from([False, False, False, True])),
    )


steps = st.lists(
    prepares() | prepares() | st.builds(Unprepare, st.integers(0, 5)) | st.just(Reopen()), min_size=8, max_size=20
)


@contextmanager
def fresh_store(root: Path, tree: Path) -> Iterator[ClaimStore]:
    made = ClaimStore(
        driver="neuron.aws.com",
        cdi_directory=root / "cdi",
        run_directory=root / "run",
        checkpoint=Checkpoint(root / "plugin"),
        trees=RuntimeTrees(tree, root / "state"),
    )
    made.refresh()
    yield made
    made.close()


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("tree")
    (source / "bin").mkdir()
    return source


def cores(entry: Entry) -> set[int]:
    """Physical cores that nobody else may have."""
    held = [pair for device in entry.devices if not device.admin_access for pair in device.cores]
    return {chip * 8 + core for chip, mask in held for core in range(8) if mask >> core & 1}


def lncs(entry: Entry) -> set[int]:
    return {device.logical_neuron_core for device in entry.devices if not device.admin_access}


@given(steps=steps)
@settings(max_examples=80)
def test_any_order_of_anything(steps: list[Any], make: Any, tools: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").exists() else None) as folder:
        root = Path(folder)
        expected: dict[str, Entry] = {}
        position = 0
        while position < len(steps):
            with fresh_store(root, tools) as store:
                while position < len(steps):
                    step, position = steps[position], position + 1
                    if isinstance(step, Reopen):
                        break
                    follow(step, store, expected, make)
                    assert {entry.uid: entry for entry in store.prepared()} == expected


def follow(step: Prepare | Unprepare, store: ClaimStore, expected: dict[str, Entry], make: Any) -> None:
    """Do a step, and say what must be prepared afterwards."""
    uid = f"uid-of-{step.claim}"
    if isinstance(step, Unprepare):
        assert store.unprepare(uid) == (expected.pop(uid, None) is not None)
        return
    config = [make.lnc(step.lnc)] if step.lnc else []
    claim = make.claim(str(step.claim), devices={"n": step.devices}, config=config, admin=step.admin)
    allocation, on = make.allocation(claim), NODES[step.on]
    before = expected.get(uid)
    same = before is not None and {(d.device, d.admin_access) for d in before.devices} == {
        (name, step.admin) for name in step.devices
    }
    try:
        wanted = grant(allocation, on, before=before if same else None)
    except ClaimError:
        with pytest.raises(ClaimError):
            store.prepare(allocation, on)
        return
    mine = Entry(uid, "team", str(step.claim), wanted.held, runtime="")
    others = [entry for entry in expected.values() if entry.uid != uid]
    if any(cores(mine) & cores(other) for other in others):
        with pytest.raises(DeviceHeld):
            store.prepare(allocation, on)
    elif cores(mine) and any(cores(other) and lncs(other) != lncs(mine) for other in others):
        with pytest.raises(ClaimError, match="but a chip has one configuration"):
            store.prepare(allocation, on)
    else:
        store.prepare(allocation, on)
        [expected[uid]] = [entry for entry in store.prepared() if entry.uid == uid]
        assert expected[uid].devices == mine.devices
        if same:
            assert before
            assert cores(before) == cores(mine)
