"""The library could be published as it is: it imports nothing of the project around it, and only what it says."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from neuron_dra_driver import kubeletplugin

FOLDER = Path(kubeletplugin.__file__).parent


def test_no_module_reaches_outside_of_the_library() -> None:
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.level < 2, f"{path.name}:{node.lineno}"
                assert node.level == 1 or not (node.module or "").startswith("neuron"), f"{path.name}:{node.lineno}"
            if isinstance(node, ast.Import):
                assert not [a.name for a in node.names if a.name.startswith("neuron")], f"{path.name}:{node.lineno}"


def test_importing_it_takes_grpc_and_protobuf_and_nothing_else() -> None:
    script = (
        "import sys\n"
        "before = set(sys.modules)  # a distribution's Python may have imported something of its own\n"
        "import neuron_dra_driver.kubeletplugin as library\n"
        "assert all(hasattr(library, name) for name in library.__all__)\n"
        "roots = {name.partition('.')[0] for name in sys.modules.keys() - before} - set(sys.stdlib_module_names)\n"
        "print(*sorted(name for name in roots if not name.startswith('_')))\n"
        "print(*sorted(name for name in sys.modules if name.startswith('neuron')))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    third_party, ours = (line.split() for line in done.stdout.splitlines())
    grpcs_own = {"grpc_tools", "typing_extensions", "cython_runtime"}
    assert set(third_party) - grpcs_own == {"grpc", "google", "neuron_dra_driver"}
    assert [name for name in ours if not name.startswith("neuron_dra_driver.kubeletplugin")] == ["neuron_dra_driver"]
