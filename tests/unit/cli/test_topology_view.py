"""The fleet in a picture: each chip free, used, cut or broken, and by whom."""

import random
import xml.etree.ElementTree as ElementTree

import pytest
from fleet_objects import chips, fault, held, neuron_node, pod, ultraserver
from neuron_cli.topology import drawing, svg, view


def fleet(*neuron_nodes, claims=(), pods=(), not_ready=()):
    return view.view(list(neuron_nodes), list(claims), list(pods), set(not_ready))


def drawn(found, *, everything=False) -> str:
    return "\n".join(line.plain for line in drawing.lines(found, everything=everything))


def states(found, name: str) -> list[str]:
    return [chip.state for node in found.nodes if node.name == name for chip in node.chips]


def test_who_has_which_chip() -> None:
    found = fleet(neuron_node("w"), claims=[held("c", "w", *chips(0, 1, 2, 3), pod="train")])
    assert states(found, "w") == ["used"] * 4 + ["free"] * 12
    assert found.nodes[0].chips[2].held_by == ["team/train"]
    assert "w  aaaa ···· ···· ····  12 free  trn2.48xlarge  a=team/train (4)" in drawn(found)


def test_cores_cut_their_chips() -> None:
    found = fleet(neuron_node("w"), claims=[held("c", "w", "neuron-core-0", "neuron-core-9", pod="infer")])
    assert states(found, "w")[:4] == ["cut", "free", "cut", "free"]
    assert "A·A· ···· ···· ····  14 free" in drawn(found)


def test_a_claim_that_no_pod_uses_is_named_itself() -> None:
    found = fleet(neuron_node("w"), claims=[held("c", "w", *chips(5))])
    assert found.nodes[0].chips[5].held_by == ["claim team/c"]


def test_what_is_broken_says_by_what() -> None:
    found = fleet(neuron_node("w", faults=[fault("burnt", chip=3), fault("shown", chip=4, effect="None")]))
    assert states(found, "w")[2:6] == ["free", "broken", "free", "free"]
    assert found.nodes[0].chips[4].faults == ["shown (DeviceLost)"]
    assert "···x" in drawn(found)
    assert "x=burnt (DeviceLost): chip 3" in drawn(found)
    assert states(fleet(neuron_node("w", faults=[fault("gone")])), "w") == ["broken"] * 16


def test_a_link_that_is_down_is_not_two_broken_chips() -> None:
    link = {**fault("cut", type="LinkDown", chip=3), "peer": 7}
    found = fleet(neuron_node("w", faults=[link, fault("burnt", chip=7)]))
    assert states(found, "w")[2:8] == ["free", "unlinked", "free", "free", "free", "broken"]
    assert "···/ ···x ···· ····" in drawn(found)
    assert "/=cut (LinkDown): link of chips 3 and 7  x=burnt (DeviceLost): chip 7" in drawn(found)
    assert "1 broken, 1 without a link" in drawing.headline(found)
    (node,) = view.document(found)["nodes"]
    assert node["links_down"] == [{"chips": [3, 7], "fault": "cut (LinkDown)"}]
    assert node["chips"][3]["state"] == "unlinked"
    assert "link of chips 3 and 7: down; cut (LinkDown)" in svg.svg(found)
    many = fleet(*(neuron_node(f"n{number}", faults=[link] if number == 7 else []) for number in range(80)))
    assert "nodes with links that are down: 1\n  n7: 3-7" in drawn(many)


def test_cards_that_are_down_are_told_beside_the_chips() -> None:
    cut = {**fault("cut", type="EFADown"), "efa": 2}
    found = fleet(neuron_node("w", faults=[cut, fault("all", type="EFADown")]))
    assert states(found, "w") == ["free"] * 16
    assert "cut (EFADown): EFA card 2  all (EFADown): all EFA cards" in drawn(found)
    assert view.document(found)["nodes"][0]["efa_faults"][0] == "cut (EFADown): EFA card 2"
    assert "EFA card 2" in svg.svg(found)
    many = fleet(*(neuron_node(f"n{number}", faults=[cut] if number == 7 else []) for number in range(80)))
    assert "nodes with broken EFA cards: 1\n  n7: cut (EFADown): EFA card 2" in drawn(many)


def test_device_plugins_tell_numbers_or_amounts() -> None:
    numbered = pod("a", neuron=2, nodeName="w")
    numbered["metadata"]["annotations"] = {"AWS_NEURON_IDS": "4,5"}
    silent = pod("b", neuron=3, nodeName="w")
    found = fleet(neuron_node("w", resources="DevicePlugin"), pods=[numbered, silent])
    assert states(found, "w")[3:7] == ["free", "used", "used", "free"]
    assert found.nodes[0].free == 11
    assert "team/b (3 chips)" in drawn(found)
    assert view.summary(found)["chips_used"] == 5


def test_ultraservers_are_drawn_with_what_they_lack() -> None:
    found = fleet(*ultraserver(0), *ultraserver(1, nodes=3), not_ready=["u1n1"])
    text = drawn(found)
    assert "nn-30  (network layer 3)" in text
    assert "UltraServer abcdefgh01234560  trn2u.48xlarge, 64 of 64 chips free, capacity block cr-0" in text
    assert "degraded: server 1 (u1n1) is not ready; server 3 is missing" in text
    assert "1 u1n1" in text
    assert "not ready: its kubelet is not ready" in text
    assert "2 UltraServers, 1 wholly free, 1 degraded" in text


def test_parts_of_the_fleet() -> None:
    found = fleet(*ultraserver(0), *ultraserver(1), neuron_node("alone", pool="other"))
    names = [node.name for node in view.only(found, pool=None, ultraserver="abcdefgh01234561", node=None).nodes]
    assert names == ["u1n0", "u1n1", "u1n2", "u1n3"]
    assert [n.name for n in view.only(found, pool="other", ultraserver=None, node=None).nodes] == ["alone"]
    assert len(view.only(found, pool=None, ultraserver=None, node="u0n2").nodes) == 1
    with pytest.raises(view.NotThere, match="UltraServer abc is not unmistakable: there are abcdefgh01234560, abcdef"):
        view.only(found, pool=None, ultraserver="abc", node=None)
    with pytest.raises(view.NotThere, match="node gone is not there: there are alone, u0n0"):
        view.only(found, pool=None, ultraserver=None, node="gone")


def test_a_large_fleet_is_summed_up_unless_all_is_asked_for() -> None:
    found = fleet(
        *(member for number in range(10) for member in ultraserver(number)),
        *(neuron_node(f"n{number:02}") for number in range(40)),
        claims=[held("c", "u3n0", *chips(1), pod="p")],
    )
    text = drawn(found)
    assert len(text.splitlines()) < 20
    assert "pool default: 40 × trn2u.48xlarge, 639 of 640 chips free" in text
    assert "UltraServers by their wholly free nodes  4: 9, 3: 1" in text
    assert "80 nodes are not drawn one by one: --ultraserver ID, --node NODE" in text
    assert "u3n0" in drawn(found, everything=True)


def test_the_document_counts_and_names_everything() -> None:
    found = view.document(fleet(*ultraserver(0), claims=[held("c", "u0n0", *chips(1), pod="p")]))
    assert found["summary"] == {
        "nodes": 4, "nodes_not_ready": 0, "nodes_untouched": 3, "chips": 64, "chips_free": 63, "chips_used": 1,
        "chips_cut": 0, "chips_unlinked": 0, "chips_broken": 0,
        "ultraservers": 1, "ultraservers_degraded": 0, "ultraservers_untouched": 0,
    }  # fmt: skip
    assert found["ultraservers"][0]["nodes"] == ["u0n0", "u0n1", "u0n2", "u0n3"]
    assert found["nodes"][0]["chips"][1] == {"chip": 1, "state": "used", "held_by": ["team/p"], "faults": []}


@pytest.mark.parametrize("servers", [0, 2, 30])
def test_the_image_is_well_formed_and_has_every_node(servers: int) -> None:
    members = [member for number in range(servers) for member in ultraserver(number)]
    odd = neuron_node('a<b&"c"', faults=[fault("burnt", chip=1)])
    some = random.Random(1).sample(members, k=servers)
    claims = [held(f"c{n['metadata']['name']}", n["metadata"]["name"], *chips(0), pod="p<1>") for n in some]
    image = ElementTree.fromstring(svg.svg(fleet(*members, odd, claims=claims)))
    titles = [title.text or "" for title in image.iter("{http://www.w3.org/2000/svg}title")]
    for member in [*members, odd]:
        assert any(title.startswith(f"{member['metadata']['name']}: ") for title in titles)
