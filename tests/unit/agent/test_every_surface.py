"""One NeuronFault, every surface: each row of the table in docs/faults.md, of each place that it may be of.

What the operator makes of the object goes through all that speak of it. Only their words are tested elsewhere.
"""

import re
from pathlib import Path
from typing import Any

import pytest
from neuron_cli.topology import view
from neuron_device_model.catalog import instance_type
from neuron_device_model.faults import FAULT_KINDS
from neuron_device_model.view import GivenChip, container_view
from neuron_dra_driver.activity.exposition import System, render
from neuron_dra_driver.hardware.effects import begin, ecc, told
from neuron_dra_driver.kubeletplugin import HealthStatus
from neuron_dra_driver.node import from_neuron_node
from neuron_dra_driver.reporting.device_health import card_health, device_health
from neuron_operator.faults import judge
from neuron_operator.faults.node_health import health

DOCS = Path(__file__).parents[3] / "docs/faults.md"
ROWS = {
    row[1]: [cell.strip() for cell in row[2].split("|")]
    for row in re.finditer(r"^\| \[`(\w+)`\]\(#.*?\) \|(.*)\|$", DOCS.read_text(), re.MULTILINE)
}
PLACES = {"node": "node", "chip": "chip", "core": "core", "two chips": "link", "EFA card": "efa"}
TRN2 = instance_type("trn2.48xlarge")
CHIP, PEER, CARD = 3, TRN2.devices[3].connected[0], 2
TARGETS: dict[str, dict[str, int]] = {
    "node": {},
    "chip": {"chip": CHIP},
    "core": {"chip": CHIP, "core": 5},
    "link": {"chip": CHIP, "peer": PEER},
    "efa": {"efa": CARD},
}


def of_chip(chip: int) -> set[str]:
    cores = {f"neuron-core-{core}" for core in range(4 * chip, 4 * chip + 4)}
    physical = {f"neuron-physical-core-{core}" for core in range(8 * chip, 8 * chip + 8)}
    return {f"neuron-device-{chip}", "neuron-node"} | cores | physical


OVERLAPPING = {
    "node": set().union(*map(of_chip, range(16))),
    "chip": of_chip(CHIP),
    "core": {f"neuron-device-{CHIP}", "neuron-core-14", "neuron-physical-core-29", "neuron-node"},
    "link": of_chip(CHIP) | of_chip(PEER),
    "efa": set(),
}


def test_the_table_has_every_type_and_every_place() -> None:
    assert {kind: {PLACES[word] for word in row[0].split(", ")} for kind, row in ROWS.items()} == {
        kind: set(known.places) for kind, known in FAULT_KINDS.items()
    }


@pytest.mark.parametrize(
    ("kind", "place"), [(kind, place) for kind in ROWS for place in sorted(FAULT_KINDS[kind].places)]
)
def test_every_surface_tells_of_it(kind: str, place: str) -> None:
    _, counters, runtime, conditions, other = ROWS[kind]
    fault = {
        "metadata": {"name": "f", "creationTimestamp": "2026-01-02T00:00:00Z"},
        "spec": {"type": kind, "target": {"nodeName": "n", **TARGETS[place]}},
    }
    spec: dict[str, Any] = {
        "instanceType": TRN2.name, "logicalNeuronCore": 2, "partitions": "physical", "devices": "both",
        "instanceID": "i-1",
    }  # fmt: skip
    spec["faults"] = judge([fault], nodes=["n"], specs={"n": spec}, now="2026-01-02T00:00:01Z").by_node["n"]
    neuron_node = {"metadata": {"name": "n"}, "spec": spec}
    node = from_neuron_node(neuron_node)
    (known,) = node.faults
    breaks = "stays healthy" not in other

    hit = set() if kind == "EFADown" else OVERLAPPING[place]
    taints = {name: device["taints"][0] for name, device in node.devices.items() if device.get("taints")}
    assert taints.keys() == hit
    assert {(t["value"], t["effect"]) for t in taints.values()} <= {(kind, "NoSchedule" if breaks else "None")}
    unwell = {name for (_, name), one in device_health(node).items() if one.status is HealthStatus.UNHEALTHY}
    assert unwell == (hit if breaks else set())
    cards = [one for one in card_health(node).values() if one.status is HealthStatus.UNHEALTHY]
    assert len(cards) == {"efa": 1, "node": 16 if breaks else 0}.get(place, 0)

    told_by = {one.type: one.status for one in health(spec, node="n")}
    assert told_by == {
        "NeuronHealth": str(conditions in ("both", "`NeuronHealth`")),
        "AcceleratedHardwareReady": str(conditions != "both"),
    }

    chips = {int(name.rpartition("-")[2]) for name in hit if name.startswith("neuron-device-")}
    events = set(re.findall(r"`(\w+)`", counters))
    expected = {chip: dict.fromkeys(events, 1) for chip in chips} if events else {}
    assert ecc(known, TRN2, now=begin(known)) == expected
    page = render(node, [], System(vcpus=1, usage={}, memory={}), {})
    active = re.findall(rf'^neuron_sim_fault_active.*neuron_device_index="(\d*)",type="{kind}"', page, re.MULTILINE)
    assert set(active) == ({str(chip) for chip in chips} or {""})
    counted = {int(chip) for chip in re.findall(r'^hardware_ecc.*device_index="(\d+)"', page, re.MULTILINE)}
    assert set(range(16)) - counted == (chips if "series are gone" in counters else set())

    given = [GivenChip(chip, cores=(0, 1, 2, 3)) for chip in sorted((CHIP, PEER))]
    seen: Any = container_view(TRN2, given=given, first_index=0, logical_neuron_core=2, instance_id="i-1", sdk=node.sdk)
    said = told(seen, node.faults, physical_cores=8)["faults"]
    assert [entry["status"] for entry in said] == ([] if kind == "EFADown" else [int(code(runtime, known))])

    (drawn,) = view.view([neuron_node], [], [], set()).nodes
    assert {chip.number for chip in drawn.chips if chip.faults} == chips
    state = "unlinked" if place == "link" else "broken"
    assert {chip.number for chip in drawn.chips if chip.state == state} == (chips if breaks else set())
    assert len(drawn.links) == (place == "link")
    assert len(drawn.cards) == (kind == "EFADown")


def code(runtime: str, known: Any) -> str:
    """The runtime's code in the table; a full core is the process' own end, and not the fault's."""
    return "0" if known.kind.error is None else runtime.split()[0]
