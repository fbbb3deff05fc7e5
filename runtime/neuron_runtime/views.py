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

    from neuron_runtime.nrt import Given

RUN_ROOT = nrt.RUN_ROOT


def given(run_root: str = RUN_ROOT) -> Given:
    """The folders of every claim of this container, and their views. Raises nrt.ViewError."""
    return nrt.given_views(run_root, parse=json_text.parse)


def merge(views: Sequence[View]) -> View | None:
    """One view of all devices, None where there is none."""
    devices = nrt.numbered_together([device for view in views for device in view["devices"]])
    if not devices:
        return None
    merged = views[0].copy()
    merged["devices"] = sorted(devices, key=lambda device: device["index"])
    return merged
