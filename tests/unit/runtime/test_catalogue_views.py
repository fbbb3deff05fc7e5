"""Every instance type of the catalogue can be listed: the agent's views are what the tools read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from neuron_device_model.catalog import DEFAULT_SDK_VERSION, InstanceType, instance_types, sdk_release
from neuron_device_model.view import VIEW_SCHEMA, GivenChip, container_view
from neuron_runtime import nrt

TYPES = [pytest.param(kind, id=kind.name) for kind in instance_types()]


def view_of(kind: InstanceType, hosts: list[int], *, cores: tuple[int, ...] | None = None) -> dict[str, Any]:
    return dict(
        container_view(
            kind,
            given=[GivenChip(host, cores) for host in hosts],
            first_index=0,
            logical_neuron_core=kind.chip.default_logical_neuron_core,
            instance_id="i-0123456789abcdef0",
            sdk=sdk_release(DEFAULT_SDK_VERSION),
        )
    )


def test_both_sides_speak_of_one_schema() -> None:
    assert nrt.SCHEMA == VIEW_SCHEMA


@pytest.mark.parametrize("kind", TYPES)
def test_whole_machine(container: Any, kind: InstanceType) -> None:
    container.add_view(view_of(kind, list(range(kind.chips))))
    result = container.neuron_ls("-t")
    assert (result.stderr, result.code) == ("", 0)
    table, drawing = result.stdout.split("\n\n\nNeuron Device Topology\n")
    assert f"instance-type: {kind.name}\n" in table
    assert ("logical-neuroncore-config:" in table) == kind.chip.has_logical_neuron_cores
    assert ("CONNECTED" in table) == any(slot.connected for slot in kind.devices)
    for index in range(kind.chips):
        assert f"\n| {index:<6} |" in table
        assert f"[{index:>2} ]" in drawing


@pytest.mark.parametrize("kind", TYPES)
def test_last_device_alone(container: Any, kind: InstanceType) -> None:
    container.add_view(view_of(kind, [kind.chips - 1]))
    (entry,) = json.loads(container.neuron_ls("-j").stdout)
    slot = kind.devices[-1]
    assert entry["neuron_device"] == 0
    assert entry["bdf"] == slot.pci_bdf
    assert entry["connected_to"] == (list(slot.connected) or None)
    assert entry["neuroncore_ids"] == list(range(entry["nc_count"]))


@pytest.mark.parametrize("kind", TYPES)
def test_last_core_of_a_device_alone(container: Any, kind: InstanceType) -> None:
    whole = view_of(kind, [0])["devices"][0]
    last = whole["core_count"] - 1
    container.add_view(view_of(kind, [0], cores=(last,)))
    (entry,) = json.loads(container.neuron_ls("-j").stdout)
    assert (entry["nc_count"], entry["neuroncore_ids"]) == (1, [last])
    assert entry["memory_size"] * whole["core_count"] == whole["memory_bytes"]
    result = container.neuron_ls("-wt")
    assert f"\n| 0      | 1      | {last:<8} | {entry['memory_size'] >> 30} GB" in result.stdout
    assert result.stdout.endswith("[ 0 ]\n")
