"""Which prepared claim has which physical cores: what keeps two of them from having the same.

By cores and not by the names of devices, because names overlap (a chip, its cores, the node) and change their meaning
when the node is cut in another way. Chip by chip, since a chip is what claims can meet on: looking for those in the way
of a claim costs the same whether 1 or 1,000 are prepared. Kept up to date by the checkpoint, record by record.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

Cores: TypeAlias = tuple[tuple[int, int], ...]
"""Physical cores, as journals have them: chips, each with a bit mask of its cores."""

WHOLE_CHIP = -1
"""The mask that has all cores, of a chip of whatever size."""


@dataclass(frozen=True, slots=True)
class HeldDevice:
    """A device that a prepared claim holds."""

    request: str
    pool: str
    device: str
    admin_access: bool = False
    cores: Cores = ()
    """What the name meant when the claim was prepared; it may mean other cores by now."""
    logical_neuron_core: int = 0
    """0 in the journals of agents that did not write it."""


class Share(NamedTuple):
    """What a claim has of a chip."""

    cores: int
    logical_neuron_core: int
    """0: not known."""


def shares(devices: Iterable[HeldDevice]) -> dict[int, Share]:
    """What a claim has of each chip. Admin access has nothing, it looks at what others have."""
    found: dict[int, Share] = {}
    for device in devices:
        if not device.admin_access:
            for chip, cores in device.cores:
                before = found[chip].cores if chip in found else 0
                found[chip] = Share(before | cores, device.logical_neuron_core)
    return found


class Holdings:
    """See the module."""

    def __init__(self) -> None:
        self._chips: dict[int, dict[str, Share]] = {}
        self._claims: dict[str, tuple[int, ...]] = {}

    def put(self, uid: str, devices: Iterable[HeldDevice]) -> None:
        """Note what a claim has, in place of what it had."""
        self.drop(uid)
        has = shares(devices)
        self._claims[uid] = tuple(has)
        for chip, share in has.items():
            self._chips.setdefault(chip, {})[uid] = share

    def drop(self, uid: str) -> None:
        """Note that a claim has nothing."""
        for chip in self._claims.pop(uid, ()):
            del self._chips[chip][uid]

    def clear(self) -> None:
        """Forget everything."""
        self._chips.clear()
        self._claims.clear()

    def with_cores_of(self, uid: str, wanted: Mapping[int, Share]) -> list[str]:
        """The other claims that have a core of these."""
        found = {
            other: None
            for chip, mine in wanted.items()
            for other, theirs in self._chips.get(chip, {}).items()
            if other != uid and mine.cores & theirs.cores
        }
        return list(found)

    def at_odds_with(self, uid: str, wanted: Mapping[int, Share]) -> dict[str, tuple[int, int]]:
        """The other claims that run a chip of these with another LNC, each with the chip and its LNC."""
        return {
            other: (chip, theirs.logical_neuron_core)
            for chip, mine in wanted.items()
            for other, theirs in self._chips.get(chip, {}).items()
            if other != uid and 0 != theirs.logical_neuron_core != mine.logical_neuron_core
        }
