"""Strict reading of the catalogue's rows: every key is asked for, none is left over.

A typing error in a data file must not become a default value three layers on, so a missing key, an unknown
key and a value of another type all fail at load time, with the file and the row in the message.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")

BANDWIDTH_UNITS = {"GB/s": 10**9, "GiB/s": 2**30, "TB/s": 10**12}


class CatalogError(Exception):
    """A data file of the catalogue is wrong; the message says which row and what about it."""


class Row:
    """One TOML table that is being read: remembers where it stands and which keys were taken."""

    __slots__ = ("_table", "where")

    def __init__(self, table: Mapping[str, Any], where: str) -> None:
        self._table = dict(table)
        self.where = where

    def text(self, key: str) -> str:
        """Take a string."""
        value: str = self._take(key, str, "a string")
        return value

    def integer(self, key: str) -> int:
        """Take an integer."""
        value: int = self._take(key, int, "an integer")
        return value

    def number(self, key: str) -> float:
        """Take an integer or a float."""
        return float(self._take(key, (int, float), "a number"))

    def integers(self, key: str) -> tuple[int, ...]:
        """Take an array of integers."""
        return self._array(key, int, "integers")

    def texts(self, key: str) -> tuple[str, ...]:
        """Take an array of strings."""
        return self._array(key, str, "strings")

    def optional_text(self, key: str) -> str | None:
        """Take a string that the row may leave out."""
        return self.text(key) if key in self._table else None

    def optional_texts(self, key: str) -> tuple[str, ...]:
        """Take an array of strings; empty when the row leaves it out."""
        return self.texts(key) if key in self._table else ()

    def bandwidth(self, key: str) -> int:
        """Take a bandwidth written with its unit, as the sources print it, in bytes a second."""
        value = self.text(key)
        figure, _, unit = value.partition(" ")
        try:
            return round(float(figure) * BANDWIDTH_UNITS[unit])
        except (KeyError, ValueError):
            wanted = " or ".join(BANDWIDTH_UNITS)
            raise self.error(f"{key} must be a figure and {wanted}, not {value!r}") from None

    def texts_by_name(self, key: str) -> dict[str, str]:
        """Take a table whose keys are data themselves and whose values are strings."""
        return self._mapping(key, str, "a string")

    def numbers_by_name(self, key: str) -> dict[str, float]:
        """Take a table whose keys are data themselves and whose values are numbers."""
        return {name: float(value) for name, value in self._mapping(key, (int, float), "a number").items()}

    def integer_arrays(self, key: str) -> tuple[tuple[int, ...], ...]:
        """Take an array of arrays of integers."""
        return tuple(self._integer_array(key, part) for part in self._take(key, list, "an array"))

    def table(self, key: str) -> "Row":
        """Take a table, to be read as a row of its own."""
        return Row(self._take(key, dict, "a table"), f"{self.where}: {key}")

    def rows(self, key: str) -> Iterator["Row"]:
        """Take an array of tables, each to be read as a row of its own; absent is empty, as TOML has it."""
        tables = self._take(key, list, "an array of tables") if key in self._table else []
        seen = set()
        for position, table in enumerate(tables):
            if not isinstance(table, dict):
                raise self.error(f"{key}[{position}] must be a table, not {table!r}")
            name = table.get("name", table.get("version", position))
            if name in seen:
                raise self.error(f"{key}[{name}] is listed twice")
            seen.add(name)
            yield Row(table, f"{self.where}: {key}[{name}]")

    def error(self, problem: str) -> CatalogError:
        """An error that names this row."""
        return CatalogError(f"{self.where}: {problem}")

    def done(self) -> None:
        """Fail if the row has keys that nobody asked for."""
        if self._table:
            raise self.error(f"unknown key {', '.join(sorted(self._table))}")

    def _mapping(self, key: str, kind: type | tuple[type, ...], what: str) -> dict[str, Any]:
        table: dict[str, Any] = self._take(key, dict, "a table")
        for name, value in table.items():
            if not _is(value, kind):
                raise self.error(f"{key}.{name} must be {what}, not {value!r}")
        return table

    def _array(self, key: str, kind: type[T], plural: str) -> tuple[T, ...]:
        values = self._take(key, list, f"an array of {plural}")
        for value in values:
            if not _is(value, kind):
                raise self.error(f"{key} must be an array of {plural}, not {values!r}")
        return tuple(values)

    def _integer_array(self, key: str, value: object) -> tuple[int, ...]:
        if not isinstance(value, list) or not all(_is(part, int) for part in value):
            raise self.error(f"{key} must be an array of arrays of integers, not {value!r}")
        return tuple(value)

    def _take(self, key: str, kind: type | tuple[type, ...], what: str) -> Any:
        if key not in self._table:
            raise self.error(f"missing key {key}")
        value = self._table.pop(key)
        if not _is(value, kind):
            raise self.error(f"{key} must be {what}, not {value!r}")
        return value


@contextmanager
def reading(row: Row) -> Iterator[Row]:
    """Read a row to its end: on leaving, nothing may be left over."""
    yield row
    row.done()


def _is(value: object, kind: type | tuple[type, ...]) -> bool:
    # bool is a subclass of int; a figure that reads `true` is a typing error.
    return isinstance(value, kind) and not isinstance(value, bool)
