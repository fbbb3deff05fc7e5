"""When a fault is active: the same for everybody who asks, whenever and however often he asks."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from neuron_operator import kube
from neuron_operator.faults.schedule import Span, State, at, epoch, seconds, spans, stamp
from neuron_operator.resources import FaultSchedule

CREATED = epoch("2026-01-01T00:00:00Z")
DURATIONS = st.integers(1, 500).map(lambda number: f"{number}s")


@st.composite
def schedules(draw: st.DrawFn) -> FaultSchedule:
    """Any schedule that the API server would let through."""
    fields: dict[str, Any] = {}
    if draw(st.booleans()):
        fields["startAfter"] = draw(DURATIONS)
    if draw(st.booleans()):
        fields["endAfter"] = draw(st.integers(1, 3000).map(lambda number: f"{number}s"))
    kind = draw(st.sampled_from(["once", "again", "random"]))
    if kind == "random":
        means = {"meanTimeBetween": f"{draw(st.integers(10, 300))}s", "meanDuration": draw(DURATIONS)}
        fields["random"] = {"seed": draw(st.integers(0, 9)), **means}
    elif kind == "again" or draw(st.booleans()):
        lasting = draw(st.integers(1, 200))
        fields["duration"] = f"{lasting}s"
        if kind == "again":
            fields["repeatEvery"] = f"{lasting + draw(st.integers(1, 200))}s"
            fields["repeats"] = draw(st.none() | st.integers(1, 9))
    return FaultSchedule.model_validate({name: value for name, value in fields.items() if value is not None})


@given(schedules(), st.lists(st.integers(-100, 4000), min_size=1, max_size=20))
def test_every_moment_is_as_the_whole_timeline_has_it(schedule: FaultSchedule, moments: list[int]) -> None:
    timeline = list(spans(schedule, created=CREATED, until=CREATED + 5000))
    for before, after in itertools.pairwise(timeline):
        assert before.end is not None
        assert before.begin < before.end < after.begin
    for moment in moments:  # in any order: nothing of what was asked before may show
        now = CREATED + moment
        state = at(schedule, created=CREATED, now=now)
        inside = [span for span in timeline if span.begin <= now and (span.end is None or now < span.end)]
        assert state.span == (inside[0] if inside else None)
        edges = [edge for span in timeline for edge in (span.begin, span.end) if edge is not None and edge > now]
        assert state.next_change == min(edges, default=None) or state.next_change > CREATED + 4000


def test_a_random_process_has_the_means_that_it_was_asked_for() -> None:
    random = {"seed": 3, "meanTimeBetween": "100s", "meanDuration": "20s"}
    found = list(spans(FaultSchedule.model_validate({"random": random}), created=0, until=1_200_000))
    lasting = sum((span.end or 0) - span.begin for span in found) / len(found)
    assert 9000 < len(found) < 11000
    assert 19 < lasting < 21


def test_other_seeds_have_other_times() -> None:
    def first(seed: int) -> Span:
        random = {"seed": seed, "meanTimeBetween": "1h", "meanDuration": "1h"}
        return next(spans(FaultSchedule.model_validate({"random": random}), created=0, until=10**9))

    assert len({first(seed) for seed in range(20)}) == 20


@pytest.mark.parametrize(
    ("fields", "now", "expected"),
    [
        pytest.param({}, 5, State(Span(0, None), None), id="for ever"),
        pytest.param({"startAfter": "1m"}, 5, State(None, 60), id="later"),
        pytest.param({"duration": "10s"}, 10, State(None, None), id="over"),
        pytest.param({"duration": "10s", "endAfter": "5s"}, 1, State(Span(0, 5), 5), id="cut"),
        pytest.param({"duration": "10s", "repeatEvery": "1m"}, 30, State(None, 60), id="between"),
        pytest.param({"duration": "10s", "repeatEvery": "1m", "repeats": 2}, 65, State(Span(60, 70), 70), id="last"),
        pytest.param({"duration": "10s", "repeatEvery": "1m", "repeats": 2}, 70, State(None, None), id="enough"),
        pytest.param(
            {"startTime": "1970-01-01T00:00:50Z", "endTime": "1970-01-01T00:00:55Z"},
            52,
            State(Span(50, 55), 55),
            id="by the clock",
        ),
    ],
)
def test_states(fields: dict[str, Any], now: int, expected: State) -> None:
    assert at(FaultSchedule.model_validate(fields), created=0, now=now) == expected


@pytest.mark.parametrize("text", ["", "5", "1.5h", "1d", "m"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write it like 90s"):
        seconds(text)


def test_durations_and_times_are_read_as_they_are_written() -> None:
    assert seconds("1h30m5s") == 5405
    assert stamp(epoch("2026-11-21T23:10:00+01:00")) == "2026-11-21T22:10:00Z"
    with pytest.raises(ValueError, match="no time zone"):
        epoch("2026-11-21T23:10:00")


async def test_a_scheduled_fault_comes_and_goes_and_says_when(cluster, node, pool, fault, settle):
    cluster.put(kube.NODES, node("worker"))
    cluster.put(kube.POOLS, pool())
    # plans are made on 2026-11-21 from 00:00:00 on
    times = {"startTime": "2026-11-20T23:59:00Z", "duration": "1h"}
    cluster.put(kube.FAULTS, fault("hot", "worker", chip=1, schedule=times))
    cluster.put(kube.FAULTS, fault("later", "worker", chip=2, schedule={"startTime": "2026-11-21T01:30:00Z"}))
    cluster.put(kube.FAULTS, fault("over", "worker", chip=3, schedule={"duration": "1m"}))
    first = await settle(cluster)
    assert first.next_change == epoch("2026-11-21T00:59:00Z")
    (broken,) = cluster.of(kube.NEURON_NODES)["worker"]["spec"]["faults"]
    assert (broken["name"], broken["since"]) == ("hot", "2026-11-20T23:59:00Z")
    statuses = {name: item["status"] for name, item in cluster.of(kube.FAULTS).items()}
    reasons = {name: status["conditions"][0]["reason"] for name, status in statuses.items()}
    assert reasons == {"hot": "FaultActive", "later": "Scheduled", "over": "Ended"}
    assert statuses["hot"]["nextChange"] == "2026-11-21T00:59:00Z"
    assert statuses["later"]["nextChange"] == "2026-11-21T01:30:00Z"
    assert "activeSince" not in statuses["later"]

    edited = cluster.of(kube.FAULTS)["hot"]
    cluster.put(kube.FAULTS, {**edited, "spec": {**edited["spec"], "schedule": {"duration": "1m"}}})
    await settle(cluster)
    assert "faults" not in cluster.of(kube.NEURON_NODES)["worker"]["spec"]
    assert {"activeSince", "nextChange"}.isdisjoint(cluster.of(kube.FAULTS)["hot"]["status"])
