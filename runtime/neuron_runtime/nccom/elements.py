"""Arithmetic of the element types: bytes in, bytes out, every sum rounded to the type.

Integers wrap around. Floating-point sums are rounded to nearest, ties to even, after each addition, as an engine does
that writes its partial sums back in the type. Sums of two numbers are formed in double or single precision and
rounded again; with at least 2p+2 bits in between, that is the same as rounding once. fp8 is IEEE's E4M3 of the Neuron
devices: bias 7, up to 240, with infinities.
"""

from __future__ import annotations

import operator
import struct
from array import array
from bisect import bisect_right
from functools import lru_cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

WIDTHS = {"uint8": 1, "int8": 1, "fp8": 1, "uint16": 2, "int16": 2, "fp16": 2, "bf16": 2}
"""Bytes of an element; four where a type is not named."""
_ONES = {"fp8": 0x38, "fp16": 0x3C00, "bf16": 0x3F80, "fp32": 0x3F800000}
# random bits that stay, and bits that are set: any sign and mantissa, exponents of numbers between 1/128 and 2
_RANDOM_BITS = {
    "fp8": (0x9F, 0x20),
    "fp16": (0x9FFF, 0x2000),
    "bf16": (0x83FF, 0x3C00),
    "fp32": (0x83FFFFFF, 0x3C000000),
}


def width(name: str) -> int:
    """Bytes of an element."""
    return WIDTHS.get(name, 4)


def ones(name: str, count: int) -> bytes:
    """So many elements with the value 1."""
    return _ONES.get(name, 1).to_bytes(width(name), "little") * count


def random(name: str, count: int, *, seed: int) -> bytes:
    """Pseudo-random elements: of integers all bits; of floating-point types finite numbers of either sign."""
    from _random import Random  # the package adds distributions, and takes longer to load than the tool to start

    length = count * width(name)
    bits = Random(seed).getrandbits(8 * length) if length else 0
    if name in _RANDOM_BITS:
        kept, added = _RANDOM_BITS[name]
        bits = bits & _lanes(kept, width(name), count) | _lanes(added, width(name), count)
    return bits.to_bytes(length, "little")


def add(name: str, a: bytes, b: bytes) -> bytes:
    """Element by element."""
    return _ADDING[name](a, b) if name in _ADDING else _add_integers(a, b, width(name))


def _add_integers(a: bytes, b: bytes, lane: int) -> bytes:
    """All lanes at once: everything below the highest bits is added, and those cannot carry into the next lane."""
    count = len(a) // lane
    high = _lanes(1 << (8 * lane - 1), lane, count)
    low = _lanes((1 << (8 * lane - 1)) - 1, lane, count)
    x, y = int.from_bytes(a, "little"), int.from_bytes(b, "little")
    return (((x & low) + (y & low)) ^ ((x ^ y) & high)).to_bytes(len(a), "little")


@lru_cache(maxsize=64)
def _lanes(value: int, lane: int, count: int) -> int:
    return int.from_bytes(value.to_bytes(lane, "little") * count, "little")


def _add_fp32(a: bytes, b: bytes) -> bytes:
    return array("f", map(operator.add, memoryview(a).cast("f"), memoryview(b).cast("f"))).tobytes()


def _add_bf16(a: bytes, b: bytes) -> bytes:
    sums = _add_fp32(_widened(a), _widened(b))
    count = len(sums) // 4
    bits = int.from_bytes(sums, "little")
    if (bits & _lanes(0x7FFFFFFF, 4, count)) + _lanes(0x007FFFFF, 4, count) & _lanes(0x80000000, 4, count):
        # something is not a number, and rounding must not make one of it
        return array("H", map(_upper_half, array("I", sums))).tobytes()
    # all lanes at once: infinity is the most there is, so none carries into the next one
    rounded = bits + _lanes(0x7FFF, 4, count) + (bits >> 16 & _lanes(1, 4, count))
    data = rounded.to_bytes(len(sums), "little")
    upper = bytearray(2 * count)
    upper[::2], upper[1::2] = data[2::4], data[3::4]
    return bytes(upper)


def _widened(data: bytes) -> bytes:
    """bf16 is the upper half of fp32."""
    wide = bytearray(2 * len(data))
    wide[2::4], wide[3::4] = data[::2], data[1::2]
    return bytes(wide)


def _upper_half(bits: int) -> int:
    if bits & 0x7FFFFFFF > 0x7F800000:
        return bits >> 16 | 0x40
    return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16


def _add_fp16(a: bytes, b: bytes) -> bytes:
    form = f"<{len(a) // 2}e"
    sums = list(map(operator.add, struct.unpack(form, a), struct.unpack(form, b)))
    try:
        return struct.pack(form, *sums)
    except OverflowError:
        # 65520 and more round to infinity, which struct refuses to do
        return struct.pack(form, *(value if abs(value) < 65520 else value * float("inf") for value in sums))


def _add_fp8(a: bytes, b: bytes) -> bytes:
    return bytes(map(_sum_of_codes, a, b))


@lru_cache(maxsize=1 << 16)
def _sum_of_codes(a: int, b: int) -> int:
    return fp8_code(fp8_value(a) + fp8_value(b))


def fp8_value(code: int) -> float:
    """The number that a byte stands for."""
    sign = -1.0 if code & 0x80 else 1.0
    exponent, mantissa = code >> 3 & 15, code & 7
    if exponent == 15:
        return sign * float("inf") if not mantissa else float("nan")
    return sign * (mantissa / 8 * 2.0**-6 if not exponent else (1 + mantissa / 8) * 2.0 ** (exponent - 7))


def fp8_code(value: float) -> int:
    """The byte of the nearest number."""
    if value != value:
        return 0x7F
    sign = 0x80 if str(value)[0] == "-" else 0
    size = abs(value)
    code = min(bisect_right(_FP8_SIZES, size) - 1, _FP8_INFINITE)
    if code < _FP8_INFINITE:
        below, above = size - _FP8_SIZES[code], _FP8_SIZES[code + 1] - size
        code += above < below or (above == below and code & 1)
    return sign | code


_FP8_INFINITE = 0x78
# infinity begins where the next number would be
_FP8_SIZES = [*map(fp8_value, range(_FP8_INFINITE)), 256.0]

_ADDING: dict[str, Callable[[bytes, bytes], bytes]] = {
    "fp32": _add_fp32,
    "bf16": _add_bf16,
    "fp16": _add_fp16,
    "fp8": _add_fp8,
}


def first_difference(name: str, a: bytes | memoryview, b: bytes | memoryview) -> int:
    """The number of the first element that differs; raises StopIteration where none does."""
    lane = width(name)
    return next(i for i, same in enumerate(map(operator.eq, a, b)) if not same) // lane


def shown(name: str, data: bytes | memoryview, element: int) -> str:
    """The bits of an element, as a log shows them."""
    lane = width(name)
    return f"0x{int.from_bytes(data[element * lane : (element + 1) * lane], 'little'):0{2 * lane}x}"
