"""What people read when a gang is placed nowhere."""

from dataclasses import replace

import pytest
from neuron_operator.placement import Gang, Level, NodeState, Refusal, consider, place


def node(server: str, position: int, free: int = 16, closed: str | None = None, *users: str) -> NodeState:
    domains: dict[Level, str] = {"ultraserver": server, "ultraserver-2": f"{server}/{position // 2}"}
    return NodeState(
        f"{server}-{position}", 16, tuple(range(free)), "trn2u.48xlarge", domains, position, closed, tuple(users)
    )


FLEET = [
    *(node("us-a", number) for number in range(3)),
    node("us-a", 3, 12, None, "gang team/x"),
    *(node("us-b", number, 0, None, "gang team/y") for number in range(4)),
]


def refused(gang: Gang, fleet: list[NodeState] = FLEET) -> tuple[str, ...]:
    answer = place(fleet, gang)
    assert isinstance(answer, Refusal)
    return answer.reasons


def test_the_best_domain_is_named_with_what_it_lacks_and_what_to_free() -> None:
    assert refused(Gang("team/z", 4, whole_nodes=True)) == (
        "No UltraServer has room for gang team/z, 4 pods with a whole node each: 2 UltraServers considered, and the "
        "best, UltraServer us-a, has room for 3.",
        "UltraServer us-a: 3 of 4 nodes free; node us-a-3 has 12 of 16 chips free, used by gang team/x.",
        "It would fit there if us-a-3 (used by gang team/x) was free.",
    )


def test_a_closed_node_is_called_what_it_is_and_opened_last() -> None:
    fleet = [*FLEET[:2], node("us-a", 2, 16, "cordoned"), node("us-a", 3, 0, None, "gang team/x", "pod default/p")]
    _, state, free = refused(Gang("z", 3, whole_nodes=True), fleet)
    assert state == (
        "UltraServer us-a: 2 of 4 nodes free; node us-a-2 is cordoned; node us-a-3 has 0 of 16 chips free, used by "
        "gang team/x and pod default/p."
    )
    assert free == "It would fit there if us-a-3 (used by gang team/x and pod default/p) was free."
    *_, free = refused(Gang("z", 4, whole_nodes=True), fleet)
    assert free.endswith("us-a-3 (used by gang team/x and pod default/p) and us-a-2 (cordoned) were free.")


def test_what_never_fits_is_told_apart_from_what_does_not_fit_now() -> None:
    assert refused(Gang("z", 5, whole_nodes=True)) == (
        "No UltraServer can ever hold gang z, 5 pods with a whole node each: 2 UltraServers considered, and "
        "UltraServer us-a has room for 4 even when it is empty. Ask for fewer pods or chips, or for a level farther "
        "out, such as network-3.",
    )
    (row,) = refused(Gang("z", 1, "row", chips=8))
    assert "has room for 0 even when it is empty" in row
    assert row.endswith("such as node.")


@pytest.mark.parametrize(
    ("gang", "sentence"),
    [
        (
            Gang("z", 1, "network-1", chips=1),
            "The fleet has no network nodes of layer 1: change the level or the instance type of gang z, or add nodes.",
        ),
        (
            Gang("z", 1, chips=1, instance_type="trn1.32xlarge"),
            "The fleet has no UltraServers of type trn1.32xlarge: change the level or the instance type of gang z, or "
            "add nodes.",
        ),
        (
            Gang("z", 1, chips=1, nodes=frozenset({"other"})),
            "None of the 1 nodes that gang z may go to is in one of the UltraServers: change its selector, affinity "
            "or tolerations, or its level.",
        ),
    ],
)
def test_a_gang_that_nothing_was_considered_for_is_told_why(gang: Gang, sentence: str) -> None:
    assert refused(gang) == (sentence,)


def test_every_domain_is_considered_the_most_promising_first() -> None:
    first, second = consider(FLEET, Gang("z", 4, whole_nodes=True))
    assert (first.domain, first.room, first.room_if_empty, first.fits) == ("us-a", 3, 4, False)
    assert first.lacks == ("Node us-a-3 has 12 of 16 chips free, used by gang team/x.",)
    assert (second.domain, second.room, len(second.lacks)) == ("us-b", 0, 4)
    assert consider(FLEET, Gang("z", 3, whole_nodes=True))[0].fits


def test_nodes_that_selectors_leave_out_are_told() -> None:
    found = consider(FLEET, Gang("z", 2, chips=16, nodes=frozenset({"us-a-0"})))
    assert found[0].lacks[0] == "Node us-a-1 is not among the nodes that the gang may go to."
    assert found[0].lacks[-1] == "Even when it is empty there is room for 1 of 2."


def test_many_nodes_are_counted_instead_of_named() -> None:
    fleet = [
        NodeState(f"n{number}", 4, (), "trn3e.24xlarge", {"ultraserver": "us"}, number, used_by=("gang x",))
        for number in range(36)
    ]
    _, state, free = refused(Gang("z", 8, whole_nodes=True), fleet)
    assert state.endswith("; and 32 more.")
    assert free.endswith("n11 (used by gang x) and 4 more were free.")


def test_a_node_without_a_network_is_told_where_it_keeps_a_gang_away() -> None:
    domains: dict[Level, str] = {"network-3": "leaf"}
    fleet = [replace(one, domains=one.domains | domains) for one in (*FLEET[:3], *(node("us-b", n) for n in range(4)))]
    fleet[1] = replace(fleet[1], cut_off=True)
    gang = Gang("z", 7, "network-3", whole_nodes=True)
    _, state, free = refused(gang, fleet)
    assert state == (
        "Network node of layer 3 leaf: 6 of 7 nodes free; node us-a-1 has no EFA card that works, and between "
        "UltraServers the gang's traffic goes over them."
    )
    assert free == "It would fit there if us-a-1 (without an EFA card that works) was free."
    (one,) = consider(fleet, gang)
    assert (one.room, one.fits) == (6, False)
    assert one.lacks == (
        "Node us-a-1 has no EFA card that works, and between UltraServers the gang's traffic goes over them.",
    )
    _, state, _ = refused(Gang("z", 3, chips=16, efa=True, nodes=frozenset({"us-a-0", "us-a-1", "us-a-2"})), fleet)
    assert "node us-a-1 has no EFA card that works, and its pods claim some" in state


def test_a_domain_of_which_one_ultraserver_has_room_fits_whatever_cards_do() -> None:
    fleet = [
        replace(one, domains=one.domains | {"network-3": leaf}, cut_off=leaf == "one")
        for leaf, server in (("one", "us-a"), ("two", "us-b"))
        for one in (node(server, number, 16 if leaf == "one" else 4) for number in range(4))
    ]
    gang = Gang("z", 4, "network-3", whole_nodes=True)
    assert not isinstance(place(fleet, gang), Refusal)
    first, second = consider(fleet, gang)
    assert (first.domain, first.room, first.lacks) == ("one", 4, ())
    assert not second.fits
