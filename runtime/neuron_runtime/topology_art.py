"""The drawing of ``neuron-ls --topology``.

Chips stand where they stand in the instance: tori and switched servers in rows of four, chains and rings in
one row (AWS docs: tools/neuron-sys-tools/neuron-ls.rst). A container rarely holds all of them, so only the
chips it holds are drawn, under the numbers it knows them by, rows and columns without any are left out, and a
link is drawn where the two chips are wired to one another. With all chips this is AWS's drawing to the space.
A chip of which two claims hold parts is drawn once, under the first of its numbers.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from neuron_device_model.view import DeviceView, View

    Grid = Sequence[Sequence[DeviceView | None]]

_ONE_ROW = ("single", "chain", "ring")
_GRID_COLUMNS = 4
_TITLE = "Neuron Device Topology"
_LEGEND = "Legend:\n\n        *––► = Wrap-around link\n"
_NO_LINK = ("", "", "")
_LINK_ABOVE = ("▲", "│", "▼")
_WRAP_ABOVE = ("*", "│", "▼")
_WRAP_BELOW = ("▲", "│", "*")


def draw(view: View) -> str:
    """Title, drawing and, where a link wraps around, the legend."""
    grid = _grid(view)
    top, bottom = grid[0], grid[-1]
    wraps = [len(grid) > 2 and _wired(a, b) for a, b in zip(top, bottom, strict=True)]
    lines = [_TITLE]
    lines += _vertical([_WRAP_ABOVE if wrap else _NO_LINK for wrap in wraps])
    for number, row in enumerate(grid):
        if number:
            above = grid[number - 1]
            linked = [_wired(a, b) for a, b in zip(above, row, strict=True)]
            lines += _vertical([_LINK_ABOVE if link else _NO_LINK for link in linked])
        lines.append(_row(row))
    if any(wraps):
        lines += _vertical([_WRAP_BELOW if wrap else _NO_LINK for wrap in wraps])
    drawing = "\n".join(lines) + "\n"
    return f"{drawing}\n{_LEGEND}" if "*" in drawing else drawing


def _grid(view: View) -> Grid:
    one_row = view["topology"]["kind"] in _ONE_ROW
    columns = view["host_device_count"] if one_row else _GRID_COLUMNS
    places: dict[tuple[int, int], DeviceView] = {}
    for device in view["devices"]:
        places.setdefault(divmod(device["host_index"], columns), device)
    used_rows = sorted({row for row, _ in places})
    used_columns = sorted({column for _, column in places})
    return [[places.get((row, column)) for column in used_columns] for row in used_rows]


def _wired(a: DeviceView | None, b: DeviceView | None) -> bool:
    return a is not None and b is not None and b["host_index"] in (a["connected"] or ())


def _row(row: Sequence[DeviceView | None]) -> str:
    wraps = len(row) > 2 and _wired(row[0], row[-1])
    text = "*––►" if wraps else "    "
    for number, device in enumerate(row):
        if number:
            text += "◄––►" if _wired(row[number - 1], device) else "    "
        text += f"[{device['index']:>2} ]" if device else "     "
    return (text + ("◄––*" if wraps else "")).rstrip()


def _vertical(links: Sequence[tuple[str, str, str]]) -> list[str]:
    return ["    " + "    ".join(glyphs[line].center(5) for glyphs in links) + "    " for line in range(3)]
