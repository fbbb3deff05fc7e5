"""What each link carries, on a terminal: the chips of a board with their links, the busier the thicker. Pure.

Chips stand as in the image (`links`), and what a line is worth is the same: the busier direction, as a share of what
the busiest link takes. A link to the chip beside or below is a line between the two; one around the back of a torus
begins and ends at the edge. Links to a switch, network cards and links between boards have no place among the chips,
and are in rows below. Colours repeat what the lines say.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from neuron_device_model.collectives.fabric import Core, Fabric
from neuron_device_model.collectives.model import Estimate
from rich.text import Text

from neuron_cli.collectives import links

Ends: TypeAlias = tuple[tuple[str, str], ...]

NODES = 4
"""Boards that are drawn; the others are counted."""
_BETWEEN = 6
"""Links between boards that are named."""
_ACROSS, _DOWN = ("╌", "─", "━"), ("┊", "│", "┃")
_COLOURS = ("dim", "yellow", "bold red")
_LEGEND = "╌ to a third, ─ to two thirds, ━ to all of what the busiest link takes: {:,.1f} µs at its published rate"


def lines(fabric: Fabric, ranks: Sequence[Core], answers: Sequence[Estimate]) -> Iterator[Text]:
    """The lines of the drawing; none where no link between chips is used."""
    carried = {ends: seconds for ends, (seconds, _) in links.carried(answers).items()}
    most = max(carried.values(), default=0.0)
    if not most:
        return
    shares = {ends: seconds / most for ends, seconds in carried.items()}
    used = {fabric.place(core) for core in ranks}
    for number, node in enumerate(fabric.nodes[:NODES]):
        if len(fabric.nodes) > 1:
            yield Text(node.name, style="bold")
        chips = [fabric.place(Core(number, chip, 0)) for chip in range(fabric.kind.chips)]
        names = [(place.domain, f"chip {place.position}") for place in chips]
        yield from _board(fabric, names, [place in used for place in chips], shares)
        yield from _beside(node.name, names, shares)
    if len(fabric.nodes) > NODES:
        yield Text(f"… and {len(fabric.nodes) - NODES} more nodes")
    yield from _between(fabric, shares)
    yield Text(_LEGEND.format(most * 1e6), style="dim")


def _board(
    fabric: Fabric, names: Sequence[tuple[str, str]], used: Sequence[bool], shares: Mapping[Ends, float]
) -> Iterator[Text]:
    """The chips of a node in their rows."""
    columns = links.columns_of(fabric)
    rows = -(-len(names) // columns)
    places = {links.cell(fabric, chip): chip for chip in range(len(names))}

    def share(one: tuple[int, int], other: tuple[int, int]) -> float | None:
        if one not in places or other not in places or one == other:
            return None
        first, second = sorted((names[places[one]], names[places[other]]))
        return shares.get((first, second))

    # of two chips in a row or column, the way around is the way between
    around = [share((0, column), (rows - 1, column)) if rows > 2 else None for column in range(columns)]
    yield from _down(around)
    for row in range(rows):
        if row:
            yield from _down([share((row - 1, column), (row, column)) for column in range(columns)])
        wrap = share((row, 0), (row, columns - 1)) if columns > 2 else None
        text = Text.assemble("  ", _mark(_ACROSS, wrap))
        for column in range(columns):
            if column:
                text.append(*_mark(_ACROSS, share((row, column - 1), (row, column)), times=3))
            chip = places.get((row, column))
            text.append(
                "    " if chip is None else f"[{chip:>2}]", style="bold" if chip is None or used[chip] else "dim"
            )
        text.append(*_mark(_ACROSS, wrap))
        text.rstrip()
        yield text
    yield from _down(around)


def _down(values: Sequence[float | None]) -> Iterator[Text]:
    """A line of links downwards, if there is one."""
    text = Text("  ")
    for value in values:
        text.append(*_mark(_DOWN, value, before=3))
        text.append("   ")
    text.rstrip()
    if text:
        yield text


def _mark(glyphs: Sequence[str], share: float | None, *, times: int = 1, before: int = 0) -> tuple[str, str]:
    if share is None:
        return " " * (before + times), ""
    level = min(int(share * 3), 2)
    return " " * before + glyphs[level] * times, _COLOURS[level]


def _beside(node: str, names: Sequence[tuple[str, str]], shares: Mapping[Ends, float]) -> Iterator[Text]:
    """What has no place among the chips of a node: its cards, and its chips' links to a switch."""
    cards = {ends[0][1].removeprefix("card "): share for ends, share in shares.items() if _is_card(ends, node)}
    switched: dict[str, dict[str, float]] = {}
    for ends, share in shares.items():
        chip = next((end for end in ends if end in names), None)
        other = next((end for end in ends if "witch" in end[1]), None)
        if chip and other:
            switched.setdefault(other[1], {})[str(names.index(chip))] = share
    for title, found in (*switched.items(), ("network cards", cards)):
        if found:
            text = Text(f"   {title}: ")
            for name, share in sorted(found.items(), key=lambda one: int(one[0])):
                text.append(*_mark(_ACROSS, share))
                text.append(f"{name}  ")
            text.rstrip()
            yield text


def _is_card(ends: Ends, node: str) -> bool:
    return len(ends) == 1 and ends[0][0] == node


def _between(fabric: Fabric, shares: Mapping[Ends, float]) -> Iterator[Text]:
    """The busiest links between chips of two nodes."""
    homes = {
        (place.domain, f"chip {place.position}"): (node.name, chip)
        for number, node in enumerate(fabric.nodes)
        for chip in range(fabric.kind.chips)
        for place in [fabric.place(Core(number, chip, 0))]
    }
    found = sorted(
        (-share, homes[ends[0]], homes[ends[1]])
        for ends, share in shares.items()
        if len(ends) == 2 and all(end in homes for end in ends) and homes[ends[0]][0] != homes[ends[1]][0]
    )
    for share, one, other in found[:_BETWEEN]:
        yield Text.assemble(
            f"   {one[0]} [{one[1]}] ", _mark(_ACROSS, -share, times=3), f" [{other[1]}] {other[0]}  {-share:.0%}"
        )
    if len(found) > _BETWEEN:
        yield Text(f"   … and {len(found) - _BETWEEN} more links between nodes")
