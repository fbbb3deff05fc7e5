"""The input of a rank: random elements, or ones, and windows of it.

A buffer is a block of a thousand random elements, over and over; the length of the block is a prime number, so that
data that goes astray by any round number of bytes is different data. Whoever knows the seed knows every rank's buffer.
Sums of such buffers repeat too. `added` uses that, and only where it finds it in the bytes: what repeats is added once,
and whatever does not, a corrupted message above all, is added element by element.
"""

from __future__ import annotations

from neuron_runtime.nccom import elements

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

PERIOD = 1021
"""Elements of a block."""
WINDOW = PERIOD * 64
"""Elements that are handled at once: a whole number of blocks."""
_RANKS_MOST = 1 << 20


class Buffer:
    """Elements of one type that repeat."""

    __slots__ = ("_block", "_last", "_source")

    def __init__(self, block: bytes) -> None:
        self._block = block
        self._source = memoryview(block)
        # windows of a part are the same bytes
        self._last = ((0, len(block)), self._source)

    def window(self, first: int, length: int) -> memoryview:
        """Bytes `first` to `first + length`; the same object as the last time where the bytes are."""
        begin = first % len(self._block)
        if self._last[0] != (begin, length):
            if begin + length > len(self._source):
                # room for a window wherever it begins
                blocks = max(WINDOW // PERIOD + 1, (begin + length) // len(self._block) + 1)
                self._source = memoryview(self._block * blocks)
            self._last = ((begin, length), self._source[begin : begin + length])
        return self._last[1]


def buffer(datatype: str, rank: int, *, seed: int | None) -> Buffer:
    """The input of a rank; all ones without a seed."""
    if seed is None:
        return Buffer(elements.ones(datatype, PERIOD))
    return Buffer(elements.random(datatype, PERIOD, seed=seed * _RANKS_MOST + rank))


def windows(first: int, count: int) -> Iterator[tuple[int, int]]:
    """Beginnings and lengths, in elements, of the windows of a part of a buffer; all but the last are alike."""
    for place in range(first, first + count, WINDOW):
        yield place, min(WINDOW, first + count - place)


def added(datatype: str, a: bytes, b: bytes) -> bytes:
    """The sum of two windows."""
    block = PERIOD * elements.width(datatype)
    if len(a) <= block:
        return elements.add(datatype, a, b)
    first, second = a[:block], b[:block]
    both = elements.add(datatype, first, second)
    found = [both]
    for begin in range(block, len(a), block):
        if len(a) - begin >= block and a.startswith(first, begin) and b.startswith(second, begin):
            found.append(both)
        else:
            found.append(elements.add(datatype, a[begin : begin + block], b[begin : begin + block]))
    return b"".join(found)


def tree_sum(parts: Sequence[bytes], adding: Callable[[bytes, bytes], bytes]) -> bytes:
    """The sum in the order of a binary tree: neighbours first, then neighbouring pairs.

    So a sum of as many ones as there are ranks is exact in every type for all groups of 2^n ranks.
    """
    level = list(parts)
    while len(level) > 1:
        pairs = [adding(a, b) for a, b in zip(level[::2], level[1::2], strict=False)]
        level = pairs + level[2 * len(pairs) :]
    return level[0]
