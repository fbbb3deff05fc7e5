"""Text tables as AWS's tools print them (they use Go's tablewriter): layout only, no Neuron in here.

Two header lines, centred, the odd space to the right; data to the left; a column is as wide as its widest
cell; a column whose cells are all empty is not shown (AWS docs: tools/neuron-sys-tools/neuron-ls.rst, and
captures of tools 2.28 and 2.32 where CONNECTED DEVICES and COMMAND are left out).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Column:
    """A header of two lines over one cell per line of the table."""

    __slots__ = ("bottom", "cells", "top", "width")

    def __init__(self, top: str, bottom: str, cells: Sequence[str]) -> None:
        self.top = top
        self.bottom = bottom
        self.cells = cells
        self.width = max(len(text) for text in (top, bottom, *cells))


def render(columns: Sequence[Column], *, group_sizes: Sequence[int]) -> str:
    """The table. A group is the lines of one device: borders part the groups where any has several lines."""
    shown = [column for column in columns if any(column.cells)]
    border = "+" + "+".join("-" * (column.width + 2) for column in shown) + "+"
    part_groups = max(group_sizes) > 1
    lines = [
        border,
        _line(_centred(column.top, column.width) for column in shown),
        _line(_centred(column.bottom, column.width) for column in shown),
        border,
    ]
    row = 0
    for size in group_sizes:
        for _ in range(size):
            lines.append(_line(column.cells[row].ljust(column.width) for column in shown))
            row += 1
        if part_groups:
            lines.append(border)
    if not part_groups:
        lines.append(border)
    return "\n".join(lines) + "\n"


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _centred(text: str, width: int) -> str:
    # str.center puts the odd space to the left or right depending on the width
    left = (width - len(text)) // 2
    return (" " * left + text).ljust(width)
