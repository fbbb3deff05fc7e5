"""Keeps the counters of the node's chips, on disk, and tells containers what is broken of what they have.

Counters are written before they are shown, so that no agent after this one shows less. A disk that is full costs that
promise and nothing else. What containers are told is a file beside their view, so that the runtime in them needs no
agent to fail as it should.
"""

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson
from neuron_device_model.faults import lost_chips

from ..errors import DiskError
from ..files import remove, write_atomically
from ..node import SimulatedNode
from .counts import ByChip, Counts
from .effects import cause, ecc, told

FILE = "hardware-counts.json"
TOLD = "faults.json"
FRESH = 1.0
"""Seconds that counters may be old: many ask for them."""

log = logging.getLogger(__name__)


class Hardware:
    """See the module."""

    def __init__(
        self, directory: Path, *, node: Callable[[], SimulatedNode | None], clock: Callable[[], float] = time.time
    ) -> None:
        """`clock`: seconds since the epoch."""
        self._path = directory / FILE
        self._node = node
        self._clock = clock
        self._counts: Counts | None = None
        self._looked = -FRESH

    def counters(self) -> ByChip:
        """The ECC counters of the chips, by the host's numbers; what is not in it is 0."""
        if time.monotonic() - self._looked >= FRESH:
            self.account()
        return self._known().totals()

    def account(self) -> None:
        """Take in what the faults of the node have counted until now."""
        node = self._node()
        if node is None:
            return
        self._looked = time.monotonic()
        now = self._clock()
        counts = self._known()
        if counts.account({cause(fault): ecc(fault, node.instance_type, now=now) for fault in node.faults}):
            try:
                write_atomically(self._path, orjson.dumps(counts.as_record()))
            except DiskError as error:
                log.warning("the ECC counters are not kept: %s", error)

    def of_view(self, view: Mapping[str, Any]) -> dict[str, dict[str, int]]:
        """The counters of a view's devices, by their numbers in it; those that are lost are left out."""
        node, counters = self._node(), self.counters()
        lost = lost_chips(node.faults, node.instance_type) if node else frozenset()
        return {
            str(device["index"]): counters.get(device["host_index"], {})
            for device in view["devices"]
            if device["host_index"] not in lost
        }

    def tell(self, folder: Path, view: Mapping[str, Any]) -> None:
        """Tell the containers of a request what of theirs is broken."""
        node = self._node()
        if node is None:
            return
        try:
            if not node.faults:
                remove(folder / TOLD)
                return
            document = told(view, node.faults, physical_cores=node.instance_type.chip.physical_cores)
            write_atomically(folder / TOLD, orjson.dumps(document))
        except DiskError as error:
            log.warning("containers are not told of faults: %s", error)

    def discard(self) -> None:
        """Leave nothing on a node that is none of ours any more."""
        remove(self._path)

    def _known(self) -> Counts:
        if self._counts is None:
            try:
                self._counts = Counts(orjson.loads(self._path.read_bytes()))
            except FileNotFoundError:
                self._counts = Counts()
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                log.warning("%s cannot be read (%s): the ECC counters begin anew", self._path, error)
                self._counts = Counts()
        return self._counts
