"""Scenarios: the same file and the same seed are the same day."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from neuron_cli import scenarios
from neuron_cli.main import app
from neuron_cli.scenarios import BadScenario, kebab, manifests, parse, timeline, typed
from neuron_device_model.catalog import instance_type
from neuron_device_model.efa import efa_devices
from neuron_device_model.faults import FAULT_TYPES
from neuron_operator.faults import judge
from typer.testing import CliRunner

EXAMPLE = Path(__file__).parents[3] / "manifests/examples/faults/bad-day.scenario"
TYPES = {"a": "trn2.48xlarge", "b": "trn1.32xlarge", "c": "trn2.48xlarge"}
START = datetime(2026, 11, 21, tzinfo=UTC)


def scenario(*faults: dict[str, Any], length: str = "24h") -> scenarios.Scenario:
    return parse({"name": "day", "length": length, "faults": list(faults)})


@given(st.integers(0, 1000), st.sampled_from([1, 7.5, 600]))
def test_the_example_is_the_same_day_twice_and_all_of_it_can_break(seed: int, speed: float) -> None:
    day, nodes = scenarios.read(str(EXAMPLE)), typed(TYPES)
    occurrences = timeline(day, seed=seed, nodes=nodes)
    assert occurrences == timeline(day, seed=seed, nodes=dict(reversed(nodes.items())))
    assert [one.begin for one in occurrences] == sorted(one.begin for one in occurrences)
    assert all(0 <= one.begin < one.end <= 24 * 3600 for one in occurrences)
    bodies = manifests(day, occurrences, start=START, speed=speed)
    assert len({body["metadata"]["name"] for body in bodies}) == len(bodies)
    for body in bodies:
        schedule = body["spec"]["schedule"]
        assert schedule["startTime"] < schedule["endTime"]
        made = {**body, "metadata": {**body["metadata"], "creationTimestamp": "2026-11-21T00:00:00Z"}}
        specs = {name: {"instanceType": kind} for name, kind in TYPES.items()}
        verdicts = judge([made], nodes=TYPES, specs=specs, now=schedule["startTime"])
        (active,) = verdicts.conditions.values()
        assert (active.status, active.reason) == ("True", "FaultActive"), active.message


def test_other_seeds_are_other_days_and_aliases_are_one_node() -> None:
    day, nodes = scenarios.read(str(EXAMPLE)), typed(TYPES)
    days = [timeline(day, seed=seed, nodes=nodes) for seed in range(10)]
    assert len({str(one) for one in days}) == 10
    for found in days:
        assert len({one.target["nodeName"] for one in found if one.fault.type.startswith("HBM")}) == 1


def test_times_are_scaled_and_what_is_given_is_kept() -> None:
    day = scenario(
        {"type": "HBMCorrectable", "at": "1h", "for": "30m", "node": "a", "chip": 3, "eventsPerMinute": 60},
        {"type": "DeviceLost", "at": "23h", "node": "a", "chip": 1, "effect": "NoExecute"},
    )
    first, last = manifests(day, timeline(day, seed=0, nodes=typed(TYPES)), start=START, speed=60)
    assert first == {
        "apiVersion": "neuron-sim.dev/v1alpha1",
        "kind": "NeuronFault",
        "metadata": {"name": "day-000-hbm-correctable", "labels": {"neuron-sim.dev/scenario": "day"}},
        "spec": {
            "target": {"nodeName": "a", "chip": 3},
            "type": "HBMCorrectable",
            "eventsPerMinute": 60,
            "schedule": {"startTime": "2026-11-21T00:01:00Z", "endTime": "2026-11-21T00:01:30Z"},
        },
    }
    assert last["spec"]["effect"] == "NoExecute"
    assert last["spec"]["schedule"]["endTime"] == "2026-11-21T00:24:00Z", "what has no end ends with the day"


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ({"type": "Rust", "at": "1h"}, "faults.0.type"),
        ({"type": "Hang"}, "give either at"),
        ({"type": "Hang", "at": "1h", "every": "1h", "for": "1m"}, "give either at"),
        ({"type": "Hang", "every": "1h"}, "needs for"),
        ({"type": "Hang", "every": "1s", "for": "1s"}, "at least 10s"),
        ({"type": "Hang", "at": "1h", "core": 1}, "add chip"),
        ({"type": "LinkDown", "at": "1h", "chip": 1}, "chip and peer"),
        ({"type": "DriverFailed", "at": "1h", "chip": 1}, "not of a chip"),
        ({"type": "Hang", "at": "1h", "efa": 1}, "efa is for EFADown"),
        ({"type": "Hang", "at": "1h", "percent": 1}, "percent is for"),
        ({"type": "Hang", "at": "1h", "eventsPerMinute": 1}, "eventsPerMinute is for"),
        ({"type": "Hang", "at": "1h", "hcip": 1}, "hcip"),
        ({"type": "Hang", "at": "soon"}, "faults.0.at"),
    ],
)
def test_what_makes_no_sense_is_told_with_its_place(fault: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadScenario, match=sentence):
        scenario(fault)


def test_what_does_not_fit_the_nodes_is_told() -> None:
    hang = {"type": "Hang", "at": "1h", "node": "z"}
    with pytest.raises(BadScenario, match="there is no node z: name one of a, b, c"):
        timeline(scenario(hang), seed=0, nodes=typed(TYPES))
    with pytest.raises(BadScenario, match="there is no node to break"):
        timeline(scenario(hang), seed=0, nodes={})
    small = typed({"s": "trn2.3xlarge"})
    link = {"type": "LinkDown", "at": "1h", "chip": 0, "peer": "any"}
    with pytest.raises(BadScenario, match="has no links"):
        timeline(scenario(link), seed=0, nodes=small)
    often = {"type": "Hang", "every": "10s", "for": "1s"}
    with pytest.raises(BadScenario, match="more than 1000"):
        timeline(scenario(often), seed=0, nodes=small)


def test_a_card_is_one_that_the_node_has() -> None:
    down = scenario({"type": "EFADown", "every": "10m", "for": "1m", "node": "b", "efa": "any"})
    cards = {one.target["efa"] for one in timeline(down, seed=0, nodes=typed(TYPES))}
    assert cards <= set(range(len(efa_devices(instance_type("trn1.32xlarge")))))
    assert len(cards) > 1


def test_every_type_has_an_anchor_in_the_runbook() -> None:
    text = (Path(__file__).parents[3] / "docs/faults.md").read_text()
    for kind in FAULT_TYPES:
        assert f"\n### {kebab(kind)}\n" in text


def test_a_dry_run_needs_no_cluster(tmp_path: Path) -> None:
    words = ["fault", "replay", str(EXAMPLE), "--dry-run", "--seed", "3", "--node", "a=trn2.48xlarge"]
    first, second = (CliRunner().invoke(app, words) for _ in range(2))
    assert first.exit_code == 0
    assert first.stdout == second.stdout
    assert "01:00:00  08:00:00  HBMCorrectable" in first.stdout
    bad = CliRunner().invoke(app, ["fault", "replay", str(tmp_path / "none"), "--dry-run"])
    assert (bad.exit_code, "cannot be read" in bad.stderr) == (1, True)
