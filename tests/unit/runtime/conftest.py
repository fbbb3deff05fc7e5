"""A container's file system as the tools see it: claims under run/, processes under proc/, devices under dev/."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from neuron_runtime import neuron_ls

HERE = Path(__file__).parent


class Container:
    """Folders to fill, and the tool run on them."""

    def __init__(self, root: Path) -> None:
        self.run_root = root / "run"
        self.proc_root = root / "proc"
        self.dev_root = root / "dev"
        for folder in (self.run_root, self.proc_root, self.dev_root):
            folder.mkdir()

    def add_view(self, view: dict[str, Any] | str, *, claim: str = "claim", request: str = "neuron") -> Path:
        folder = self.run_root / claim / request
        folder.mkdir(parents=True)
        path = folder / "view.json"
        path.write_text(view if isinstance(view, str) else json.dumps(view))
        if not isinstance(view, str):
            self._lay_core_files(folder, view)
        return path

    def _lay_core_files(self, folder: Path, view: dict[str, Any]) -> None:
        """What the node agent lays beside a view."""
        (folder / "cores").mkdir()
        for device in view["devices"]:
            for core in device["core_ids"]:
                (folder / "cores" / str(core)).touch(mode=0o444)

    def add_process(
        self, pid: int, *command: str, devices: Sequence[int] = (), maps: str = "/usr/lib/libnrt.so.2.34.10.0"
    ) -> Path:
        folder = self.proc_root / str(pid)
        (folder / "fd").mkdir(parents=True)
        (folder / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in command))
        (folder / "maps").write_text(f"7f00-7f01 r-xp 00000000 00:01 1  {maps}\n")
        (folder / "fd" / "0").symlink_to("/dev/null")
        for fd, device in enumerate(devices, start=3):
            (folder / "fd" / str(fd)).symlink_to(f"/dev/neuron{device}")
        return folder

    def neuron_ls(
        self, *arguments: str, stderr_is_terminal: bool = False, proc_root: Path | None = None
    ) -> neuron_ls.Result:
        return neuron_ls.run(
            arguments,
            run_root=str(self.run_root),
            proc_root=str(proc_root or self.proc_root),
            dev_root=str(self.dev_root),
            stderr_is_terminal=stderr_is_terminal,
        )


@pytest.fixture
def container(tmp_path: Path) -> Container:
    return Container(tmp_path)


@pytest.fixture
def saved_view() -> Any:
    """The named view of the folder views/, parsed."""

    def load(name: str) -> dict[str, Any]:
        view: dict[str, Any] = json.loads((HERE / "views" / f"{name}.json").read_text())
        return view

    return load


@pytest.fixture
def some_of(saved_view: Any) -> Any:
    """The view of a container that was given some devices of a machine, by their host numbers."""

    def cut(name: str, *hosts: int, first_index: int = 0) -> dict[str, Any]:
        view: dict[str, Any] = saved_view(name)
        devices = []
        for index, host in enumerate(hosts, start=first_index):
            device = next(d for d in view["devices"] if d["host_index"] == host)
            cores = device["core_count"]
            devices.append(device | {"index": index, "core_ids": list(range(index * cores, (index + 1) * cores))})
        return view | {"devices": devices}

    return cut
