"""What this container was given: its view files, found, read and merged.

The node agent writes one view per claim request, so that two claims in one container cannot overwrite one
another; a tool shows a person one machine. So the views are merged here, and devices that carry the same
number in two views are numbered anew. A view of another schema than this side knows is refused.
"""

# pathlib's import takes longer than all of this module's work
# ruff: noqa: PTH110, PTH123, PTH208
from __future__ import annotations

import os

from neuron_runtime import json_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    # the type is the writer's; its module is not in the containers
    from neuron_device_model.view import DeviceView, View

SCHEMA = 1
RUN_ROOT = "/run/neuron-sim"


class ViewError(Exception):
    """A view is there but cannot be used; the message says why and what to do."""


def container_view(run_root: str = RUN_ROOT) -> View | None:
    """The merged view of every claim of this container, None where it holds no device."""
    views = [load(path) for path in find(run_root)]
    merged = merge(views) if views else None
    return merged if merged and merged["devices"] else None


def find(run_root: str) -> list[str]:
    """The paths ``<run root>/<claim uid>/<request>/view.json`` that exist, in the order of their names.

    Raises ViewError where it cannot be known which do.
    """
    paths = []
    for claim in _names(run_root):
        for request in _names(f"{run_root}/{claim}"):
            path = f"{run_root}/{claim}/{request}/view.json"
            if os.path.exists(path):
                paths.append(path)
    return paths


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ViewError(f"{error}: the node agent must leave its views readable to every user") from error


def load(path: str) -> View:
    """One view file. Raises ViewError where it cannot be read."""
    try:
        with open(path, encoding="utf-8") as file:
            view: View = json_text.parse(file.read())
        schema = view["schema"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ViewError(
            f"{path}: not a readable view ({error}): start the pod anew, its node writes it again"
        ) from error
    if schema != SCHEMA:
        raise ViewError(
            f"{path}: schema {schema}, these tools read schema {SCHEMA}: "
            "start the pod anew, so that its tools and its node are of one neuron-sim version"
        )
    return view


def merge(views: Sequence[View]) -> View:
    """One view of all devices: their numbers as given where no two are equal, else numbered in order."""
    first = views[0]
    if len(views) == 1:
        return first
    devices = [device for view in views for device in view["devices"]]
    if len({device["index"] for device in devices}) == len(devices):
        devices.sort(key=lambda device: device["index"])
    else:
        devices = _numbered_in_order(devices)
    merged = first.copy()
    merged["devices"] = devices
    return merged


def _numbered_in_order(devices: Sequence[DeviceView]) -> list[DeviceView]:
    numbered = []
    next_core = 0
    for index, device in enumerate(devices):
        copy = device.copy()
        copy["index"] = index
        copy["core_ids"] = list(range(next_core, next_core + device["core_count"]))
        next_core += device["core_count"]
        numbered.append(copy)
    return numbered
