"""What watches told: gangs, their pods, nodes and who has their chips. Small projections, kept in step one by one.

One event loop uses it and no method waits, so there is nothing to lock.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import takewhile
from typing import Any

from neuron_device_model.cores import visible_cores

from neuron_operator.extender.demand import demand
from neuron_operator.gangs import capacity, deciding, pods, records
from neuron_operator.gangs import names as gang_names
from neuron_operator.gangs.capacity import Hardware, Holding
from neuron_operator.gangs.demand import Needs, needs, references
from neuron_operator.gangs.pods import Member
from neuron_operator.gangs.records import Key, Record
from neuron_operator.kept import Kept
from neuron_operator.nodes import NodeFacts, node_facts
from neuron_operator.placement import NodeState

Json = Mapping[str, Any]
Reference = tuple[str, str, bool]
"""Namespace and name of a ResourceClaim, or (True) of a template."""

_MANY = 10_000
_FINISHED = ("Succeeded", "Failed")


class State:
    """All that plans are made from."""

    def __init__(self, *, driver_name: str, barrier: bool = False, changed: Callable[[], None] = lambda: None) -> None:
        self.driver_name = driver_name
        self._barrier = barrier
        self._changed = changed
        self.capacity = 0
        self.members: dict[Key, tuple[Member, ...]] = {}
        self.records: dict[Key, Record] = {}
        self.specs: dict[Reference, Json | None] = {}
        """What claims and templates ask for, as far as somebody looked; None: there is no such object."""
        self.wanted: set[Reference] = set()
        """Those that somebody has to look at."""
        self.plain: Mapping[str, int] = {}
        """Chips that pods have by device plugins, by node; pods that we let go do not count."""
        self.elsewhere: Mapping[str, str] = {}
        """Nodes that are no places for gangs, and who has them: NeuronUltraServerWorkloads."""
        self._by_uid: dict[Key, dict[str, Member]] = {}
        self.reservations: dict[str, str] = {}
        """Our taint on each node that has one."""
        self._touched: dict[str, int] = {}
        """What `capacity` was when a node changed last; the latest last."""
        self._known_since = 0
        self._per_chip: int | None = None
        self._claimants: Counter[str] = Counter()
        self._on_node: dict[str, dict[str, Holding]] = {}
        self._at_barrier: dict[str, Holding] = {}
        # UIDs of pods of gangs that are over, the latest last; an ordered set
        self._over: dict[str, None] = {}
        self.pods: Kept[Member] = Kept(pods.member, self._pod, changed)
        self.gangs: Kept[Record] = Kept(records.record, self._gang, changed)
        self.nodes: Kept[NodeFacts] = Kept(node_facts, self._node, changed)
        self.hardware: Kept[Hardware] = Kept(capacity.hardware, self._hardware, changed)
        self.claims: Kept[Holding] = Kept(
            lambda claim: capacity.holding(claim, driver_name=self.driver_name), self._claim, changed
        )

    @property
    def complete(self) -> bool:
        """Whether everything was listed once."""
        return all(kept.complete for kept in (self.pods, self.gangs, self.nodes, self.hardware, self.claims))

    # --- what plans ask

    @property
    def facts(self) -> Mapping[str, NodeFacts]:
        """The nodes."""
        return self.nodes.values

    def shut(self, node: str) -> str | None:
        """Why nobody may be placed on a node."""
        return capacity.shut(
            self.nodes.values.get(node), self.hardware.values.get(node), owner=self.elsewhere.get(node, "")
        )

    def room(self, node: str, *, own: frozenset[str]) -> int:
        """Chips that nobody has but these pods, or pods that are over: their claims are about to go, and the watch of
        claims may be the later one to tell.
        """
        hardware = self.hardware.values.get(node)
        if hardware is None:
            return 0
        others = [
            holding
            for holding in self._held(node)
            if not holding.pods or any(uid not in own and uid not in self._over for uid in holding.pods)
        ]
        plain = self.plain.get(node, 0) + (0 if hardware.by_claims else self._of_gangs(node, but=own))
        return len(capacity.left(hardware, node=node, held=others, plain=plain))

    def chips(self, node: str) -> int:
        """All chips of a node."""
        hardware = self.hardware.values.get(node)
        return hardware.instance_type.chips if hardware else 0

    def reserved(self, node: str) -> str | None:
        """Our taint on a node."""
        return self.reservations.get(node)

    def as_read(self, node: str) -> Json | None:
        """As much of a Node as a write of its taints needs; None if that is not known to the last bit: a taint with an
        effect on pods that run says since when, which we do not keep.
        """
        facts, version = self.nodes.values.get(node), self.nodes.version(node)
        if facts is None or any(effect == "NoExecute" for _, _, effect in facts.taints):
            return None
        taints = [
            {"key": key, "effect": effect} | ({"value": value} if value else {}) for key, value, effect in facts.taints
        ]
        return {"metadata": {"name": node, "uid": facts.uid, "resourceVersion": version}, "spec": {"taints": taints}}

    @property
    def at_barrier(self) -> Collection[Holding]:
        """The claims that have the commit barrier; none where it is turned off."""
        return self._at_barrier.values()

    def over(self, uid: str) -> bool:
        """Whether a pod of a gang is over, or gone."""
        return uid in self._over

    def claimed(self, uid: str) -> bool:
        """Whether an allocated claim of our driver is reserved for a pod."""
        return self._claimants[uid] > 0

    def by_claims(self, node: str) -> bool:
        """Whether devices of a node come by claims."""
        hardware = self.hardware.values.get(node)
        return hardware is None or hardware.by_claims

    def changed_since(self, number: int) -> Collection[str] | None:
        """Nodes that changed, or came or went, after `capacity` was this number; None: that is not known any more."""
        if number < self._known_since:
            return None
        return list(takewhile(lambda node: self._touched[node] > number, reversed(self._touched)))

    def state(self, node: str, promised: Sequence[tuple[Key, int]]) -> NodeState | None:
        """A node for placement, with the chips of it that gangs are to have, and which gangs."""
        facts, hardware = self.nodes.values.get(node), self.hardware.values.get(node)
        if facts is None or hardware is None:
            return None
        return capacity.state(
            facts,
            hardware,
            held=self._held(node),
            plain=self.plain.get(node, 0),
            promised=sum(chips for _, chips in promised),
            holders={f"gang {namespace}/{name}" for (namespace, name), _ in promised},
            owner=self.elsewhere.get(node, ""),
        )

    def needs(self, member: Member) -> Needs | str | None:
        """What a pod takes."""
        for name, template in references(member.wish.spec):
            reference = (member.namespace, name, template)
            if reference not in self.specs:
                self.wanted.add(reference)
                return None
            if self.specs[reference] is None:
                kind = "ResourceClaimTemplate" if template else "ResourceClaim"
                return f"The pod names the {kind} {name}, which does not exist: create it, and the gang is placed"
        return needs(
            member.wish.spec,
            lookup=lambda name, template: self.specs.get((member.namespace, name, template)),
            driver_name=self.driver_name,
            cores_per_chip=self._cores_per_chip(),
        )

    def leave(self, nodes: Mapping[str, str]) -> None:
        """Nodes that others have from now on, and who they are."""
        changed = {node for node in self.elsewhere.keys() | nodes.keys() if self.elsewhere.get(node) != nodes.get(node)}
        self.elsewhere = dict(nodes)
        for node in changed:
            self._touch(node)

    def has(self) -> dict[Key, frozenset[str]]:
        """The nodes that gangs have, promised or not, as long as any of their pods is there."""
        found: dict[Key, frozenset[str]] = {}
        for key in self.records.keys() | self.members.keys():
            record, members = self.records.get(key), self.members.get(key, ())
            if record is not None and not (record.needs.chips or record.needs.whole_node):
                continue
            places = {member.place for member in members if deciding.holds(member)}
            if record is not None and record.phase == "Reserved":
                places |= set(record.nodes)
            if places:
                found[key] = frozenset(places)
        return found

    def looked(self, reference: Reference, devices: Json | None) -> None:
        """Somebody looked at a claim or template."""
        if len(self.specs) > _MANY:
            self.specs.clear()
        self.specs[reference] = devices
        self.wanted.discard(reference)

    def look_again(self) -> None:
        """Forget what may have changed: a claim can be allocated, and what was not there can be made."""
        self.specs = {
            reference: devices for reference, devices in self.specs.items() if reference[2] and devices is not None
        }

    @property
    def has_plugins(self) -> bool:
        """Whether any node gives devices by device plugins."""
        return any(not hardware.by_claims for hardware in self.hardware.values.values())

    def list_plain(self, pods: Sequence[Json]) -> None:
        """All pods that are bound and not over, as far as device plugins serve them."""
        found: Counter[str] = Counter()
        for pod in pods:
            node = (pod.get("spec") or {}).get("nodeName") or ""
            hardware = self.hardware.values.get(node)
            let_go = gang_names.ANNOTATION_RESERVATION in (pod["metadata"].get("annotations") or {})
            if hardware is None or hardware.by_claims or let_go:
                continue
            wish = demand(pod)
            per_chip = visible_cores(hardware.instance_type.chip, hardware.logical_neuron_core)
            found[node] += wish.chips + -(-wish.cores // per_chip)
        others = {node for node in found.keys() | self.plain.keys() if found[node] != self.plain.get(node, 0)}
        self.plain = found
        for node in others:
            self._touch(node)

    def _cores_per_chip(self) -> int:
        if self._per_chip is None:
            kinds = {(found.instance_type.chip, found.logical_neuron_core) for found in self.hardware.values.values()}
            self._per_chip = min((visible_cores(chip, lnc) for chip, lnc in kinds), default=1) or 1
        return self._per_chip

    def _held(self, node: str) -> Sequence[Holding]:
        return tuple(self._on_node.get(node, {}).values())

    def _of_gangs(self, node: str, *, but: frozenset[str]) -> int:
        return sum(
            deciding.amount(self.records[member.key].needs, chips=self.chips(node))
            for members in self.members.values()
            for member in members
            if member.node == node and member.key in self.records and member.uid not in but
            if member.phase not in _FINISHED
        )

    def _ended(self, uid: str) -> None:
        self._over[uid] = None
        if len(self._over) > _MANY:
            del self._over[next(iter(self._over))]

    # --- what changes make of it

    def _pod(self, key: str, before: Member | None, after: Member | None) -> None:
        for member in {m.key: m for m in (before, after) if m is not None}.values():
            group = self._by_uid.setdefault(member.key, {})
            group.pop(key, None)
            if after is not None and after.key == member.key:
                group[key] = after
            if group:
                self.members[member.key] = tuple(group.values())
            else:
                self._by_uid.pop(member.key, None)
                self.members.pop(member.key, None)
        if before is not None and (after is None or after.uid != before.uid):
            self._ended(before.uid)
        if after is not None and after.phase in _FINISHED:
            self._ended(after.uid)
        # what the scheduler says of a pod that waits changes nothing
        if before is None or after is None or before.alive != after.alive:
            self.capacity += 1
        self._changed()

    def _gang(self, key: str, before: Record | None, after: Record | None) -> None:
        for record in filter(None, (before, after)):
            self.records.pop(record.key, None)
        if after is not None:
            self.records[after.key] = after
        if before is None or after is None or _decides(before) != _decides(after):
            self.capacity += 1
        self._changed()

    def _node(self, key: str, before: NodeFacts | None, after: NodeFacts | None) -> None:
        taints = after.taints if after else ()
        value = next((value for taint, value, _ in taints if taint == gang_names.TAINT), None)
        if value is None:
            self.reservations.pop(key, None)
        else:
            self.reservations[key] = value
        self._touch(key)

    def _hardware(self, key: str, before: Hardware | None, after: Hardware | None) -> None:
        self._per_chip = None
        self._touch(key)

    def _touch(self, node: str) -> None:
        self.capacity += 1
        self._touched.pop(node, None)
        self._touched[node] = self.capacity
        if len(self._touched) > len(self.nodes.values) + _MANY:  # those that are gone must not add up for ever
            self._touched.clear()
            self._known_since = self.capacity
        self._changed()

    def _claim(self, key: str, before: Holding | None, after: Holding | None) -> None:
        for holding, count in ((before, -1), (after, 1)):
            if holding is None:
                continue
            for uid in holding.pods if holding.devices else ():
                self._claimants[uid] += count
                if not self._claimants[uid]:
                    del self._claimants[uid]
            for node in {node for node, _ in holding.devices}:
                self._touch(node)
                on_node = self._on_node.setdefault(node, {})
                on_node.pop(key, None)
                if holding is after:
                    on_node[key] = holding
                if not on_node:
                    del self._on_node[node]
        self._at_barrier.pop(key, None)
        if after is not None and after.barrier is not None and self._barrier:
            self._at_barrier[key] = after
        self.capacity += 1
        self._changed()


def _decides(record: Record) -> Any:
    return record.phase, record.nodes, record.generation, record.attempts
