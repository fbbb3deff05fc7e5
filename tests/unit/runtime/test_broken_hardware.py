"""Tools and runtime in a container on broken hardware: what the agent wrote beside the view decides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from neuron_device_model import identity
from neuron_device_model.catalog import DEFAULT_SDK_VERSION, instance_type, sdk_release
from neuron_device_model.faults import FAULT_KINDS, Fault
from neuron_device_model.view import GivenChip, container_view
from neuron_dra_driver.hardware.effects import told
from neuron_runtime import load_plan, monitor_record, nccom_test, neuron_sim_load, nrt, views
from neuron_runtime.neuron_top import Gatherer
from neuron_runtime.sysfs_tree import Tree

TRN2 = instance_type("trn2.48xlarge")
HOSTS = (1, 2)
"""The container's devices 0 and 1, by their numbers on the host; they have a link."""


@pytest.fixture
def given(container: Any) -> Any:
    view = container_view(
        TRN2,
        given=[GivenChip(chip) for chip in HOSTS],
        first_index=0,
        logical_neuron_core=2,
        instance_id="i-00112233445566778",
        sdk=sdk_release(DEFAULT_SDK_VERSION),
    )
    container.add_view(view)
    return view


def break_(container: Any, view: Any, kind: str, **where: Any) -> None:
    """As the agent does."""
    fault = Fault(
        "hot", kind, where.pop("chip", 2), where.pop("core", None), "None", "", "2026-01-02T00:00:00Z", **where
    )
    document = told(view, [fault], physical_cores=TRN2.chip.physical_cores)
    (container.run_root / "claim" / "neuron" / nrt.FAULTS).write_text(json.dumps(document))


def opened(container: Any, count: int | None = None, **environment: str) -> nrt.Cores:
    cores = nrt.given_cores(nrt.given_views(str(container.run_root)))
    return nrt.open_given(cores, count=count, environment=environment)


@pytest.mark.parametrize(
    ("kind", "status", "name"),
    [
        ("SRAMUncorrectable", 1202, "NRT_EXEC_HW_ERR_NC_UE"),
        ("HBMUncorrectable", 1201, "NRT_EXEC_HW_ERR_HBM_UE"),
        ("HBMRepairable", 1205, "NRT_EXEC_HW_ERR_REPAIRABLE_HBM_UE"),
        ("DMAError", 1203, "NRT_EXEC_HW_ERR_DMA_ABORT"),
        ("Hang", 5, "NRT_TIMEOUT"),
    ],
)
def test_an_execution_on_a_broken_core_fails_with_the_runtimes_code(
    container: Any, given: Any, kind: str, status: int, name: str
) -> None:
    with opened(container) as cores:
        cores.check()
        break_(container, given, kind)
        with pytest.raises(nrt.NrtError) as failed:
            cores.check()
        assert failed.value.status == status == FAULT_KINDS[kind].error.status  # type: ignore[union-attr]
        assert f"NRT Error {name}({status})" in str(failed.value)
        assert "{" not in failed.value.words
        (container.run_root / "claim" / "neuron" / nrt.FAULTS).unlink()
        cores.check()


def test_only_who_has_the_broken_core_fails(container: Any, given: Any) -> None:
    break_(container, given, "NCUncorrectable", core=5)  # the third logical core of the second device
    with opened(container, NEURON_RT_VISIBLE_CORES="0-5") as others:
        others.check()
    with (
        opened(container, NEURON_RT_VISIBLE_CORES="6") as cores,
        pytest.raises(nrt.NrtError, match=r"\[ND 1\]\[NC 2\]"),
    ):
        cores.check()


def test_a_lost_device_cannot_be_opened_and_the_others_can(container: Any, given: Any) -> None:
    break_(container, given, "DeviceLost")
    with pytest.raises(nrt.NrtError, match="Could not open the nd1") as refused:
        opened(container)
    assert refused.value.place == "TDRV:tdrv_init_mla_phase1"
    with opened(container, NEURON_RT_VISIBLE_CORES="0-3"):
        pass
    (device,) = json.loads(container.neuron_ls("--json-output").stdout)
    assert device["neuron_device"] == 0


def test_without_its_driver_a_node_has_no_devices(container: Any, given: Any) -> None:
    break_(container, given, "DriverFailed", chip=None)
    with pytest.raises(nrt.NrtError, match="Unable to determine Neuron Driver version"):
        opened(container)
    listed = container.neuron_ls()
    assert (listed.code, listed.stdout) == (1, "")
    assert "failed to discover Neuron devices" in listed.stderr


def test_a_link_that_is_down_is_shown_at_both_ends_and_fails_who_has_both(container: Any, given: Any) -> None:
    before = [device["connected_to"] for device in json.loads(container.neuron_ls("-j").stdout)]
    break_(container, given, "LinkDown", peer=1)
    after = [device["connected_to"] for device in json.loads(container.neuron_ls("-j").stdout)]
    assert [sorted(set(one) - set(other)) for one, other in zip(before, after, strict=True)] == [[2], [1]]
    with opened(container) as cores, pytest.raises(nrt.NrtError, match="NRT_EXEC_HW_ERR_COLLECTIVES"):
        cores.check()


def test_a_collective_over_a_link_that_is_down_fails(
    container: Any, given: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    break_(container, given, "LinkDown", peer=1)
    words = ["-r", "8", "-b", "64", "-e", "64", "allr", "--benchmark-log-directory", str(tmp_path)]
    assert nccom_test.run(words, environment={}, run_root=str(container.run_root)) == 1
    said = capfd.readouterr()
    assert "Failure running neuron-bench" in said.out
    assert "missing collectives status" in said.err


def test_a_file_that_is_damaged_or_of_another_version_breaks_nothing(container: Any, given: Any) -> None:
    path = container.run_root / "claim" / "neuron" / nrt.FAULTS
    for text in ("{", '{"schema": 99, "faults": [{}]}'):
        path.write_text(text)
        with opened(container) as cores:
            cores.check()


# --- a load


def test_what_damage_does_to_a_load_adds_up() -> None:
    failing = {"status": 1201, "counts_as": "completed_with_err", "slower": 0, "leak": 0}
    slow = {"status": 0, "counts_as": "completed_with_err", "slower": 50, "leak": 6}
    damage = load_plan.Damage()
    for t, faults in ((0, []), (10, [failing]), (14, [slow]), (24, []), (30, [])):
        damage.look(t, faults)
    assert (damage.worked, damage.failed) == (10 + 5 + 6, {"completed_with_err": 4})
    said = load_plan.parse_arguments(["--rate", "2"]).process(30, cores=(0,), damage=damage)
    assert said["executions"]["completed"] == 42
    assert said["executions"]["completed_with_err"] == said["errors"]["hardware"] == 8


def test_a_load_ends_with_the_error_if_it_is_asked_to(
    container: Any, given: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    break_(container, given, "HBMUncorrectable")
    root = str(container.run_root)
    assert neuron_sim_load.run(["--exit-on-error"], run_root=root) == 255
    assert "NRT_EXEC_HW_ERR_HBM_UE(1201)" in capfd.readouterr().err
    assert neuron_sim_load.run(["--duration", "1ms"], run_root=root) == 0, "else it goes on"


def test_neuron_top_goes_on_without_a_lost_device_and_not_without_the_driver(container: Any, given: Any) -> None:
    gatherer = Gatherer(views.given(str(container.run_root)))

    def shown() -> list[int] | None:
        look = gatherer.look()
        return [device["index"] for device in look.view["devices"]] if look else None

    assert shown() == [0, 1]
    break_(container, given, "DeviceLost")
    assert shown() == [0]
    break_(container, given, "DriverFailed", chip=None)
    assert shown() is None


# --- counters


def test_neuron_monitor_tells_what_was_counted_since_the_last_record(container: Any, given: Any) -> None:
    view = views.merge([given])
    counted = {1: {"mem_ecc_corrected": 7, "mem_ecc_repairable_uncorrected": 1}}
    devices = monitor_record.hardware_counters(view, counted, {1: {"mem_ecc_corrected": 4}})["neuron_devices"]
    assert [device["mem_ecc_corrected"] for device in devices] == [0, 3]
    assert set(devices[0]) == {
        "neuron_device_index",
        "mem_ecc_corrected",
        "mem_ecc_uncorrected",
        "sram_ecc_corrected",
        "sram_ecc_uncorrected",
    }


def test_the_drivers_files_have_the_counters_and_the_kernels_serial_number(container: Any, given: Any) -> None:
    view = views.merge([given])
    assert view is not None
    files = Tree(view).files(view, [], {1: {"mem_ecc_repairable_uncorrected": 2}}, now=0)
    assert files["neuron1/stats/hardware/mem_ecc_repairable_uncorrected"] == "2\n"
    assert files["neuron0/stats/hardware/mem_ecc_repairable_uncorrected"] == "0\n"
    number = identity.serial_number(given["instance_id"], 2)
    assert files["neuron1/info/serial_number"] == f"{number:016x}\n"


def test_the_files_of_a_lost_device_go_with_it(container: Any, given: Any, tmp_path: Path) -> None:
    from neuron_runtime.neuron_sim_sysfs import _remove, _write

    root = str(tmp_path / "tree")
    _write(root, {"neuron0/a/b": "1\n", "neuron1/core_count": "8\n", "neuron1/a/c": "1\n"})
    _remove(root, ["neuron1/a/c", "neuron1/core_count"])
    assert [path.name for path in Path(root).iterdir()] == ["neuron0"]
