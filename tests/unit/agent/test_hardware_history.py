"""What faults leave behind where there is no disk: counters that never go back, from a record of faults."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from neuron_device_model.catalog import instance_type
from neuron_dra_driver.hardware.counts import ByChip
from neuron_dra_driver.hardware.history import KEPT, History

TRN2 = instance_type("trn2.48xlarge")
BEGIN = 1_767_225_600.0

Entry = dict[str, Any]


def entry(name: str, *, since: float, kind: str = "HBMCorrectable", chip: int = 3, **more: Any) -> Entry:
    began = datetime.fromtimestamp(since, UTC).isoformat()
    return {"name": name, "type": kind, "chip": chip, "effect": "NoSchedule", "since": began, **more}


def least(counters: ByChip, before: ByChip) -> bool:
    return all(
        counters.get(chip, {}).get(event, 0) >= count
        for chip, events in before.items()
        for event, count in events.items()
    )


steps = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), st.sampled_from("abc"), st.sampled_from([6, 60])),
        st.tuples(st.just("edit"), st.sampled_from("abc"), st.sampled_from([1, 600])),
        st.tuples(st.just("end"), st.sampled_from("abc"), st.just(0)),
        st.tuples(st.just("pass"), st.just(""), st.integers(0, 120)),
        st.tuples(st.just("restart"), st.just(""), st.integers(0, 120)),
        st.tuples(st.just("end while away"), st.sampled_from("abc"), st.integers(0, 120)),
    ),
    max_size=30,
)


@given(steps, st.sampled_from([0.0, BEGIN + 100, 1e12]))
def test_counters_never_go_back_whatever_happens(happens: list[tuple[str, str, int]], oldest: float) -> None:
    now, active, history = BEGIN, dict[str, Entry](), History()
    before: ByChip = {}
    for what, name, number in happens:
        if what == "begin" and name not in active:
            active[name] = entry(name, since=now, eventsPerMinute=number)
        elif what == "edit" and name in active:
            active[name] = {**active[name], "eventsPerMinute": number}
        elif what.startswith("end"):
            active.pop(name, None)
        if what == "pass":
            now += number
        elif what in ("restart", "end while away"):
            now += number
            history = History(history.record())
        history.observe(active.values(), TRN2, now=now, oldest=oldest)
        counters = history.counters(TRN2, now=now)
        assert least(counters, before)
        before = counters


def test_it_is_new_when_a_fault_begins_or_ends_and_not_when_it_counts() -> None:
    history = History()
    rated = entry("a", since=BEGIN)
    assert not history
    assert history.record() == ""
    assert history.observe([rated], TRN2, now=BEGIN, oldest=0)
    record = history.record()
    assert not history.observe([{**rated, "message": "other words"}], TRN2, now=BEGIN + 60, oldest=0)
    assert history.record() == record
    assert history.counters(TRN2, now=BEGIN + 60) == {3: {"mem_ecc_corrected": 7}}
    assert history.observe([], TRN2, now=BEGIN + 60, oldest=0)
    assert history.counters(TRN2, now=BEGIN + 900) == {3: {"mem_ecc_corrected": 7}}


def test_faults_that_no_job_suffers_from_any_more_are_added_up() -> None:
    history = History()
    for number in range(KEPT + 3):
        begin = BEGIN + number
        history.observe([entry(f"f-{number}", since=begin, kind="HBMUncorrectable")], TRN2, now=begin, oldest=0)
    assert len(history.faults()) == KEPT + 1
    history.observe([], TRN2, now=BEGIN + 1000, oldest=BEGIN + 2000)
    assert not history.faults()
    assert history.counters(TRN2, now=BEGIN + 3000) == {3: {"mem_ecc_uncorrected": KEPT + 3}}
    assert len(history.record()) < 100


@pytest.mark.parametrize(
    "record", ["[", "[]", '{"over": 3}', '{"over": [{}]}', '{"ecc": {"x": {}}}', '{"active": [1]}']
)
def test_what_is_no_record_is_told(record: str) -> None:
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        History(record)
