"""What this container was given, as one machine.

The node agent writes one view per claim request, so that two claims in one container cannot overwrite one
another; a tool shows a person one machine. So the views are merged here, and devices that carry the same
number in two views are numbered anew. How they are found, read and numbered is the business of `nrt`, which
has to know it on its own.
"""

from __future__ import annotations

from neuron_runtime import json_text, nrt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from neuron_device_model.view import View

    from neuron_runtime.nrt import Fault, Given

RUN_ROOT = nrt.RUN_ROOT


def given(run_root: str = RUN_ROOT) -> Given:
    """The folders of every claim of this container, and their views. Raises nrt.ViewError."""
    return nrt.given_views(run_root, parse=json_text.parse)


def visible(given: Given) -> Given:
    """The same without what the driver does not show any more: lost devices, and links that are down."""
    return [(folder, _visible(view, nrt.given_faults(folder, parse=json_text.parse))) for folder, view in given]


def _visible(view: View, faults: Sequence[Fault]) -> View:
    if not faults:
        return view
    lost = {device for fault in faults if fault["at_open"] for device in fault["devices"]}
    down = [set(fault["link"]) for fault in faults if "link" in fault]
    changed = view.copy()
    changed["devices"] = []
    for device in view["devices"]:
        if device["index"] not in lost:
            copy = device.copy()
            linked = [peer for peer in device["connected"] or () if {device["host_index"], peer} not in down]
            copy["connected"] = linked or None
            changed["devices"].append(copy)
    return changed


def merge(views: Sequence[View]) -> View | None:
    """One view of all devices, None where there is none."""
    devices = nrt.numbered_together([device for view in views for device in view["devices"]])
    if not devices:
        return None
    merged = views[0].copy()
    merged["devices"] = sorted(devices, key=lambda device: device["index"])
    return merged
