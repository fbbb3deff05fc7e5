"""A page of metrics as OpenMetrics, for those who ask for it: Prometheus itself, and OpenTelemetry's receivers.

AWS's script speaks both, and what comes out differs by more than the syntax: only OpenMetrics knows information as a
type, and the CloudWatch agent finds the hardware by the name that `neuron_hardware_info` then has, `neuron_hardware`.
Families differ in their heads, so the page is made once, as plain text, and its heads are rewritten. When counts began
is a family of its own in one format, and a second sample of each series in the other.
"""

import re
from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
END = b"# EOF\n"

_ACCEPTED = re.compile(rb"^accept:[^\r]*\bapplication/openmetrics-text\b", re.MULTILINE | re.IGNORECASE)
_TOTAL, _CREATED, _INFO = b"_total", b"_created", b"_info"


class _Family(NamedTuple):
    name: bytes
    kind: bytes
    text: bytes
    lines: bytes


def is_accepted(head: bytes) -> bool:
    """Whether a request's head asks for it. Who can read it prefers it, whatever the weights."""
    return _ACCEPTED.search(head) is not None


def converted(page: bytes) -> bytes:
    """A page in Prometheus' text format 0.0.4, or a part of it that begins with a head, as OpenMetrics.

    Its counters end with `_total`. After the whole page comes END.
    """
    families = {family.name: family for family in _families(page)}
    begins = {
        name: families.pop(created)
        for name in list(families)
        if name.endswith(_TOTAL) and (created := name.removesuffix(_TOTAL) + _CREATED) in families
    }
    return b"".join(_written(family, begins.get(family.name)) for family in families.values())


def _families(page: bytes) -> Iterator[_Family]:
    # no label has a newline in it, so no sample has this
    for piece in (b"\n" + page.removesuffix(b"\n")).split(b"\n# HELP ")[1:]:
        said, kind, *lines = piece.split(b"\n", 2)
        name, _, text = said.partition(b" ")
        yield _Family(name, kind.rpartition(b" ")[2], text, lines[0] + b"\n" if lines else b"")


def _written(family: _Family, begins: _Family | None) -> bytes:
    name, kind, text, lines = family
    if kind == b"counter":
        name = name.removesuffix(_TOTAL)
    elif name.endswith(_INFO):
        name, kind = name.removesuffix(_INFO), b"info"
    if begins:
        pairs = zip(lines.splitlines(keepends=True), begins.lines.splitlines(keepends=True), strict=True)
        lines = b"".join(chain.from_iterable(pairs))
    return b"# HELP %b %b\n# TYPE %b %b\n%b" % (name, text, name, kind, lines)
