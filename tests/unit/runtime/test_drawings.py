"""Drawings that no source shows: what a container with some devices sees, chains and rings.

The files in golden/drawings are our choice; they are here so that a change of it is seen.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from neuron_runtime import topology_art

DRAWINGS = Path(__file__).parent / "golden" / "drawings"
TORUS = "trn2n.48xlarge"
CASES = {
    "one-of-a-torus": (TORUS, [13]),
    "row-of-a-torus": (TORUS, [0, 1, 2, 3]),
    "square-of-a-torus": (TORUS, [4, 5, 8, 9]),
    "half-of-a-torus": (TORUS, [8, 9, 10, 11, 12, 13, 14, 15]),
    "neighbours-across-the-edge": (TORUS, [0, 12]),
    "scattered-over-a-torus": (TORUS, [0, 1, 3, 6]),
    "single": ("trn1.2xlarge", [0]),
    "chain": ("inf2.24xlarge", [0, 1, 2, 3, 4, 5]),
    "parts-of-a-chain": ("inf2.24xlarge", [0, 1, 4, 5]),
}


@pytest.mark.parametrize("name", CASES)
def test_drawing(some_of: Any, name: str) -> None:
    machine, hosts = CASES[name]
    assert topology_art.draw(some_of(machine, *hosts)) == (DRAWINGS / f"{name}.txt").read_text()


def test_ring_wraps_around(saved_view: Any) -> None:
    view = saved_view("inf2.24xlarge")
    view["topology"]["kind"] = "ring"
    view["devices"][0]["connected"] = [5, 1]
    view["devices"][5]["connected"] = [4, 0]
    assert topology_art.draw(view) == (DRAWINGS / "ring.txt").read_text()


def test_unlinked_devices_stand_apart(saved_view: Any) -> None:
    view = saved_view("inf1.6xlarge")
    view["topology"]["kind"] = "switch"
    for device in view["devices"]:
        device["connected"] = None
    assert topology_art.draw(view).splitlines()[-1] == "    [ 0 ]    [ 1 ]    [ 2 ]    [ 3 ]"


def test_parts_of_one_chip_are_drawn_once(some_of: Any) -> None:
    whole = topology_art.draw(some_of(TORUS, 4, 5))
    assert topology_art.draw(some_of(TORUS, 4, 5, 4)) == whole


TORUS_VIEW = json.loads((Path(__file__).parent / "views" / f"{TORUS}.json").read_text())


@given(hosts=st.sets(st.integers(0, 15), min_size=1))
@settings(deadline=None)
def test_every_part_of_a_torus_shows_each_device_once_and_only_real_links(hosts: set[int]) -> None:
    devices = [TORUS_VIEW["devices"][host] | {"index": index} for index, host in enumerate(sorted(hosts))]
    lines = topology_art.draw(TORUS_VIEW | {"devices": devices}).splitlines()
    for device in devices:
        assert sum(line.count(f"[{device['index']:>2} ]") for line in lines) == 1
    by_label = {f"[{device['index']:>2} ]": device for device in devices}
    for line in lines:
        for left, right in pairwise(line.strip("*–►◄ ").split("◄––►")):
            a, b = by_label[left[-5:]], by_label[right[:5]]
            assert b["host_index"] in a["connected"]
