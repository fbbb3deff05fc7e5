"""Claims pack from both ends of a node, and what that costs is reported as it is."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from neuron_device_model.catalog import instance_type
from neuron_device_model.packing import Claim, Event, Packing, Refusal, Release, replay

TRN2 = instance_type("trn2.48xlarge")


def pack(*events: Event, partitions: str = "physical", devices: str = "chips") -> Packing:
    return replay(events, TRN2, logical_neuron_core=2, partitions=partitions, devices=devices)


def devices(prefix: str, *numbers: int) -> tuple[str, ...]:
    return tuple(f"neuron-{prefix}-{number}" for number in numbers)


def test_cores_come_from_one_end_and_chips_from_the_other() -> None:
    found = pack(Claim("a", "core", 3), Claim("b", "chip", 2), Claim("c", "core", 2), Claim("d", "chip"))
    assert found.held == {
        "a": devices("core", 0, 1, 2),
        "b": devices("device", 15, 14),
        "c": devices("core", 3, 4),
        "d": devices("device", 13),
    }
    assert str(found) == "in the end: 2 of 16 chips broken by cores, best possible 2; 3 given as a whole, 11 untouched"


def test_physical_cores_fill_up_behind_logical_ones() -> None:
    found = pack(Claim("a", "core"), Claim("b", "physical_core"), Claim("c", "core"), Claim("d", "physical_core"))
    assert found.held == {
        "a": devices("core", 0),
        "b": devices("physical-core", 2),
        "c": devices("core", 2),
        "d": devices("physical-core", 3),
    }
    assert (found.last.broken, found.last.best) == (1, 1)


arrivals = st.lists(
    st.tuples(st.sampled_from(["core", "core", "physical_core", "chip"]), st.integers(1, 20)), max_size=30
).map(lambda wishes: [Claim(f"claim-{n}", kind, count) for n, (kind, count) in enumerate(wishes)])  # type: ignore[arg-type]


@given(arrivals)
def test_while_nothing_is_released_no_chip_is_broken_without_need(claims: list[Claim]) -> None:
    found = pack(*claims)
    assert all(moment.broken == moment.best for moment in found.moments)
    assert all(refusal.reason == "full" for refusal in found.refused)


@given(arrivals, st.randoms(use_true_random=False))
def test_the_sums_are_right_at_every_moment(claims: list[Claim], random: Random) -> None:
    events: list[Event] = []
    there: list[str] = []
    for claim in claims:
        events.append(claim)
        there.append(claim.name)
        if random.random() < 0.5:
            events.append(Release(there.pop(random.randrange(len(there)))))
    found = pack(*events)
    assert len(found.moments) == len(events) + 1
    for moment in found.moments:
        assert 0 <= moment.best <= moment.broken
        assert moment.whole + moment.broken + moment.untouched == moment.chips == 16
        assert moment.untouched >= 0
    assert found.worst.broken - found.worst.best == max(moment.broken - moment.best for moment in found.moments)


def test_releases_leave_chips_broken_that_a_better_packing_would_free() -> None:
    claims = [
        claim for chip in range(16) for claim in (Claim(f"big-{chip}", "core", 3), Claim(f"small-{chip}", "core"))
    ]
    found = pack(*claims, *(Release(f"big-{chip}") for chip in range(16)), Claim("training", "chip", 12))
    assert (found.last.broken, found.last.best, found.last.untouched) == (16, 4, 0)
    assert found.refused == (Refusal(Claim("training", "chip", 12), "fragmented"),)
    assert str(found) == (
        "in the end: 16 of 16 chips broken by cores, best possible 4; 0 given as a whole, 0 untouched\n"
        "at worst: 16 of 16 chips broken by cores, best possible 4; 0 given as a whole, 0 untouched\n"
        "refused: training (12 x chip), fragmented"
    )


def test_first_fit_takes_an_untouched_chip_before_a_broken_one_that_comes_later() -> None:
    found = pack(Claim("a", "core", 4), Claim("b", "core"), Release("a"), Claim("c", "core"))
    assert found.held == {"b": devices("core", 4), "c": devices("core", 0)}
    assert (found.last.broken, found.last.best) == (2, 1)


def test_what_is_released_is_given_again() -> None:
    found = pack(Claim("a", "chip", 16), Claim("early", "chip"), Release("a"), Release("early"), Claim("late", "chip"))
    assert found.held == {"late": devices("device", 15)}
    assert [refusal.claim.name for refusal in found.refused] == ["early"]


def test_the_whole_node_goes_only_with_nothing_else() -> None:
    found = pack(
        Claim("a", "node"), Claim("b", "core"), Release("a"), Claim("b2", "core"), Claim("c", "node"), devices="both"
    )
    assert found.held == {"b2": devices("core", 0)}
    assert [(refusal.claim.name, refusal.reason) for refusal in found.refused] == [("b", "full"), ("c", "full")]
    assert [moment.whole for moment in found.moments] == [0, 16, 16, 0, 0, 0]


@pytest.mark.parametrize(
    ("claim", "reason"),
    [
        (Claim("a", "node"), "not offered"),
        (Claim("a", "core", 33), "too many devices"),
        (Claim("a", "chip", 17), "full"),
    ],
)
def test_a_claim_that_can_never_be_met_is_refused_with_the_reason(claim: Claim, reason: str) -> None:
    found = pack(claim)
    assert found.held == {}
    assert [refusal.reason for refusal in found.refused] == [reason]


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([Release("a")], "claim a is released but not there: let it arrive first"),
        ([Claim("a", "core"), Claim("a", "core")], "claim a is there already: release it first, or choose another"),
        ([Claim("a", "core", 0)], "claim a asks for 0 devices: ask for 1 or more"),
    ],
)
def test_a_sequence_that_cannot_be_is_refused(events: list[Event], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pack(*events)
