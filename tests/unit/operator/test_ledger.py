"""The ledger: gangs and workloads never have the same node, whatever becomes of their writes."""

from dataclasses import dataclass

import hypothesis.strategies as st
from hypothesis import given, settings
from neuron_operator.ledger import PLEDGED_SECONDS, Held, Ledger, Side

NODES = [f"n{number}" for number in range(6)]
SIDES: tuple[Side, Side] = ("gangs", "workloads")
# an API server gives up on a request after so long
REQUEST_SECONDS = 60.0


def test_nothing_is_told_before_both_have_reported():
    ledger = Ledger(lambda: 0.0)
    ledger.report("gangs", {"the gang a": Held("1", frozenset({"n1"}))})
    assert ledger.others("workloads") is None
    woken = []
    ledger.listen("gangs", lambda: woken.append(1))
    ledger.report("workloads", {})
    assert woken
    assert ledger.others("workloads") == {"n1": "the gang a"}
    assert ledger.others("gangs") == {}


def test_a_side_is_woken_by_what_the_other_one_gets_and_gives_back():
    ledger, woken = Ledger(lambda: 0.0), []
    ledger.report("gangs", {})
    ledger.report("workloads", {})
    ledger.listen("workloads", lambda: woken.append(1))
    held = {"the gang a": Held("1", frozenset({"n1"}))}
    ledger.pledge("gangs", "the gang a", version="0", nodes=["n1"])
    ledger.report("gangs", held)
    ledger.report("gangs", held)
    assert len(woken) == 1
    ledger.report("gangs", {})
    assert len(woken) == 2


def test_a_pledge_whose_answer_never_came_ends_with_the_request():
    now = 0.0
    ledger = Ledger(lambda: now)
    ledger.report("workloads", {})
    before = {"the gang a": Held("1", frozenset())}
    ledger.report("gangs", before)
    ledger.pledge("gangs", "the gang a", version="1", nodes=["n1"])
    now = REQUEST_SECONDS
    ledger.report("gangs", before)
    assert ledger.others("workloads") == {"n1": "the gang a"}
    now = PLEDGED_SECONDS + 1
    ledger.report("gangs", before)
    assert ledger.others("workloads") == {}


@dataclass(frozen=True)
class Object:
    """A NeuronGang or a NeuronUltraServerWorkload."""

    version: int = 0
    nodes: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Write:
    """A status on its way, for the version that was judged."""

    side: Side
    owner: str
    version: int
    nodes: frozenset[str]
    sent: float


class World:
    """Two loops, an API server that works on requests as it likes, answers that are lost and watches that lag."""

    def __init__(self) -> None:
        self.now = 0.0
        self.ledger = Ledger(lambda: self.now)
        owners = {side: {owner: Object() for owner in "ab"} for side in SIDES}
        self.server: dict[Side, dict[str, Object]] = {side: dict(found) for side, found in owners.items()}
        self.known: dict[Side, dict[str, Object]] = {side: dict(found) for side, found in owners.items()}
        """What a loop was answered or has seen, which may be old."""
        self.on_their_way: list[Write] = []
        for side in SIDES:
            self._report(side)

    def promise(self, side: Side, owner: str, wanted: frozenset[str]) -> None:
        """A loop decides on what it knows, and sends the write."""
        self._report(side)
        others, object = self.ledger.others(side), self.known[side][owner]
        assert others is not None
        if object.nodes:
            return
        own = {node for each in self.known[side].values() for node in each.nodes}
        nodes = wanted - others.keys() - own
        self.ledger.pledge(side, owner, version=str(object.version), nodes=nodes)
        self.on_their_way.append(Write(side, owner, object.version, nodes, self.now))

    def give_back(self, side: Side, owner: str) -> None:
        """Pods ended: the status is written without nodes."""
        self.on_their_way.append(Write(side, owner, self.known[side][owner].version, frozenset(), self.now))

    def work(self, which: int, *, answered: bool) -> None:
        """The API server carries a write out, or refuses it because the object has moved on."""
        if not self.on_their_way:
            return
        write = self.on_their_way.pop(which % len(self.on_their_way))
        object = self.server[write.side][write.owner]
        if self.now - write.sent > REQUEST_SECONDS or object.version != write.version:
            return
        self.server[write.side][write.owner] = Object(object.version + 1, write.nodes)
        if answered:
            self.watch(write.side, write.owner)

    def watch(self, side: Side, owner: str) -> None:
        """A watch, or an answer, tells of an object as it is."""
        self.known[side][owner] = self.server[side][owner]

    def wait(self, seconds: float) -> None:
        """Time goes by; in more of it than a request takes, watches catch up."""
        self.now += seconds
        if seconds > REQUEST_SECONDS:
            self.known = {side: dict(found) for side, found in self.server.items()}

    def check(self) -> None:
        gangs, workloads = ({node for each in self.server[side].values() for node in each.nodes} for side in SIDES)
        assert not gangs & workloads

    def _report(self, side: Side) -> None:
        self.ledger.report(side, {name: Held(str(each.version), each.nodes) for name, each in self.known[side].items()})


SIDE, OWNER = st.sampled_from(SIDES), st.sampled_from("ab")
STEPS = st.one_of(
    st.tuples(st.just("promise"), SIDE, OWNER, st.frozensets(st.sampled_from(NODES), min_size=1)),
    st.tuples(st.just("give back"), SIDE, OWNER),
    st.tuples(st.just("work"), st.integers(0, 5), st.booleans()),
    st.tuples(st.just("watch"), SIDE, OWNER),
    st.tuples(st.just("wait"), st.sampled_from([1.0, REQUEST_SECONDS, PLEDGED_SECONDS + 1])),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(STEPS, max_size=30))
def test_no_node_is_promised_twice_whatever_becomes_of_the_writes(steps):
    world = World()
    for step in steps:
        match step:
            case ("promise", side, owner, wanted):
                world.promise(side, owner, wanted)
            case ("give back", side, owner):
                world.give_back(side, owner)
            case ("work", which, answered):
                world.work(which, answered=answered)
            case ("watch", side, owner):
                world.watch(side, owner)
            case ("wait", seconds):
                world.wait(seconds)
        world.check()
