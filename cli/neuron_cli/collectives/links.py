"""What each link carries, drawn on the chips: a square for a chip, a line for a link, thick and red if it is busy.

Chips stand as the board has them: a torus in its rows, a ring or chain folded into two rows, chips of a switch in rows
of four above it. Both directions of a link are one line, and the busier one counts. Network cards are below their node.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TypeAlias
from xml.sax.saxutils import escape

from neuron_device_model.collectives.fabric import CORE, EFA, Core, Fabric, Link
from neuron_device_model.collectives.model import Estimate

Point: TypeAlias = tuple[float, float]

_STEP, _CHIP, _MARGIN, _TOP, _FOOT = 76, 34, 46, 96, 78
_HEAT = ("#9ecae1", "#fdd49e", "#fdae6b", "#f16913", "#cb181d")
"""From a fifth of what the busiest one takes to all of it."""
_BELOW = 44
"""Pixels between chips and their switch or cards."""


def svg(fabric: Fabric, ranks: Sequence[Core], answers: Sequence[Estimate], *, title: str) -> str:
    """The boards of these nodes, with what these operations together put on their links."""
    kind = fabric.kind
    columns = columns_of(fabric)
    width = columns * _STEP + _MARGIN
    high = (-(-kind.chips // columns) - 1) * _STEP + _BELOW + _FOOT
    per_line = max(1, 1450 // width)
    starts = [
        (_MARGIN + number % per_line * width, _TOP + number // per_line * high) for number in range(len(fabric.nodes))
    ]
    places = dict(_places(fabric, starts, columns))
    used = {fabric.place(core) for core in ranks}
    together = carried(answers)
    most = max((taken for taken, _ in together.values()), default=0.0)
    body = [_text(_MARGIN, 26, title, size=15, weight="bold"), *_legend(most)]
    for ends, (taken, words) in sorted(together.items(), key=lambda one: one[1][0]):
        body.append(_line(places, ends, taken / most, words))
    for number, (node, (x, y)) in enumerate(zip(fabric.nodes, starts, strict=True)):
        body.append(_text(x - _CHIP / 2, y + high - _FOOT + 32, node.name, size=12))
        for chip in range(kind.chips):
            place = fabric.place(Core(number, chip, 0))
            cx, cy = places[place.domain, f"chip {place.position}"]
            fill = "#e3f2fd" if place in used else "#fafafa"
            body.append(
                f'<rect x="{cx - _CHIP / 2:.0f}" y="{cy - _CHIP / 2:.0f}" width="{_CHIP}" height="{_CHIP}" rx="4"'
                f' fill="{fill}" stroke="#78909c"/>'
            )
            body.append(_text(cx, cy + 4, str(chip), size=12, anchor="middle"))
    wide = max(700, _MARGIN + min(len(starts), per_line) * width)
    tall = _TOP + -(-len(starts) // per_line) * high
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="{tall}" viewBox="0 0 {wide} {tall}"'
        ' font-family="Helvetica, Arial, sans-serif">\n'
        f'<rect width="{wide}" height="{tall}" fill="#ffffff"/>\n' + "\n".join(body) + "\n</svg>\n"
    )


def carried(answers: Sequence[Estimate]) -> dict[tuple[tuple[str, str], ...], tuple[float, str]]:
    """By both ends: the seconds that the busier direction takes at the published rate, and what to say of it."""
    moved: dict[Link, float] = {}
    for answer in answers:
        for link, size in answer.link_bytes().items():
            if link.kind != CORE:
                moved[link] = moved.get(link, 0.0) + size
    found: dict[tuple[tuple[str, str], ...], tuple[float, str]] = {}
    both = sorted(moved.items(), key=lambda one: (_ends(one[0]), one[0]))
    for ends, links in groupby(both, key=lambda one: _ends(one[0])):
        listed = list(links)
        taken = max(size / link.nominal for link, size in listed)
        words = "; ".join(f"{link.source} → {link.target}: {size / 1e6:,.2f} MB" for link, size in listed)
        found[ends] = (taken, words)
    return found


def _ends(link: Link) -> tuple[tuple[str, str], ...]:
    if link.kind == EFA:
        return ((link.domain, link.source),)
    return tuple(sorted(((link.domain, link.source), (link.domain, link.target))))


def columns_of(fabric: Fabric) -> int:
    """Chips that stand in a row."""
    kind = fabric.kind
    if kind.topology in ("torus2d", "torus3d"):
        return kind.wiring.shape[-1]
    if kind.topology == "switch":
        return min(4, kind.chips)
    return max(1, -(-kind.chips // 2)) if kind.chips > 4 else kind.chips


def cell(fabric: Fabric, chip: int) -> tuple[int, int]:
    """Row and column of a chip."""
    columns = columns_of(fabric)
    row, column = divmod(chip, columns)
    folded = fabric.kind.topology in ("ring", "chain") and fabric.kind.chips > 4
    return row, columns - 1 - column if folded and row % 2 else column


def _places(fabric: Fabric, starts: Sequence[Point], columns: int) -> Iterator[tuple[tuple[str, str], Point]]:
    """Where each end of a link is, by domain and name."""
    kind = fabric.kind
    rows = -(-kind.chips // columns)
    for number, (node, (x, y)) in enumerate(zip(fabric.nodes, starts, strict=True)):
        for chip in range(kind.chips):
            row, column = cell(fabric, chip)
            place = fabric.place(Core(number, chip, 0))
            yield (place.domain, f"chip {place.position}"), (x + column * _STEP, y + row * _STEP)
        below = y + (rows - 1) * _STEP + _BELOW
        middle = x + (columns - 1) * _STEP / 2
        domain = fabric.place(Core(number, 0, 0)).domain
        server = node.seat if node.ultraserver else 0
        yield (domain, f"switch of server {server}"), (middle, below)
        # one switch for several servers stands below the first of them
        if node.ultraserver and number < 2:
            yield (domain, f"UltraServer switch {number}"), (middle, below + 16)
        for card in range(kind.efa_count):
            step = (columns - 1) * _STEP / max(kind.efa_count - 1, 1)
            yield (node.name, f"card {card}"), (x + card * step, below)


def _line(places: dict[tuple[str, str], Point], ends: tuple[tuple[str, str], ...], share: float, words: str) -> str:
    colour = _HEAT[min(int(share * len(_HEAT)), len(_HEAT) - 1)]
    title = f"<title>{escape(words)}</title>"
    if len(ends) == 1:
        x, y = places[ends[0]]
        return f'<rect x="{x - 4:.1f}" y="{y - 5:.1f}" width="8" height="10" fill="{colour}">{title}</rect>'
    (x1, y1), (x2, y2) = (places[end] for end in ends)
    far = max(abs(x1 - x2), abs(y1 - y2)) > 1.5 * _STEP
    # round the back of a torus, and between boards: a bow beside the chips that lie between
    bow = 26 if far and (x1 == x2 or y1 == y2) else 0
    cx, cy = (x1 + x2) / 2 + (bow if x1 == x2 else 0), (y1 + y2) / 2 - (bow if y1 == y2 else 0)
    return (
        f'<path d="M{x1:.1f},{y1:.1f} Q{cx:.1f},{cy:.1f} {x2:.1f},{y2:.1f}" fill="none" stroke="{colour}"'
        f' stroke-width="{1.5 + 4.5 * share:.1f}">{title}</path>'
    )


def _legend(most: float) -> Iterator[str]:
    if not most:
        yield _text(_MARGIN, 46, "no link between chips is used", size=12)
        return
    yield _text(_MARGIN, 46, f"the busiest link is busy for {most * 1e6:,.1f} µs at its published rate;", size=12)
    for number, colour in enumerate(_HEAT):
        yield f'<rect x="{_MARGIN + 370 + number * 22}" y="38" width="20" height="8" fill="{colour}"/>'
    yield _text(_MARGIN + 370 + len(_HEAT) * 22 + 6, 46, "0 to 100 % of that", size=12)


def _text(x: float, y: float, words: str, *, size: int, weight: str = "normal", anchor: str = "start") -> str:
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}"'
        f' fill="#263238">{escape(words)}</text>'
    )
