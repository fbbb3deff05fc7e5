"""What an allocation means on this node: which physical cores, which chips of the container, which LNC. Pure.

An allocation has names of devices; what they mean depends on what the node is. A claim that is prepared keeps what its
names meant then, because its containers run with that, even when the node is cut in another way meanwhile; so the
record of the checkpoint comes before today's meaning.

LNC, the logical NeuronCore configuration, is a setting of a chip. What is in effect for a request is what a
NeuronConfig says, else the node's; for a request with physical cores that is 1, because then a core of the container is
what was allocated. Claims that share a chip have to agree. Admin access takes no part in this: it sees chips as the
node has them, and changes nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from neuron_device_model.cores import core_list
from neuron_device_model.partitions import NODE_DEVICE, Part, PartKind, UnknownDevice
from neuron_device_model.view import GivenChip, View, container_view

from ..errors import ClaimError
from ..node import SimulatedNode
from ..records.checkpoint import Entry
from ..records.holdings import Cores, HeldDevice, Share, shares
from .allocation import AllocatedDevice, AllocatedRequest, Allocation
from .config import UNCONFIGURED, RequestConfig

_CORES = ("core", "physical_core")

REMEMBERED = 256
"""Different sets of devices that a node remembers what they mean: more than a node has in use."""


@dataclass(frozen=True, slots=True)
class GrantedRequest:
    """One request of a claim, on this node."""

    name: str
    devices: tuple[AllocatedDevice, ...]
    """In the order of the hardware."""
    held: tuple[HeldDevice, ...]
    """The same, as the checkpoint has them."""
    chips: tuple[GivenChip, ...]
    """What it has of each chip, in the order in which the container numbers them."""
    first_index: int
    """The container's number of the first chip."""
    user: str
    """Requests of one user number their chips on; where it has a name, a container has all of its requests."""
    logical_neuron_core: int
    config: RequestConfig
    view: View
    """What its containers see."""


@dataclass(frozen=True, slots=True)
class Grant:
    """All of a claim, on this node."""

    allocation: Allocation
    requests: tuple[GrantedRequest, ...]
    shares: Mapping[int, Share]
    """What it has of each chip, to the exclusion of other claims."""

    @property
    def held(self) -> tuple[HeldDevice, ...]:
        """All its devices, as the checkpoint has them."""
        return tuple(held for request in self.requests for held in request.held)


def is_of(entry: Entry, allocation: Allocation) -> bool:
    """Whether a claim was prepared with this very allocation."""
    return {(held.request, held.pool, held.device, held.admin_access) for held in entry.devices} == {
        (device.request, allocation.pool, device.name, device.admin_access) for device in allocation.devices
    }


def grant(allocation: Allocation, node: SimulatedNode, *, before: Entry | None = None) -> Grant:
    """What this node gives for an allocation. `before`: the claim's record if it is prepared with this allocation."""
    try:
        if before:  # what is prepared stays, whoever gets the node next
            kept = {(held.request, held.device): held for held in before.devices}
            return Grant(allocation, *_work_out(allocation, node, kept=kept))
        _check_workload(allocation, node)
        return Grant(allocation, *_new(allocation, node))
    except ClaimError as error:
        raise ClaimError(f"{allocation}: {error}") from error


_Kept: TypeAlias = Mapping[tuple[str, str], HeldDevice]
_Granted: TypeAlias = tuple[tuple[GrantedRequest, ...], Mapping[int, Share]]


def _new(allocation: Allocation, node: SimulatedNode) -> _Granted:
    """Claims come and go, and the devices are the same ones: worked out once where nobody configures anything."""
    if any(request.config != UNCONFIGURED for request in allocation.requests):
        return _work_out(allocation, node, kept={})
    key = (allocation.requests, allocation.pool, allocation.origin)
    found: _Granted | None = node.grants.get(key)
    if found is None:
        if len(node.grants) >= REMEMBERED:
            node.grants.clear()
        found = node.grants[key] = _work_out(allocation, node, kept={})
    return found


def _work_out(allocation: Allocation, node: SimulatedNode, *, kept: _Kept) -> _Granted:
    requests: list[GrantedRequest] = []
    following: dict[str, int] = {}
    for request in allocation.requests:
        first = following.get(request.user, 0)
        granted = _request(request, allocation, node, kept=kept, first_index=first)
        following[request.user] = first + len(granted.chips)
        requests.append(granted)
    _check_agreement(requests)
    return tuple(requests), shares(held for request in requests for held in request.held)


class _Piece(NamedTuple):
    """A device of a request and what it is here."""

    device: AllocatedDevice
    cores: Cores
    kind: PartKind | None
    """None: the name means nothing any more, only the claim's record knows it."""
    earlier: int = 0
    """The LNC with which the claim was prepared already."""


def _request(
    request: AllocatedRequest, allocation: Allocation, node: SimulatedNode, *, kept: _Kept, first_index: int
) -> GrantedRequest:
    pieces = [_piece(device, allocation, node, kept.get((device.request, device.name))) for device in request.devices]
    pieces.sort(key=lambda piece: piece.cores)
    _check_ultraserver(request, pieces, node)
    lnc = _logical_neuron_core(request, pieces, node)
    chips = _chips(request, pieces, node, lnc)
    return GrantedRequest(
        name=request.name,
        devices=tuple(piece.device for piece in pieces),
        held=tuple(
            HeldDevice(device.request, allocation.pool, device.name, device.admin_access, cores, lnc)
            for device, cores, _, _ in pieces
        ),
        chips=chips,
        first_index=first_index,
        user=request.user,
        logical_neuron_core=lnc,
        config=request.config,
        view=container_view(
            node.instance_type,
            given=chips,
            first_index=first_index,
            logical_neuron_core=lnc,
            instance_id=node.instance_id,
            sdk=node.sdk,
            driver_version=node.driver_version,
            network_nodes=node.network_nodes,
        ),
    )


def _piece(device: AllocatedDevice, allocation: Allocation, node: SimulatedNode, held: HeldDevice | None) -> _Piece:
    try:
        part = node.part(device.name)
    except UnknownDevice:
        part = None
    if held and (part is None or part.kind in _CORES) and _exist(held.cores, node):
        return _Piece(device, held.cores, part.kind if part else None, held.logical_neuron_core)
    # By the other road a device needs not be in the offer to the scheduler.
    if part is None or not (held or device.name in node.devices or allocation.origin == "device-plugin"):
        raise ClaimError(
            f"node {node.name} has no {device.name} (any more): it is a {node.instance_type.name} with "
            f"{len(node.devices)} devices now (partitions {node.partitions}); delete the pod, so that it is "
            "scheduled again"
        )
    earlier = held.logical_neuron_core if held and part.kind not in _CORES else 0
    return _Piece(device, _cores(part, node), part.kind, earlier)


def _cores(part: Part, node: SimulatedNode) -> Cores:
    per_chip = node.instance_type.chip.physical_cores
    if part.kind not in _CORES:
        return tuple((chip, (1 << per_chip) - 1) for chip in part.chips)
    [chip] = part.chips
    return ((chip, sum(1 << core - chip * per_chip for core in part.physical_cores)),)


def _exist(cores: Cores, node: SimulatedNode) -> bool:
    kind = node.instance_type
    return bool(cores) and all(
        0 <= chip < kind.chips and 0 < mask < 1 << kind.chip.physical_cores for chip, mask in cores
    )


def _logical_neuron_core(request: AllocatedRequest, pieces: Sequence[_Piece], node: SimulatedNode) -> int:
    chip = node.instance_type.chip
    config = request.config.neuron
    if config and not any(device.admin_access for device in request.devices):
        if config.logical_neuron_core not in chip.logical_neuron_core_values:
            values = " or ".join(map(str, chip.logical_neuron_core_values))
            raise ClaimError(
                f"{config.where} is {config.logical_neuron_core}, which {chip.title} does not have (node {node.name} "
                f"is a {node.instance_type.name}): write logicalNeuronCore: {values}, or remove the NeuronConfig"
            )
        return config.logical_neuron_core
    earlier = min(piece.earlier for piece in pieces)
    if earlier in chip.logical_neuron_core_values:
        return earlier
    return 1 if any(piece.kind == "physical_core" for piece in pieces) else node.logical_neuron_core


def _chips(request: AllocatedRequest, pieces: Sequence[_Piece], node: SimulatedNode, lnc: int) -> tuple[GivenChip, ...]:
    """What a request has of each chip, in logical cores."""
    masks: dict[int, int] = {}
    for piece in pieces:
        for chip, mask in piece.cores:
            masks[chip] = masks.get(chip, 0) | mask
    every = range(node.instance_type.chip.physical_cores // lnc)
    group = (1 << lnc) - 1
    given = []
    for chip, mask in sorted(masks.items()):
        cores = tuple(core for core in every if mask >> core * lnc & group == group)
        if sum(group << core * lnc for core in cores) != mask:
            raise ClaimError(_not_aligned(request, chip, mask, lnc))
        given.append(GivenChip(chip, None if len(cores) == len(every) else cores))
    return tuple(given)


def _not_aligned(request: AllocatedRequest, chip: int, mask: int, lnc: int) -> str:
    has = [core for core in range(mask.bit_length()) if mask >> core & 1]
    alone = [
        core for core in has if any(core // lnc == c // lnc and c not in has for c in range(core - lnc, core + lnc))
    ]
    where = request.config.neuron.where if request.config.neuron else "the node"
    return (
        f"request {request.name} is given core {core_list(alone)} of neuron-device-{chip} without its neighbour, and "
        f"{where} asks for logical NeuronCores of {lnc} physical ones each, which are the pairs 0-1, 2-3 and so on of "
        f"a chip: ask for both cores of a pair (by the attributes deviceId and neuron-sim.dev/core), or write "
        "logicalNeuronCore: 1"
    )


def _check_ultraserver(request: AllocatedRequest, pieces: Sequence[_Piece], node: SimulatedNode) -> None:
    config = request.config.ultraserver
    if config is None:
        return
    others = [piece.device.name for piece in pieces if piece.kind != "node"]
    if others or node.instance_type.ultraserver is None:
        raise ClaimError(
            f"{config.where} is for requests of a whole node (resourceType neuron_node) of an UltraServer's instance "
            f"type, and request {request.name} is given {(others or [NODE_DEVICE])[0]} of a {node.instance_type.name}: "
            "remove the UltraServerConfig, or let its `requests` name others"
        )
    servers, seat = config.ultraserver_mode, node.seat
    possible = seat.sets if seat else (1,)
    if servers not in possible:
        where = f"in an UltraServer of {seat.size} servers" if seat else "in no UltraServer"
        raise ClaimError(
            f"{config.where} is {servers}, and node {node.name} is {where}: write ultraserverMode: "
            f"{' or '.join(map(str, possible))}, or select nodes that can (label neuron.amazonaws.com/ultraserver-mode)"
        )


def _check_workload(allocation: Allocation, node: SimulatedNode) -> None:
    """A workload's node is for its claims only, and they are for no other node. Admin access may look."""
    mine, theirs = allocation.workload_id, node.workload_id
    if mine == theirs or allocation.origin != "claim" or all(device.admin_access for device in allocation.devices):
        return
    if mine is None:
        raise ClaimError(
            f"node {node.name} is allocated to the NeuronUltraServerWorkload with the workload id {theirs}, and the "
            "claim is not made from its ResourceClaimTemplate: claim through that, or select devices that have no "
            "workloadId, and delete the pod, so that it is scheduled again"
        )
    now = f"the one with {theirs}" if theirs else "none (any more)"
    raise ClaimError(
        f"the claim is for nodes of the NeuronUltraServerWorkload with the workload id {mine}, and node {node.name} is "
        f"allocated to {now}: delete the pod, so that it is scheduled again"
    )


def _check_agreement(requests: Sequence[GrantedRequest]) -> None:
    """A chip has one LNC, also for the requests of one claim."""
    seen: dict[int, GrantedRequest] = {}
    for request in requests:
        for chip in shares(request.held):
            other = seen.setdefault(chip, request)
            if other.logical_neuron_core != request.logical_neuron_core:
                raise ClaimError(
                    f"requests {other.name} and {request.name} are given cores of neuron-device-{chip} with logical "
                    f"NeuronCore configuration {other.logical_neuron_core} and {request.logical_neuron_core}, and a "
                    "chip has one: write a NeuronConfig that holds for both"
                )
