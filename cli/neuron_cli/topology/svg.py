"""The fleet as an image: a frame for each UltraServer, in it a box for each node, in it a square for each chip.

Written by hand, with nothing but shapes and texts: it opens in every browser, and the names of pods and faults stand in
titles that the browser shows under the pointer. Where there are too many nodes for that, a node is one square, filled
as far as it is used.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from neuron_cli.topology.drawing import NODES, headline
from neuron_cli.topology.view import Chip, FleetView, NodeView

WIDTH, MARGIN, GAP = 1180, 24, 14
CHIP, SPACE = 16, 3
HOLDERS = (
    "#4477aa", "#66ccee", "#228833", "#ccbb44", "#aa3377", "#ee8866", "#77aadd", "#44bb99", "#bbcc33", "#9970ab",
)  # fmt: skip
FREE, BROKEN, OTHERS = "#eceff1", "#d32f2f", "#78909c"
LEGEND = len(HOLDERS)


@dataclass(frozen=True, slots=True)
class _Frame:
    """Nodes that are drawn together."""

    title: str
    note: str
    degraded: bool
    nodes: tuple[NodeView, ...]


def svg(fleet: FleetView) -> str:
    """The image."""
    colours = _colours(fleet)
    small = len(fleet.nodes) > NODES
    body: list[str] = []
    y = 64 + (0 if small else 22 * -(-(min(len(colours), LEGEND) + 4) // 5))
    for layers, frames in _by_network(fleet):
        if layers:
            body.append(_text(MARGIN, y + 12, layers, size=12, fill="#607d8b"))
            y += 22
        x, tallest = MARGIN, 0
        for frame in frames:
            wide, high, drawn = _draw(frame, colours, small=small)
            if x > MARGIN and x + wide > WIDTH - MARGIN:
                x, y, tallest = MARGIN, y + tallest + GAP, 0
            body.append(f'<g transform="translate({x},{y})">{drawn}</g>')
            x, tallest = x + wide + GAP, max(tallest, high)
        y += tallest + GAP
    head = [_text(MARGIN, 34, headline(fleet), size=14, weight="bold"), *_legend(colours, small=small)]
    height = y + MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
        ' font-family="Helvetica, Arial, sans-serif">\n'
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>\n' + "\n".join((*head, *body)) + "\n</svg>\n"
    )


def _colours(fleet: FleetView) -> dict[str, str]:
    """Those who hold most have colours of their own."""
    counts: dict[str, int] = {}
    for node in fleet.nodes:
        for chip in node.chips:
            for holder in chip.held_by:
                counts[holder] = counts.get(holder, 0) + 1
    ordered = sorted(counts, key=lambda holder: (-counts[holder], holder))
    return {holder: HOLDERS[number] if number < LEGEND else OTHERS for number, holder in enumerate(ordered)}


def _by_network(fleet: FleetView) -> Iterator[tuple[str, list[_Frame]]]:
    servers = {each.id: each for each in fleet.ultraservers}
    frames: dict[tuple[str, ...], dict[str, list[NodeView]]] = {}
    for node in fleet.nodes:
        frames.setdefault(node.network_nodes, {}).setdefault(node.ultraserver or node.name, []).append(node)
    for layers, groups in frames.items():
        found = []
        for name, nodes in groups.items():
            server = servers.get(name)
            if server:
                free, chips = sum(node.free for node in nodes), sum(len(node.chips) for node in nodes)
                note = f"{free} of {chips} chips free" + "".join(f"; {lack}" for lack in server.lacks)
                found.append(_Frame(f"UltraServer {name}", note, server.state == "Degraded", tuple(nodes)))
            else:
                found.append(_Frame("", "", not nodes[0].ready, tuple(nodes)))
        yield " › ".join(layers), found


def _draw(frame: _Frame, colours: dict[str, str], *, small: bool) -> tuple[int, int, str]:
    """A frame: its width, its height, and what is in it."""
    boxes = [_dot(node) if small else _box(node, colours) for node in frame.nodes]
    top = (0 if small else 40) if frame.title else 0
    inner = 4 if small else 10
    columns = len(boxes) if len(boxes) <= 4 else 6
    wide, high = max(box[0] for box in boxes), max(box[1] for box in boxes)
    parts = []
    for number, (_, _, drawn) in enumerate(boxes):
        x = inner + (number % columns) * (wide + inner)
        y = top + inner + number // columns * (high + inner)
        parts.append(f'<g transform="translate({x},{y})">{drawn}</g>')
    width = inner + min(columns, len(boxes)) * (wide + inner)
    height = top + inner + -(-len(boxes) // columns) * (high + inner)
    title = f"{frame.title}: {frame.note}" if frame.title else frame.nodes[0].name
    stroke = BROKEN if frame.degraded else "#90a4ae"
    outline = f'<rect width="{width}" height="{height}" rx="6" fill="#fafafa" stroke="{stroke}"/>'
    heading = ""
    if top:
        cut = max(8, width // 7)
        fill = BROKEN if frame.degraded else "#607d8b"
        heading = _text(inner, 18, _short(frame.title, cut), size=12, weight="bold")
        heading += _text(inner, 33, _short(frame.note, cut + 2), size=11, fill=fill)
    return width, height, f"<title>{escape(title)}</title>{outline}{heading}{''.join(parts)}"


def _box(node: NodeView, colours: dict[str, str]) -> tuple[int, int, str]:
    """A node with a square for each chip."""
    columns = 4
    rows = max(1, -(-len(node.chips) // columns))
    width = max(columns * (CHIP + SPACE) + 13, 132)
    height = 38 + rows * (CHIP + SPACE)
    number = "" if node.position is None else f"{node.position} "
    state = f"{node.free} free" if node.ready else "not ready"
    stroke = "#cfd8dc" if node.ready else BROKEN
    parts = [
        f'<rect width="{width}" height="{height}" rx="4" fill="#ffffff" stroke="{stroke}"/>',
        f"<title>{escape(_describe(node))}</title>",
        _text(8, 15, _short(f"{number}{node.name}", 17), size=11, weight="bold"),
        _text(8, 28, state, size=10, fill="#607d8b" if node.ready else BROKEN),
    ]
    places = [(8 + n % columns * (CHIP + SPACE), 34 + n // columns * (CHIP + SPACE)) for n in range(len(node.chips))]
    for chip, (x, y) in zip(node.chips, places, strict=True):
        parts.append(f'<g transform="translate({x},{y})">{_chip(chip, colours)}</g>')
    for one, other, fault in node.links:
        (x, y), (to_x, to_y) = ((x + CHIP // 2, y + CHIP // 2) for x, y in (places[one], places[other]))
        title = f"<title>{escape(f'link of chips {one} and {other}: down; {fault}')}</title>"
        line = f'd="M{x} {y}L{to_x} {to_y}" stroke="{BROKEN}" stroke-width="2.5" stroke-dasharray="3 2"'
        parts.append(f"<path {line}>{title}</path>")
    if node.elsewhere:
        said = f"+{node.unnumbered} used"
        parts.append(_text(8 + columns * (CHIP + SPACE) + 4, 46, said, size=9, fill="#607d8b"))
    return width, height, "".join(parts)


def _chip(chip: Chip, colours: dict[str, str]) -> str:
    who = ", ".join(chip.held_by)
    words = [f"chip {chip.number}: {chip.state}", *([who] if who else []), *chip.faults]
    title = f"<title>{escape('; '.join(words))}</title>"
    fill = colours[chip.held_by[0]] if chip.held_by else FREE
    square = f'<rect width="{CHIP}" height="{CHIP}" rx="2" fill="{{}}" stroke="#b0bec5" stroke-width="0.5"/>'
    if chip.state == "cut":
        half = f'<path d="M0 {CHIP}L{CHIP} 0V{CHIP}Z" fill="{fill}"/>'
        return title + square.format(FREE) + half
    if chip.state == "broken":
        cross = f'<path d="M3 3L{CHIP - 3} {CHIP - 3}M{CHIP - 3} 3L3 {CHIP - 3}" stroke="{BROKEN}" stroke-width="2.5"/>'
        return title + square.format(fill if chip.held_by else "#ffffff") + cross
    if chip.state == "unlinked":
        slash = f'<path d="M{CHIP - 3} 3L3 {CHIP - 3}" stroke="{BROKEN}" stroke-width="2.5"/>'
        return title + square.format(fill if chip.held_by else "#ffffff") + slash
    return title + square.format(fill)


def _dot(node: NodeView) -> tuple[int, int, str]:
    """A node as one square, filled from below as far as it is used."""
    used = 1 - node.free / len(node.chips) if node.chips else 0
    high = round(CHIP * used)
    broken = not node.ready or any(chip.closed for chip in node.chips)
    stroke = f'stroke="{BROKEN}" stroke-width="1.5"' if broken else 'stroke="#b0bec5" stroke-width="0.5"'
    return (
        CHIP,
        CHIP,
        f"<title>{escape(_describe(node))}</title>"
        f'<rect width="{CHIP}" height="{CHIP}" fill="{FREE}"/>'
        f'<rect y="{CHIP - high}" width="{CHIP}" height="{high}" fill="{HOLDERS[0]}"/>'
        f'<rect width="{CHIP}" height="{CHIP}" fill="none" {stroke}/>',
    )


def _describe(node: NodeView) -> str:
    holders = dict.fromkeys(holder for chip in node.chips for holder in chip.held_by)
    words = [f"{node.name}: {node.instance_type}, pool {node.pool}, {node.free} of {len(node.chips)} chips free"]
    words += [*holders, *node.elsewhere, *node.cards]
    return "; ".join(words if node.ready else [*words, f"not ready: {node.why}"])


def _legend(colours: dict[str, str], *, small: bool) -> Iterator[str]:
    if small:
        yield _text(MARGIN, 54, "A square is a node, filled as far as it is used; red: not ready or broken", size=12)
        return
    entries: list[tuple[str, str]] = [(holder, colour) for holder, colour in colours.items() if colour != OTHERS]
    entries += [("others", OTHERS)] if len(colours) > LEGEND else []
    marks: Sequence[tuple[str, Chip]] = (
        ("free", Chip(0)),
        ("cut into cores", Chip(0, ["-"], cores=True)),
        ("a link is down", Chip(0, closed=True, unlinked=True)),
        ("broken", Chip(0, closed=True)),
    )
    drawn = [(text, _chip(chip, {"-": OTHERS})) for text, chip in marks]
    drawn += [(holder, _chip(Chip(0, [holder]), {holder: colour})) for holder, colour in entries]
    for number, (text, square) in enumerate(drawn):
        x, y = MARGIN + number % 5 * 228, 50 + number // 5 * 22
        yield f'<g transform="translate({x},{y})">{square}{_text(CHIP + 6, 12, _short(text, 30), size=12)}</g>'


def _text(x: int, y: int, text: str, *, size: int, weight: str = "normal", fill: str = "#263238") -> str:
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" font-weight={quoteattr(weight)} fill="{fill}">{escape(text)}</text>'
    )


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
