"""Where the ranks of several instances are: what the views of their claims say of the network decides the cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from neuron_device_model.catalog import DEFAULT_SDK_VERSION, instance_type, sdk_release
from neuron_device_model.view import GivenChip, View, container_view
from neuron_runtime.nccom import arguments, claims, costs, membership, streams
from neuron_runtime.nccom.membership import Hello, HelloError

HERE = ("spine", "row", "leaf")


def place(number: int, network: Sequence[str]) -> claims.Place:
    """Of a pod with a chip of an instance."""
    view: View = container_view(
        instance_type("trn2.48xlarge"),
        given=[GivenChip(0)],
        first_index=0,
        logical_neuron_core=2,
        instance_id=f"i-{number}",
        sdk=sdk_release(DEFAULT_SDK_VERSION),
        network_nodes=network,
    )
    return claims.place([(Path("/claim"), view)], range(4), {})


def seconds(*networks: Sequence[str]) -> float:
    """What a small all-reduce takes over instances with these network nodes."""
    (stream,) = streams.planned(arguments.parse(["-r", "8", "-b", "1kb", "-e", "1kb", "-d", "bf16", "-c", "allr"]))
    board = costs.Board(tuple(place(number, network) for number, network in enumerate(networks)))
    ((_, _, row),) = costs.rows(board, [stream])
    assert isinstance(row, costs.Row)
    return row.seconds


def test_the_further_apart_the_dearer() -> None:
    near, row, far = (seconds(HERE, other) for other in (HERE, ("spine", "row", "b"), ("one", "two", "three")))
    assert near < row < far


def test_who_does_not_know_is_near() -> None:
    assert seconds(HERE, ()) == seconds((), ()) == seconds(HERE, HERE)


@pytest.mark.parametrize("network", [None, "leaf", ["leaf"] * 9, [1], ["a" * 300]])
def test_a_place_that_nobody_can_have_is_no_hello(network: object) -> None:
    hello = Hello("pod-0", "1", "flags", None, 2, place(0, HERE))
    sent = membership.encoded(hello)
    assert membership.decoded(sent) == hello
    document = membership.place_document(hello.place)
    with pytest.raises((ValueError, TypeError)):
        membership.place_of({**document, "network": network})
    with pytest.raises(HelloError):
        membership.decoded(sent.replace(b'"network"', b'"net"'))
