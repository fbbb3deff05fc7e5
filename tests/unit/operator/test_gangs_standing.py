"""The fleet that is kept between plans is the fleet of now, whatever happened to nodes meanwhile."""

from unittest.mock import patch

import hypothesis.strategies as st
from hypothesis import given
from neuron_operator.gangs import state as state_module
from neuron_operator.gangs.standing import Standing
from neuron_operator.gangs.state import State
from neuron_operator.names import AWS_DRIVER_NAME
from neuron_operator.placement import Board, Gang, Placement

NAMES = tuple(f"n{number}" for number in range(5))
WISH = {"nodeSelector": {"zone": "a"}}
PROMISED = {"n1": [(("default", "g"), 7)], "n3": [(("default", "g"), 16), (("default", "h"), 2)]}

names = st.sampled_from(NAMES)
zones = st.sampled_from("ab")
events = st.one_of(
    st.tuples(st.just("node"), names, zones),
    st.tuples(st.just("gone"), names, zones),
    st.tuples(st.just("broken"), names, zones),
    st.tuples(st.just("healed"), names, zones),
    st.tuples(st.just("claim"), names, zones),
    st.tuples(st.just("taken"), names, zones),
    st.tuples(st.just("look"), st.sampled_from(["", "n1", "n3"]), zones),
    st.tuples(st.just("forget"), names, zones),
)


class Site:
    """A state, and what happens to it."""

    def __init__(self) -> None:
        self.state = State(driver_name=AWS_DRIVER_NAME)
        self.version = 0
        for name in NAMES:
            self.node(name, "a")
            self.hardware(name, broken=False)

    def _metadata(self, name: str, **more: object) -> dict[str, object]:
        self.version += 1
        return {"name": name, "uid": f"uid-{name}", "resourceVersion": str(self.version), **more}

    def node(self, name: str, zone: str, *, gone: bool = False) -> None:
        ready = {"conditions": [{"type": "Ready", "status": "True"}]}
        item = {"metadata": self._metadata(name, labels={"zone": zone}), "spec": {}, "status": ready}
        self.state.nodes.seen(item, gone)

    def hardware(self, name: str, *, broken: bool) -> None:
        fault = {
            "name": "f",
            "type": "HBMUncorrectable",
            "chip": 2,
            "effect": "NoSchedule",
            "since": "2026-01-01T00:00:00Z",
        }
        spec = {"instanceType": "trn2.48xlarge", "logicalNeuronCore": 2, "faults": [fault] if broken else []}
        self.state.hardware.seen({"metadata": self._metadata(name), "spec": spec}, False)

    def claim(self, name: str, *, gone: bool) -> None:
        result = {"driver": AWS_DRIVER_NAME, "pool": name, "device": "neuron-device-5"}
        status = {"allocation": {"devices": {"results": [result]}}}
        item = {"metadata": self._metadata(f"c-{name}", namespace="default"), "spec": {}, "status": status}
        self.state.claims.seen(item, gone)


@given(st.lists(events, max_size=30))
def test_what_is_kept_is_what_a_new_look_finds(happened: list[tuple[str, str, str]]) -> None:
    site, kept = Site(), Standing()
    gang = Gang("default/x", 2, "node", 3)
    for what, name, zone in [*happened, ("look", "n3", "a")]:
        match what:
            case "node" | "gone":
                site.node(name, zone, gone=what == "gone")
            case "broken" | "healed":
                site.hardware(name, broken=what == "broken")
            case "claim":
                site.claim(name, gone=False)
            case "taken":
                site.claim(name, gone=True)
            case "forget":  # so many nodes came and went that what changed is not known any more
                with patch.object(state_module, "_MANY", -len(NAMES) - 1):
                    site.node(name, zone)
            case "look":
                promised = {node: gangs for node, gangs in PROMISED.items() if node <= name}
                board = kept.look(site.state, promised)
                new = Standing()
                fresh = new.look(site.state, promised)
                assert kept.states == new.states
                assert board.place(gang) == fresh.place(gang) == Board(new.states.values()).place(gang)
                found = board.place(gang)
                if isinstance(found, Placement):
                    board.take(found)
                may = {n for n, facts in site.state.facts.items() if facts.labels["zone"] == "a"}
                assert kept.able(WISH, site.state) == may
                assert kept.able({}, site.state) == set(site.state.facts)
