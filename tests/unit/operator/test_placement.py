"""Where gangs go: close together, with large domains left whole, and never where there is no room."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations_with_replacement

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from neuron_operator.placement import LEVELS, Board, Gang, Level, NodeState, Placement, Refusal, place, place_all
from neuron_operator.placement.ways import between_servers, distance

TRN2, TRN3 = "trn2u.48xlarge", "trn3e.24xlarge"
ALL = tuple(range(16))


def node(server: str, position: int, free: Sequence[int] = ALL, *, network: str = "a", **more: object) -> NodeState:
    return NodeState(
        name=f"{server}-{position}",
        chips=16,
        free=tuple(free),
        instance_type=TRN2,
        domains={
            "ultraserver": server,
            "ultraserver-2": f"{server}/{position // 2}",
            "network-3": network,
            "network-2": "layer-2",
            "network-1": "layer-1",
        },
        position=position,
        **more,  # type: ignore[arg-type]
    )


def ultraserver(name: str, free: Sequence[int] = (0, 1, 2, 3), **more: str) -> list[NodeState]:
    """Four nodes, of which those with these numbers are free."""
    return [node(name, number, ALL if number in free else (), **more) for number in range(4)]


def rack_scale(name: str, free: Sequence[int]) -> list[NodeState]:
    return [
        NodeState(
            name=f"{name}-{number:02}",
            chips=4,
            free=(0, 1, 2, 3) if number in free else (),
            instance_type=TRN3,
            domains={"ultraserver": name, "ultraserver-2": f"{name}/{number // 2}"},
            position=number,
        )
        for number in range(36)
    ]


def whole(size: int, level: Level = "ultraserver", name: str = "g") -> Gang:
    return Gang(name, size, level, whole_nodes=True)


def placed(fleet: Sequence[NodeState], gang: Gang) -> Placement:
    answer = place(fleet, gang)
    assert isinstance(answer, Placement), answer
    return answer


# --- what stays whole


def test_a_whole_ultraserver_is_not_broken_while_there_is_a_broken_one() -> None:
    fleet = [*ultraserver("a"), *ultraserver("b", (1, 2, 3)), *ultraserver("c")]
    assert placed(fleet, whole(1)).domain == "b"
    assert placed(fleet, whole(2)).nodes == ("b-2", "b-3")


def test_an_exact_fit_comes_before_a_roomier_one() -> None:
    fleet = [*ultraserver("a", (1, 2, 3)), *ultraserver("b", (2, 3)), *ultraserver("c")]
    assert placed(fleet, whole(2)).domain == "b"
    assert placed(fleet, whole(3)).domain == "a"
    assert placed(fleet, whole(4)).domain == "c"


def test_a_pair_stays_whole_while_there_is_a_single_node() -> None:
    fleet = [*ultraserver("a", (0, 1)), *ultraserver("b", (0, 1, 3))]
    assert placed(fleet, whole(1)).nodes == ("b-3",)


def test_a_whole_node_stays_whole_while_chips_of_a_broken_one_are_free() -> None:
    fleet = [node("a", 0), node("a", 1), node("a", 2), node("a", 3, range(8, 16))]
    answer = placed(fleet, Gang("g", 1, chips=4))
    assert (answer.nodes, answer.chips) == (("a-3",), ((8, 9, 10, 11),))


def test_among_equal_ones_the_network_node_with_the_fewest_whole_nodes_left_is_taken() -> None:
    fleet = [*ultraserver("a", network="1"), *ultraserver("b", network="2"), *ultraserver("c", network="1")]
    assert placed(fleet, whole(4)).domain == "b"


def test_a_node_that_is_gone_makes_its_ultraserver_a_broken_one() -> None:
    fleet = [*ultraserver("a"), *ultraserver("b")[1:]]
    assert placed(fleet, whole(2)).domain == "b"


# --- ways

NEAR, FAR = between_servers(TRN2, 0, 1), between_servers(TRN2, 0, 2)


@pytest.mark.parametrize(("gang", "cost"), [(1, 0), (2, 2 * NEAR), (3, 2 * NEAR + FAR), (4, 4 * NEAR)])
def test_a_ring_of_four_nodes_costs_its_ways(gang: int, cost: int) -> None:
    assert placed(ultraserver("a"), whole(gang)).cost == cost


def test_a_way_costs_more_the_farther_it_is() -> None:
    def node(name: str, ultraserver: str, position: int, *path: str, kind: str = TRN2) -> NodeState:
        network: dict[Level, str] = {f"network-{layer}": name for layer, name in enumerate(path, start=1)}
        return NodeState(name, 16, (), kind, {"ultraserver": ultraserver, **network}, position)

    here = node("a0", "a", 0, "x", "y", "z")
    others = (
        node("a1", "a", 1, "x", "y", "z"),
        node("a2", "a", 2, "x", "y", "z"),
        node("b0", "b", 0, "x", "y", "z"),
        node("c0", "c", 0, "x", "y", "w"),
        node("d0", "d", 0, "x", "v", "w"),
        node("e0", "e", 0, "u", "v", "w"),
    )
    ways = [distance(here, other) for other in others]
    assert ways == sorted(set(ways))
    assert ways[2] > 2 * ways[1], "the network is much farther than NeuronLink"
    assert distance(here, here) == 0


@pytest.mark.parametrize("kind", ["inf1.24xlarge", "trn9.999xlarge"])
def test_nodes_whose_collectives_nobody_knows_are_as_far_as_those_of_trn2(kind: str) -> None:
    one, other = (NodeState(name, 4, (), kind, {"network-3": "leaf"}) for name in "ab")
    assert distance(one, other) == distance(replace(one, instance_type=TRN2), replace(other, instance_type=TRN2)) > 0
    assert between_servers(kind, None, 7) == NEAR


def test_neighbours_come_before_nodes_across_the_ring() -> None:
    fleet = [*ultraserver("a", (0, 2)), *ultraserver("b", (0, 3))]
    answer = placed(fleet, whole(2))
    assert (answer.domain, answer.cost) == ("b", 2 * NEAR)


def test_pods_that_fit_on_one_node_share_it() -> None:
    answer = placed(ultraserver("a"), Gang("g", 4, chips=4))
    assert (answer.nodes, answer.cost) == (("a-0",) * 4, 0)
    assert len(set(placed(ultraserver("a"), Gang("g", 4, chips=4, spread=True)).nodes)) == 4


def test_a_gang_that_fits_into_one_ultraserver_is_not_strewn_over_the_network() -> None:
    fleet = [*ultraserver("a", (0, 1)), *ultraserver("b", (0, 1)), *ultraserver("c", (0, 1, 2))]
    answer = placed(fleet, whole(3, "network-3"))
    assert {name[0] for name in answer.nodes} == {"c"}
    assert answer.domain == "a"


def test_a_wider_gang_fills_whole_ultraservers_and_puts_the_rest_where_it_is_tight() -> None:
    fleet = [*ultraserver("a"), *ultraserver("b", (0, 1)), *ultraserver("c"), *ultraserver("d")]
    answer = placed(fleet, whole(6, "network-3"))
    assert answer.nodes == ("a-0", "a-1", "a-2", "a-3", "b-0", "b-1")
    over_efa = distance(node("a", 3), node("b", 0))
    assert answer.cost == 3 * NEAR + over_efa + NEAR + over_efa


def test_the_closest_network_layer_with_room_is_taken() -> None:
    fleet = [*ultraserver("a", network="1"), *ultraserver("b", network="2"), *ultraserver("c", network="2")]
    assert {name[0] for name in placed(fleet, whole(8, "network-1")).nodes} == {"b", "c"}
    assert isinstance(place(fleet, whole(12, "network-3")), Refusal)
    assert len(placed(fleet, whole(12, "network-2")).nodes) == 12


# --- 36 nodes


def test_two_nodes_of_a_large_ultraserver_are_a_pair_and_stay_in_a_rack() -> None:
    assert placed(rack_scale("a", (1, 2, 3, 17, 18)), whole(2, "ultraserver-2")).nodes == ("a-02", "a-03")
    assert placed(rack_scale("a", range(36)), whole(18)).cost == 18 * between_servers(TRN3, 0, 1)
    assert placed(rack_scale("a", [*range(12), *range(18, 36)]), whole(17)).nodes[0] == "a-18"


def test_a_large_ultraserver_holds_all_of_its_nodes() -> None:
    assert len(placed(rack_scale("a", range(36)), whole(36)).nodes) == 36
    assert isinstance(place(rack_scale("a", range(35)), whole(36)), Refusal)


def test_single_nodes_of_a_large_ultraserver_go_first() -> None:
    assert placed(rack_scale("a", (0, 1, 2, 3, 4, 5, 9)), whole(1)).nodes == ("a-09",)
    assert placed(rack_scale("a", range(7)), whole(3)).nodes == ("a-00", "a-01", "a-06")


# --- rows


def test_a_row_is_four_neighbours_of_a_torus() -> None:
    fleet = [node("a", 0, (0, 1, 2, 4, 5, 6, 7, 9, 10, 11, 12))]
    assert placed(fleet, Gang("g", 2, "row", chips=2)).chips == ((4, 5), (6, 7))
    assert placed(fleet, Gang("g", 3, "row", chips=1)).chips == ((0,), (1,), (2,))
    assert placed(fleet, Gang("g", 1, "row", chips=1)).chips == ((12,),)


def test_free_chips_of_several_rows_are_no_row() -> None:
    answer = place([node("a", 0, (0, 1, 5, 6, 10, 11, 12, 15))], Gang("g", 1, "row", chips=4))
    assert isinstance(answer, Refusal)
    assert "no 4 beside one another in one row" in answer.reasons[1]


def test_a_line_of_chips_is_one_row() -> None:
    ring = NodeState("n", 12, tuple(range(12)), "inf2.48xlarge")
    assert placed([ring], Gang("g", 2, "row", chips=5)).chips == ((0, 1, 2, 3, 4), (5, 6, 7, 8, 9))


# --- who may go where


def test_a_gang_is_of_one_instance_type() -> None:
    fleet = [
        NodeState(f"n{number}", 16, ALL, kind, {"network-1": "top"})
        for number, kind in enumerate(["trn1.32xlarge", "trn1.32xlarge", "trn2.48xlarge"])
    ]
    assert isinstance(place(fleet, whole(3, "network-1")), Refusal)
    assert placed(fleet, whole(2, "network-1")).nodes == ("n0", "n1")
    answer = placed(fleet, Gang("g", 1, "network-1", chips=1, instance_type="trn2.48xlarge"))
    assert answer.nodes == ("n2",)


def test_closed_nodes_and_those_that_selectors_leave_out_are_not_taken() -> None:
    closed = [node("a", 0, closed="cordoned"), *ultraserver("a")[1:]]
    assert placed(closed, whole(3)).nodes == ("a-1", "a-2", "a-3")
    chosen = frozenset({"a-1", "a-3"})
    answer = placed(ultraserver("a"), Gang("g", 2, whole_nodes=True, nodes=chosen))
    assert answer.nodes == ("a-1", "a-3")


def test_gangs_are_served_in_the_order_of_their_arrival_and_a_refused_one_takes_nothing() -> None:
    one, two, three = place_all(
        [*ultraserver("a"), *ultraserver("b", (0, 1))], [whole(4, name="x"), whole(4, name="y"), whole(2, name="z")]
    )
    assert isinstance(one, Placement)
    assert isinstance(two, Refusal)
    assert isinstance(three, Placement)
    assert (one.domain, three.domain) == ("a", "b")


def test_what_is_released_can_be_taken_again_and_only_once() -> None:
    board = Board(ultraserver("a"))
    first = board.place(whole(4))
    assert isinstance(first, Placement)
    board.take(first)
    with pytest.raises(ValueError, match="place gang g anew"):
        board.take(first)
    board.release(first)
    assert board.place(whole(4)) == first
    with pytest.raises(ValueError, match="release what was taken, once"):
        board.release(first)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"size": 0}, "1 or more pods"), ({"chips": -1}, "0 or more"), ({"level": "planet"}, "use one of node, row")],
)
def test_a_gang_that_makes_no_sense_is_refused_with_what_to_change(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Gang(**({"name": "g", "size": 1} | wrong))  # type: ignore[arg-type]


def test_a_name_that_comes_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="n is in the fleet twice"):
        place([NodeState("n", 1, (0,), TRN2)] * 2, Gang("g", 1, "node"))


# --- against every possible assignment

CHIPS = 4


@st.composite
def fleets(draw: st.DrawFn) -> list[NodeState]:
    """A few small UltraServers, in part used, in part gone, and a node that is in none."""
    found = []
    for server in range(draw(st.integers(1, 2))):
        for position in draw(st.sets(st.integers(0, 3), min_size=1)):
            domains: dict[Level, str] = {
                "ultraserver": f"s{server}",
                "ultraserver-2": f"s{server}/{position // 2}",
                "network-3": draw(st.sampled_from(["x", "y"])),
                "network-1": "top",
            }
            domains = {level: id for level, id in domains.items() if draw(st.integers(0, 9))}
            if "ultraserver" not in domains:
                domains.pop("ultraserver-2", None)
            found.append(
                NodeState(
                    name=f"s{server}-{position}",
                    chips=CHIPS,
                    free=tuple(draw(st.sampled_from([(), (0, 1, 2, 3), (0, 2), (1, 2, 3), (3,)]))),
                    instance_type=TRN3,
                    domains=domains,
                    position=position,
                    closed=draw(st.sampled_from([None, None, None, "cordoned"])),
                )
            )
    if draw(st.booleans()):
        found.append(NodeState("alone", CHIPS, (0, 1, 2, 3), TRN3, {"network-3": "x", "network-1": "top"}))
    return found


gangs = st.builds(
    Gang,
    name=st.just("g"),
    size=st.integers(1, 4),
    level=st.sampled_from(LEVELS),
    chips=st.integers(0, 4),
    whole_nodes=st.booleans(),
    spread=st.booleans(),
    nodes=st.none() | st.frozensets(st.sampled_from(["s0-0", "s0-1", "s0-2", "s1-0", "s1-3", "alone"])),
)


def domain_of(state: NodeState, level: Level) -> str | None:
    return state.name if level in ("node", "row") else state.domains.get(level)


def possible(nodes: Sequence[NodeState], gang: Gang) -> bool:
    """Whether these pods can be on these nodes."""
    if len({domain_of(one, gang.level) for one in nodes}) != 1 or domain_of(nodes[0], gang.level) is None:
        return False
    for one in {state.name for state in nodes}:
        pods = [state for state in nodes if state.name == one]
        state = pods[0]
        if state.closed or (gang.nodes is not None and one not in gang.nodes):
            return False
        if (gang.spread or gang.whole_nodes) and len(pods) > 1:
            return False
        if gang.whole_nodes and len(state.free) != state.chips:
            return False
        wanted = len(pods) * (state.chips if gang.whole_nodes else gang.chips)
        if wanted > len(state.free):
            return False
        # a node of these has one row
        runs = [range(start, start + wanted) for start in range(CHIPS - wanted + 1)]
        if gang.level == "row" and not any(set(run) <= set(state.free) for run in runs):
            return False
    return True


@given(fleets(), gangs)
def test_what_is_placed_is_possible_and_what_is_refused_is_not(fleet: list[NodeState], gang: Gang) -> None:
    answer = place(fleet, gang)
    by_name = {state.name: state for state in fleet}
    if isinstance(answer, Placement):
        assert len(answer.nodes) == len(answer.chips) == gang.size
        assert possible([by_name[name] for name in answer.nodes], gang)
        given_out = [(name, chip) for name, chips in zip(answer.nodes, answer.chips, strict=True) for chip in chips]
        assert len(given_out) == len(set(given_out))
        assert all(chip in by_name[name].free for name, chip in given_out)
    else:
        assert not any(possible(nodes, gang) for nodes in combinations_with_replacement(fleet, gang.size))
        assert all(reason.endswith(".") for reason in answer.reasons)


@given(fleets(), gangs)
def test_all_nodes_by_name_are_no_restriction(fleet: list[NodeState], gang: Gang) -> None:
    named = replace(gang, nodes=frozenset(state.name for state in fleet))
    answer, free = place(fleet, named), place(fleet, replace(gang, nodes=None))
    assert answer == free or (isinstance(answer, Refusal) and isinstance(free, Refusal))


@given(fleets(), st.lists(gangs, max_size=5), st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_the_order_of_the_fleet_does_not_matter_and_no_chip_is_given_twice(
    fleet: list[NodeState], wanted: list[Gang], random: object
) -> None:
    answers = place_all(fleet, wanted)
    shuffled = list(fleet)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert place_all(shuffled, wanted) == answers
    given_out = [
        (name, chip)
        for answer in answers
        if isinstance(answer, Placement)
        for name, chips in zip(answer.nodes, answer.chips, strict=True)
        for chip in chips
    ]
    assert len(given_out) == len(set(given_out))


@given(fleets(), st.lists(gangs, max_size=6))
@settings(max_examples=60)
def test_a_board_on_which_gangs_come_and_go_answers_as_a_new_one(fleet: list[NodeState], wanted: list[Gang]) -> None:
    board = Board(fleet)
    held = []
    for gang in wanted:
        answer = board.place(gang)
        if isinstance(answer, Placement):
            board.take(answer)
            held.append(answer)
    for answer in held[::2]:
        board.release(answer)
    taken = {
        (name, chip)
        for answer in held[1::2]
        for name, chips in zip(answer.nodes, answer.chips, strict=True)
        for chip in chips
    }
    now = [
        NodeState(
            state.name,
            state.chips,
            tuple(chip for chip in state.free if (state.name, chip) not in taken),
            state.instance_type,
            state.domains,
            state.position,
            state.closed,
        )
        for state in fleet
    ]
    for gang in wanted:
        answer, fresh = board.place(gang), place(now, gang)
        if isinstance(answer, Placement) or isinstance(fresh, Placement):
            assert answer == fresh


@given(fleets(), st.lists(gangs, max_size=4), st.data())
@settings(max_examples=60)
def test_a_board_that_is_renewed_answers_as_a_new_one(
    fleet: list[NodeState], wanted: list[Gang], data: st.DataObject
) -> None:
    board = Board(fleet)
    for gang in wanted:
        answer = board.place(gang)
        if isinstance(answer, Placement):
            board.take(answer)
    now = [
        state
        if data.draw(st.booleans())
        else replace(
            state,
            free=tuple(sorted(data.draw(st.sets(st.integers(0, state.chips - 1))))),
            closed=data.draw(st.sampled_from([None, "cordoned"])),
            used_by=("pod a/b",),
        )
        for state in fleet
    ]
    assert board.renew({state.name: state for state in now if data.draw(st.booleans()) or state not in fleet})
    for gang in wanted:
        assert board.place(gang) == place(now, gang)


def test_a_board_is_not_renewed_for_another_fleet() -> None:
    fleet = [NodeState(name, 16, tuple(range(16)), "trn2.48xlarge", {"network-3": "a"}) for name in ("n0", "n1")]
    changes: list[dict[str, NodeState | None]] = [
        {"n1": None},
        {"n2": replace(fleet[1], name="n2")},
        {"n1": replace(fleet[1], domains={"network-3": "b"})},
        {"n1": replace(fleet[1], instance_type="trn1.32xlarge")},
    ]
    for changed in changes:
        assert not Board(fleet).renew(changed)
    assert Board(fleet).renew({"n1": fleet[1], "gone before it was seen": None})


def test_a_board_that_many_different_gangs_asked_is_not_renewed() -> None:
    fleet = [NodeState("n0", 16, tuple(range(16)), "trn2.48xlarge")]
    board = Board(fleet)
    for size in range(100):
        board.place(Gang("a", 1 + size, "node", 1))
    assert not board.renew({})


# --- nodes whose EFA cards are down


def without_network(fleet: Sequence[NodeState], *names: str) -> list[NodeState]:
    return [replace(state, cut_off=state.name in names) for state in fleet]


def test_inside_an_ultraserver_nobody_needs_the_network() -> None:
    fleet = without_network(ultraserver("a"), "a-1", "a-2")
    assert placed(fleet, whole(4)).nodes == ("a-0", "a-1", "a-2", "a-3")
    assert placed(fleet, whole(4, "network-1")).nodes == ("a-0", "a-1", "a-2", "a-3")


def test_a_gang_over_several_ultraservers_keeps_off_nodes_that_are_cut_off() -> None:
    fleet = without_network([*ultraserver("a"), *ultraserver("b"), *ultraserver("c")], "a-0", "b-3")
    nodes = placed(fleet, whole(10, "network-3")).nodes
    assert len(nodes) == 10
    assert not {"a-0", "b-3"} & set(nodes)
    assert isinstance(place(fleet, whole(11, "network-3")), Refusal)


def test_single_nodes_reach_nobody_without_the_network() -> None:
    fleet = [replace(node(f"n{number}", 0), domains={"network-3": "a"}, position=None) for number in range(3)]
    cut = without_network(fleet, "n1-0")
    assert set(placed(cut, whole(2, "network-3")).nodes) == {"n0-0", "n2-0"}
    assert isinstance(place(cut, whole(3, "network-3")), Refusal)
    assert placed(cut[1:2], Gang("g", 4, "network-3", chips=4)).nodes == 4 * ("n1-0",), "one node needs none"


def test_pods_that_claim_cards_go_where_cards_work() -> None:
    fleet = without_network(ultraserver("a"), "a-0", "a-1")
    wish = Gang("g", 2, chips=16, efa=True)
    assert placed(fleet, wish).nodes == ("a-2", "a-3")
    assert isinstance(place(fleet, replace(wish, size=3)), Refusal)
    assert placed(fleet, replace(wish, size=3, efa=False)).nodes


def test_a_board_that_is_kept_sees_cards_break_and_heal() -> None:
    fleet = [*ultraserver("a"), *ultraserver("b")]
    board, wish = Board(fleet), whole(8, "network-3")
    assert isinstance(board.place(wish), Placement)
    cut = without_network(fleet, "b-2")
    assert board.renew({state.name: state for state in cut})
    assert isinstance(board.place(wish), Refusal)
    assert isinstance(board.place(whole(4)), Placement)
    assert board.renew({state.name: state for state in fleet})
    assert isinstance(board.place(wish), Placement)


@given(
    free=st.lists(st.integers(0, 16), min_size=8, max_size=8),
    cut=st.lists(st.booleans(), min_size=8, max_size=8),
    size=st.integers(1, 10),
    chips=st.integers(1, 16),
    efa=st.booleans(),
)
def test_no_gang_over_ultraservers_has_a_node_that_is_cut_off(
    free: list[int], cut: list[bool], size: int, chips: int, efa: bool
) -> None:
    states = [node("ab"[number // 4], number % 4, range(count)) for number, count in enumerate(free)]
    fleet = [replace(state, cut_off=cut_off) for state, cut_off in zip(states, cut, strict=True)]
    gang = Gang("g", size, "network-3", chips=chips, efa=efa)
    answer = place(fleet, gang)

    def room(among: Sequence[NodeState]) -> int:
        return sum(len(state.free) // chips for state in among)

    reached = [state for state in fleet if not state.cut_off]
    inside = [[state for state in (reached if efa else fleet) if state.name[0] == server] for server in "ab"]
    fits = max(room(reached), *map(room, inside)) >= size
    assert isinstance(answer, Placement) == fits
    if isinstance(answer, Placement):
        used = [state for state in fleet if state.name in answer.nodes]
        several = len({state.name[0] for state in used}) > 1
        assert not ((several or efa) and any(state.cut_off for state in used))
