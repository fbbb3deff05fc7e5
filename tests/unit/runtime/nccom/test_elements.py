"""Sums of every element type are the exact sum, rounded once to the nearest number of the type, ties to even."""

from __future__ import annotations

import math
import struct
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from neuron_runtime.nccom import elements

FLOATS = {"fp8": (4, 3), "fp16": (5, 10), "bf16": (8, 7), "fp32": (8, 23)}
"""Bits of exponent and mantissa."""


def number(name: str, code: int) -> Fraction | None:
    """The value of a code; None of infinities and what is no number."""
    exponent_bits, mantissa_bits = FLOATS[name]
    bias = (1 << (exponent_bits - 1)) - 1
    sign = -1 if code >> (exponent_bits + mantissa_bits) else 1
    exponent = code >> mantissa_bits & ((1 << exponent_bits) - 1)
    mantissa = code & ((1 << mantissa_bits) - 1)
    if exponent == (1 << exponent_bits) - 1:
        return None
    if exponent:
        mantissa += 1 << mantissa_bits
    return sign * mantissa * Fraction(2) ** (max(exponent, 1) - bias - mantissa_bits)


def nearest(name: str, value: Fraction) -> int:
    """The code of the nearest number, without its sign: found by halving, since codes are in the order of numbers."""
    exponent_bits, mantissa_bits = FLOATS[name]
    infinite = ((1 << exponent_bits) - 1) << mantissa_bits
    low, high = 0, infinite
    while high - low > 1:
        middle = (low + high) // 2
        found = number(name, middle)
        assert found is not None
        low, high = (middle, high) if found <= value else (low, middle)
    below = number(name, low)
    above = number(name, high) or Fraction(2) ** (1 << (exponent_bits - 1))
    assert below is not None
    if value - below == above - value:
        return low + low % 2
    return low if value - below < above - value else high


@pytest.mark.parametrize("name", FLOATS)
@settings(max_examples=60)
@given(data=st.data())
def test_floating_point_sums_are_rounded_once(name: str, data: st.DataObject) -> None:
    lane = elements.width(name)
    codes = st.integers(0, (1 << 8 * lane) - 1).filter(lambda code: number(name, code) is not None)
    a, b = data.draw(codes), data.draw(codes)
    x, y = number(name, a), number(name, b)
    assert x is not None
    assert y is not None
    found = int.from_bytes(elements.add(name, a.to_bytes(lane, "little"), b.to_bytes(lane, "little")), "little")
    sign = 1 << (8 * lane - 1)
    assert found & ~sign == nearest(name, abs(x + y))
    if x + y:
        assert bool(found & sign) == (x + y < 0)


@pytest.mark.parametrize("name", ["uint8", "int8", "uint16", "int16", "uint32", "int32"])
@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)), min_size=1, max_size=9))
def test_integer_sums_wrap_around(name: str, pairs: list[tuple[int, int]]) -> None:
    lane = elements.width(name)
    most = 1 << 8 * lane
    a, b, expected = (
        b"".join((value % most).to_bytes(lane, "little") for value in values)
        for values in ([x for x, _ in pairs], [y for _, y in pairs], [x + y for x, y in pairs])
    )
    assert elements.add(name, a, b) == expected


def test_half_precision_overflows_to_infinity() -> None:
    most = struct.pack("<2e", 65504, -65504)
    assert struct.unpack("<2e", elements.add("fp16", most, most)) == (math.inf, -math.inf)


def test_what_is_no_number_stays_none() -> None:
    nan = struct.pack("<f", math.nan)[2:]
    (found,) = struct.unpack("<f", b"\0\0" + elements.add("bf16", nan, nan))
    assert math.isnan(found)


@pytest.mark.parametrize("name", FLOATS)
def test_random_floats_are_finite_and_of_either_sign(name: str) -> None:
    lane = elements.width(name)
    data = elements.random(name, 500, seed=3)
    values = [number(name, int.from_bytes(data[at : at + lane], "little")) for at in range(0, len(data), lane)]
    assert all(value is not None and Fraction(1, 128) <= abs(value) <= 2 for value in values)
    assert len({value is not None and value > 0 for value in values}) == 2


def test_another_seed_is_other_data() -> None:
    assert elements.random("uint8", 64, seed=1) == elements.random("uint8", 64, seed=1)
    assert elements.random("uint8", 64, seed=1) != elements.random("uint8", 64, seed=2)
