"""What faults cost the jobs of profiles: whole numbers that add up, and never go back."""

import math
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from neuron_device_model.faults import Fault
from neuron_device_model.view import GivenChip, container_view
from neuron_dra_driver.activity import losses, profiles
from neuron_dra_driver.activity.losses import Loss, Trouble
from neuron_dra_driver.hardware.effects import begin
from neuron_dra_driver.node import standalone

NODE = standalone(name="n", type_name="trn2.48xlarge")
VIEW = container_view(
    NODE.instance_type,
    given=[GivenChip(3)],
    first_index=0,
    logical_neuron_core=2,
    instance_id=NODE.instance_id,
    sdk=NODE.sdk,
)
FAULT = Fault("f", "HBMUncorrectable", 3, None, "NoSchedule", "", "2026-01-02T00:00:00Z")
BEGIN = begin(FAULT)
MEMORY = 1 << 30

FAILING = Trouble("completed_with_err", 0, {}, BEGIN)
HANGING = replace(FAILING, failing="timed_out")
SLOW = replace(FAILING, failing=None, slower=30)


def found(*faults: Fault, after: float = 0) -> Trouble | None:
    return losses.trouble(faults, VIEW, physical_cores=8, now=BEGIN + after)


def executions(age: float) -> float:
    return profiles.executions("inference", seed="s", age=age)


def report(age: float, loss: Loss, trouble: Trouble | None) -> profiles.Report:
    well = profiles.report("inference", seed="s", cores=[0, 1], age=age, core_memory=MEMORY, core_flops=1e12)
    return losses.suffered(well, loss, trouble, core_memory=MEMORY)


def advance(loss: Loss, trouble: Trouble | None, age: float) -> Loss:
    return losses.advance(loss, trouble, executions=executions, born=BEGIN, now=BEGIN + age)


times = st.lists(st.tuples(st.floats(0.1, 500), st.sampled_from([None, FAILING, HANGING, SLOW])), max_size=20)


@given(times)
def test_counts_never_go_back_and_nothing_is_counted_twice(steps: list[tuple[float, Trouble | None]]) -> None:
    loss, age = Loss(until=0), 0.0
    before: dict[str, int] = {}
    for passed, trouble in steps:
        age += passed
        loss = advance(loss, trouble, age)
        assert advance(loss, trouble, age) == loss, "asked twice"
        now = report(age, loss, trouble)
        counts = now["executions"] | {"hardware": now["errors"]["hardware"]}
        assert all(counts[name] >= count for name, count in before.items())
        assert counts["completed"] + loss.failed + loss.timed_out + int(loss.unbegun) == int(executions(age))
        assert counts["hardware"] == counts["completed_with_err"] + counts["timed_out"]
        before = counts


spans = st.lists(
    st.tuples(
        st.sampled_from(["HBMUncorrectable", "Hang", "ThermalThrottle", "MemoryLeak", "HBMCorrectable"]),
        st.integers(-100, 300),
        st.integers(1, 200) | st.just(math.inf),
        st.sampled_from([3, 3, 4]),
    ),
    max_size=4,
)


@given(spans, st.lists(st.integers(1, 60), min_size=1, max_size=15))
def test_what_is_worked_out_from_all_faults_is_what_looks_between_would_have_added_up(
    given_spans: list[tuple[str, int, float, int]], pauses: list[int]
) -> None:
    faults = [
        (
            replace(FAULT, name=str(n), type=kind, chip=chip, since=at(BEGIN + first)),
            BEGIN + first,
            BEGIN + first + lasts,
        )
        for n, (kind, first, lasts, chip) in enumerate(given_spans)
    ]
    now = BEGIN
    before: dict[str, int] = {}
    loss, age = Loss(until=0), 0.0
    for pause in pauses:
        for _ in range(pause):  # a look each second, in which all faults begin and end
            age += 1
            there = [fault for fault, since, until in faults if since < BEGIN + age <= until]
            loss = advance(loss, found(*there, after=age), age)
        now = BEGIN + age
        whole, trouble = losses.replayed(faults, VIEW, physical_cores=8, executions=executions, born=BEGIN, now=now)
        if whole is None:
            assert (loss.failed, loss.timed_out, loss.unbegun) == (0, 0, 0)
            continue
        assert (whole.failed, whole.timed_out) == (loss.failed, loss.timed_out)
        assert whole.unbegun == pytest.approx(loss.unbegun)
        counts = report(age, whole, trouble)["executions"]
        assert all(counts[name] >= count for name, count in before.items())
        before = counts


def at(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def test_what_faults_do_to_a_job() -> None:
    assert found() is None
    assert found(replace(FAULT, chip=2)) is None, "of another chip"
    assert found(replace(FAULT, type="HBMCorrectable")) is None, "corrected errors cost nothing"
    assert found(FAULT) == FAILING
    assert found(replace(FAULT, type="Hang")) == HANGING
    assert found(replace(FAULT, type="ThermalThrottle", percent=30)) == SLOW
    leak = found(replace(FAULT, type="MemoryLeak", percent=10, core=2), after=120)
    assert leak
    assert leak.leaks == {1: 0.2}


def test_a_broken_job_does_nothing_and_a_throttled_one_takes_longer() -> None:
    well = report(100, Loss(until=100), None)
    broken = report(100, Loss(until=100), FAILING)
    assert {core["utilization"] for core in broken["cores"].values()} == {0}
    assert broken["latency"] is None
    slow = report(100, Loss(until=100), replace(SLOW, slower=50))
    assert slow["latency"]["total"]["p50"] == 2 * well["latency"]["total"]["p50"]
    assert slow["cores"]["0"]["flops"] == well["cores"]["0"]["flops"] // 2


def test_a_leak_grows_until_the_core_is_full() -> None:
    def used(leaked: float) -> list[int]:
        shown = report(100, Loss(until=100), Trouble(None, 0, {0: leaked}, BEGIN))
        return [sum(core["memory"].values()) for core in shown["cores"].values()]

    (well, other) = used(0)
    assert used(0.1) == [well + int(0.1 * MEMORY), other]
    assert used(7) == [MEMORY, other]


def test_nothing_is_lost_before_the_fault_however_long_nobody_looked() -> None:
    """An agent keeps what was lost, and not when it looked last."""
    later = replace(FAILING, since=BEGIN + 500)
    for kept in (Loss(until=0), Loss(until=100, failed=3)):
        loss = advance(kept, later, 600)
        assert loss.failed - kept.failed == int(executions(600)) - int(executions(500))


def test_losses_outlive_the_agent() -> None:
    known = {"a/r": Loss(until=7.5, failed=3)}
    assert losses.read(losses.written(known)) == known
