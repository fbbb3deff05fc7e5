"""Where the rows come from: TOML files for those who review them, one JSON file for those who start.

Parsing the TOML is most of what loading the catalogue costs, and an agent pays it on each start. So `make generate`
writes what the TOML files hold into compiled.json, which loads forty times as fast, and `make lint` fails when the two
differ. The catalogue itself is read as TOML by the compiler and the tests only.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

from neuron_device_model.catalog.rows import CatalogError, Row

DATA = Path(__file__).parent
COMPILED = DATA / "compiled.json"
"""File name of each TOML file to what it holds."""


def document(name: str) -> Row:
    """The top-level table of a data file, as it was compiled."""
    return Row(_compiled()[name], name)


@cache
def _compiled() -> dict[str, Any]:
    tables: dict[str, Any] = json.loads(COMPILED.read_bytes())
    return tables


def parse(path: Path) -> Row:
    """The top-level table of a TOML file."""
    return Row(tables(path), path.name)


def tables(path: Path) -> dict[str, Any]:
    """What a TOML file holds."""
    import tomllib  # the agent does without

    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except tomllib.TOMLDecodeError as error:
        raise CatalogError(f"{path.name}: {error}") from error
