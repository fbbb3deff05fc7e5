"""EC2-like names are well formed, stable and differ."""

import re

from hypothesis import given
from hypothesis import strategies as st
from neuron_device_model.identity import instance_id, network_node

uids = st.uuids().map(str)


@given(uids, uids)
def test_names_are_well_formed_and_follow_their_input(a: str, b: str) -> None:
    assert re.fullmatch(r"i-[0-9a-f]{17}", instance_id(a))
    assert re.fullmatch(r"nn-[0-9a-f]{17}", network_node(a))
    assert (instance_id(a) == instance_id(b)) == (a == b)
    assert instance_id(a)[2:] != network_node(a)[3:]


def test_names_never_change() -> None:
    assert instance_id("6f1d0c5e") == "i-6b19fd462bbf4e45a"
    assert network_node("default") == "nn-0ba536e1ad18475e1"
