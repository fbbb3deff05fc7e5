"""What a workload is to have: the nodes that it keeps, loses or gets, its state, and why. Pure.

All sets of a workload are allocated at once or none, so PartiallyAllocated is only what remains after nodes failed. A
node counts as failed when it is *broken* (``members``), and what follows is the workload's own choice:

- NoOp: it keeps its nodes, broken ones too, and its state tells.
- RestartAll: it gives everything back in one write, and is then like a new one.
- MigrateAffected: each set with a broken node is exchanged for another as soon as there is one.

Whatever it no longer has, its pods have to leave; that is ``planning``'s to see.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from neuron_operator.conditions import Judgement, listing
from neuron_operator.placement import Refusal
from neuron_operator.ultraservers.members import Member
from neuron_operator.ultraservers.resources import WorkloadState
from neuron_operator.ultraservers.room import Room
from neuron_operator.ultraservers.workloads import NodeSet, Workload

TemplateState: TypeAlias = Literal["right", "missing", "taken"]


@dataclass(frozen=True, slots=True)
class Decision:
    """What a workload is to have from now on."""

    workload: Workload
    sets: tuple[NodeSet, ...]
    state: WorkloadState
    judgement: Judgement


def lost(workload: Workload, members: Mapping[str, Member], held: Mapping[str, Workload]) -> dict[int, list[str]]:
    """The sets with nodes that the workload cannot use any more, and a clause for each such node."""
    found: dict[int, list[str]] = {}
    for number, each in enumerate(workload.sets):
        clauses = [f"node {node} is {why}" for node in each.nodes if (why := _why(node, each, workload, members, held))]
        if clauses:
            found[number] = clauses
    return found


def wants_room(workload: Workload, members: Mapping[str, Member], held: Mapping[str, Workload]) -> bool:
    """Whether deciding needs to know which nodes are free."""
    if workload.deleting or not workload.finalized or workload.problem:
        return False
    return not workload.sets or (workload.strategy == "MigrateAffected" and bool(lost(workload, members, held)))


def decide(
    workload: Workload,
    *,
    members: Mapping[str, Member],
    held: Mapping[str, Workload],
    room: Room,
    template: TemplateState,
    leaving: int,
) -> Decision:
    """What becomes of a workload; `leaving`: how many of its pods are still to go."""
    if workload.deleting:
        behind = f"the {leaving} pods there are" if leaving else "its claim template is"
        text = f"Deleted: its nodes are free when {behind} gone"
        return _decision(workload, workload.sets, "Deallocating", "Deallocating", text, good=True)
    if workload.problem:
        return _decision(workload, workload.sets, "Failed", "InvalidSpec", workload.problem)
    if not workload.sets:
        return _allocate(workload, room)
    if bad := lost(workload, members, held):
        return _strategies[workload.strategy](workload, bad, room)
    return _settle(workload, members, template)


def _why(
    node: str, each: NodeSet, workload: Workload, members: Mapping[str, Member], held: Mapping[str, Workload]
) -> str | None:
    member, holder = members.get(node), held.get(node)
    if member is None:
        return "gone from its UltraServer"
    if member.ultraserver != each.ultraserver:
        return f"in the UltraServer {member.ultraserver} now"
    if holder is not None and holder.uid != workload.uid:
        return f"allocated to {holder.ref}"
    return member.broken


def _allocate(workload: Workload, room: Room) -> Decision:
    assert workload.spec is not None, "a workload without a problem has a spec"
    answer = room.place(workload, workload.spec.server_count)
    if isinstance(answer, Refusal):
        text = " ".join(answer.reasons)
        return _decision(workload, (), "Pending", "NoCapacity", text)
    text = f"Given {_described(answer)}; waiting for the claim template and the nodes' agents"
    return _decision(workload, tuple(answer), "Allocating", "Placed", text, good=True)


def _report(workload: Workload, bad: Mapping[int, list[str]], room: Room) -> Decision:
    text = f"{_clauses(bad)}. failureStrategy NoOp: nothing is changed; heal them, or delete the workload"
    return _decision(workload, workload.sets, _remains(workload, bad, "Failed"), "NodesLost", text)


def _restart(workload: Workload, bad: Mapping[int, list[str]], room: Room) -> Decision:
    text = (
        f"{_clauses(bad)}. failureStrategy RestartAll: all nodes are given back, the pods there are deleted, and the"
        " workload is allocated anew"
    )
    return _decision(workload, (), "Pending", "Restarting", text)


def _migrate(workload: Workload, bad: Mapping[int, list[str]], room: Room) -> Decision:
    sets = list(workload.sets)
    refused: tuple[str, ...] = ()
    moved = []
    for number in bad:
        answer = room.place(workload, 1)
        if isinstance(answer, Refusal):
            refused = answer.reasons
            break
        sets[number] = answer[0]
        moved.append(answer[0])
    if refused:
        text = f"{_clauses(bad)}. failureStrategy MigrateAffected waits for other nodes: {' '.join(refused)}"
        if not moved:
            return _decision(workload, workload.sets, _remains(workload, bad, "Pending"), "NodesLost", text)
        return _decision(workload, tuple(sets), "PartiallyAllocated", "NodesLost", text)
    text = (
        f"{_clauses(bad)}. failureStrategy MigrateAffected: given {_described(moved)} instead; the pods of the old"
        " nodes are deleted"
    )
    return _decision(workload, tuple(sets), "Allocating", "Migrated", text)


_strategies = {"NoOp": _report, "RestartAll": _restart, "MigrateAffected": _migrate}


def _settle(workload: Workload, members: Mapping[str, Member], template: TemplateState) -> Decision:
    sets = workload.sets
    if template == "taken":
        text = (
            f"ResourceClaimTemplate {workload.template} is there and not of this workload: delete it, or delete the"
            " workload and give spec.resourceClaimTemplate another name"
        )
        return _decision(workload, sets, "Allocating", "TemplateNameTaken", text)
    waiting = [node for node in workload.nodes if members[node].tagged != workload.id]
    if template == "missing" or waiting:
        behind = f"the agents of {listing(waiting)}" if waiting else "the claim template"
        text = f"Given {_described(sets)}; waiting for {behind}"
        return _decision(workload, sets, "Allocating", "Placed", text, good=True)
    text = f"Has {_described(sets)}; pods get a node each by the ResourceClaimTemplate {workload.template}"
    return _decision(workload, sets, "Allocated", "Allocated", text, good=True)


def _remains(workload: Workload, bad: Mapping[int, list[str]], nothing: WorkloadState) -> WorkloadState:
    return "PartiallyAllocated" if len(workload.nodes) > sum(map(len, bad.values())) else nothing


def _clauses(bad: Mapping[int, list[str]]) -> str:
    text = listing([clause for clauses in bad.values() for clause in clauses])
    return text[0].upper() + text[1:]


def _described(sets: tuple[NodeSet, ...] | list[NodeSet]) -> str:
    return listing([f"{' and '.join(each.nodes)} of UltraServer {each.ultraserver}" for each in sets])


def _decision(
    workload: Workload,
    sets: tuple[NodeSet, ...],
    state: WorkloadState,
    reason: str,
    text: str,
    *,
    good: bool = False,
) -> Decision:
    allocated = state == "Allocated"
    judgement = Judgement("Allocated", "True" if allocated else "False", reason, text, good=good, announce=True)
    return Decision(workload, sets, state, judgement)
