"""Which node is which server of which UltraServer. A pure function of the nodes and of where they sat before.

Nodes come and go one by one, the operator restarts, pools are edited, and a training job must not find its node in
another UltraServer after any of it. So a seat is kept for as long as its node exists: it is read back from what was
written, and only nodes without one are given one, in UltraServers that have begun to fill first, lowest number first.

Labels that somebody else put on a node say what the hardware is, and go before everything. UltraServers that are
known by such labels are not filled up with other nodes.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count

from neuron_device_model.ultraserver import Seat

_NUMBERS = re.compile(r"(\d+)")


@dataclass(frozen=True, slots=True)
class Badge:
    """What a node's labels say of its UltraServer."""

    id: str
    size: int | None
    """None: as many as the instance type's UltraServers have."""
    node: int | None
    """None: any seat."""


@dataclass(frozen=True, slots=True)
class Applicant:
    """A node that is to be seated."""

    name: str
    held: Seat | None = None
    """Where it sits already."""
    badge: Badge | None = None
    site: str | None = None
    """Network node of layer 3 that its labels name; the members of an UltraServer share it."""


def seat_all(applicants: Sequence[Applicant], *, size: int, number: Callable[[int], str]) -> dict[str, Seat]:
    """A seat for every applicant, by name; `number` gives the id of an UltraServer of the pool by its number."""
    floor = _Floor(size, number)
    everybody = sorted(applicants, key=lambda applicant: natural(applicant.name))
    settled = sorted(everybody, key=lambda applicant: not _sits_by_badge(applicant))
    for applicant in settled:
        if (badge := applicant.badge) and badge.node is not None:
            floor.take(applicant, Seat(badge.id, badge.size or size, badge.node))
    for applicant in settled:
        if (badge := applicant.badge) and badge.node is None:
            held = applicant.held
            kept = held is not None and held.id == badge.id and held.size == size and floor.take(applicant, held)
            _ = kept or any(floor.take(applicant, Seat(badge.id, size, node)) for node in range(size))
    floor.close({applicant.badge.id for applicant in everybody if applicant.badge})
    for applicant in everybody:
        if applicant.held is not None and applicant.held.size == size:
            floor.take(applicant, applicant.held)
    floor.fill(everybody)
    return floor.seats


@lru_cache(maxsize=16384)
def natural(name: str) -> tuple[tuple[int, str], ...]:
    """Order in which people count: worker2 before worker10."""
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in _NUMBERS.split(name))


def _sits_by_badge(applicant: Applicant) -> bool:
    held, badge = applicant.held, applicant.badge
    return held is not None and badge is not None and held.id == badge.id and badge.node in (None, held.node)


class _Floor:
    """The seats that are taken so far."""

    def __init__(self, size: int, number: Callable[[int], str]) -> None:
        self.seats: dict[str, Seat] = {}
        self._size = size
        self._number = number
        self._taken: dict[tuple[str, int], Applicant] = {}
        self._closed: frozenset[str] = frozenset()

    def take(self, applicant: Applicant, seat: Seat) -> bool:
        """Give somebody without a seat this one, if it is free; whether that was done."""
        if applicant.name in self.seats or (seat.id, seat.node) in self._taken:
            return False
        self.seats[applicant.name] = seat
        self._taken[seat.id, seat.node] = applicant
        return True

    def close(self, ids: Iterable[str]) -> None:
        """Fill no seats of these UltraServers."""
        self._closed = frozenset(ids)

    def fill(self, applicants: Iterable[Applicant]) -> None:
        """Seat all that are left, each with those of the same site."""
        sites: dict[str, str | None] = {}
        for (ultraserver, _), member in sorted(self._taken.items(), key=lambda item: item[0]):
            sites.setdefault(ultraserver, member.site)
        free: dict[str | None, Iterator[Seat]] = {}
        for applicant in applicants:
            if applicant.name not in self.seats:
                seats = free.setdefault(applicant.site, self._free(sites, applicant.site))
                self.take(applicant, next(seats))

    def _free(self, sites: dict[str, str | None], site: str | None) -> Iterator[Seat]:
        numbers = {self._number(number): number for number in range(len(sites))}
        begun = (ultraserver for ultraserver, where in list(sites.items()) if where == site)
        for ultraserver in sorted(begun, key=lambda known: (numbers.get(known, len(numbers)), known)):
            if ultraserver not in self._closed:
                yield from self._empty_seats(ultraserver)
        for number in count():
            ultraserver = self._number(number)
            if ultraserver not in sites and ultraserver not in self._closed:
                sites[ultraserver] = site
                yield from self._empty_seats(ultraserver)

    def _empty_seats(self, ultraserver: str) -> Iterator[Seat]:
        for node in range(self._size):
            if (ultraserver, node) not in self._taken:
                yield Seat(ultraserver, self._size, node)
