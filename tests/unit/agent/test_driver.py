"""The driver's answers: what the API server, other claims and the disk can do to a prepare."""

import asyncio
import contextlib
import stat
from pathlib import Path
from typing import Any

import pytest
from neuron_dra_driver.claims.driver import NodeDriver
from neuron_dra_driver.errors import AgentError, ClaimError, DeviceHeld, DiskError
from neuron_dra_driver.kubeletplugin import ClaimRef
from neuron_dra_driver.lock import NodeLock
from neuron_dra_driver.metrics import Metrics
from neuron_dra_driver.node import SimulatedNode
from neuron_dra_driver.prepared.runtime_tree import RuntimeTrees
from neuron_dra_driver.prepared.store import ClaimStore
from neuron_dra_driver.records.checkpoint import Checkpoint

Claims = dict[str, Any]
"""The API server's claims, by name."""


class Setting:
    """A driver with everything around it."""

    def __init__(self, host: Any, node: SimulatedNode, store: ClaimStore | None = None) -> None:
        self.claims: Claims = {}
        self.node: SimulatedNode | AgentError = node
        self.away = False
        self.metrics = Metrics()
        self.store = store or host.store()
        self.lock = NodeLock(host.root, patience=0.2)
        self.driver = NodeDriver(
            driver="neuron.aws.com",
            pool="worker-1",
            read_claim=self.read,
            store=self.store,
            lock=self.lock,
            node=self._node,
            changed=lambda: None,
            metrics=self.metrics,
        )

    async def read(self, namespace: str, name: str) -> Any:
        await asyncio.sleep(0)
        if self.away:
            raise ConnectionError("connection refused")
        return self.claims.get(name)

    async def _node(self) -> SimulatedNode:
        if isinstance(self.node, AgentError):
            raise self.node
        return self.node

    def add(self, claim: Any) -> ClaimRef:
        metadata = claim["metadata"]
        self.claims[metadata["name"]] = claim
        return ClaimRef(metadata["namespace"], metadata["name"], metadata["uid"])

    async def prepare(self, *refs: ClaimRef) -> list[Any]:
        answers = await self.driver.prepare(refs)
        return [answers[ref.uid] for ref in refs]

    async def unprepare(self, *refs: ClaimRef) -> list[Any]:
        answers = await self.driver.unprepare(refs)
        return [answers[ref.uid] for ref in refs]

    def close(self) -> None:
        self.store.close()
        self.lock.close()


@pytest.fixture
def setting(host: Any, trn2: SimulatedNode) -> Any:
    made = Setting(host, trn2)
    yield made
    made.close()


async def test_a_pods_claims_fail_one_by_one(setting: Setting, make: Any) -> None:
    good, bad = setting.add(make.claim("good")), setting.add(make.claim("bad", pool="worker-2"))
    gone = ClaimRef("team", "gone", "uid-of-gone")
    answers = await setting.prepare(good, bad, gone)
    assert [len(answers[0]), type(answers[1]), type(answers[2])] == [1, ClaimError, ClaimError]
    assert "does not exist any more" in str(answers[2])


async def test_wrong_configuration_is_told_and_leaves_nothing(setting: Setting, host: Any, make: Any) -> None:
    field = {"apiVersion": "neuron.aws.com/v1", "kind": "NeuronConfig", "logicalNeuronCoreCount": 1}
    refs = [
        setting.add(make.claim("field", config=[make.opaque(field)])),
        setting.add(make.claim("value", config=[make.lnc(1), make.lnc(4)])),
        setting.add(make.claim("good", config=[make.lnc(1)])),
    ]
    answers = await setting.prepare(*refs)
    assert [type(answer) for answer in answers] == [ClaimError, ClaimError, tuple]
    assert 'claim team/field: spec.devices.config[0] (NeuronConfig): strict decoding error: unknown field "logical' in (
        str(answers[0])
    )
    assert "claim team/value: spec.devices.config[1] (NeuronConfig): logicalNeuronCore is 4" in str(answers[1])
    assert await setting.unprepare(refs[2]) == [None]
    assert host.leftovers() == []


async def test_a_claim_with_another_lnc_on_a_chip_waits_for_the_first(
    setting: Setting, make: Any, cut: SimulatedNode
) -> None:
    setting.node = cut
    first = setting.add(make.claim("first", devices={"n": ["neuron-core-0"]}))
    other = setting.add(make.claim("other", devices={"n": ["neuron-core-1"]}, config=[make.lnc(1)]))
    answers = await setting.prepare(first, other)
    assert "logical NeuronCore configuration 1, and claim team/first (uid uid-of-first) uses other cores" in (
        str(answers[1])
    )
    del setting.claims["first"]  # deleted, and not yet unprepared here
    (answer,) = await setting.prepare(other)
    assert [device.device for device in answer] == ["neuron-core-1"]


async def test_prepared_again_it_answers_the_same(setting: Setting, make: Any) -> None:
    ref = setting.add(make.claim(devices={"n": [3, 4]}))
    assert await setting.prepare(ref) == await setting.prepare(ref)


async def test_a_reboot_takes_the_files_and_prepare_renders_them_again(setting: Setting, host: Any, make: Any) -> None:
    ref = setting.add(make.claim())
    await setting.prepare(ref)
    (cdi,) = host.cdi.iterdir()
    view = host.views / ref.uid / "neurons" / "view.json"
    cdi.unlink()
    view.unlink()
    await setting.prepare(ref)
    assert cdi.exists()
    assert view.exists()


async def test_no_device_is_given_twice(setting: Setting, make: Any) -> None:
    first, second = setting.add(make.claim("first")), setting.add(make.claim("second"))
    await setting.prepare(first)
    (answer,) = await setting.prepare(second)
    assert isinstance(answer, DeviceHeld)
    assert "team/first" in str(answer)
    await setting.unprepare(first)
    (answer,) = await setting.prepare(second)
    assert len(answer) == 1


async def test_nor_within_one_call(setting: Setting, make: Any) -> None:
    answers = await setting.prepare(setting.add(make.claim("first")), setting.add(make.claim("second")))
    assert [type(answer) for answer in answers] == [tuple, DeviceHeld]


async def test_nor_by_two_processes(setting: Setting, host: Any, trn2: SimulatedNode, make: Any) -> None:
    other = Setting(host, trn2)
    refs = [setting.add(make.claim(f"c{n}")) for n in range(8)]
    other.claims = setting.claims
    setting.store.refresh()
    answers = await asyncio.gather(*((setting, other)[n % 2].prepare(ref) for n, ref in enumerate(refs)))
    assert sorted(type(answer).__name__ for (answer,) in answers) == ["DeviceHeld"] * 7 + ["tuple"]
    await other.unprepare(*refs)
    assert host.leftovers() == []
    other.close()


async def test_admin_access_shares(setting: Setting, make: Any) -> None:
    holder, admin = setting.add(make.claim("holder")), setting.add(make.claim("admin", admin=True))
    another = setting.add(make.claim("another", admin=True))
    assert [len(answer) for answer in await setting.prepare(admin, holder, another)] == [1, 1, 1]


@pytest.mark.parametrize("fate", ["deleted", "made anew", "allocated elsewhere", "not allocated"])
async def test_a_holder_that_is_gone_gives_way(setting: Setting, host: Any, make: Any, fate: str) -> None:
    """Claim deleted or allocated anew elsewhere while its unprepare is still to come, which it then survives."""
    holder, new = setting.add(make.claim("holder")), setting.add(make.claim("new"))
    await setting.prepare(holder)
    match fate:
        case "deleted":
            del setting.claims["holder"]
        case "made anew":
            setting.claims["holder"] = make.claim("holder", uid="another")
        case "allocated elsewhere":
            setting.claims["holder"] = make.claim("holder", pool="worker-2")
        case _:
            setting.claims["holder"]["status"] = {}
    (answer,) = await setting.prepare(new)
    assert len(answer) == 1
    assert await setting.unprepare(holder, new) == [None, None]
    assert host.leftovers() == []


async def test_a_holder_that_another_process_prepared_gives_way(
    setting: Setting, host: Any, trn2: SimulatedNode, make: Any
) -> None:
    """At the first try, though this one has not read of it yet."""
    other = Setting(host, trn2)
    holder, new = other.add(make.claim("holder")), setting.add(make.claim("new"))
    setting.store.refresh()
    await other.prepare(holder)
    (answer,) = await setting.prepare(new)
    assert len(answer) == 1
    other.close()


async def test_a_holder_that_nobody_can_ask_about_stays(setting: Setting, make: Any) -> None:
    holder, new = setting.add(make.claim("holder")), setting.add(make.claim("new"))
    await setting.prepare(holder)
    answers = iter([setting.claims["new"]])

    async def only_the_first_call(namespace: str, name: str) -> Any:
        try:
            return next(answers)
        except StopIteration:
            raise ConnectionError from None

    setting.driver._read_claim = only_the_first_call
    (answer,) = await setting.prepare(new)
    assert isinstance(answer, DeviceHeld)


async def test_a_claim_allocated_anew_on_the_same_node(setting: Setting, host: Any, make: Any) -> None:
    ref = setting.add(make.claim(devices={"a": [0]}))
    await setting.prepare(ref)
    setting.add(make.claim(devices={"b": [1]}))
    (answer,) = await setting.prepare(ref)
    assert [device.device for device in answer] == ["neuron-device-1"]
    assert [path.name for path in (host.views / ref.uid).iterdir()] == ["b"]
    assert await setting.unprepare(ref) == [None]
    assert host.leftovers() == []


async def test_the_api_server_is_away(setting: Setting, host: Any, make: Any) -> None:
    ref = setting.add(make.claim())
    setting.away = True
    (answer,) = await setting.prepare(ref)
    assert "cannot be read from the API server (connection refused); the kubelet tries again" in str(answer)
    assert host.leftovers() == []
    assert await setting.unprepare(ref) == [None]


async def test_a_node_that_offers_nothing_says_why(setting: Setting, make: Any) -> None:
    setting.node = AgentError("the reason")
    assert [str(answer) for answer in await setting.prepare(setting.add(make.claim()))] == ["the reason"]


async def test_unprepare_of_what_nobody_knows(setting: Setting) -> None:
    assert await setting.unprepare(ClaimRef("team", "never", "uid-of-never")) == [None]


async def test_a_process_that_hangs_with_the_lock(setting: Setting, host: Any, make: Any) -> None:
    ref = setting.add(make.claim())
    other = NodeLock(host.root)
    async with other.held():
        (answer,) = await setting.prepare(ref)
        assert "another process holds" in str(answer)
    (answer,) = await setting.prepare(ref)
    assert len(answer) == 1
    other.close()


async def test_durations_are_counted_by_result(setting: Setting, make: Any) -> None:
    await setting.prepare(setting.add(make.claim()))
    await setting.prepare(ClaimRef("team", "gone", "u"))
    samples = dict(line.rsplit(" ", 1) for line in setting.metrics.render().decode().splitlines() if line[0] != "#")
    assert float(samples['neuron_sim_agent_prepare_duration_seconds_count{result="success"}']) == 1
    assert float(samples['neuron_sim_agent_prepare_duration_seconds_count{result="error"}']) == 1
    assert float(samples['neuron_sim_agent_unprepare_duration_seconds_count{result="error"}']) == 0


def store_on(host: Any, full: Path, which: str) -> ClaimStore:
    """A store with one of its folders on a disk that has no room."""
    folder = {"cdi": host.cdi, "run": host.root / "run", "checkpoint": host.root / "plugins"} | {which: full}
    return ClaimStore(
        driver="neuron.aws.com",
        cdi_directory=folder["cdi"],
        run_directory=folder["run"],
        checkpoint=Checkpoint(folder["checkpoint"]),
        trees=RuntimeTrees(host.tree, host.root / "state"),
    )


def fill(path: Path) -> None:
    """Write until the disk is full."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 512)


@pytest.mark.parametrize("which", ["cdi", "run", "checkpoint"])
async def test_a_full_disk(host: Any, trn2: SimulatedNode, make: Any, full_disk: Path, which: str) -> None:
    """The prepare fails with path and reason, leaves nothing, and succeeds when there is room."""
    store = store_on(host, full_disk, which)
    store.refresh()
    filler = full_disk / "filler"
    fill(filler)
    setting = Setting(host, trn2, store)
    ref = setting.add(make.claim(devices={"n": list(range(16))}))
    answers: list[Any] = []
    for _ in range(8):  # the journal's last page has room for some records yet
        answers = await setting.prepare(ref)
        if isinstance(answers[0], Exception):
            break
    assert isinstance(answers[0], DiskError)
    assert str(full_disk) in str(answers[0])
    assert "No space left on device; free space" in str(answers[0])
    if which != "checkpoint":
        assert [path.name for path in full_disk.rglob("*") if ref.uid in str(path)] == []
        assert not store.prepared()
    filler.unlink()
    assert len((await setting.prepare(ref))[0]) == 16
    await setting.unprepare(ref)
    assert not store.prepared()
    assert [p for folder in (host.cdi, host.views, full_disk) for p in folder.rglob("*") if ref.uid in str(p)] == []
    setting.close()


async def test_a_folder_that_cannot_be_written(setting: Setting, host: Any, make: Any) -> None:
    setting.store.refresh()
    host.cdi.write_text("a file where a folder should be")
    ref = setting.add(make.claim())
    (answer,) = await setting.prepare(ref)
    assert isinstance(answer, DiskError)
    assert str(host.cdi) in str(answer)
    assert list(host.views.iterdir()) == []
    host.cdi.unlink()
    assert len((await setting.prepare(ref))[0]) == 1


async def test_a_prepared_claim_survives_a_failure_to_prepare_it_again(
    setting: Setting, host: Any, make: Any, trn2: SimulatedNode
) -> None:
    ref = setting.add(make.claim())
    await setting.prepare(ref)
    (cdi,) = host.cdi.iterdir()
    content = cdi.read_bytes()
    view = host.views / ref.uid / "neurons" / "view.json"
    view.unlink()
    view.mkdir()  # a rename onto a folder fails
    (answer,) = await setting.prepare(ref)
    assert isinstance(answer, DiskError)
    assert cdi.read_bytes() == content
    assert len(setting.store.prepared()) == 1
    assert await setting.unprepare(ref) == [None]
    assert host.leftovers() == []


async def test_the_lock_is_not_for_others(setting: Setting, host: Any, make: Any) -> None:
    await setting.prepare(setting.add(make.claim()))
    assert stat.S_IMODE(host.root.stat().st_mode) == 0o700
