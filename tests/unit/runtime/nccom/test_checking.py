"""What an operation leaves in each rank's buffer is what its definition says, and nothing that is wrong gets by."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from neuron_runtime.nccom import arguments, buffers, checking, elements, streams
from neuron_runtime.nccom.pieces import pieces
from neuron_runtime.nccom.streams import Stream

SYMMETRIC = ("all_reduce", "reduce_scatter", "all_gather", "alltoall")


def planned(*words: str) -> Stream:
    (stream,) = streams.planned(arguments.parse(words))
    return stream


def defined(stream: Stream, inputs: list[list[int]], count: int) -> list[list[int]]:
    """The outputs by the definitions in AWS's documentation, of integers."""
    ranks = len(inputs)
    share = count // ranks
    total = [sum(column) % 256 for column in zip(*inputs, strict=True)]
    return {
        "all_reduce": [total] * ranks,
        "reduce_scatter": [total[rank * share : (rank + 1) * share] for rank in range(ranks)],
        "all_gather": [[value for one in inputs for value in one]] * ranks,
        "alltoall": [[v for one in inputs for v in one[rank * share : (rank + 1) * share]] for rank in range(ranks)],
    }[stream.operation.name]


@settings(max_examples=40)
@given(st.sampled_from(SYMMETRIC), st.integers(2, 9), st.integers(1, 300))
def test_pieces_do_what_the_operation_is_defined_to_do(name: str, ranks: int, per_rank: int) -> None:
    size = ranks * per_rank
    stream = planned("-r", str(ranks), "-b", str(size), "-e", str(size), name)
    inputs = [list(buffers.buffer("uint8", rank, seed=5).window(0, stream.input_bytes(size))) for rank in range(ranks)]
    outputs = [[-1] * stream.output_bytes(size) for _ in range(ranks)]
    for piece in pieces(stream, size):
        for number, rank in enumerate(piece.targets):
            first = piece.first + (number * piece.count if piece.shared_out else 0)
            for place in range(piece.count):
                assert outputs[rank][piece.place + place] == -1, "each element is written once"
                outputs[rank][piece.place + place] = sum(inputs[one][first + place] for one in piece.sources) % 256
    assert outputs == defined(stream, inputs, size)


@pytest.mark.parametrize("datatype", ["uint8", "fp8", "bf16", "fp16", "fp32", "int32"])
@pytest.mark.parametrize("operation", [*SYMMETRIC, "all_gatherv", "alltoallv", "sendrecv", "permute"])
def test_right_data_passes(operation: str, datatype: str) -> None:
    stream = planned("-r", "6", "-b", "24", "-e", "600kb", "-f", "160", "-d", datatype, operation)
    check = checking.Check(stream, [0, 0, 0, 1, 1, 1], seed=1)
    for size in stream.sizes:
        check.run(size)


@settings(max_examples=40)
@given(
    st.sampled_from([*SYMMETRIC, "alltoallv", "sendrecv", "permute"]),
    st.integers(1, 3),
    st.integers(0, 200),
    st.data(),
)
def test_a_message_with_one_wrong_bit_is_found(operation: str, blocks: int, more: int, data: st.DataObject) -> None:
    ranks = 4
    size = ranks * (blocks * buffers.PERIOD + more)
    stream = planned("-r", str(ranks), "-b", str(size), "-e", str(size), operation)
    messages = 0

    def count(source: int, target: int, message: bytes) -> bytes:
        nonlocal messages
        messages += 1
        return message

    checking.Check(stream, [0] * ranks, seed=2, wire=count).run(size)
    wrong, bit = data.draw(st.integers(1, messages)), data.draw(st.integers(0, 7))
    where = data.draw(st.floats(0, 1, exclude_max=True))
    seen = 0

    def corrupt(source: int, target: int, message: bytes) -> bytes:
        nonlocal seen
        seen += 1
        if seen != wrong:
            return message
        at = int(where * len(message))
        return message[:at] + bytes([message[at] ^ 1 << bit]) + message[at + 1 :]

    with pytest.raises(checking.Mismatch):
        checking.Check(stream, [0] * ranks, seed=2, wire=corrupt).run(size)


@pytest.mark.parametrize("datatype", arguments.DATA_TYPES)
def test_ones_add_up_to_the_number_of_ranks(datatype: str) -> None:
    stream = planned("-r", "64", "-b", "1kb", "-e", "1kb", "-d", datatype, "allr")
    ones = [bytes(buffers.buffer(stream.datatype, rank, seed=None).window(0, 4)) for rank in range(64)]
    found = buffers.tree_sum(ones, lambda a, b: buffers.added(stream.datatype, a, b))
    value = {"fp8": 0x68, "fp16": 0x5400, "bf16": 0x4280, "fp32": 0x42800000}.get(stream.datatype, 64)
    lane = elements.width(stream.datatype)
    assert found[:lane] == value.to_bytes(lane, "little")


@given(st.integers(0, 3000), st.integers(1, 5000), st.sampled_from(["uint8", "bf16"]))
def test_sums_of_what_repeats_are_sums(first: int, count: int, datatype: str) -> None:
    lane = elements.width(datatype)
    a, b = (bytes(buffers.buffer(datatype, rank, seed=9).window(first * lane, count * lane)) for rank in (0, 1))
    assert buffers.added(datatype, a, b) == elements.add(datatype, a, b)


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_windows_cover_everything_once(first: int, count: int) -> None:
    place = first
    for begin, length in buffers.windows(first, count):
        assert begin == place
        assert 0 < length <= buffers.WINDOW
        place += length
    assert place == first + count


def test_groups_keep_to_themselves() -> None:
    stream = planned("-r", "8", "-b", "64", "-e", "64", "--data-parallel-dimension", "2", "allr")
    assert {tuple(sorted(piece.sources)) for piece in pieces(stream, 64)} == {
        (0, 4),
        (1, 5),
        (2, 6),
        (3, 7),
    }
