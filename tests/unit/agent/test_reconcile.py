"""What is left on a node without anybody asking: removed, kept or rendered again, as the API server says."""

import json
from dataclasses import replace
from typing import Any

import pytest
from neuron_dra_driver.claims.reconcile import Reconciled, reconcile
from neuron_dra_driver.lock import NodeLock
from neuron_dra_driver.node import SimulatedNode


class Setting:
    def __init__(self, host: Any, node: SimulatedNode) -> None:
        self.host = host
        self.node: SimulatedNode | None = node
        self.store = host.opened()
        self.lock = NodeLock(host.root)
        self.claims: dict[str, Any] = {}
        self.on_read: Any = lambda: None

    async def read(self, namespace: str, name: str) -> Any:
        self.on_read()
        return self.claims.get(name)

    async def reconcile(self) -> Reconciled:
        return await reconcile(
            driver="neuron.aws.com",
            pool="worker-1",
            read_claim=self.read,
            store=self.store,
            lock=self.lock,
            node=self.node,
        )

    def prepared(self) -> set[str]:
        self.store.refresh()
        return {entry.uid for entry in self.store.prepared()}

    def close(self) -> None:
        self.store.close()
        self.lock.close()


@pytest.fixture
def setting(host: Any, trn2: SimulatedNode) -> Any:
    made = Setting(host, trn2)
    yield made
    made.close()


@pytest.fixture
def mine(setting: Setting, make: Any, trn2: SimulatedNode) -> Any:
    """A claim that is allocated, and prepared."""
    claim = make.claim()
    setting.claims["mine"] = claim
    setting.store.prepare(make.allocation(claim), trn2)
    return claim


async def test_what_is_as_it_should_be_is_left_alone(setting: Setting, mine: Any) -> None:
    before = setting.host.journal.read_bytes()
    assert await setting.reconcile() == Reconciled()
    assert setting.host.journal.read_bytes() == before


@pytest.mark.parametrize("fate", ["deleted", "made anew", "elsewhere", "other devices", "not allocated"])
async def test_a_claim_that_went_away_leaves_nothing(setting: Setting, mine: Any, make: Any, fate: str) -> None:
    setting.claims = {
        "deleted": {},
        "made anew": {"mine": make.claim(uid="another")},
        "elsewhere": {"mine": make.claim(pool="worker-2")},
        "other devices": {"mine": make.claim(devices={"n": [3]})},
        "not allocated": {"mine": mine | {"status": {}}},
    }[fate]
    assert await setting.reconcile() == Reconciled(removed=1)
    assert setting.host.leftovers() == []


async def test_while_the_api_server_is_away_everything_stays(setting: Setting, mine: Any) -> None:
    def away() -> None:
        raise ConnectionError("connection refused")

    setting.on_read = away
    assert await setting.reconcile() == Reconciled(unknown=1)
    assert setting.prepared() == {"uid-of-mine"}


@pytest.mark.parametrize("lost", ["cdi", "view", "metadata", "runtime"])
async def test_files_that_somebody_took_are_rendered_again(setting: Setting, mine: Any, lost: str) -> None:
    host = setting.host
    (cdi,) = host.cdi.iterdir()
    (runtime,) = host.runtimes.iterdir()
    folder = host.views / "uid-of-mine" / "neurons"
    path = {"cdi": cdi, "view": folder / "view.json", "metadata": folder / "metadata.json", "runtime": runtime}[lost]
    path.rename(host.root / "taken")
    assert await setting.reconcile() == Reconciled(repaired=1)
    assert path.exists()
    assert await setting.reconcile() == Reconciled()


async def test_a_node_that_offers_nothing_renders_nothing(setting: Setting, mine: Any) -> None:
    setting.node = None
    (cdi,) = setting.host.cdi.iterdir()
    cdi.unlink()
    assert await setting.reconcile() == Reconciled()


async def test_the_checkpoint_is_lost_and_the_cdi_files_tell(setting: Setting, mine: Any, make: Any) -> None:
    setting.host.journal.write_bytes(b"")
    assert setting.prepared() == {"uid-of-mine"}
    assert await setting.reconcile() == Reconciled()
    setting.claims.clear()
    assert await setting.reconcile() == Reconciled(removed=1)
    assert setting.host.leftovers() == []


async def test_what_a_kill_left_is_removed(setting: Setting) -> None:
    """A folder, half a CDI file, a whole file with nonsense: traces with a uid and nothing behind them."""
    host = setting.host
    (host.views / "uid-a" / "neurons").mkdir(parents=True)
    host.cdi.mkdir()
    (host.cdi / "neuron.aws.com-claim_uid-b.json.tmp").write_text("{")
    (host.cdi / "neuron.aws.com-claim_uid-c.json").write_text("{}")
    assert await setting.reconcile() == Reconciled(removed=3)
    assert host.leftovers() == []


async def test_other_peoples_cdi_files_are_not_touched(setting: Setting) -> None:
    setting.host.cdi.mkdir()
    others = [setting.host.cdi / name for name in ("nvidia.com-gpu.json", "neuron.aws.com.json", "x.yaml")]
    for path in others:
        path.write_text("{}")
    await setting.reconcile()
    assert all(path.exists() for path in others)


async def test_a_cdi_file_under_another_uid_is_no_proof(setting: Setting, mine: Any) -> None:
    (cdi,) = setting.host.cdi.iterdir()
    copy = cdi.with_name("neuron.aws.com-claim_uid-copied.json")
    copy.write_bytes(cdi.read_bytes())
    assert await setting.reconcile() == Reconciled(removed=1)
    assert not copy.exists()
    assert setting.prepared() == {"uid-of-mine"}


async def test_what_a_device_plugin_gave_is_not_asked_about(setting: Setting, make: Any, trn2: SimulatedNode) -> None:
    plugin = replace(make.allocation(make.claim("pod")), origin="device-plugin")
    setting.store.prepare(plugin, trn2)
    (cdi,) = setting.host.cdi.iterdir()
    cdi.unlink()
    assert await setting.reconcile() == Reconciled()
    assert setting.prepared() == {"uid-of-pod"}


async def test_a_claim_prepared_again_meanwhile_stays(
    setting: Setting, mine: Any, make: Any, trn2: SimulatedNode
) -> None:
    """The API server was asked before the claim was allocated here again, and its answer is old by now."""
    old, setting.claims = setting.claims, {}

    def prepared_meanwhile() -> None:
        other = setting.host.opened()
        other.prepare(make.allocation(old["mine"]), trn2)
        other.close()

    setting.on_read = prepared_meanwhile
    assert await setting.reconcile() == Reconciled()
    assert setting.prepared() == {"uid-of-mine"}


async def test_a_claim_unprepared_meanwhile_does_not_come_back(setting: Setting, mine: Any) -> None:
    (cdi,) = setting.host.cdi.iterdir()
    cdi.unlink()

    def unprepared_meanwhile() -> None:
        other = setting.host.opened()
        other.unprepare("uid-of-mine")
        other.close()

    setting.on_read = unprepared_meanwhile
    assert await setting.reconcile() == Reconciled()
    assert setting.host.leftovers() == []


async def test_the_record_in_the_cdi_file_is_the_checkpoints(setting: Setting, mine: Any) -> None:
    (cdi,) = setting.host.cdi.iterdir()
    record = json.loads(json.loads(cdi.read_bytes())["annotations"]["neuron-sim.dev/checkpoint-record"])
    line = json.loads(setting.host.journal.read_text().splitlines()[1].partition(" ")[2])
    assert line.pop("serial")
    assert {"op": "put", **record} == line
