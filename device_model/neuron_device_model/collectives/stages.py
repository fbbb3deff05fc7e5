"""A stage of an algorithm: what it waits for and what it moves, for each byte of the operation's size.

Stages follow one another; what a stage moves, it moves at the same time on all its links, so the busiest one decides.
Nothing here depends on size, type, parameters or other traffic: stages of a group are made once and priced often.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from neuron_device_model.collectives.fabric import Link


@dataclass(frozen=True, slots=True)
class Waits:
    """How often a stage waits for what, one after the other."""

    steps: int = 0
    """Steps at which a rank waits for another's data."""
    adding_steps: int = 0
    """Those of them in which it adds what came."""
    hops: int = 0
    """Chips that data goes on to, over all steps."""
    ring_hops: int = 0
    """Ranks that data is passed on to around a ring; `steps` does not count them."""
    efa_hops: int = 0
    """Messages over the network, one after the other."""
    network_layers: int = 0
    """Layers of the network that these climb, beyond the leaf."""
    die_crossings: int = 0
    """Messages between the dies of a chip that are awaited one by one."""


@dataclass(frozen=True)
class Stage:
    """One stage."""

    name: str
    waits: Waits
    loads: Mapping[Link, float] = field(hash=False)
    """Bytes over each link, for each byte of the operation's size."""
    reduced: float = 0.0
    """Bytes that the busiest rank adds, for each byte of the operation's size."""

    @cached_property
    def busiest(self) -> tuple[tuple[Link, float], ...]:
        """Of each kind of link, the one that takes longest, and the seconds that a byte takes at its published rate."""
        found: dict[str, tuple[Link, float]] = {}
        for link, load in self.loads.items():
            taken = load / link.nominal
            if link.kind not in found or taken > found[link.kind][1]:
                found[link.kind] = (link, taken)
        return tuple(found.values())


class Loads(dict[Link, float]):
    """Loads of links, while they are added up."""

    def add(self, links: Iterable[Link], load: float) -> None:
        """Put a load on each of these links."""
        for link in links:
            self[link] = self.get(link, 0.0) + load

    def spread(self, routes: tuple[tuple[Link, ...], ...], load: float) -> None:
        """Put a load on these ways in equal parts."""
        for links in routes:
            self.add(links, load / len(routes))
