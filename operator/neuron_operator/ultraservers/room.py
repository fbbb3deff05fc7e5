"""Where sets of nodes can go: the placement of ``neuron_operator.placement``, asked for whole nodes.

All sets of a request or none. What is placed stays taken for the rest of the pass; what a pass gives back can be had in
the next one only, when that has been written.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from neuron_operator.placement import Board, Gang, Level, NodeState, Placement, Refusal
from neuron_operator.ultraservers.members import Member
from neuron_operator.ultraservers.workloads import NodeSet, Workload
from neuron_operator.ultraservers.workloads import owner as workload_owner

LEVELS: Mapping[int, Level] = {1: "node", 2: "ultraserver-2", 4: "ultraserver"}


class Room:
    """What is free in a pass."""

    def __init__(
        self,
        members: Mapping[str, Member],
        *,
        held: Mapping[str, Workload],
        promised: Mapping[str, str],
        claimed: Mapping[str, str],
    ) -> None:
        """`held`: which workload has which node; `promised`: who else has one; `claimed`: which claim has devices of
        which node.
        """
        taken = {
            **{name: f"reserved for {owner}" for name, owner in promised.items()},
            **{name: f"allocated to {workload_owner(workload.ref)}" for name, workload in held.items()},
        }
        self._members = {
            name: replace(member, closed=taken[name]) if name in taken else member for name, member in members.items()
        }
        self._claimed = claimed

    def place(self, workload: Workload, count: int) -> list[NodeSet] | Refusal:
        """Take so many sets for a workload, or say why there are not so many."""
        spec = workload.spec
        assert spec is not None, "a workload that is not understood is not placed"
        taken: list[Placement] = []
        for number in range(count):
            answer = self._board.place(
                Gang(
                    f"{workload.ref} (set {number + 1} of {count})",
                    size=spec.topology_size,
                    level=LEVELS[spec.topology_size],
                    whole_nodes=True,
                    instance_type=spec.instance_type,
                )
            )
            if isinstance(answer, Refusal):
                for placement in taken:
                    self._board.release(placement)
                return answer
            self._board.take(answer)
            taken.append(answer)
        return [NodeSet(self._members[each.nodes[0]].ultraserver, each.nodes) for each in taken]

    def available(self, ultraserver: Iterable[str]) -> dict[int, int]:
        """How many sets of each size the nodes of an UltraServer could give."""
        free = [self._members[name].seat for name in ultraserver if self._members[name].closed is None]
        return {
            1: len(free),
            **{size: _complete([s.set_id(size) for s in free if size in s.sets], size) for size in (2, 4)},
        }

    @cached_property
    def _board(self) -> Board:
        return Board([_state(member, self._claimed.get(name)) for name, member in self._members.items()])


def _complete(ids: Sequence[str], size: int) -> int:
    return sum(ids.count(each) == size for each in set(ids))


def _state(member: Member, claim: str | None) -> NodeState:
    seat = member.seat
    domains: dict[Level, str] = {"node": member.name}
    if 2 in seat.sets:
        domains["ultraserver-2"] = seat.set_id(2)
    if 4 in seat.sets:
        # of a larger UltraServer, the four neighbours that its runtime knows as a set
        domains["ultraserver"] = seat.set_id(4)
    closed = member.closed or (f"in use by the claim {claim}" if claim else None)
    return NodeState(
        name=member.name,
        chips=member.chips,
        free=() if closed else tuple(range(member.chips)),
        instance_type=member.instance_type,
        domains=domains,
        position=seat.set_node(4) if 4 in seat.sets else seat.node,
        closed=closed,
    )
