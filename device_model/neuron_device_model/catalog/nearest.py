"""What to say when a name is not in the catalogue."""

from collections.abc import Iterable


def not_known(what: str, name: str, known: Iterable[str]) -> str:
    """A sentence that names the nearest known name and then all of them."""
    from difflib import get_close_matches  # only for those who mistyped: tools in containers load this module, too

    names = list(known)
    nearest = get_close_matches(name.lower(), names, n=1, cutoff=0.0)
    hint = f"did you mean {nearest[0]}? " if nearest else ""
    return f"unknown {what} {name!r}: {hint}Known: {', '.join(names) or 'none'}"
