"""Which modules the tools load, and their compiled copies.

Following import statements finds four hundred modules (``os`` mentions ``subprocess``, and so on to
``tkinter``). So the tools are imported for once, and what the interpreter loaded for that is what the tree
gets; what is loaded only later, in some run, is named in LOADED_LATE.
"""

from __future__ import annotations

import json
import py_compile
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

STDLIB_NAME = f"python{sys.version_info.major}.{sys.version_info.minor}"
OWN_PACKAGE = "neuron_runtime"
MODEL_PACKAGE = "neuron_device_model"

LOADED_LATE = (
    "encodings.ascii",  # by the interpreter's start, depending on the locale of the user's image
    "encodings.latin_1",
    "encodings.utf_8",
    "json",  # to say what is wrong with a file that is not JSON
    "_random",  # by nccom-test, for its data
    "difflib",  # to name what was meant
    "tomllib",  # for the parameters of the cost model
    "locale",  # by argparse, for its messages
    "textwrap",
)

# -I -S: as the tools are started; a module that only site-packages has must not be found here either
_PROBE = """
import importlib, json, sys
sys.path[:0] = sys.argv[1].split(":")
for name in sys.argv[2:]:
    importlib.import_module(name)
print(json.dumps({
    name: module.__spec__.origin
    for name, module in sys.modules.items()
    if getattr(module, "__spec__", None) and module.__spec__.has_location
}))
"""


@dataclass(frozen=True)
class Module:
    """A module and the file it was loaded from."""

    name: str
    origin: Path

    @property
    def is_extension(self) -> bool:
        """Whether it is a shared library."""
        return self.origin.suffix == ".so"

    @property
    def is_own(self) -> bool:
        """Whether it is of this repository."""
        return self.name.split(".")[0] in (OWN_PACKAGE, MODEL_PACKAGE)

    @property
    def target(self) -> Path:
        """Its source's place below the standard library's folder."""
        path = Path(*self.name.split("."))
        return path / "__init__.py" if self.origin.name == "__init__.py" else path.with_suffix(".py")


def used(tools: Iterable[str], *, folders: Sequence[Path]) -> Sequence[Module]:
    """The modules that the tools load, from the standard library and from our own packages in these folders."""
    paths = ":".join(map(str, folders))
    command = [sys.executable, "-ISB", "-c", _PROBE, paths, *LOADED_LATE, *_in_parts(folders), *tools]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    origins: dict[str, str] = json.loads(output)
    # frozen into the interpreter, but it knows its library's folder by this file
    origins["os"] = str(Path(json.__file__).parents[1] / "os.py")
    return [Module(name, Path(origin)) for name, origin in sorted(origins.items())]


def _in_parts(folders: Iterable[Path]) -> list[str]:
    """The modules of tools that load their parts one by one, when they need them."""
    parts = [path for folder in folders for path in sorted((folder / OWN_PACKAGE).glob("*/*.py"))]
    return [f"{OWN_PACKAGE}.{path.parent.name}.{path.stem}" for path in parts if path.stem != "__init__"]


def install_data(modules: Iterable[Module], *, stdlib: Path) -> None:
    """The files beside our modules that these read."""
    for folder in sorted({(m.origin.parent, m.target.parent) for m in modules if m.is_own}):
        for data in sorted(folder[0].iterdir()):
            if data.suffix in (".toml", ".json"):
                shutil.copyfile(data, stdlib / folder[1] / data.name)


def install(module: Module, *, stdlib: Path) -> None:
    """Write a pure module into the tree.

    The tree is read-only and of another user when it is used, so nothing can be compiled then, and sources
    have no known age: hence code that is never checked against a source. The standard library goes without
    sources; ours come along for people to read.
    """
    target = stdlib / module.target
    target.parent.mkdir(parents=True, exist_ok=True)
    if module.is_own:
        shutil.copyfile(module.origin, target)
        tag = sys.implementation.cache_tag
        compiled = target.parent / "__pycache__" / f"{target.stem}.{tag}.pyc"
    else:
        compiled = target.with_suffix(".pyc")
    py_compile.compile(
        str(module.origin),
        cfile=str(compiled),
        dfile=f"{STDLIB_NAME}/{module.target}",
        doraise=True,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
