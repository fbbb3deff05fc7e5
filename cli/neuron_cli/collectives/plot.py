"""Time and bus bandwidth over size, both axes logarithmic: drawn with characters, and as SVG.

Each algorithm has a letter and a colour of its own, so that one sees where the runtime changes from one to the next.
"""

import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

from neuron_device_model.collectives.model import Estimate

from neuron_cli.collectives.sweep import shown_size

COLUMNS, LINES = 64, 10
WIDTH, HEIGHT, PANEL = 960, 420, 380
LEFT, TOP, BOTTOM = 70, 60, 60
COLOURS = ("#4477aa", "#ee8866", "#228833", "#aa3377", "#ccbb44", "#66ccee", "#9970ab", "#78909c")


def terminal(found: Sequence[Estimate]) -> str:
    """Time and bus bandwidth over size, one below the other; the letters are the algorithms'."""
    letters = {name: chr(ord("a") + number) for number, name in enumerate(_algorithms(found))}
    marks = [letters[answer.algorithm] for answer in found]
    first, last = shown_size(found[0].size), shown_size(found[-1].size)
    axis = f"{' ' * 10}└{'─' * COLUMNS}"
    return "\n".join(
        [
            *("time, µs", *_characters([answer.time_us for answer in found], marks), axis),
            *("busbw, GB/s", *_characters([answer.busbw for answer in found], marks), axis),
            f"{' ' * 11}{first}{last:>{COLUMNS - len(first)}}",
            f"{' ' * 11}{', '.join(f'{letter} {name}' for name, letter in letters.items())}",
        ]
    )


def _characters(values: Sequence[float], marks: Sequence[str]) -> list[str]:
    """A mark for each value, and what some lines stand for."""
    low, high = _range(values)
    grid = [[" "] * COLUMNS for _ in range(LINES)]
    for number, (value, mark) in enumerate(zip(values, marks, strict=True)):
        column = round(number * (COLUMNS - 1) / max(len(values) - 1, 1))
        grid[round((1 - _share(value, low, high)) * (LINES - 1))][column] = mark
    labels = [f"{_at(1 - line / (LINES - 1), low, high):9.2f}" if not line % 3 else " " * 9 for line in range(LINES)]
    return [f"{label} │{''.join(line).rstrip()}" for label, line in zip(labels, grid, strict=True)]


def svg(found: Sequence[Estimate], *, switches: Sequence[tuple[int, str]], title: str) -> str:
    """Two panels, time and bus bandwidth, the algorithms' colours, and a line where one gives way to the next."""
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(_algorithms(found))}
    body = [
        _text(LEFT, 26, title, size=15, weight="bold"),
        *_panel(found, [answer.time_us for answer in found], colours, switches, x=LEFT, unit="time, µs"),
        *_panel(found, [answer.busbw for answer in found], colours, switches, x=LEFT + PANEL + 80, unit="busbw, GB/s"),
    ]
    x = LEFT
    for name, colour in colours.items():
        body.append(f'<circle cx="{x}" cy="{HEIGHT - 14}" r="5" fill="{colour}"/>')
        body.append(_text(x + 10, HEIGHT - 10, name))
        x += 30 + 8 * len(name)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
        ' font-family="Helvetica, Arial, sans-serif">\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>\n' + "\n".join(body) + "\n</svg>\n"
    )


def _panel(
    found: Sequence[Estimate],
    values: Sequence[float],
    colours: dict[str, str],
    switches: Sequence[tuple[int, str]],
    *,
    x: int,
    unit: str,
) -> list[str]:
    low, high = _range(values)
    tall = HEIGHT - TOP - BOTTOM
    smallest, largest = _range([answer.size for answer in found])

    def place(answer: Estimate, value: float) -> tuple[float, float]:
        return x + _share(answer.size, smallest, largest) * PANEL, TOP + (1 - _share(value, low, high)) * tall

    points = [place(answer, value) for answer, value in zip(found, values, strict=True)]
    drawn = [
        f'<path d="M{x},{TOP} V{TOP + tall} H{x + PANEL}" fill="none" stroke="#607d8b"/>',
        _text(x, TOP - 12, unit),
        _text(x, TOP + tall + 18, shown_size(found[0].size)),
        _text(x + PANEL, TOP + tall + 18, shown_size(found[-1].size), anchor="end"),
    ]
    for step in range(5):
        y = TOP + (1 - step / 4) * tall
        drawn.append(f'<path d="M{x},{y:.1f} h{PANEL}" stroke="#eceff1"/>')
        drawn.append(_text(x - 6, y + 4, _short(_at(step / 4, low, high)), anchor="end"))
    for size, name in switches[1:]:
        at = x + _share(size, smallest, largest) * PANEL
        words = f"<title>{escape(name)} from {shown_size(size)}</title>"
        drawn.append(
            f'<path d="M{at:.1f},{TOP} v{tall}" stroke="{colours[name]}" stroke-dasharray="4 3">{words}</path>'
        )
        drawn.append(_text(at - 3, TOP + 10, f"over {_rounded(size)}", size=10, anchor="end"))
    line = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
    drawn.append(f'<polyline points="{line}" fill="none" stroke="#b0bec5"/>')
    for (px, py), answer in zip(points, found, strict=True):
        words = f"{shown_size(answer.size)}: {answer.time_us:.2f} µs, {answer.busbw:.2f} GB/s, {answer.algorithm}"
        drawn.append(
            f'<circle cx="{px:.1f}" cy="{py:.1f}" r="4" fill="{colours[answer.algorithm]}">'
            f"<title>{escape(words)}</title></circle>"
        )
    return drawn


def _text(x: float, y: float, words: str, *, size: int = 12, weight: str = "normal", anchor: str = "start") -> str:
    return (
        f'<text x="{x}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" fill="#263238">'
        f"{escape(words)}</text>"
    )


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _rounded(size: int) -> str:
    """A size that is a few bytes more than this, or this one."""
    return shown_size(size - size % (1 << 10 if size > 1 << 16 else 1))


def _algorithms(found: Sequence[Estimate]) -> list[str]:
    return list(dict.fromkeys(answer.algorithm for answer in found))


def _range(values: Sequence[float]) -> tuple[float, float]:
    """The least and the largest, in logarithms; a group of one rank has a bus bandwidth of 0."""
    logs = [math.log(max(value, 1e-9)) for value in values]
    return min(logs), max(logs)


def _share(value: float, low: float, high: float) -> float:
    return (math.log(max(value, 1e-9)) - low) / (high - low) if high > low else 0.5


def _at(share: float, low: float, high: float) -> float:
    return math.exp(low + share * (high - low))
