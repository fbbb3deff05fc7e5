"""Sets of servers in an UltraServer: neighbours share an id, others never, and formats are those of real nodes."""

import re
from collections import Counter

import pytest
from neuron_device_model import identity
from neuron_device_model.catalog import ultraserver_type, ultraserver_types
from neuron_device_model.ultraserver import SETS, Seat, runtime_mode


@pytest.mark.parametrize("size", sorted({kind.servers for kind in ultraserver_types()}))
def test_sets_divide_an_ultraserver_evenly(size: int) -> None:
    seats = [Seat(identity.ultraserver("pool/0"), size, node) for node in range(size)]
    for servers in SETS[1:]:
        sets = Counter(seat.set_id(servers) for seat in seats)
        assert set(sets.values()) == {servers}
        assert len({(seat.set_id(servers), seat.set_node(servers)) for seat in seats}) == size
        assert {seat.set_node(servers) for seat in seats} == set(range(servers))
    ids = [seat.set_id(servers) for seat in seats for servers in SETS[1:]]
    assert len(set(ids)) == size // 2 + size // 4, "a pair is not called as a set of four is"


def test_the_set_of_all_servers_is_the_ultraserver() -> None:
    assert {Seat("u5wy80u0o2saugxy", 4, node).set_id(4) for node in range(4)} == {"u5wy80u0o2saugxy"}


def test_a_server_alone_is_what_the_driver_says_of_none() -> None:
    assert (Seat("u5wy80u0o2saugxy", 4, 2).set_id(1), Seat("u5wy80u0o2saugxy", 4, 2).set_node(1)) == ("0" * 16, -1)


@pytest.mark.parametrize(("size", "modes"), [(2, "2_4"), (4, "1_2_4"), (36, "1_2_4")])
def test_modes_are_those_of_the_label(size: int, modes: str) -> None:
    assert Seat("u5wy80u0o2saugxy", size, 0).modes == modes


def test_runtime_modes_are_the_drivers() -> None:
    """neuron_driver_shared.h: X4, X2H, X1."""
    assert [runtime_mode(servers) for servers in (4, 2, 1)] == [1, 2, 4]


def test_ids_have_the_formats_of_real_ones() -> None:
    ultraserver = identity.ultraserver("pool/0")
    assert re.fullmatch("[a-z0-9]{16}", ultraserver)
    assert re.fullmatch("[a-z0-9]{16}", identity.ultraserver_set(ultraserver, 2, 0))
    assert re.fullmatch("cr-[0-9a-f]{17}", identity.capacity_block(ultraserver))
    assert identity.ultraserver("pool/0") == ultraserver != identity.ultraserver("pool/1")


def test_a_kind_of_ultraserver_is_found_by_its_name() -> None:
    assert ultraserver_type("trn3-gen2").servers == 36
