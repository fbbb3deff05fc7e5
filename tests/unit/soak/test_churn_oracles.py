"""What the soak test on a cluster judges by: an oracle that finds nothing is no oracle."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from neuron_device_model.catalog import instance_type, sdk_release
from neuron_device_model.view import GivenChip, container_view
from neuron_dra_driver.records.checkpoint import Checkpoint, Entry
from neuron_dra_driver.records.holdings import WHOLE_CHIP, Cores, HeldDevice

CHURN = Path(__file__).parents[2] / "soak/churn.py"


@pytest.fixture(scope="module")
def churn() -> ModuleType:
    spec = importlib.util.spec_from_file_location("churn", CHURN)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "churn", module)  # where dataclasses look for annotations
        spec.loader.exec_module(module)
    return module


def entry(uid: str, *cores: tuple[int, int], admin: bool = False) -> Entry:
    held: tuple[Cores, ...] = tuple((pair,) for pair in cores)
    devices = (HeldDevice("neurons", "worker", "a-device", admin_access=admin, cores=one) for one in held)
    return Entry(uid, "team", uid, tuple(devices), "runtime")


def test_a_core_that_two_claims_had_for_a_moment_is_found(churn: ModuleType, tmp_path: Path) -> None:
    journal = Checkpoint(tmp_path)
    journal.refresh()
    journal.put(entry("a", (0, 0b0011), (1, WHOLE_CHIP)))
    journal.put(entry("b", (0, 0b1100)))
    journal.put(entry("looks", (0, 0b1111), admin=True))
    journal.put(entry("a", (0, 0b0011)))  # anew, with less
    journal.put(entry("c", (1, 0b0001)))
    journal.delete("b")
    journal.put(entry("d", (0, 0b0100)))
    assert list(churn.prepared_twice(journal.path.read_text())) == []
    journal.put(entry("e", (1, WHOLE_CHIP)))
    journal.delete("e")
    assert list(churn.prepared_twice(journal.path.read_text() + '12345678 {"op"')) == [("c", "e", "1/0")]


@pytest.mark.parametrize(("lnc", "cores"), [(2, {42, 43, 46, 47}), (1, {41, 43})])
def test_a_view_tells_the_cores_of_the_host(churn: ModuleType, lnc: int, cores: set[int]) -> None:
    given = [GivenChip(2), GivenChip(5, (1, 3))]
    view = container_view(
        instance_type("trn2.48xlarge"),
        given=given,
        first_index=0,
        logical_neuron_core=lnc,
        instance_id="i-0",
        sdk=sdk_release("2.32.0"),
    )
    assert set(churn.sees(view, "worker")) == {("worker", core) for core in {*range(16, 24), *cores}}
