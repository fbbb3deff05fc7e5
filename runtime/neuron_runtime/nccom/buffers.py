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

    __slots__ = ("_block", "_other", "_whole")

    def __init__(self, block: bytes) -> None:
        self._block = block
        # most windows are whole ones, and the same bytes
        self._whole = b""
        self._other = ((-1, -1), b"")

    def window(self, first: int, length: int) -> bytes:
        """Bytes `first` to `first + length`."""
        begin = first % len(self._block)
        if self._other[0] != (begin, length):
            if not self._whole and begin + length > len(self._block):
                self._whole = self._block * (WINDOW // PERIOD)
            source = self._whole or self._block
            if begin + length > len(source):
                source = self._block * ((begin + length) // len(self._block) + 1)
            found = source[begin : begin + length]
            if found is source:
                return found
            self._other = ((begin, length), found)
        return self._other[1]


def buffer(datatype: str, rank: int, *, seed: int | None) -> Buffer:
    """The input of a rank; all ones without a seed."""
    if seed is None:
        return Buffer(elements.ones(datatype, PERIOD))
    return Buffer(elements.random(datatype, PERIOD, seed=seed * _RANKS_MOST + rank))


def windows(first: int, count: int) -> Iterator[tuple[int, int]]:
    """Beginnings and lengths, in elements, of the windows of a part of a buffer; cut where blocks begin."""
    place, end = first, first + count
    while place < end:
        to_block = -place % PERIOD
        length = min(end - place, to_block or WINDOW)
        yield place, length
        place += length


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
