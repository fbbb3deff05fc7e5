"""The next writes for all gangs: pure, from what is known at one moment.

Each gang is at one step, and the writes of a plan do not depend on one another, but for Events, which are told
before the status that makes them unnecessary. Places are found for one gang after the other, the oldest first, each
seeing what those before it took; and what is promised is promised by one write. So two gangs can never hold half of
what each needs.

A gang that has no place is looked at again when capacity changed, and not more often than once a second: not all at
once, if many wait, but in turns.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from neuron_operator.gangs import deciding, opening, pods, telling
from neuron_operator.gangs.capacity import Holding
from neuron_operator.gangs.deciding import Ground
from neuron_operator.gangs.demand import Needs
from neuron_operator.gangs.pods import Member, Terms
from neuron_operator.gangs.records import Key, Record, spec, spec_of, stamp
from neuron_operator.gangs.standing import KnownNodes, Standing
from neuron_operator.gangs.writes import Make, Respec, SetTaint, Tell, Write
from neuron_operator.placement import Board, Gang, NodeState, Placement, Refusal

_PAUSE = timedelta(seconds=1)
_AGAIN_AT_ONCE = 20
_AT_ONCE = 200


class World(Ground, KnownNodes, Protocol):
    """All that plans are made from."""

    @property
    def records(self) -> Mapping[Key, Record]:
        """The NeuronGangs."""
        ...

    @property
    def members(self) -> Mapping[Key, Sequence[Member]]:
        """The pods of each gang."""
        ...

    @property
    def reservations(self) -> Mapping[str, str]:
        """Our taint on each node that has one."""
        ...

    @property
    def at_barrier(self) -> Collection[Holding]:
        """The claims that have the commit barrier."""
        ...

    def over(self, uid: str) -> bool:
        """Whether a pod of a gang is over, or gone."""
        ...

    def needs(self, member: Member) -> Needs | str | None:
        """What a pod takes; a sentence if that cannot be told, None if it is not known yet."""
        ...

    def claimed(self, uid: str) -> bool:
        """Whether an allocated claim of our driver is reserved for a pod."""
        ...

    def by_claims(self, node: str) -> bool:
        """Whether devices of a node come by claims."""
        ...


@dataclass(slots=True)
class Memory:
    """What saves work and may be lost."""

    refused: dict[Key, tuple[int, datetime]] = field(default_factory=dict)
    """When a gang was refused, and at which capacity."""
    told: set[str] = field(default_factory=set)
    """Keys of Events that were sent."""
    standing: Standing = field(default_factory=Standing)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to write, and when to look again if nothing happens."""

    writes: tuple[Write, ...]
    wake_at: datetime | None


def plan(world: World, memory: Memory, *, now: datetime) -> Plan:
    """The next writes for all gangs."""
    writes: list[Write] = []
    times: list[datetime] = []
    due: list[Record] = []
    orphans = False
    for key, members in world.members.items():
        record = world.records.get(key)
        writes += _told_about_labels(members, now=now)
        if record is None:
            writes += _made(key, members, world=world, now=now)
            orphans = orphans or any(member.placed for member in members)
    for key, record in world.records.items():
        members = world.members.get(key, ())
        steps = deciding.advance(record, members, ground=world, now=now)
        if not steps and record.phase in ("Pending", "Bound"):
            steps = _respecified(record, members, world=world) if record.phase == "Pending" else []
            if _was_refused(record):
                tells = (telling.refused(m, record, now=stamp(now), told=memory.told) for m in members if m.gated)
                steps += [tell for tell in tells if tell is not None]
        if (at := deciding.wake_at(record, now)) is not None:
            times.append(at)
        # Events do not keep a gang from being placed
        if all(isinstance(step, Tell) for step in steps) and _wants_places(record, members, now=now):
            due.append(record)
        writes += steps
    reserved: list[Record] = []
    # what pods have that were let go for a gang nobody remembers is not known before it has a NeuronGang again
    if due and not orphans:
        found, reserved, again_at = _placed(due, world=world, memory=memory, now=now)
        writes += found
        times += again_at
    writes += _taints(world, reserved)
    writes += opening.answers(
        world.at_barrier,
        world.members,
        world.records,
        has_devices=lambda record, member: _has_devices(record, member, world=world),
        over=world.over,
    )
    for key in memory.refused.keys() - {record.key for record in due}:
        del memory.refused[key]
    fresh = [write for write in writes if not isinstance(write, Tell) or write.key not in memory.told]
    return Plan(tuple(fresh), min(times, default=None))


def promises(world: World) -> dict[str, list[tuple[Key, int]]]:
    """Chips of each node that are promised and that no allocated claim shows yet."""
    found: dict[str, list[tuple[Key, int]]] = {}

    def promise(record: Record, node: str, count: int) -> None:
        if chips := count * deciding.amount(record.needs, chips=world.chips(node)):
            found.setdefault(node, []).append((record.key, chips))

    for key, record in world.records.items():
        members = world.members.get(key, ())
        for node, count in deciding.open_places(record, members).items():
            promise(record, node, count)
        for member in members:
            if deciding.holds(member) and not (world.by_claims(member.place) and world.claimed(member.uid)):
                promise(record, member.place, 1)
    return found


def _has_devices(record: Record, member: Member, *, world: World) -> bool:
    """Whether a pod that was let go has all that it takes of its node, by claims."""
    takes = deciding.amount(record.needs, chips=world.chips(member.place))
    return not takes or world.claimed(member.uid)


def _told_about_labels(members: Sequence[Member], *, now: datetime) -> list[Write]:
    found: list[Write] = []
    for member in members:
        if isinstance(member.terms, str):
            if member.alive and not member.placed:
                tell = telling.about(member, reason="InvalidGang", note=member.terms, cause="terms", now=stamp(now))
                found.append(tell)
        elif member.alive and not member.gates and not member.reservation:
            found.append(telling.not_gated(member, now=stamp(now)))
    return found


def _made(key: Key, members: Sequence[Member], *, world: World, now: datetime) -> list[Write]:
    first = _first(members)
    if first is None:
        return []
    needs = world.needs(first)
    if isinstance(needs, str):
        return [telling.about(first, reason="GangNotUnderstood", note=needs, cause=needs, now=stamp(now))]
    assert isinstance(first.terms, Terms)
    return [] if needs is None else [Make(key, spec(first.terms, needs))]


def _first(members: Iterable[Member]) -> Member | None:
    """The pod that speaks for its gang."""
    able = [member for member in members if (member.gated or member.placed) and isinstance(member.terms, Terms)]
    return min(able, key=lambda member: (member.created, member.order), default=None)


def _respecified(record: Record, members: Sequence[Member], *, world: World) -> list[Write]:
    first = _first(members)
    if first is None or not isinstance(first.terms, Terms):
        return []
    # the largest wish is promised to all
    all_needs = [found for m in members if m.gated and isinstance(found := world.needs(m), Needs)]
    if not all_needs:
        return []
    whole = any(needs.whole_node for needs in all_needs)
    chips = 0 if whole else max(needs.chips for needs in all_needs)
    needs = Needs(chips, whole_node=whole, efa=any(needs.efa for needs in all_needs))
    wished = spec(first.terms, needs)
    return [] if wished == spec_of(record) else [Respec(record, wished)]


def _was_refused(record: Record) -> bool:
    return record.said.get("reason") in ("DoesNotFit", "TimedOut", "PlaceLost")


def _wants_places(record: Record, members: Sequence[Member], *, now: datetime) -> bool:
    if record.phase == "Pending":
        return (record.retry_at is None or now >= record.retry_at) and any(m.gated or m.placed for m in members)
    return record.phase == "Bound" and any(member.gated for member in members)


def _taints(world: World, reserved: Iterable[Record]) -> list[Write]:
    """Also those of reservations that are made in this plan: should such a promise fail, the next plan removes them."""
    records = {**world.records, **{record.key: record for record in reserved}}
    wished: dict[str, list[str]] = {}
    for key, record in sorted(records.items(), key=lambda item: (item[1].created, item[0])):
        for node in deciding.unfilled(record, world.members.get(key, ())):
            wished.setdefault(node, []).append(record.reservation)
    writes: list[Write] = []
    for node in sorted((wished.keys() | world.reservations.keys()) & world.facts.keys()):
        ids, there = wished.get(node, []), world.reserved(node)
        # where several gangs wait for a node, the oldest one's name is on it
        if ids and there not in ids:
            writes.append(SetTaint(node, ids[0]))
        elif not ids and there is not None:
            writes.append(SetTaint(node, None))
    return writes


def _placed(
    due: Sequence[Record], *, world: World, memory: Memory, now: datetime
) -> tuple[list[Write], list[Record], list[datetime]]:
    """What to write, the gangs as they are then with what they were promised, and when others are looked at again."""
    capacity = world.capacity
    first = [record for record in due if record.key not in memory.refused]
    waited = [record for record in due if record.key in memory.refused and memory.refused[record.key][0] != capacity]
    again = [record for record in waited if memory.refused[record.key][1] + _PAUSE <= now]
    times = [memory.refused[record.key][1] + _PAUSE for record in waited if record not in again]
    again.sort(key=lambda record: (memory.refused[record.key][1], record.created, record.key))
    first.sort(key=lambda record: (record.created, record.key))
    if len(again) > _AGAIN_AT_ONCE or len(first) > _AT_ONCE:
        times.append(now)
    # gangs that waited before go first: they are older
    chosen = again[:_AGAIN_AT_ONCE] + first[:_AT_ONCE]
    if not chosen:
        return [], [], times
    board = memory.standing.look(world, promises(world))
    writes: list[Write] = []
    reserved: list[Record] = []
    for record in chosen:
        members = world.members.get(record.key, ())
        found = _place(record, members, board=board, world=world, standing=memory.standing, now=now)
        if isinstance(found, Refusal):
            memory.refused[record.key] = (capacity, now)
            said = deciding.refuse(record, found.reasons, now=now)
            writes += [said] if said is not None else []
        else:
            memory.refused.pop(record.key, None)
            writes.append(deciding.promise(record, found, now=now))
            reserved.append(found)
    return writes, reserved, times


def _place(
    record: Record,
    members: Sequence[Member],
    *,
    board: Board,
    world: World,
    standing: Standing,
    now: datetime,
) -> Record | Refusal:
    keep = [m for m in members if m.placed]
    if record.phase == "Bound":
        keep = [*keep, *(m for m in deciding.fulfilled(record, members) if not m.placed)]
    keep = keep[: record.size]
    states = standing.states
    able = _able(members, world=world, standing=standing)
    if not keep:
        wish = _gang(record, record.size, able)
        found = board.place(wish)
        if isinstance(found, Refusal):
            return found
        board.take(found)
        return deciding.reserved(record, found.nodes, domain=found.domain, again=False, now=now)
    missing = record.size - len(keep)
    if not missing and record.phase == "Pending":
        return deciding.reserved(record, [m.place for m in keep], domain=record.domain, again=True, now=now)
    # first where the gang has been, then anywhere in the domain of those that still run
    left = Counter(record.nodes) - Counter(m.place for m in keep)
    before = frozenset(left) if left.total() == missing else frozenset[str]()
    near = _near(record, {m.place for m in keep}, states=states)
    if not missing:
        text = f"All {record.size} pods that the gang is to have run already: end one of them, or give it a larger size"
        return Refusal(_name(record), (text,))
    refusal = Refusal(_name(record), ("No node of the domain in which the gang runs is one where its pods may run",))
    silent = _unreachable({m.place for m in keep}, states=states)
    for nodes in (before, near):
        allowed = (nodes if able is None else nodes & able) - silent
        if not allowed:
            continue
        result = board.place(_gang(record, missing, allowed))
        if isinstance(result, Placement):
            board.take(result)
            places = _merged(record, keep, result.nodes)
            return deciding.reserved(record, places, domain=record.domain, again=True, now=now)
        refusal = result
    return refusal


def _merged(record: Record, keep: Sequence[Member], new: Sequence[str]) -> list[str]:
    """Places of the pods that stay, at the numbers where they were, and of the new ones in between."""
    stay, coming = Counter(m.place for m in keep), list(new)
    places: list[str] = []
    for node in record.nodes:
        if stay[node]:
            stay[node] -= 1
            places.append(node)
        elif coming:
            places.append(coming.pop(0))
    return [*places, *stay.elements(), *coming]


def _able(members: Iterable[Member], *, world: World, standing: Standing) -> frozenset[str] | None:
    """Nodes on which the pods may run by their own words; None: all Neuron nodes."""
    first = _first(members)
    wish = first.wish.spec if first is not None else {}
    if first is not None and not first.gated:
        wish = pods.unpinned(wish, first.sent)
    able = frozenset(standing.able(wish, world))
    return None if able.issuperset(standing.states) else able


def _near(record: Record, nodes: Collection[str], *, states: Mapping[str, NodeState]) -> frozenset[str]:
    """All nodes of the domain in which the gang runs."""
    if record.level in ("node", "row"):
        return frozenset(nodes)
    domains = {states[node].domains.get(record.level) for node in nodes if node in states} - {None}
    return frozenset(name for name, state in states.items() if state.domains.get(record.level) in domains)


def _unreachable(nodes: Collection[str], *, states: Mapping[str, NodeState]) -> frozenset[str]:
    """Nodes from which nothing reaches all of these: without EFA, and not in their UltraServer."""
    units = {states[node].domains.get("ultraserver", node) for node in nodes if node in states}
    cut_off = (state for state in states.values() if state.cut_off)
    return frozenset(state.name for state in cut_off if units != {state.domains.get("ultraserver", state.name)})


def _gang(record: Record, size: int, nodes: frozenset[str] | None) -> Gang:
    return Gang(
        name=_name(record),
        size=size,
        level=record.level,
        chips=record.needs.chips,
        whole_nodes=record.needs.whole_node,
        efa=record.needs.efa,
        nodes=nodes,
    )


def _name(record: Record) -> str:
    return f"{record.namespace}/{record.name}"
