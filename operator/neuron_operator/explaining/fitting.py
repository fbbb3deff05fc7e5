"""Tries what is asked for on the devices of one node, and says what is lacking.

The scheduler searches depth first with backtracking. Here the values of `matchAttribute` and the alternatives of
`firstAvailable` are tried in turn and devices are then taken first come, first served, which finds the same for
devices of a kind. ``remedy`` answers the other question: it takes away holders and taints until the wish fits.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import islice, product
from typing import Any

from neuron_device_model.advertise import RESERVED_TAINT

from neuron_operator.conditions import listing
from neuron_operator.explaining.demand import Ask, ClaimDemand, Constraint, Request
from neuron_operator.explaining.supply import Device, Holder, Supply, Taint, noun
from neuron_operator.node_affinity import KEEPS_AWAY, tolerates

Json = Mapping[str, Any]

_ATTEMPTS = 512


@dataclass(frozen=True, slots=True)
class Given:
    """What a request would get."""

    claim: str
    request: str
    devices: tuple[Device, ...]


@dataclass(frozen=True, slots=True)
class Fit:
    """It fits."""

    given: tuple[Given, ...]
    sure: bool
    """Whether all selectors could be read."""


@dataclass(frozen=True, slots=True)
class Lack:
    """It does not fit: a sentence for each thing that is lacking."""

    reasons: tuple[str, ...]
    missing: int
    """How many devices are lacking, to find the nodes that are nearest to fit."""
    lasting: bool
    """Whether neither pods that end nor repairs could change it."""
    absent: tuple[str, ...] = ()
    """DeviceClasses of which the node has nothing at all."""


@dataclass(frozen=True, slots=True)
class Remedy:
    """What would have to be freed or healed."""

    holders: tuple[Holder, ...]
    taints: tuple[tuple[str, Taint], ...]
    """Device and taint."""

    @property
    def cost(self) -> int:
        """How much it disturbs."""
        return 2 * len(self.holders) + len(self.taints)


class _Node:
    """A node's devices while claims take some."""

    def __init__(self, supply: Supply) -> None:
        self.supply = supply
        self._chosen: dict[int, list[Device]] = {}
        self.taken = {name for holder in supply.holders for name in holder.devices}
        self.used: dict[tuple[str, str, str], Decimal] = defaultdict(Decimal)
        for device in supply.devices:
            if _key(device) in self.taken:
                self._draw(device)

    def copy(self) -> "_Node":
        other = object.__new__(_Node)
        other.supply, other.taken, other.used = self.supply, set(self.taken), self.used.copy()
        other._chosen = self._chosen  # what a class chooses does not change
        return other

    def matching(self, ask: Ask) -> list[Device]:
        """The devices that a class and selectors choose, whoever has them.

        Where a selector could not be read, all that the rest of it allows.
        """
        found = self._chosen.get(id(ask))
        if found is None:
            found = self._chosen[id(ask)] = [device for device in self.supply.devices if _chooses(ask, device)]
        return found

    def take(self, device: Device) -> None:
        self.taken.add(_key(device))
        self._draw(device)

    def held(self, device: Device) -> bool:
        return not device.shared and _key(device) in self.taken

    def cut(self, device: Device) -> bool:
        """Whether others hold what overlaps with it."""
        counters = self.supply.counters or {}
        return any(
            self.used[device.pool, *counter] + amount > counters.get((device.pool, *counter), Decimal(0))
            for counter, amount in device.takes
        )

    def free(self, device: Device, ask: Ask) -> bool:
        if tainted(device, ask.tolerations):
            return False
        return ask.admin or not (self.held(device) or self.cut(device))

    def _draw(self, device: Device) -> None:
        for counter, amount in device.takes:
            self.used[device.pool, *counter] += amount


def fit(supply: Supply, claims: Sequence[ClaimDemand]) -> Fit | Lack:
    """Try claims on a node, one after another."""
    node = _Node(supply)
    given: list[Given] = []
    for claim in claims:
        found = _claim(node, claim)
        if found is None:
            return _lack(node, claim)
        given += found
    asks = (ask for claim in claims for request in claim.requests for ask in request.asks)
    return Fit(tuple(given), sure=all(selector.read for ask in asks for selector in ask.selectors))


def with_given(supply: Supply, fitted: Fit, *, claim: str, pod: str) -> Supply:
    """The same node after a pod's claims got their devices; one holder for all of them."""
    devices = frozenset(_key(device) for given in fitted.given for device in given.devices)
    return replace(supply, holders=(*supply.holders, Holder(claim, (pod,), devices)))


def remedy(supply: Supply, claims: Sequence[ClaimDemand]) -> Remedy | None:
    """What to take away so that claims fit: taints, the smallest holder that will do, or few by a greedy search."""
    if isinstance(fit(_without(supply, supply.holders, healed=True), claims), Lack):
        return None
    taints = tuple((device.name, taint) for device in supply.devices for taint in device.taints if _counts(taint))
    if taints and isinstance(fit(_without(supply, (), healed=True), claims), Fit):
        return Remedy((), taints)
    healed = isinstance(fit(_without(supply, supply.holders, healed=False), claims), Lack)
    smallest = sorted(supply.holders, key=lambda holder: (len(holder.devices), holder.claim))
    for holder in smallest:
        if isinstance(fit(_without(supply, (holder,), healed=healed), claims), Fit):
            return Remedy((holder,), taints if healed else ())
    gone = smallest
    for holder in smallest:  # the small ones may stay where that is possible
        fewer = [each for each in gone if each is not holder]
        if isinstance(fit(_without(supply, fewer, healed=healed), claims), Fit):
            gone = fewer
    return Remedy(tuple(gone), taints if healed else ())


def tainted(device: Device, tolerations: Iterable[Json]) -> Taint | None:
    """A taint that keeps a device from being given."""
    known = tuple(tolerations)
    return next((t for t in device.taints if _counts(t) and not _tolerated(t, known)), None)


def _counts(taint: Taint) -> bool:
    return taint.effect in KEEPS_AWAY


def _tolerated(taint: Taint, tolerations: Iterable[Json]) -> bool:
    as_object = {"key": taint.key, "value": taint.value, "effect": taint.effect}
    return any(tolerates(each, as_object) for each in tolerations)


def _chooses(ask: Ask, device: Device) -> bool:
    return all(selector.holds(device.driver, device.attribute) is not False for selector in ask.selectors)


def _key(device: Device) -> tuple[str, str, str]:
    return (device.driver, device.pool, device.name)


def _claim(node: _Node, claim: ClaimDemand) -> list[Given] | None:
    """The devices that a claim gets; the node is changed only if it gets all."""
    for asks in islice(product(*(request.asks for request in claim.requests)), _ATTEMPTS):
        wanted = list(zip(claim.requests, asks, strict=True))
        for values in islice(_values(node, claim, wanted), _ATTEMPTS):
            trial = node.copy()
            given = _take(trial, claim, wanted, values)
            if given is not None:
                node.taken, node.used = trial.taken, trial.used
                return given
    return None


def _values(
    node: _Node, claim: ClaimDemand, wanted: Sequence[tuple[Request, Ask]]
) -> Iterator[tuple[tuple[Constraint, object], ...]]:
    """The values that the attributes to match could have, all combinations in turn."""
    choices = []
    for constraint in claim.constraints:
        if constraint.distinct:
            continue
        ask = next((ask for request, ask in wanted if constraint.covers(request.name)), None)
        if ask is None:
            continue
        free = (device for device in node.matching(ask) if node.free(device, ask))
        values = dict.fromkeys(device.attribute(constraint.attribute) for device in free)
        choices.append([(constraint, value) for value in values if value is not None])
    return product(*choices)


def _take(
    node: _Node,
    claim: ClaimDemand,
    wanted: Sequence[tuple[Request, Ask]],
    values: tuple[tuple[Constraint, object], ...],
) -> list[Given] | None:
    given = []
    seen: dict[int, set[object]] = defaultdict(set)
    distinct = [(number, each) for number, each in enumerate(claim.constraints) if each.distinct]
    for request, ask in wanted:
        same = [(each.attribute, value) for each, value in values if each.covers(request.name)]
        different = [(number, each.attribute) for number, each in distinct if each.covers(request.name)]
        chosen: list[Device] = []
        for device in node.matching(ask):
            if ask.count is not None and len(chosen) == ask.count:
                break
            others = {number: device.attribute(attribute) for number, attribute in different}
            fits = (
                node.free(device, ask)
                and all(device.attribute(attribute) == value for attribute, value in same)
                and all(value is not None and value not in seen[number] for number, value in others.items())
            )
            if not fits and ask.count is None:
                return None  # all means all
            if fits:
                chosen.append(device)
                if not ask.admin:
                    node.take(device)
                for number, value in others.items():
                    seen[number].add(value)
        if len(chosen) < (ask.count or 1):
            return None
        given.append(Given(claim.name, request.name, tuple(chosen)))
    return given


def _lack(node: _Node, claim: ClaimDemand) -> Lack:
    """Why a claim gets nothing: what is wrong with single requests, or else with all together."""
    found = [lack for request in claim.requests if (lack := _request(node, claim, request)) is not None]
    if found:
        return Lack(
            tuple(dict.fromkeys(reason for lack in found for reason in lack.reasons)),
            sum(lack.missing for lack in found),
            any(lack.lasting for lack in found),
            tuple(name for lack in found for name in lack.absent),
        )
    names = listing([request.name for request in claim.requests])
    attributes = listing([constraint.attribute for constraint in claim.constraints])
    same = f" under the constraints on {attributes}" if attributes else ""
    return Lack(
        (f"has room for each request of {claim.name} ({names}), but not for all of them together{same}",), 1, False
    )


def _request(node: _Node, claim: ClaimDemand, request: Request) -> Lack | None:
    """What is lacking for a request by itself; of alternatives, the one that is nearest to fit."""
    lacks = []
    for ask in request.asks:
        alone = replace(claim, requests=(Request(request.name, (ask,)),))
        if _claim(node.copy(), alone) is not None:
            return None
        lacks.append(_ask(node, claim, request, ask))
    return min(lacks, key=lambda lack: (lack.lasting, lack.missing), default=None)


def _ask(node: _Node, claim: ClaimDemand, request: Request, ask: Ask) -> Lack:
    chosen = node.matching(ask)
    wanted = ask.count
    if not chosen:
        some = bool(node.supply.devices)
        said = f"has no device that DeviceClass {ask.device_class}" if some else "has no devices for claims"
        said += " and the selectors choose" if some and len(ask.selectors) > 1 else " chooses" if some else ""
        said += _nearest(node.supply.devices, ask)
        return Lack((said,), wanted or 1, True, (ask.device_class,))
    word = noun(chosen[0])
    if wanted is not None and len(chosen) < wanted:
        return Lack((f"has {_count(chosen)}, and {wanted} are asked for",), wanted - len(chosen), True)
    free = [device for device in chosen if node.free(device, ask)]
    if wanted is None or len(free) < wanted:
        asked = f"all {len(chosen)}" if wanted is None else str(wanted)
        details = _why_taken(node, [device for device in chosen if device not in free], ask)
        reason = f"{len(free)} of {len(chosen)} {word} {_are(len(free))} free, {asked} {_are(wanted or 2)} asked for"
        return Lack((f"{reason}: {details}",), (wanted or len(chosen)) - len(free), False)
    return _constrained(claim, request, free, wanted)


def _nearest(devices: Sequence[Device], ask: Ask) -> str:
    """What the device that is nearest to be chosen has instead, in brackets; empty where nothing is near."""
    failed = (
        [(part, device) for selector in ask.selectors for part in selector.failed(device.driver, device.attribute)]
        for device in devices
    )
    nearest = min(failed, key=len, default=[])
    if not nearest or any(not part.attribute for part, _ in nearest):
        return ""
    wanted = [
        f"{part.text} is wanted, and it {'has none' if value is None else f'is {value}'}"
        for part, device in nearest
        for value in (part.value(device.attribute),)
    ]
    return f" ({listing(wanted)})"


def _constrained(claim: ClaimDemand, request: Request, free: Sequence[Device], wanted: int) -> Lack:
    """Enough is free, but it does not go together."""
    word = noun(free[0])
    for constraint in claim.constraints:
        if not constraint.covers(request.name):
            continue
        values = Counter(device.attribute(constraint.attribute) for device in free)
        without = values.pop(None, 0)
        if not values:
            return Lack((f"its {word} have no attribute {constraint.attribute}",), wanted, True)
        best = len(values) if constraint.distinct else max(values.values())
        if best < wanted:
            how = "have different values of" if constraint.distinct else "have the same"
            more = f" ({without} have none)" if without else ""
            said = f"{len(free)} {word} are free, but at most {best} of them {how} {constraint.attribute}{more}"
            return Lack((f"{said}, and {wanted} are asked for",), wanted - best, False)
    if not claim.constraints:
        # each is free by itself, and they overlap
        return Lack((f"the {word} that are free overlap, and {wanted} are asked for",), 1, False)
    attributes = listing([constraint.attribute for constraint in claim.constraints])
    return Lack((f"{len(free)} {word} are free, but no {wanted} of them go together by {attributes}",), 1, False)


def _why_taken(node: _Node, devices: Sequence[Device], ask: Ask) -> str:
    """Who has these devices: counted by holder, and by fault."""
    by_device = {name: holder for holder in node.supply.holders for name in holder.devices}
    causes: Counter[str] = Counter()
    for device in devices:
        if taint := tainted(device, ask.tolerations):
            causes[_closed(taint)] += 1
        elif _key(device) in by_device:
            causes[f"held by {by_device[_key(device)]}"] += 1
        elif over := _overlapping(node, device, by_device):
            causes[f"cut or covered by what {listing(over)} {'holds' if len(over) == 1 else 'hold'}"] += 1
        else:
            causes["taken by another request of the same pod"] += 1
    return listing([f"{count} {cause}" for cause, count in causes.most_common()])


def _closed(taint: Taint) -> str:
    if taint.key == RESERVED_TAINT:
        return f"reserved for the NeuronUltraServerWorkload with the id {taint.value}"
    return f"broken or closed ({taint.key}={taint.value}:{taint.effect})"


def _overlapping(node: _Node, device: Device, by_device: Mapping[tuple[str, str, str], Holder]) -> list[str]:
    counters = {counter for counter, _ in device.takes}
    found = (
        str(by_device[_key(other)])
        for other in node.supply.devices
        if _key(other) in by_device and other.pool == device.pool and any(c in counters for c, _ in other.takes)
    )
    return list(dict.fromkeys(found))


def _without(supply: Supply, gone: Sequence[Holder], *, healed: bool) -> Supply:
    devices = tuple(replace(device, taints=()) for device in supply.devices) if healed else supply.devices
    return replace(supply, devices=devices, holders=tuple(h for h in supply.holders if h not in gone))


def _count(devices: Sequence[Device]) -> str:
    return f"{len(devices)} {noun(devices[0], len(devices))}"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
