"""How the claims of a cluster pack on its nodes: the chips that cores break, beside the fewest that could hold them.

On the DRA road each claim says which devices it has. On the device-plugin road nobody says it for all pods: those that
the scheduler extension placed carry their ids, and of the others the number is known and not the place. These are
taken to hold what the device plugin prefers to give them, as the extension itself takes them to, and the row says of
how many that is so.

`gather` asks the cluster; the rest is pure, objects in and a row for each node out.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from neuron_device_model.catalog import InstanceType, UnknownInstanceType, instance_type
from neuron_device_model.cores import UnsupportedLogicalNeuronCore
from neuron_device_model.packing import usage
from neuron_device_model.partitions import Part, UnknownDevice, part
from neuron_operator.extender.demand import Holding, holding
from neuron_operator.extender.names import IDS
from neuron_operator.extender.occupancy import from_neuron_node, occupancy

from neuron_cli.cluster import Cluster, Refused
from neuron_cli.doctor import count
from neuron_cli.driver_name import driver_name
from neuron_cli.facts import OUR_API, RESOURCE_API

Object = Mapping[str, Any]
Row = dict[str, object]

COUNTS = ("chips", "free", "partly", "full", "broken", "best")
DEVICE_PLUGIN = "DevicePlugin"
PLACED = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed"


@dataclass(frozen=True, slots=True)
class Objects:
    """What it takes to know how a cluster packs."""

    driver_name: str
    neuron_nodes: Sequence[Object]
    claims: Sequence[Object]
    pods: Sequence[Object]
    """Only asked for where a node goes the device-plugin road."""


def gather(cluster: Cluster) -> Objects:
    """Ask for all of it. A 404 means that the CRDs are not installed."""
    neuron_nodes = cluster.items(f"{OUR_API}/neuronnodes")
    try:
        claims = cluster.items(f"{RESOURCE_API}/resourceclaims")
    except Refused as refused:
        if refused.status != 404:
            raise
        claims = []  # an older Kubernetes has nodes of the device-plugin road only
    by_plugin = any(node["spec"].get("resources") == DEVICE_PLUGIN for node in neuron_nodes)
    return Objects(
        driver_name=driver_name(cluster),
        neuron_nodes=neuron_nodes,
        claims=claims,
        pods=cluster.items("/api/v1/pods", fieldSelector=PLACED) if by_plugin else [],
    )


def rows(found: Objects) -> list[Row]:
    """A row for each node."""
    devices: dict[str, list[str]] = {node["metadata"]["name"]: [] for node in found.neuron_nodes}
    for claim in found.claims:
        for pool, device in _allocated(claim, found.driver_name):
            if pool in devices:
                devices[pool].append(device)
    holdings: dict[str, list[Holding]] = {name: [] for name in devices}
    for pod in found.pods:
        # What a pod has by a claim, though it only named a number, is in that claim.
        by_claim = (pod.get("status") or {}).get("extendedResourceClaimStatus")
        held = None if by_claim else holding(pod)
        if held and held.node in holdings:
            holdings[held.node].append(held)
    names = ((node, node["metadata"]["name"]) for node in found.neuron_nodes)
    return [_row(node, devices[name], holdings[name]) for node, name in names]


def total(nodes: Sequence[Row]) -> Row:
    """The sums."""
    sums = {key: sum(number for row in nodes if isinstance(number := row[key], int)) for key in COUNTS}
    return {"node": "total", "type": "", "resources": "", **sums, "note": ""}


def _allocated(claim: Object, driver_name: str) -> list[tuple[str, str]]:
    """Pool and device; neither of other drivers, nor what is only looked at."""
    results = ((claim.get("status") or {}).get("allocation") or {}).get("devices", {}).get("results") or ()
    return [
        (result["pool"], result["device"])
        for result in results
        if result["driver"] == driver_name and not result.get("adminAccess")
    ]


def _row(node: Object, devices: Iterable[str], holdings: Sequence[Holding]) -> Row:
    spec = node["spec"]
    head: Row = {"node": node["metadata"]["name"], "type": spec["instanceType"], "resources": spec.get("resources")}
    try:
        kind = instance_type(spec["instanceType"])
        kind.cores(spec["logicalNeuronCore"])
    except (UnknownInstanceType, UnsupportedLogicalNeuronCore) as unknown:
        return {**head, **dict.fromkeys(COUNTS), "note": str(unknown)}
    parts, notes = _held(node, kind, devices, holdings)
    taken = {core for piece in parts for core in piece.physical_cores}
    per_chip = kind.chip.physical_cores
    used = [len(taken.intersection(range(chip * per_chip, (chip + 1) * per_chip))) for chip in range(kind.chips)]
    found = usage(parts, kind)
    counts = {
        "chips": kind.chips,
        "free": used.count(0),
        "partly": sum(0 < cores < per_chip for cores in used),
        "full": used.count(per_chip),
        "broken": found.broken,
        "best": found.best,
    }
    return {**head, **counts, "note": "; ".join(notes)}


def _held(
    node: Object, kind: InstanceType, devices: Iterable[str], holdings: Sequence[Holding]
) -> tuple[list[Part], list[str]]:
    """What is given of a node, and what cannot be told of it."""
    lnc = node["spec"]["logicalNeuronCore"]
    parts: list[Part] = []
    notes: list[str] = []
    gone = 0
    for device in devices:
        try:
            parts.append(part(device, kind, logical_neuron_core=lnc))
        except UnknownDevice:
            gone += 1
    if gone:
        notes.append(f"{count(gone, 'allocated device')} left out: of a name that the node does not have any more")
    if served := from_neuron_node(node):
        given = occupancy(served, holdings)
        names = [*(f"neuron-device-{chip}" for chip in given.chips), *(f"neuron-core-{core}" for core in given.cores)]
        parts += [part(name, kind, logical_neuron_core=lnc) for name in names]
        if silent := sum(held.ids is None for held in holdings):
            notes.append(f"estimated for {count(silent, 'pod')} without {IDS}, which only my-scheduler writes")
    return parts, notes
