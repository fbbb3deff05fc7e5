"""JSON in and out as these tools need it, without importing the ``json`` package.

The package pulls in ``re`` and ``enum``, which take longer to load than the whole interpreter does to start.
Reading uses the C scanner that the package itself uses; writing must look like Go's
``json.MarshalIndent(v, "", "    ")``, which the package cannot do anyway.
"""

from __future__ import annotations

from _json import encode_basestring, make_scanner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


class _ScannerOptions:
    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float


# ``encoding/json`` escapes these in every string, so that its output can stand inside HTML.
_GO_ESCAPES = {
    ord("<"): "\\u003c",
    ord(">"): "\\u003e",
    ord("&"): "\\u0026",
    0x2028: "\\u2028",
    0x2029: "\\u2029",
}


def parse(text: str) -> Any:
    """The value of a JSON document; ValueError, saying where, if it is none."""
    text = text.strip()
    try:
        # typeshed gives the options the scanner's own type
        value, end = make_scanner(_ScannerOptions())(text, 0)  # type: ignore[arg-type]
        if end == len(text):
            return value
    except (StopIteration, SystemError):
        # the scanner leaves the saying to the package, and is lost where that is not loaded
        pass
    import json

    return json.loads(text)


def render(value: object, *, indent: str = "") -> str:
    """The value as Go's encoder prints it with four spaces of indent, no newline at the end."""
    inner = indent + "    "
    if isinstance(value, str):
        return encode_basestring(value).translate(_GO_ESCAPES)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, dict):
        return _block("{", "}", [f"{render(k)}: {render(v, indent=inner)}" for k, v in value.items()], indent)
    if isinstance(value, list):
        return _block("[", "]", [render(item, indent=inner) for item in value], indent)
    raise TypeError(f"not a JSON value: {value!r}")


def compact(value: object) -> str:
    """The value as Go's encoder prints it in one line."""
    if isinstance(value, float):
        # Go writes no point where there is nothing after it, and no exponent above 1e-6
        text = f"{value:.9f}".rstrip("0").rstrip(".") if 1e-6 <= abs(value) < 1e15 else repr(value)
        return str(int(value)) if value == int(value) else text
    if isinstance(value, dict):
        return "{" + ",".join(f"{render(key)}:{compact(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(compact, value)) + "]"
    return render(value)


def _block(opening: str, closing: str, items: Sequence[str], indent: str) -> str:
    if not items:
        return opening + closing
    return f"{opening}\n" + ",\n".join(f"{indent}    {item}" for item in items) + f"\n{indent}{closing}"
