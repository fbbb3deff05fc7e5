"""Compile the catalogue: `python -m neuron_device_model.catalog.compile` writes compiled.json. See `documents`."""

import json

from neuron_device_model.catalog.documents import COMPILED, DATA, tables


def compiled() -> str:
    """What compiled.json should hold: every data file's tables, by the file's name."""
    return json.dumps({path.name: tables(path) for path in sorted(DATA.glob("*.toml"))}, indent=1) + "\n"


if __name__ == "__main__":
    COMPILED.write_text(compiled())
