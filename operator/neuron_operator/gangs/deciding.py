"""What is next for one gang that has a NeuronGang; finding places is `planning`'s.

    Pending ── places found ──▶ Reserved ── all bound ──▶ Bound
       ▲                           │                        │ a pod came anew: reserved for again,
       └── RollingBack ◀───────────┘ not in time, or a      │ near those that still run
           pods deleted              promised place is lost ▼

Each call looks at what is there and names the next writes; nothing is remembered between two calls. A rollback leaves
nothing half running: all pods that were let go are deleted, bound or not.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Protocol

from neuron_operator.conditions import listing
from neuron_operator.gangs import pods, telling
from neuron_operator.gangs.demand import Needs
from neuron_operator.gangs.pods import Member
from neuron_operator.gangs.records import Record, saved, stamp, status, without
from neuron_operator.gangs.writes import Delete, Forget, LetGo, Remake, Save, SetStatus, Write

_FIRST_PAUSE = 5
_LONGEST_PAUSE = 300
# controllers need a moment to make pods anew, and meanwhile the gang is not forgotten
GRACE = timedelta(seconds=60)


class Ground(Protocol):
    """What decisions ask about nodes."""

    def shut(self, node: str) -> str | None:
        """Why nobody may be placed on a node, as the end of "node X is …"."""
        ...

    def room(self, node: str, *, own: frozenset[str]) -> int:
        """Chips that nobody has but these pods and pods of gangs that are over; promises do not count."""
        ...

    def chips(self, node: str) -> int:
        """All chips of a node."""
        ...

    def reserved(self, node: str) -> str | None:
        """Our taint on it."""
        ...


def advance(record: Record, members: Sequence[Member], *, ground: Ground, now: datetime) -> list[Write]:
    """The next writes for a gang; none while it waits."""
    if record.phase == "RollingBack":
        return _roll_back(record, members, now=now)
    if remade := _remade(record, members, now=now):
        return remade
    if not record.remake and not any(member.alive or member.leaving for member in members):
        waits = record.phase == "Pending" and record.retry_at is not None and now < record.retry_at + GRACE
        return [] if waits else [Forget(record)]
    if record.phase == "Reserved":
        return _reserved(record, members, ground=ground, now=now)
    return []


def fulfilled(record: Record, members: Iterable[Member]) -> list[Member]:
    """Pods that have their node, or are through already."""
    return [
        member
        for member in members
        if (member.placed and member.node)
        or (member.phase == "Succeeded" and member.reservation == record.reservation and not member.leaving)
    ]


def taken(record: Record, members: Iterable[Member]) -> Counter[str]:
    """Places of the reservation that pods have or are on their way to."""
    through = {member.uid for member in fulfilled(record, members)}
    return Counter(member.place for member in members if member.placed or member.uid in through)


def open_places(record: Record, members: Sequence[Member]) -> Counter[str]:
    """Places of a reservation for which no pod was let go yet."""
    return Counter(record.nodes) - taken(record, members) if record.phase == "Reserved" else Counter()


def holds(member: Member) -> bool:
    """Whether a pod that was let go has its place, or is on its way there, or still leaving it."""
    there = member.reservation and not member.gates and member.phase not in ("Succeeded", "Failed")
    return bool(there and member.place)


def unfilled(record: Record, members: Sequence[Member]) -> Counter[str]:
    """Places of a reservation where no pod is bound yet."""
    if record.phase != "Reserved":
        return Counter()
    return Counter(record.nodes) - Counter(member.place for member in fulfilled(record, members))


def amount(needs: Needs, *, chips: int) -> int:
    """Chips that a pod takes of a node that has so many."""
    return chips if needs.whole_node else needs.chips


def wake_at(record: Record, now: datetime) -> datetime | None:
    """When time alone changes what is next."""
    if record.phase == "Reserved":
        return record.deadline
    if record.phase != "Pending" or record.retry_at is None:
        return None
    return next((at for at in (record.retry_at, record.retry_at + GRACE) if now < at), None)


def reserved(record: Record, nodes: Sequence[str], *, domain: str, again: bool, now: datetime) -> Record:
    """The gang with these nodes promised to it; `again` for the pods of a running gang that came anew."""
    return replace(
        record,
        phase="Reserved",
        serial=record.serial if again else record.serial + 1,
        nodes=tuple(nodes),
        domain=domain,
        deadline=now + timedelta(seconds=record.timeout),
        retry_at=None,
    )


def promise(record: Record, reserved: Record, *, now: datetime) -> SetStatus:
    """The write by which a gang gets what it is to have."""
    assert reserved.deadline is not None
    where = listing(list(dict.fromkeys(reserved.nodes)))
    text = f"Reserved on {where}; all {record.size} pods have to be bound by {stamp(reserved.deadline)}"
    return SetStatus(record, status(reserved, reason="Reserved", message=text, good=False, now=now))


def refuse(record: Record, reasons: Sequence[str], *, now: datetime) -> SetStatus | None:
    """Say why there is no place; None if that is what it says already."""
    text = " ".join(reason if reason.endswith(".") else f"{reason}." for reason in reasons)
    if (record.said.get("reason"), record.said.get("message")) == ("DoesNotFit", text):
        return None
    return SetStatus(record, status(record, reason="DoesNotFit", message=text, good=False, now=now))


def _reserved(record: Record, members: Sequence[Member], *, ground: Ground, now: datetime) -> list[Write]:
    there = fulfilled(record, members)
    if len(there) >= record.size:
        bound = replace(record, phase="Bound", deadline=None, attempts=0)
        text = f"All {record.size} pods are bound: {listing(list(dict.fromkeys(record.nodes)))}"
        return [SetStatus(record, status(bound, reason="Bound", message=text, good=True, now=now))]
    if lost := _lost(record, members, ground=ground):
        return [_give_up(record, "PlaceLost", lost, now=now), *_told(members, "GangRolledBack", lost, record, now=now)]
    if record.deadline is None or now >= record.deadline:
        text = _too_late(record, members, there)
        return [_give_up(record, "TimedOut", text, now=now), *_told(members, "GangTimedOut", text, record, now=now)]
    if any(ground.reserved(node) is None for node in unfilled(record, members)):
        return []  # the taints come first, so that nobody else is sent there
    return _let_go(record, members, ground=ground)


def _let_go(record: Record, members: Sequence[Member], *, ground: Ground) -> list[Write]:
    places = open_places(record, members)
    chosen: list[tuple[Member, str]] = []
    waiting = sorted((member for member in members if member.gated), key=lambda member: member.order)
    # a pod's number is its place, so that neighbours in the workload are neighbours in the fleet
    for member in list(waiting):
        index = member.index
        if index is not None and index < len(record.nodes) and places[record.nodes[index]] > 0:
            chosen.append((member, record.nodes[index]))
            places[record.nodes[index]] -= 1
            waiting.remove(member)
    rest = [node for node in dict.fromkeys(record.nodes) for _ in range(places[node])]
    chosen += zip(waiting, rest, strict=False)
    return [LetGo(member, pods.patch(member, node=node, reservation=record.reservation)) for member, node in chosen]


def _lost(record: Record, members: Sequence[Member], *, ground: Ground) -> str | None:
    own = frozenset(member.uid for member in members)
    for node, count in sorted(unfilled(record, members).items()):
        if reason := ground.shut(node):
            return f"Node {node} is {reason}, and {count} of the gang's {record.size} pods were to run there"
        needed = count * amount(record.needs, chips=ground.chips(node))
        bound_here = frozenset(member.uid for member in fulfilled(record, members) if member.node == node)
        if (there := ground.room(node, own=own - bound_here)) < needed:
            return (
                f"Node {node} has {there} of the {needed} chips left that were promised to the gang: others took them,"
                " or they broke, before its pods were bound"
            )
    return None


def _too_late(record: Record, members: Sequence[Member], there: Sequence[Member]) -> str:
    made = [member for member in members if member.alive or member in there]
    text = f"{len(there)} of {record.size} pods were bound within {record.timeout} s"
    if len(made) < record.size:
        return (
            f"{text}: only {len(made)} exist; make all of them, or set the label neuron-sim.dev/gang-size to what there"
            " will be, or neuron-sim.dev/gang-timeout to the time that it takes"
        )
    words = next((member.why_not for member in made if member.placed and not member.node and member.why_not), "")
    return (
        f"{text}; the scheduler says: {words.rstrip('.')}"
        if words
        else f"{text}: see the Events of those that were not"
    )


def _give_up(record: Record, reason: str, text: str, *, now: datetime) -> SetStatus:
    back = replace(record, phase="RollingBack", deadline=None)
    return SetStatus(
        record, status(back, reason=reason, message=f"{text}. Its pods are rolled back", good=False, now=now)
    )


def _told(members: Sequence[Member], reason: str, text: str, record: Record, *, now: datetime) -> list[Write]:
    note = f"{text}. The gang {record.name} is rolled back and tried again"
    return [
        telling.about(member, reason=reason, note=note, cause=record.reservation, now=stamp(now))
        for member in members
        if member.placed or member.gated
    ]


def _roll_back(record: Record, members: Sequence[Member], *, now: datetime) -> list[Write]:
    gone = [member for member in members if member.placed]
    known = {saved(text).uid for text in record.remake}
    if unsaved := tuple(member for member in gone if member.bare and member.uid not in known):
        return [Save(record, unsaved)]
    if gone:
        return [Delete(member) for member in gone]
    attempts, said = record.attempts + 1, record.said
    pause = min(_FIRST_PAUSE * 2 ** min(attempts - 1, 10), _LONGEST_PAUSE)
    if said.get("reason") == "PlaceLost" and not record.attempts:
        pause = 0  # what was not known is known now: who took the chips in the last second, or which node died
    pending = replace(
        record, phase="Pending", nodes=(), domain="", attempts=attempts, retry_at=now + timedelta(seconds=pause)
    )
    text = str(said.get("message") or "").removesuffix(". Its pods are rolled back")
    times, then = "once" if attempts == 1 else f"{attempts} times", f"in {pause} s" if pause else "at once"
    return [
        SetStatus(
            record,
            status(
                pending,
                reason=str(said.get("reason") or "RolledBack"),
                message=f"{text}. Rolled back {times}, tried again {then}",
                good=False,
                now=now,
            ),
        )
    ]


def _remade(record: Record, members: Sequence[Member], *, now: datetime) -> list[Write]:
    """Make bare pods anew whose predecessors are gone, and cross out those that are there again."""
    if not record.remake:
        return []
    by_name = {member.name: member for member in members}
    done, writes = [], list[Write]()
    for item in map(saved, record.remake):
        member = by_name.get(item.name)
        if member is None:
            writes.append(Remake(item.pod))
        elif member.uid != item.uid:
            done.append(item)
    if writes or not done:
        return writes
    news = [
        telling.made_anew(
            {"metadata": {"namespace": record.namespace, "name": item.name, "uid": by_name[item.name].uid}},
            old=item.uid,
            now=stamp(now),
        )
        for item in done
    ]
    kept = replace(record, remake=without(record, [item.uid for item in done]))
    said = record.said
    return [*news, SetStatus(record, _same(kept, said, now=now))]


def _same(record: Record, said: Any, *, now: datetime) -> dict[str, Any]:
    return status(
        record,
        reason=str(said.get("reason") or "Waiting"),
        message=str(said.get("message") or ""),
        good=said.get("status") == "True",
        now=now,
    )
