"""The ledger: gangs and workloads never have the same node, whatever becomes of their writes."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
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


@dataclass
class Object:
    """A NeuronGang or a NeuronUltraServerWorkload."""

    version: int = 0
    nodes: frozenset[str] = frozenset()


@dataclass
class Write:
    """A status on its way, for the version that was judged."""

    side: Side
    owner: str
    version: int
    nodes: frozenset[str]
    sent: float


@dataclass
class Loop:
    """What a side knows of its objects: what it was answered or has seen, which may be old."""

    known: dict[str, Object] = field(default_factory=dict)


class Interleavings(RuleBasedStateMachine):
    """Two loops, an API server that works on requests as it likes, answers that are lost and watches that lag."""

    @initialize()
    def begin(self) -> None:
        self.now = 0.0
        self.ledger = Ledger(lambda: self.now)
        self.server: dict[Side, dict[str, Object]] = {side: {} for side in SIDES}
        self.loops: dict[Side, Loop] = {side: Loop() for side in SIDES}
        self.on_their_way: list[Write] = []
        for side in SIDES:
            self._report(side)

    @rule(side=st.sampled_from(SIDES), owner=st.sampled_from("ab"), wanted=st.sets(st.sampled_from(NODES), min_size=1))
    def promise(self, side: Side, owner: str, wanted: set[str]) -> None:
        """A loop decides on what it knows; the write is sent."""
        self._report(side)
        others = self.ledger.others(side)
        assert others is not None
        object = self.loops[side].known.get(owner)
        if object is None or object.nodes:
            return
        own = {node for each in self.loops[side].known.values() for node in each.nodes}
        nodes = frozenset(wanted - others.keys() - own)
        self.ledger.pledge(side, owner, version=str(object.version), nodes=nodes)
        self.on_their_way.append(Write(side, owner, object.version, nodes, self.now))

    @rule(side=st.sampled_from(SIDES), owner=st.sampled_from("ab"))
    def give_back(self, side: Side, owner: str) -> None:
        """Pods ended, or the workload is deleted: the status is written without nodes."""
        object = self.loops[side].known.get(owner)
        if object is not None:
            self.on_their_way.append(Write(side, owner, object.version, frozenset(), self.now))

    @rule(side=st.sampled_from(SIDES), owner=st.sampled_from("ab"))
    def make(self, side: Side, owner: str) -> None:
        """Somebody creates the object, and its loop sees it."""
        if owner not in self.server[side]:
            self.server[side][owner] = Object()
            self.loops[side].known[owner] = Object()

    @precondition(lambda self: self.on_their_way)
    @rule(data=st.data(), answered=st.booleans())
    def work(self, data: st.DataObject, answered: bool) -> None:
        """The API server carries a write out, or refuses it because the object has moved on."""
        write = self.on_their_way.pop(data.draw(st.integers(0, len(self.on_their_way) - 1)))
        if self.now - write.sent > REQUEST_SECONDS:
            return
        object = self.server[write.side][write.owner]
        if object.version == write.version:
            object = self.server[write.side][write.owner] = Object(object.version + 1, write.nodes)
            if answered:
                self._sees(write.side, write.owner, object)

    @rule(side=st.sampled_from(SIDES), owner=st.sampled_from("ab"))
    def watch(self, side: Side, owner: str) -> None:
        """A watch catches up with one object."""
        if owner in self.server[side]:
            self._sees(side, owner, self.server[side][owner])

    @rule(seconds=st.sampled_from([1.0, REQUEST_SECONDS, PLEDGED_SECONDS + 1]))
    def wait(self, seconds: float) -> None:
        """Time goes by, and more of it than an answer takes brings what the watches still had to tell."""
        self.now += seconds
        if seconds > REQUEST_SECONDS:
            for side in SIDES:
                for owner, object in self.server[side].items():
                    self._sees(side, owner, object)

    @invariant()
    def no_node_is_promised_twice(self) -> None:
        gangs, workloads = ({node for each in self.server[side].values() for node in each.nodes} for side in SIDES)
        assert not gangs & workloads

    def _sees(self, side: Side, owner: str, object: Object) -> None:
        known = self.loops[side].known
        if owner not in known or known[owner].version < object.version:
            known[owner] = object

    def _report(self, side: Side) -> None:
        held: Mapping[str, Held] = {
            owner: Held(str(object.version), object.nodes) for owner, object in self.loops[side].known.items()
        }
        self.ledger.report(side, held)


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
