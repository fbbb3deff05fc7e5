"""From pools and nodes to NeuronNodes: who gets which node, and what the node becomes.

The older pool wins a node (creation time, then name), and it wins by its selector alone: a pool whose
instance type turned out wrong keeps its claim, or nodes would hop between pools while somebody corrects a
typo. Such a pool, and every pool while real Neuron is in the cluster, is *frozen*: NeuronNodes that exist stay
as they are, so that running pods keep their devices; none is added or changed; those of nodes that leave
the pool, or of a pool that is deleted, still go.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from neuron_device_model import catalog
from neuron_device_model.identity import instance_id
from pydantic import ValidationError

from neuron_operator import names, virtual_nodes
from neuron_operator.nodes import NodeFacts
from neuron_operator.resources import NeuronNodePoolSpec, PoolTopology, Road
from neuron_operator.selectors import matches
from neuron_operator.topology import Place, Shape, places

Json = dict[str, Any]

_LABELS = (names.LABEL_POOL, names.LABEL_SIMULATED, names.LABEL_VIRTUAL)
# As many as have neighbouring numbers in the names of others (topology.layers), which begin at 1 and not at 0
_VIRTUAL_NODES_PER_LAYER3 = 4


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a pool cannot be expanded, and what to change."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Overlap:
    """A node that an older pool took."""

    node: str
    winner: str


@dataclass(frozen=True, slots=True)
class Wish:
    """A pool, understood as far as it can be."""

    pool: Json
    spec: NeuronNodePoolSpec | None
    problem: Problem | None

    @property
    def name(self) -> str:
        """The pool's name."""
        return str(self.pool["metadata"]["name"])

    @property
    def count(self) -> int | None:
        """How many virtual nodes the pool is to have; None: it takes nodes that are there."""
        return self.spec.count if self.spec is not None else None


@dataclass(frozen=True, slots=True)
class Share:
    """What one pool gets."""

    wish: Wish
    nodes: tuple[NodeFacts, ...]
    overlaps: tuple[Overlap, ...]


def understand(pool: Json, *, virtual: bool = True) -> Wish:
    """Read a pool's spec and check it against the catalogue that this operator has. `virtual`: nodes may be made."""
    try:
        spec = NeuronNodePoolSpec.model_validate(pool.get("spec") or {})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        return Wish(pool, None, Problem("InvalidSpec", f"spec.{field}: {first['msg']}"))
    try:
        instance_type = catalog.instance_type(spec.instance_type)
        if spec.sdk_version is not None:
            catalog.sdk_release(spec.sdk_version)
    except catalog.UnknownInstanceType as error:
        return Wish(pool, spec, Problem("UnknownInstanceType", f"spec.instanceType: {error}"))
    except catalog.UnknownSdkRelease as error:
        return Wish(pool, spec, Problem("UnknownSdkVersion", f"spec.sdkVersion: {error}"))
    values = instance_type.chip.logical_neuron_core_values or (1,)
    if spec.logical_neuron_core is not None and spec.logical_neuron_core not in values:
        return Wish(
            pool,
            spec,
            Problem(
                "UnsupportedLogicalNeuronCore",
                f"spec.logicalNeuronCore: {instance_type.name} has {' and '.join(map(str, values))}"
                f" only; change it or leave it out",
            ),
        )
    if spec.count is not None and not virtual:
        text = "spec.count: virtual nodes are not installed; set virtualNodes.enabled=true in the chart's values"
        return Wish(pool, spec, Problem("VirtualNodesNotInstalled", text))
    if spec.count is not None and (problem := _unfit_for_virtual_nodes(pool["metadata"]["name"], spec)):
        return Wish(pool, spec, problem)
    if spec.devices not in (None, "chips") and not instance_type.ultraserver:
        text = f"spec.devices: {instance_type.name} is no UltraServer type and offers chips only; leave devices out"
        return Wish(pool, spec, Problem("UnsupportedDevices", text))
    if spec.topology is not None and (text := _misshapen(spec.topology, instance_type)):
        return Wish(pool, spec, Problem("UnsupportedTopology", f"spec.topology.{text}"))
    return Wish(pool, spec, None)


def _unfit_for_virtual_nodes(pool: str, spec: NeuronNodePoolSpec) -> Problem | None:
    if spec.node_selector is not None:
        text = "spec.nodeSelector: a pool with a count makes its own nodes; leave one of the two out"
        return Problem("CountAndNodeSelector", text)
    if spec.resources == "DevicePlugin":
        text = "spec.resources: virtual nodes have no kubelet to serve, so they serve DRA only; leave resources out"
        return Problem("UnsupportedResources", text)
    if len(pool) > virtual_nodes.NAME_LENGTH:
        text = f"metadata.name: virtual nodes are named after it; choose one of {virtual_nodes.NAME_LENGTH} characters"
        return Problem("NameTooLong", text)
    return None


def _misshapen(topology: PoolTopology, instance_type: catalog.InstanceType) -> str:
    servers = servers_joined(instance_type)
    units = [
        ("nodesPerLayer3", topology.nodes_per_layer3, f"the {servers} servers of an UltraServer", servers),
        ("nodesPerLayer2", topology.nodes_per_layer2, "nodesPerLayer3", topology.nodes_per_layer3),
        ("nodesPerLayer1", topology.nodes_per_layer1, "nodesPerLayer2", topology.nodes_per_layer2),
    ]
    for field, nodes, below, unit in units:
        if nodes is not None and (unit is None or nodes % unit):
            given = "which must be given too" if unit is None else f"not {nodes}"
            return f"{field}: it must be a multiple of {below}, {given}; change it or leave it out"
    return ""


def servers_joined(instance_type: catalog.InstanceType) -> int:
    """How many servers an UltraServer of this type has; 1 where there is none."""
    return catalog.ultraserver_type(instance_type.ultraserver).servers if instance_type.ultraserver else 1


def share_out(
    pools: Sequence[Json], nodes: Sequence[NodeFacts], *, members: Mapping[str, str], virtual: bool = True
) -> list[Share]:
    """Give every node to the oldest pool that selects it, and virtual nodes to the pool that they were made for.

    ``members`` maps nodes to the pool that has them now: a pool whose selector cannot be read selects these.
    ``virtual``: whether pools may make nodes.
    """
    wishes = [understand(pool, virtual=virtual) for pool in sorted(pools, key=_age)]
    taken: dict[str, list[NodeFacts]] = {wish.name: [] for wish in wishes}
    lost: dict[str, list[Overlap]] = {wish.name: [] for wish in wishes}
    made = {
        name: wish.pool["metadata"]["uid"]
        for wish in wishes
        for name in virtual_nodes.node_names(wish.name, wish.count or 0)
    }
    for node in sorted(nodes, key=lambda node: node.name):
        if node.made_for is not None:
            owner = next((wish for wish in wishes if wish.pool["metadata"]["uid"] == node.made_for), None)
            if owner is not None and (owner.spec is None or made.get(node.name) == node.made_for):
                taken[owner.name].append(node)
            continue
        candidates = [wish.name for wish in wishes if _selects(wish, node, members)]
        if candidates:
            winner, *others = candidates
            taken[winner].append(node)
            for other in others:
                lost[other].append(Overlap(node.name, winner))
    return [Share(wish, tuple(taken[wish.name]), tuple(lost[wish.name])) for wish in wishes]


def _age(pool: Json) -> tuple[str, str]:
    # RFC 3339 in UTC sorts as text
    return pool["metadata"].get("creationTimestamp") or "", pool["metadata"]["name"]


def _selects(wish: Wish, node: NodeFacts, members: Mapping[str, str]) -> bool:
    if wish.spec is None:
        return members.get(node.name) == wish.name
    if wish.count is not None:
        return False
    if wish.spec.node_selector is None:
        return not node.control_plane
    return matches(wish.spec.node_selector, node.natural_labels)


def placed(wish: Wish, nodes: Sequence[NodeFacts], *, specs: Mapping[str, Mapping[str, Any]]) -> dict[str, Place]:
    """Where the nodes of a pool are; `specs` are those of the NeuronNodes that they have in it."""
    assert wish.spec is not None, "a pool with a problem places no nodes"
    topology = wish.spec.topology or PoolTopology()
    joined = catalog.instance_type(wish.spec.instance_type).ultraserver
    shape = Shape(
        pool=wish.name,
        uid=wish.pool["metadata"]["uid"],
        layer_3=topology.nodes_per_layer3 or (None if wish.count is None or joined else _VIRTUAL_NODES_PER_LAYER3),
        layer_2=topology.nodes_per_layer2,
        layer_1=topology.nodes_per_layer1,
    )
    return places(nodes, instance_type=catalog.instance_type(wish.spec.instance_type), shape=shape, specs=specs)


def neuron_node(wish: Wish, node: NodeFacts, *, road: Road, place: Place) -> Json:
    """The NeuronNode of a node, healthy; the owner reference lets it go with the node."""
    assert wish.spec is not None, "a pool with a problem has no NeuronNodes to make"
    instance_type = catalog.instance_type(wish.spec.instance_type)
    sdk = catalog.sdk_release(wish.spec.sdk_version or catalog.DEFAULT_SDK_VERSION)
    return {
        "apiVersion": names.API_VERSION,
        "kind": "NeuronNode",
        "metadata": {
            "name": node.name,
            "labels": {
                names.LABEL_POOL: wish.name,
                names.LABEL_SIMULATED: "true",
                **({} if wish.count is None else {names.LABEL_VIRTUAL: "true"}),
            },
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": node.name, "uid": node.uid}],
        },
        "spec": {
            "pool": wish.name,
            "instanceType": instance_type.name,
            "logicalNeuronCore": wish.spec.logical_neuron_core or instance_type.chip.default_logical_neuron_core,
            "sdkVersion": sdk.version,
            "driverVersion": wish.spec.driver_version or sdk.driver_version,
            "resources": road,
            "partitions": wish.spec.partitions or ("logical" if wish.count is None else "none"),
            "devices": wish.spec.devices or ("both" if instance_type.ultraserver and wish.count is None else "chips"),
            "instanceID": instance_id(node.uid),
            "networkNodes": list(place.network_nodes),
            **_membership(place),
        },
    }


def _membership(place: Place) -> Json:
    if place.seat is None:
        return {}
    return {
        "ultraServer": {"id": place.seat.id, "size": place.seat.size, "node": place.seat.node},
        "capacityBlockID": place.capacity_block,
    }


def unchanged(item: Json) -> Json:
    """A NeuronNode as it is, without what others write in it."""
    metadata = item["metadata"]
    labels = metadata["labels"]
    return {
        "apiVersion": names.API_VERSION,
        "kind": "NeuronNode",
        "metadata": {
            "name": metadata["name"],
            "labels": {key: labels[key] for key in _LABELS if key in labels},
            "ownerReferences": [owner for owner in metadata["ownerReferences"] if owner["kind"] == "Node"],
        },
        "spec": item["spec"],
    }
