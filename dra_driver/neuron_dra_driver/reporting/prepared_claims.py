"""What is prepared on the node, of all of our drivers together, and what breaks it. Pure.

One claim may hold chips of one driver and EFA cards of another. Whoever tells of a claim has to see both at once: two
who write into one status take the version away from one another.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from neuron_device_model.faults import Fault

from ..node import SimulatedNode
from ..records.checkpoint import Entry
from ..records.holdings import HeldDevice

DeviceId: TypeAlias = tuple[str, str, str]
"""Driver, pool and name."""


class Source(NamedTuple):
    """One of our drivers."""

    driver: str
    prepared: Callable[[], Iterable[Entry]]
    faults: Callable[[HeldDevice, SimulatedNode], tuple[Fault, ...]]
    """What breaks a device."""


@dataclass(frozen=True, slots=True)
class PreparedClaim:
    """A claim; two of them are equal as long as nothing has changed that anybody has to be told."""

    uid: str
    namespace: str
    name: str
    serials: tuple[int, ...]
    """Of each driver that prepared it: tells whether it did so again."""
    devices: Mapping[DeviceId, tuple[Fault, ...]]
    """What breaks each of its devices."""

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def prepared_claims(sources: Iterable[Source], node: SimulatedNode) -> dict[str, PreparedClaim]:
    """By uid. What device plugins gave is no claim."""
    found: dict[str, PreparedClaim] = {}
    for source in sources:
        for entry in source.prepared():
            if entry.origin != "claim":
                continue
            devices = {(source.driver, held.pool, held.device): source.faults(held, node) for held in entry.devices}
            known = found.get(entry.uid)
            found[entry.uid] = PreparedClaim(
                entry.uid,
                entry.namespace,
                entry.name,
                (*(known.serials if known else ()), entry.serial),
                {**(known.devices if known else {}), **devices},
            )
    return found
