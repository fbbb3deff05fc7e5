"""Gangs are explained by the operator's own placement."""

from typing import Any

import pytest
from fleet_objects import chips, fault, gang_pod, held, node, ultraserver
from neuron_cli import gang_view

Object = dict[str, Any]


def gangs(*neuron_nodes: Object, members=(), records=(), claims=(), templates=(), nodes=None) -> gang_view.Gangs:
    return gang_view.gangs(
        driver_name="neuron.aws.com",
        members=list(members),
        records=list(records),
        nodes=nodes or [node(each["metadata"]["name"]) for each in neuron_nodes],
        neuron_nodes=list(neuron_nodes),
        claims=list(claims),
        templates=list(templates),
        bound=[],
    )


def ring(**more: Any) -> list[Object]:
    return [gang_pod(f"ring-{number}", neuron=16, **more) for number in range(4)]


def test_a_gang_that_fits_is_told_where() -> None:
    found = gang_view.explain(gangs(*ultraserver(0), members=ring()), "team", "ring")
    assert found.state == "fits"
    assert found.summary.startswith("The gang fits now, in ultraserver abcdefgh01234560")


def test_every_ultraserver_says_what_it_lacks_the_nearest_first() -> None:
    taken = [held(f"c{number}", f"u0n{number}", *chips(0), pod=f"p{number}") for number in range(3)]
    one = held("d", "u1n2", *chips(0, 1), pod="small")
    fleet = gangs(*ultraserver(0), *ultraserver(1), members=ring(), claims=[*taken, one])
    found = gang_view.explain(fleet, "team", "ring")
    assert found.state == "waiting"
    assert [verdict.node for verdict in found.nodes] == ["ultraserver abcdefgh01234561", "ultraserver abcdefgh01234560"]
    assert found.nodes[0].lacks[0] == "room for 3 of 4 pods"
    assert "u1n2" in found.remedies[0]
    assert "u1n0" not in found.remedies[0]


def test_a_node_whose_cards_are_down_is_named_where_the_gang_needs_them() -> None:
    fleet = [*ultraserver(0), *ultraserver(1)]
    fleet[5]["spec"]["faults"] = [fault("cut", type="EFADown")]
    wide = [gang_pod(f"wide-{number}", "wide", size=8, level="network-2", neuron=16) for number in range(8)]
    found = gang_view.explain(gangs(*fleet, members=wide), "team", "wide")
    assert found.state == "waiting"
    (verdict,) = found.nodes
    assert verdict.lacks == (
        "room for 7 of 8 pods",
        "node u1n1 has no EFA card that works, and between UltraServers the gang's traffic goes over them",
    )
    assert "u1n1 (without an EFA card that works)" in found.remedies[0]
    assert gang_view.explain(gangs(*fleet, members=ring(level="network-2")), "team", "ring").state == "fits"


def test_labels_that_cannot_be_understood_are_the_problem() -> None:
    members = ring()
    for member in members:
        member["metadata"]["labels"]["neuron-sim.dev/gang-size"] = "four"
    found = gang_view.explain(gangs(*ultraserver(0), members=members), "team", "ring")
    assert '"four" is no size' in found.summary


def test_pods_that_are_missing_are_counted() -> None:
    found = gang_view.explain(gangs(*ultraserver(0), members=ring()[:3]), "team", "ring")
    assert found.said == ("3 of 4 pods exist",)


def test_a_gang_that_has_its_nodes_says_what_its_object_says() -> None:
    condition = {
        "type": "Placed",
        "status": "True",
        "reason": "Bound",
        "message": "All 4 pods are bound: u0n0, u0n1",
        "lastTransitionTime": "2026-11-21T00:00:00Z",
    }
    bound = {
        "metadata": {"name": "ring", "namespace": "team", "uid": "u", "resourceVersion": "1"},
        "spec": {"size": 4, "topology": "ultraserver", "chips": 16},
        "status": {"phase": "Bound", "nodes": ["u0n0"], "conditions": [condition]},
    }
    found = gang_view.explain(gangs(*ultraserver(0), records=[bound]), "team", "ring")
    assert (found.state, found.summary) == ("placed", "All 4 pods are bound: u0n0, u0n1")


def test_there_is_no_such_gang() -> None:
    with pytest.raises(gang_view.NoGang, match="there is no gang ring in namespace team"):
        gang_view.explain(gangs(*ultraserver(0)), "team", "ring")


def test_a_gang_at_the_barrier_says_for_whom_its_pods_wait() -> None:
    reserved = {
        "metadata": {"name": "ring", "namespace": "team", "uid": "u", "resourceVersion": "1"},
        "spec": {"size": 4, "topology": "ultraserver", "chips": 16},
        "status": {"phase": "Reserved", "nodes": [f"u0n{number}" for number in range(4)]},
    }
    waiting = []
    for number in range(3):
        claim = held(f"c{number}", f"u0n{number}", *chips(*range(16)), pod=f"ring-{number}")
        barrier = {"driver": "ultraserver.neuron-sim.dev", "pool": "abcdefgh01234560", "device": "gang-barrier"}
        conditions = {"bindingConditions": ["neuron-sim.dev/gang-complete"]}
        claim["status"]["allocation"]["devices"]["results"].append({"request": "b", **barrier, **conditions})
        waiting.append(claim)
    found = gang_view.explain(
        gangs(*ultraserver(0), members=ring(), records=[reserved], claims=waiting), "team", "ring"
    )
    assert found.said == ("3 pods wait at the barrier for ring-3",)
