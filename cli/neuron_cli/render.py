"""How the commands print: tables for people, JSON for programs, both from the same rows."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import yaml
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from neuron_cli.doctor import Finding

Row = Mapping[str, object]

MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "failed": ("✗", "red"), "unknown": ("?", "yellow")}


def table(rows: Sequence[Row], *, output: str) -> None:
    """Rows that share their keys, the keys as the head."""
    if output == "json":
        print(json.dumps(list(rows), indent=2))
        return
    drawn = _plain()
    for key in rows[0]:
        numbers = all(_is_number(row[key]) or row[key] is None for row in rows)
        drawn.add_column(key.upper().replace("_", " "), justify="right" if numbers else "left")
    for row in rows:
        drawn.add_row(*(_cell(value) for value in row.values()))
    _print(drawn)


def record(fields: Row, *, output: str) -> None:
    """One thing, a line for each field; a field that holds rows becomes a table below."""
    if output == "json":
        print(json.dumps(fields, indent=2))
        return
    drawn = _plain(header=False)
    below: list[Sequence[Row]] = []
    for key, value in fields.items():
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            below.append(value)
        else:
            drawn.add_row(key.replace("_", " "), _cell(value))
    _print(drawn)
    for rows in below:
        print()
        table(rows, output=output)


def manifest(body: Mapping[str, object], *, output: str) -> None:
    """A Kubernetes object."""
    print(json.dumps(body, indent=2) if output == "json" else yaml.safe_dump(dict(body), sort_keys=False).rstrip())


def findings(found: Sequence["Finding"], *, output: str) -> None:
    """What doctor found, each failing line with its fix below it."""
    if output == "json":
        print(json.dumps([asdict(finding) for finding in found], indent=2))
        return
    console = Console()
    width = max(len(finding.check) for finding in found)
    for finding in found:
        mark, colour = MARKS[finding.verdict]
        line = Text.assemble((mark, colour), f" {finding.check:<{width}}  {finding.message}")
        console.print(line, soft_wrap=True)
        if finding.fix:
            console.print(Text(f"  {'':<{width}}  → {finding.fix}", style="bold"), soft_wrap=True)


def drawing(lines: Iterable[Text]) -> None:
    """Lines that are drawn already, none of them folded."""
    console = Console()
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False)


def _plain(*, header: bool = True) -> Table:
    return Table(box=None, show_header=header, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))


def _print(drawn: Table) -> None:
    # Never fold a cell: who pipes a table into grep wants whole lines, and a narrow terminal wraps by itself.
    console = Console()
    unbounded = console.options.update(max_width=sys.maxsize)
    Console(width=max(console.width, Measurement.get(console, unbounded, drawn).maximum)).print(drawn)


def _cell(value: object) -> Text:
    if value is None:
        return Text("-")
    if isinstance(value, list | tuple):
        return Text(", ".join(str(part) for part in value) or "-")
    return Text(str(value))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
