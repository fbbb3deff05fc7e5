"""A link that corrupts what it carries, on request: so that people see what a failing check looks like.

``NEURON_SIM_CORRUPT_LINK=3-7`` is the NeuronLink between chips 3 and 7 of the host. AWS has nothing like it. Each
message whose way leads over the link, in either direction, has one bit changed.
"""

from __future__ import annotations

from functools import lru_cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from neuron_runtime.nccom.costs import Board

VARIABLE = "NEURON_SIM_CORRUPT_LINK"


class CorruptionError(Exception):
    """The variable is wrong; the message says how to write it."""


def wire(board: Board, text: str) -> Callable[[int, int, bytes], bytes] | None:
    """What the link does to a message from one rank to another; None where there is no such wish."""
    if not text:
        return None
    ends = text.split("-")
    if len(ends) != 2 or not all(end.isascii() and end.isdigit() for end in ends):
        raise CorruptionError(f"{VARIABLE}={text}: name the two chips of the link, like 3-7")
    names = {f"chip {int(end)}" for end in ends}

    @lru_cache(maxsize=1 << 16)
    def leads_over(source: int, target: int) -> bool:
        way = board.fabric.route(board.ranks[source], board.ranks[target])
        return any({link.source, link.target} == names for link in way)

    def carry(source: int, target: int, data: bytes) -> bytes:
        if not data or not leads_over(source, target):
            return data
        middle = len(data) // 2
        return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]

    return carry
