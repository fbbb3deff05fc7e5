"""Builds the folder that is mounted read-only at /opt/aws/neuron into any container: the tools and a Python.

Problem: the tools must run in images that have no Python, no libc and no shell. So this machine's CPython is
copied and bent (patchelf) to a dynamic loader and libraries beside it, with just those modules of the standard
library that the tools load, compiled. One run per image build; the same inputs give the same bytes, so that
the content hash names the tree on the nodes.

Two files are for the Python of the user's image, if it has one: ``python-client`` is a folder for its PYTHONPATH.

The loader and the libraries lie in ``python/lib`` and not in ``lib``: AWS's images set LD_LIBRARY_PATH to
/opt/aws/neuron/lib, and a libc found there would break every other program of such a container.

    python3 runtime/tree/build.py --output DIR [--python PATH]

Needs ``patchelf`` and ``ldd`` on the PATH, and a CPython 3.11 or newer that is linked against glibc.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import shutil
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

import elf
import modules

MOUNTED_AT = Path("/opt/aws/neuron")
TOOLS = {
    "nccom-test": "neuron_runtime.nccom_test",
    "neuron-ls": "neuron_runtime.neuron_ls",
    "neuron-monitor": "neuron_runtime.neuron_monitor",
    "neuron-sim-exec": "neuron_runtime.neuron_sim_exec",
    "neuron-sim-load": "neuron_runtime.neuron_sim_load",
    "neuron-sim-serve": "neuron_runtime.neuron_sim_serve",
    "neuron-sim-sysfs": "neuron_runtime.neuron_sim_sysfs",
    "neuron-sim-train": "neuron_runtime.neuron_sim_train",
    "neuron-top": "neuron_runtime.neuron_top",
}
CLIENTS = {"neuron_sim_nrt.py": "nrt.py", "neuron_sim_activity.py": "activity.py"}
RUNTIME = Path(__file__).resolve().parents[1]
MODEL = RUNTIME.parent / "device_model"
PYPROJECT = RUNTIME.parent / "pyproject.toml"

# -I: neither the user's PYTHON* environment nor their folders; -S: no site-packages to look for. In one word,
# because the kernel passes everything after the interpreter's path as a single argument.
LAUNCHER = """\
#!{interpreter} -IS
from {module} import main

main()
"""


def main() -> None:
    """Read the command line, build, print the content hash."""
    parser = argparse.ArgumentParser(description="Build the runtime tree for /opt/aws/neuron.")
    parser.add_argument("--output", type=Path, required=True, help="folder to create")
    parser.add_argument("--python", type=Path, default=Path(sys.executable), help="the CPython to relocate")
    arguments = parser.parse_args()
    interpreter = arguments.python.resolve()
    if interpreter != Path(sys.executable).resolve() or sys.prefix != sys.base_prefix:
        # only an interpreter itself, and outside any venv, can say which files are its own
        os.execv(interpreter, [str(interpreter), __file__, "--output", str(arguments.output)])
    for tool in ("patchelf", "ldd"):
        if not shutil.which(tool):
            sys.exit(f"{tool} is missing: install it (Debian: apt-get install patchelf libc-bin)")
    try:
        make_way(arguments.output)
        print(build(arguments.output, interpreter=interpreter))
    except elf.ElfError as error:
        sys.exit(str(error))


def make_way(output: Path) -> None:
    """Remove an older tree; whatever is no tree stays, and stops the build."""
    if output.exists() and any(output.iterdir()):
        if not (output / "VERSION").is_file():
            sys.exit(f"{output} is neither empty nor a runtime tree: give another --output")
        shutil.rmtree(output)


def build(output: Path, *, interpreter: Path) -> str:
    """Write the tree and give its content hash."""
    used = modules.used(TOOLS.values(), folders=(RUNTIME, MODEL))
    stdlib = output / "python" / "lib" / modules.STDLIB_NAME
    for module in used:
        if not module.is_extension:
            modules.install(module, stdlib=stdlib)
    modules.install_data(used, stdlib=stdlib)
    install_binaries(output, interpreter=interpreter, extensions=[m.origin for m in used if m.is_extension])
    install_launchers(output)
    clients = output / "python-client"
    clients.mkdir()
    for name, source in CLIENTS.items():
        shutil.copyfile(RUNTIME / modules.OWN_PACKAGE / source, clients / name)
    digest = content_hash(output)
    version = tomllib.loads(PYPROJECT.read_text())["project"]["version"]
    (output / "VERSION").write_text(
        f"neuron-sim {version}\npython {platform.python_version()}\nmachine {platform.machine()}\ncontent {digest}\n"
    )
    for path in [output, *output.rglob("*")]:
        executable = path.is_dir() or path.parent.name == "bin" or path.name.startswith("ld-")
        path.chmod(0o755 if executable else 0o644)
    return digest


def install_binaries(output: Path, *, interpreter: Path, extensions: Sequence[Path]) -> None:
    """The interpreter, its loader, its extension modules, and every library that any of them needs."""
    libraries = output / "python" / "lib"
    search = MOUNTED_AT / libraries.relative_to(output)
    # the interpreter complains at every start where this folder is missing, be it empty or not
    dynload = libraries / modules.STDLIB_NAME / "lib-dynload"
    dynload.mkdir()
    executable = output / "python" / "bin" / "python3"
    executable.parent.mkdir()
    loader = elf.loader(interpreter)
    shutil.copyfile(loader, libraries / loader.name)
    elf.copy_executable(interpreter, executable, loader_path=search / loader.name, search=search)
    for extension in extensions:
        elf.copy_library(extension, dynload / extension.name)
    for name, source in elf.libraries([interpreter, *extensions]).items():
        elf.copy_library(source, libraries / name)


def install_launchers(output: Path) -> None:
    """One script per tool."""
    folder = output / "bin"
    folder.mkdir()
    for name, module in TOOLS.items():
        launcher = LAUNCHER.format(interpreter=MOUNTED_AT / "python" / "bin" / "python3", module=module)
        (folder / name).write_text(launcher)


def content_hash(output: Path) -> str:
    """One hash over the names and bytes of all files."""
    digest = hashlib.sha256()
    for path in sorted(path for path in output.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(output)}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


if __name__ == "__main__":
    main()
