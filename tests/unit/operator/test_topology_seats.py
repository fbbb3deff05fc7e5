"""Seats in UltraServers: one for each node, the same for as long as it lives, whatever happens around it."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from neuron_device_model.ultraserver import Seat
from neuron_operator.topology.seating import Applicant, Badge, natural, seat_all


def number(n):
    return f"us{n:014}"


def seat(names, *, held=(), size=4, **more):
    held = dict(held)
    return seat_all([Applicant(name, held.get(name), **more) for name in names], size=size, number=number)


def places(seats):
    return {name: (int(sits.id[2:]), sits.node) for name, sits in seats.items()}


WORKERS = [f"worker{n}" for n in range(1, 13)]


def test_nodes_fill_ultraservers_in_the_order_in_which_people_count():
    assert places(seat(["worker10", "worker", "worker3", "worker2", "worker4"])) == {
        "worker": (0, 0), "worker2": (0, 1), "worker3": (0, 2), "worker4": (0, 3), "worker10": (1, 0),
    }  # fmt: skip


def test_a_node_that_comes_back_takes_the_seat_that_is_free():
    before = seat(WORKERS)
    without = {name: sits for name, sits in before.items() if name not in ("worker2", "worker7")}
    after = seat([*without, "new-a", "new-b", "new-c"], held=without)
    assert {name: after[name] for name in without} == without
    assert places(after)["new-a"] == places(before)["worker2"]
    assert places(after)["new-b"] == places(before)["worker7"]
    assert places(after)["new-c"] == (3, 0)


def test_begun_ultraservers_are_filled_before_an_empty_one_of_a_lower_number():
    before = seat(WORKERS)
    left = {name: before[name] for name in WORKERS[9:]}
    assert places(seat([*left, "a", "b"], held=left)) | {} == {
        "worker10": (2, 1), "worker11": (2, 2), "worker12": (2, 3), "a": (2, 0), "b": (0, 0),
    }  # fmt: skip


def test_an_ultraserver_of_an_unknown_number_is_filled_too():
    """The pool was made anew under its name, so its UltraServers would be called otherwise now."""
    held = {"a": Seat("formerpoolsultra", 4, 2)}
    seats = seat(["a", "b"], held=held)
    assert seats == {"a": held["a"], "b": Seat("formerpoolsultra", 4, 0)}


def test_a_seat_in_an_ultraserver_of_another_size_is_none():
    seats = seat(["a", "b"], held={"a": Seat(number(0), 36, 20)})
    assert places(seats) == {"a": (0, 0), "b": (0, 1)}


def test_a_badge_goes_before_everything():
    held = {"a": Seat(number(0), 4, 0), "b": Seat(number(0), 4, 1)}
    badge = Badge("hardware00000000", 4, 3)
    seats = seat_all([Applicant("a", held["a"], badge), Applicant("b", held["b"])], size=4, number=number)
    assert seats == {"a": Seat("hardware00000000", 4, 3), "b": held["b"]}


def test_nobody_is_added_to_hardware_that_badges_name():
    badge = Badge("hardware00000000", 4, 0)
    seats = seat_all([Applicant("a", badge=badge), Applicant("b")], size=4, number=number)
    assert seats["b"] == Seat(number(0), 4, 0)


def test_of_two_badges_for_one_seat_the_sitter_wins_then_the_first():
    badge = Badge("hardware00000000", 4, 0)
    fresh = [Applicant("a", badge=badge), Applicant("b", badge=badge)]
    assert seat_all(fresh, size=4, number=number)["a"].id == badge.id
    sitting = [Applicant("a", badge=badge), Applicant("b", Seat(badge.id, 4, 0), badge)]
    seats = seat_all(sitting, size=4, number=number)
    assert (seats["a"].id, seats["b"].id) == (number(0), badge.id)


def test_a_badge_without_a_number_keeps_its_seat_and_the_others_take_what_is_free():
    badge = Badge("hyperpod00000000", None, None)
    before = seat_all([Applicant(name, badge=badge) for name in "bc"], size=4, number=number)
    assert [before[name].node for name in "bc"] == [0, 1]
    after = seat_all([Applicant(name, before.get(name), badge) for name in "abc"], size=4, number=number)
    assert {name: after[name].node for name in "abc"} == {"a": 2, "b": 0, "c": 1}


def test_nodes_of_different_network_nodes_do_not_share_an_ultraserver():
    sites = {"a": "nn-1", "b": "nn-2", "c": "nn-1", "d": None}
    seats = seat_all([Applicant(name, site=site) for name, site in sites.items()], size=4, number=number)
    assert seats["a"].id == seats["c"].id
    assert len({seats[name].id for name in "abd"}) == 3
    again = seat_all(
        [Applicant(name, seats.get(name), site=site) for name, site in {**sites, "e": "nn-2"}.items()],
        size=4,
        number=number,
    )
    assert again["e"].id == seats["b"].id


@pytest.mark.parametrize(("low", "high"), [("worker", "worker2"), ("worker2", "worker10"), ("a1-9", "a1-10")])
def test_numbers_in_names_are_numbers(low, high):
    assert natural(low) < natural(high)


NAMES = st.sampled_from([f"node-{n}" for n in range(24)])
BADGES = st.builds(Badge, st.sampled_from(["hardware0", "hardware1", number(0)]), st.just(4), st.integers(0, 3))
ANY = st.builds(Badge, st.sampled_from(["hyperpod0", number(1)]), st.none(), st.none())


@settings(max_examples=150)
@given(
    steps=st.lists(st.sets(NAMES), max_size=8),
    size=st.sampled_from([4, 36]),
    shuffle=st.randoms(use_true_random=False),
)
def test_whoever_comes_and_goes_nobody_moves_and_nobody_shares_a_seat(steps, size, shuffle):
    """Each step is a fleet; between two steps the operator may have restarted, for it only has what is held."""
    held = {}
    for fleet in steps:
        applicants = [Applicant(name, held.get(name)) for name in fleet]
        shuffle.shuffle(applicants)
        seats = seat_all(applicants, size=size, number=number)
        assert seats.keys() == fleet
        assert all(seats[name] == held[name] for name in fleet & held.keys())
        assert len({(sits.id, sits.node) for sits in seats.values()}) == len(fleet)
        assert all(0 <= sits.node < size for sits in seats.values())
        new = fleet - held.keys()
        assert seats == seat_all(sorted(applicants, key=lambda it: it.name), size=size, number=number)
        # no UltraServer is begun while another one has room
        counts = Counter(sits.id for sits in seats.values())
        before = {sits.id for name, sits in held.items() if name in fleet}
        if {seats[name].id for name in new} - before:
            begun = [counts[ultraserver] for ultraserver in counts]
            assert sum(count < size for count in begun) <= 1
        held = seats


@settings(max_examples=150)
@given(
    steps=st.lists(st.dictionaries(NAMES, st.none() | BADGES | ANY), max_size=6),
    partly=st.randoms(use_true_random=False),
)
def test_whatever_badges_say_no_two_nodes_are_in_one_seat_and_what_is_settled_stays(steps, partly):
    held = {}
    for fleet in steps:
        seats = seat_all(
            [Applicant(name, held.get(name), badge) for name, badge in fleet.items()], size=4, number=number
        )
        assert seats.keys() == fleet.keys()
        assert len({(sits.id, sits.node) for sits in seats.values()}) == len(fleet)
        again = seat_all([Applicant(name, seats[name], badge) for name, badge in fleet.items()], size=4, number=number)
        assert again == seats
        # the operator was stopped after some of its writes
        held |= {name: sits for name, sits in seats.items() if partly.random() < 0.7}
