"""From operation, group and size to an algorithm and its stages.

A plan is made of the group alone; size only chooses which one. So plans are kept, and a group that is asked about again
and again, over many sizes or by many pods, is worked out once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from neuron_device_model.collectives import selection
from neuron_device_model.collectives.algorithms import halving, mesh, network, pairs, rings, servers
from neuron_device_model.collectives.errors import UnsupportedCollective
from neuron_device_model.collectives.fabric import Core, Fabric
from neuron_device_model.collectives.groups import Block, Group, GroupKey, group
from neuron_device_model.collectives.operations import (
    ALL_GATHER,
    ALL_GATHER_V,
    ALL_REDUCE,
    ALL_TO_ALL,
    ALL_TO_ALL_V,
    PERMUTE,
    REDUCE_SCATTER,
    SEND_RECV,
    Operation,
)
from neuron_device_model.collectives.selection import Inner
from neuron_device_model.collectives.stages import Stage


@dataclass(frozen=True, slots=True)
class Plan:
    """An algorithm, and the stages one after the other."""

    algorithm: str
    stages: tuple[Stage, ...]


@lru_cache(maxsize=512)
def sorted_ranks(fabric: Fabric, ranks: GroupKey) -> Group:
    """The group of these ranks."""
    return group(fabric, ranks)


def plans(fabric: Fabric, ranks: GroupKey, what: Operation, size: float) -> tuple[Plan, ...]:
    """What the runtime may do; where it has several forms of one algorithm, all of them, and it takes the fastest."""
    if what is SEND_RECV:
        return (message_plan(fabric, [(a, b, 1.0) for a, b in couples(ranks)], what),)
    if what is PERMUTE:
        around = list(zip(ranks, (*ranks[1:], *ranks[:1]), strict=True))
        neighbours_only(fabric, around)
        return (message_plan(fabric, [(a, b, 1.0) for a, b in around], what),)
    if what in (ALL_GATHER_V, ALL_TO_ALL_V):
        raise UnsupportedCollective(f"{what.name} needs the bytes of each rank: use estimate_shares")
    members = sorted_ranks(fabric, ranks)
    if members.size == 1:
        return (Plan("none", ()),)
    if what is ALL_TO_ALL:
        return (_all_to_all(fabric, ranks),)
    if len(members.blocks) == 1:
        options = selection.in_domain(members.blocks[0], size)
        return tuple(plan for inner in options for plan in _in_domain(fabric, ranks, what, inner))
    members.require_symmetry()
    if selection.uses_flat_ring(members, size):
        return (_flat_ring(fabric, ranks, what),)
    block = members.blocks[0]
    between = selection.between_nodes(len(members.blocks), size, members.size)
    inners = selection.in_domain(block, size) if block.size > 1 else (None,)
    return tuple(plan for inner in inners for plan in _over_nodes(fabric, ranks, what, inner, between))


def couples(ranks: GroupKey) -> list[tuple[Core, Core]]:
    """The first and the second rank, the third and the fourth, and so on."""
    if len(ranks) % 2:
        raise UnsupportedCollective("sendrecv needs pairs: give an even number of ranks")
    return list(zip(ranks[::2], ranks[1::2], strict=True))


def message_plan(fabric: Fabric, wanted: Sequence[pairs.Message], what: Operation) -> Plan:
    """Messages from rank to rank."""
    if not wanted:
        raise UnsupportedCollective(f"{what.name} without a source and a target: name at least one pair")
    sorted_ranks(fabric, tuple(dict.fromkeys(core for source, target, _ in wanted for core in (source, target))))
    if what in (SEND_RECV, PERMUTE):
        return Plan(selection.POINT_TO_POINT, (pairs.messages(fabric, wanted, what.name, rounds=pairs.RENDEZVOUS),))
    return Plan(selection.MESH, (pairs.messages(fabric, wanted, what.name),))


def phase(block: Block, inner: Inner, *, reduces: bool) -> tuple[Stage, ...]:
    """An all-gather or a reduce-scatter among ranks that NeuronLink joins."""
    if inner.name == selection.MESH:
        return (mesh.exchange(block, reduces=reduces),)
    if inner.name == selection.MESH_SWITCH:
        return mesh.over_switch(block, reduces=reduces)
    if inner.name == selection.RDH:
        return halving.phase(block, reduces=reduces)
    if inner.name == selection.HIERARCHICAL:
        between = servers.between(block, reduces=reduces)
        inside = _alike(block.servers, Inner(inner.inside), reduces=reduces) if inner.inside else ()
        return (*inside, between) if reduces else (between, *inside)
    return (rings.phase(block, reduces=reduces, kangaring=inner.name == selection.KANGARING),)


def _alike(blocks: Sequence[Block], inner: Inner, *, reduces: bool) -> tuple[Stage, ...]:
    """All blocks do the same at once, so the stage of one carries the loads of all."""
    every = [phase(block, inner, reduces=reduces) for block in blocks]
    return tuple(
        Stage(
            stages[0].name,
            stages[0].waits,
            {link: load for stage in stages for link, load in stage.loads.items()},
            stages[0].reduced,
        )
        for stages in zip(*every, strict=True)
    )


@lru_cache(maxsize=512)
def _all_to_all(fabric: Fabric, ranks: GroupKey) -> Plan:
    return Plan(selection.MESH, (pairs.all_to_all(sorted_ranks(fabric, ranks)),))


@lru_cache(maxsize=512)
def _in_domain(fabric: Fabric, ranks: GroupKey, what: Operation, inner: Inner) -> tuple[Plan, ...]:
    block = sorted_ranks(fabric, ranks).blocks[0]
    if what is not ALL_REDUCE:
        return (Plan(inner.name, phase(block, inner, reduces=what.reduces)),)
    two = Plan(inner.name, (*phase(block, inner, reduces=True), *phase(block, inner, reduces=False)))
    return (two, Plan(inner.name, (mesh.single_step(block),))) if inner.name == selection.MESH else (two,)


@lru_cache(maxsize=512)
def _over_nodes(
    fabric: Fabric, ranks: GroupKey, what: Operation, inner: Inner | None, between: str
) -> tuple[Plan, ...]:
    members = sorted_ranks(fabric, ranks)
    name = selection.HIERARCHICAL if inner else between
    scatter = _alike(members.blocks, inner, reduces=True) if inner and what.reduces else ()
    gather = _alike(members.blocks, inner, reduces=False) if inner and what is not REDUCE_SCATTER else ()
    outer: list[tuple[Stage, ...]] = []
    if what is ALL_REDUCE:
        halves = (network.phase(members, between, reduces=True), network.phase(members, between, reduces=False))
        outer.append(halves)
        if between == network.MESH:
            outer.append((network.single_step(members),))
    else:
        outer.append((network.phase(members, between, reduces=what.reduces),))
    if what is ALL_GATHER:
        return tuple(Plan(name, (*stages, *gather)) for stages in outer)
    return tuple(Plan(name, (*scatter, *stages, *gather)) for stages in outer)


@lru_cache(maxsize=512)
def _flat_ring(fabric: Fabric, ranks: GroupKey, what: Operation) -> Plan:
    members = sorted_ranks(fabric, ranks)
    kinds = (True, False) if what is ALL_REDUCE else (what.reduces,)
    return Plan(selection.FLAT_RING, tuple(network.flat_ring(members, reduces=reduces) for reduces in kinds))


def neighbours_only(fabric: Fabric, wanted: Sequence[tuple[Core, Core]]) -> None:
    """A permute goes to the same chip or to one that is wired to it (about/collectives.rst)."""
    for source, target in wanted:
        if len(fabric.route(source, target)) > 1 and fabric.kind.topology != "switch":
            raise UnsupportedCollective(
                f"permute from {source} to {target}: their chips are not neighbours, choose pairs that are"
            )
