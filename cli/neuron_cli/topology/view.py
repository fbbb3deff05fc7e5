"""The fleet as plain values: each chip free, used, cut into cores or broken, and by whom. Pure.

Read from NeuronNodes and allocated claims, and on the device-plugin road from the pods, because these are small;
ResourceSlices, a hundred times their size, would say the same. There a pod's chips have numbers only if the scheduler
extension wrote them on it; the others are told beside the chips.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from neuron_device_model.catalog import InstanceType, UnknownInstanceType, instance_type
from neuron_device_model.cores import UnsupportedLogicalNeuronCore, visible_cores
from neuron_device_model.faults import Fault, hits
from neuron_device_model.partitions import UnknownDevice, part
from neuron_operator.explaining.modelled import faults_of
from neuron_operator.explaining.supply import Holder, holders_by_pool
from neuron_operator.extender.demand import holding
from neuron_operator.topology import UltraServer, ultraservers

from neuron_cli.fleet import condition, why_not

Object = Mapping[str, Any]
State = Literal["free", "used", "cut", "unlinked", "broken"]


class NotThere(LookupError):
    """A filter selects nothing; the message says what there is."""


@dataclass(slots=True)
class Chip:
    """A chip of a node."""

    number: int
    held_by: list[str] = field(default_factory=list)
    """Pods (or claims without pods), as `namespace/name`."""
    cores: bool = False
    """Whether it is held core by core."""
    faults: list[str] = field(default_factory=list)
    closed: bool = False
    """Whether a fault keeps it from being given; those of effect None only show."""
    unlinked: bool = False
    """Whether that is only because a link of it is down."""

    @property
    def state(self) -> State:
        """Broken before all else, since that is what people look for."""
        if self.closed:
            return "unlinked" if self.unlinked else "broken"
        if self.held_by:
            return "cut" if self.cores else "used"
        return "free"


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node and its chips."""

    name: str
    pool: str
    instance_type: str
    resources: str
    network_nodes: tuple[str, ...]
    ultraserver: str | None
    position: int | None
    ready: bool
    why: str
    """Why it is not ready."""
    chips: tuple[Chip, ...]
    elsewhere: tuple[str, ...] = ()
    """Pods that have devices of which nobody tells the numbers."""
    unnumbered: int = 0
    """Chips that these have."""
    cards: tuple[str, ...] = ()
    """Faults of its EFA cards, which none of its chips shows."""
    links: tuple[tuple[int, int, str], ...] = ()
    """Its links that are down: both chips, and the fault."""

    @property
    def free(self) -> int:
        """Chips that could be given."""
        return max(0, sum(chip.state == "free" for chip in self.chips) - self.unnumbered)

    @property
    def untouched(self) -> bool:
        """Whether every chip is free."""
        return self.ready and not self.elsewhere and self.free == len(self.chips)


@dataclass(frozen=True, slots=True)
class FleetView:
    """All nodes, and the UltraServers that they form."""

    nodes: tuple[NodeView, ...]
    ultraservers: tuple[UltraServer, ...]


def view(
    neuron_nodes: Sequence[Object], claims: Sequence[Object], pods: Iterable[Object], not_ready: set[str]
) -> FleetView:
    """Look at the fleet; `pods` are those with a node, `not_ready` nodes whose kubelet does not answer."""
    held = holders_by_pool(claims)
    on_node: dict[str, list[Object]] = defaultdict(list)
    for pod in pods:
        on_node[pod["spec"]["nodeName"]].append(pod)
    nodes = []
    for item in neuron_nodes:
        name = item["metadata"]["name"]
        nodes.append(_node(item, held.get(name, ()), on_node[name], name in not_ready))
    nodes.sort(key=lambda node: (node.network_nodes, node.ultraserver or "~", node.position or 0, node.name))
    formed = ultraservers([dict(item) for item in neuron_nodes], not_ready=not_ready)
    return FleetView(tuple(nodes), tuple(formed))


def only(fleet: FleetView, *, pool: str | None, ultraserver: str | None, node: str | None) -> FleetView:
    """A part of the fleet; raises ``NotThere``."""
    nodes = fleet.nodes
    for what, wanted, of in (
        ("pool", pool, [each.pool for each in nodes]),
        ("UltraServer", ultraserver, [each.ultraserver for each in nodes]),
        ("node", node, [each.name for each in nodes]),
    ):
        if wanted is None:
            continue
        # ids are long: what is unmistakable is enough
        found = {
            value for value in of if value and (value == wanted or (what == "UltraServer" and value.startswith(wanted)))
        }
        if len(found) != 1:
            some = sorted({value for value in (found or of) if value})
            listed = ", ".join(some[:5]) + (f" and {len(some) - 5} more" if some[5:] else "")
            how = "is not unmistakable" if found else "is not there"
            raise NotThere(f"{what} {wanted} {how}: {f'there are {listed}' if some else 'there is none'}")
        nodes = tuple(each for each, value in zip(nodes, of, strict=True) if value in found)
    ids = {each.ultraserver for each in nodes}
    return FleetView(nodes, tuple(each for each in fleet.ultraservers if each.id in ids))


def summary(fleet: FleetView) -> dict[str, int]:
    """The fleet in numbers."""
    states = [chip.state for node in fleet.nodes for chip in node.chips]
    unnumbered = sum(node.unnumbered for node in fleet.nodes)
    untouched = {node.name for node in fleet.nodes if node.untouched}
    return {
        "nodes": len(fleet.nodes),
        "nodes_not_ready": sum(not node.ready for node in fleet.nodes),
        "nodes_untouched": len(untouched),
        "chips": len(states),
        "chips_free": sum(node.free for node in fleet.nodes),
        "chips_used": states.count("used") + unnumbered,
        "chips_cut": states.count("cut"),
        "chips_unlinked": states.count("unlinked"),
        "chips_broken": states.count("broken"),
        "ultraservers": len(fleet.ultraservers),
        "ultraservers_degraded": sum(each.state == "Degraded" for each in fleet.ultraservers),
        "ultraservers_untouched": sum(
            not each.missing and untouched.issuperset(each.members.values()) for each in fleet.ultraservers
        ),
    }


def document(fleet: FleetView) -> dict[str, Any]:
    """The form for programs."""
    return {
        "summary": summary(fleet),
        "ultraservers": [
            {
                "ultraserver": each.id,
                "capacity_block": each.capacity_block or None,
                "type": each.instance_type,
                "state": each.state,
                "lacks": list(each.lacks),
                "nodes": [each.members.get(number) for number in range(each.size)],
            }
            for each in fleet.ultraservers
        ],
        "nodes": [
            {
                "node": node.name,
                "pool": node.pool,
                "type": node.instance_type,
                "resources": node.resources,
                "network_nodes": list(node.network_nodes),
                "ultraserver": node.ultraserver,
                "position": node.position,
                "ready": node.ready,
                "why": node.why,
                "chips": [
                    {"chip": chip.number, "state": chip.state, "held_by": chip.held_by, "faults": chip.faults}
                    for chip in node.chips
                ],
                "held_without_numbers": list(node.elsewhere),
                "links_down": [{"chips": [one, other], "fault": fault} for one, other, fault in node.links],
                "efa_faults": list(node.cards),
            }
            for node in fleet.nodes
        ],
    }


def _node(item: Object, held: Iterable[Holder], pods: Iterable[Object], not_ready: bool) -> NodeView:
    spec, name = item["spec"], item["metadata"]["name"]
    ready = condition(item, "Ready")
    seat = spec.get("ultraServer") or {}
    lnc = spec.get("logicalNeuronCore") or 1
    try:
        kind = instance_type(spec["instanceType"])
        per_chip = visible_cores(kind.chip, lnc)
    except (UnknownInstanceType, UnsupportedLogicalNeuronCore):  # of another release's catalogue
        kind, per_chip = None, 1
    chips = tuple(Chip(number) for number in range(kind.chips if kind else 0))
    elsewhere: list[str] = []
    unnumbered = 0
    if kind:
        _break(chips, faults_of(spec), kind, lnc)
        _hold(chips, held, kind, lnc, pool=name)
        elsewhere, unnumbered = _hold_by_plugin(chips, pods, per_chip)
    return NodeView(
        name=name,
        pool=spec.get("pool") or "",
        instance_type=spec["instanceType"],
        resources=spec.get("resources") or "",
        network_nodes=tuple(spec.get("networkNodes") or ()),
        ultraserver=seat.get("id"),
        position=seat.get("node"),
        ready=ready.get("status") == "True" and not not_ready,
        why="its kubelet is not ready" if not_ready else why_not(ready),
        chips=chips,
        elsewhere=tuple(elsewhere),
        unnumbered=unnumbered,
        cards=tuple(
            f"{fault.name} ({fault.type}): {'all EFA cards' if fault.efa is None else f'EFA card {fault.efa}'}"
            for fault in faults_of(spec)
            if fault.type == "EFADown"
        ),
        links=tuple(
            (fault.chip, fault.peer, f"{fault.name} ({fault.type})")
            for fault in faults_of(spec)
            if fault.chip is not None and fault.peer is not None
        ),
    )


def _break(chips: Sequence[Chip], known: Sequence[Fault], kind: InstanceType, lnc: int) -> None:
    for chip in chips if known else ():
        piece = part(f"neuron-device-{chip.number}", kind, logical_neuron_core=lnc)
        found = [fault for fault in known if hits(fault, piece, kind)]
        chip.faults = [f"{fault.name} ({fault.type})" for fault in found]
        closing = [fault for fault in found if fault.effect != "None"]
        chip.closed = bool(closing)
        chip.unlinked = all(fault.peer is not None for fault in closing)


def _hold(chips: Sequence[Chip], held: Iterable[Holder], kind: InstanceType, lnc: int, *, pool: str) -> None:
    for holder in held:
        who = list(holder.pods) or [f"claim {holder.claim}"]
        for _, of, device in holder.devices:
            if of != pool:
                continue
            try:
                piece = part(device, kind, logical_neuron_core=lnc)
            except UnknownDevice:  # cut anew since, or of another driver
                continue
            for number in piece.chips:
                _given(chips[number], who, cores=piece.kind not in ("chip", "node"))


def _hold_by_plugin(chips: Sequence[Chip], pods: Iterable[Object], per_chip: int) -> tuple[list[str], int]:
    """Pods of the device plugin; those of which nobody tells the numbers, and how many chips they have."""
    unnumbered: list[str] = []
    without = 0
    for pod in pods:
        found = holding(pod)
        if found is None or pod["spec"].get("resourceClaims") or _served_by_claim(pod):
            continue
        if found.ids is None or not (found.demand.chips or found.demand.cores):
            what = [(found.demand.chips, "chip"), (found.demand.cores, "core")]
            amounts = [f"{count} {word}{'s' if count > 1 else ''}" for count, word in what if count]
            unnumbered.append(f"{found.pod} ({' and '.join(amounts)})")
            without += found.demand.chips + -(-found.demand.cores // per_chip)
            continue
        for number in found.ids:
            chip = number if found.demand.chips else number // per_chip
            if chip < len(chips):
                _given(chips[chip], [found.pod], cores=not found.demand.chips)
    return unnumbered, without


def _served_by_claim(pod: Object) -> bool:
    """Whether the scheduler made a claim of the pod's plain resources."""
    return bool((pod.get("status") or {}).get("extendedResourceClaimStatus"))


def _given(chip: Chip, who: Iterable[str], *, cores: bool) -> None:
    chip.held_by += [each for each in who if each not in chip.held_by]
    chip.held_by.sort()
    chip.cores = cores
