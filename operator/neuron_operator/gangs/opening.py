"""When the commit barrier opens for which claim. Pure.

A pod waits at the barrier when the scheduler has chosen its node and written what its claims are allocated. A gang is
complete when all of its pods have a node or wait there with their chips. Of a claim that several pods share the slowest
decides.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from neuron_operator.gangs import deciding
from neuron_operator.gangs.capacity import Holding
from neuron_operator.gangs.pods import Member
from neuron_operator.gangs.records import Key, Record
from neuron_operator.gangs.writes import Answer

_FREE = "No gang that has to be complete: there is nothing to wait for"


def answers(
    holdings: Iterable[Holding],
    members: Mapping[Key, Sequence[Member]],
    records: Mapping[Key, Record],
    *,
    has_devices: Callable[[Record, Member], bool],
    over: Callable[[str], bool],
) -> list[Answer]:
    """What the scheduler is to be told now, of all claims that have the barrier; `over`: whether a pod is."""
    found = [(holding.barrier, [uid for uid in holding.pods if not over(uid)]) for holding in holdings]
    if all(barrier is None or barrier.answered for barrier, _ in found):
        return []
    waiting = frozenset(uid for _, uids in found for uid in uids)
    pods = {member.uid: member for several in members.values() for member in several if member.uid in waiting}
    told: list[Answer] = []
    for barrier, uids in found:
        if barrier is None or barrier.answered or not uids:
            continue
        verdicts = [_verdict(pods.get(uid), members, records, waiting, has_devices) for uid in sorted(uids)]
        worst = min(verdicts, key=lambda verdict: (verdict[0] is not False, verdict[0] is not None))
        if worst[0] is not None:
            told.append(Answer(barrier, complete=worst[0], message=worst[1]))
    return told


def _verdict(
    pod: Member | None,
    members: Mapping[Key, Sequence[Member]],
    records: Mapping[Key, Record],
    waiting: frozenset[str],
    has_devices: Callable[[Record, Member], bool],
) -> tuple[bool | None, str]:
    """Whether a pod may be bound, and why; None: not yet."""
    if pod is None or not pod.reservation:
        return True, _FREE
    record = records.get(pod.key)
    if record is None or record.phase == "Pending":
        return None, ""  # of a gang that is about to be known again
    if record.phase == "RollingBack":
        return False, str(record.said.get("message") or "The gang is rolled back")
    everybody = members[pod.key]
    there = {member.uid for member in deciding.fulfilled(record, everybody)} | {
        member.uid for member in everybody if member.placed and member.uid in waiting and has_devices(record, member)
    }
    if record.phase == "Bound" or len(there) >= record.size:
        return True, f"All {record.size} pods of the gang {record.name} have their devices"
    return None, ""
