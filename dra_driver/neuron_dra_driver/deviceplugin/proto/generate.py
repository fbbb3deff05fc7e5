"""Writes the `*_pb2.py` and `*_pb2.pyi` beside the `.proto` files; run it after editing one.

    .venv/bin/python dra_driver/neuron_dra_driver/deviceplugin/proto/generate.py

The include root is `dra_driver`, so that each file's name in the process-wide descriptor pool is its import
path: two files of one short name (every Kubernetes proto is called `api.proto`) could not be loaded together.
No gRPC stubs are generated: a service with five methods is shorter, and typed, as a generic handler.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[2]


def main() -> None:
    """Run protoc over every `.proto` of this folder."""
    sources = sorted(str(path.relative_to(ROOT)) for path in FOLDER.glob("*.proto"))
    protoc = [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={ROOT}"]
    subprocess.run([*protoc, f"--python_out={ROOT}", f"--pyi_out={ROOT}", *sources], check=True)
    for stub in FOLDER.glob("*_pb2.pyi"):
        # protoc writes bare generics, which `mypy --strict` refuses.
        stub.write_text("# mypy: ignore-errors\n" + stub.read_text())


if __name__ == "__main__":
    main()
