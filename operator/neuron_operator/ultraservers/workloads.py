"""Workloads as decisions need them, and who has which node.

A workload's nodes are those in its status, which one write puts there. It has them until its finalizer is gone, so a
workload that is being deleted keeps its nodes from others while its pods still run there. Should two statuses ever
name the same node, the one that was allocated first has it.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from neuron_device_model import catalog
from pydantic import ValidationError

from neuron_operator import names
from neuron_operator.ultraservers.resources import FailureStrategy, NeuronUltraServerWorkloadSpec

Json = dict[str, Any]

_ID_LENGTH = 63


@dataclass(frozen=True, slots=True)
class NodeSet:
    """Nodes of one UltraServer that were allocated together."""

    ultraserver: str
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Workload:
    """A NeuronUltraServerWorkload, understood as far as it can be."""

    item: Json
    spec: NeuronUltraServerWorkloadSpec | None
    problem: str
    """What is wrong with the spec; empty if nothing is."""
    sets: tuple[NodeSet, ...]

    @property
    def namespace(self) -> str:
        """Its namespace."""
        return str(self.item["metadata"]["namespace"])

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.item["metadata"]["name"])

    @property
    def uid(self) -> str:
        """Its UID."""
        return str(self.item["metadata"]["uid"])

    @property
    def ref(self) -> str:
        """How people and NeuronUltraServers call it."""
        return f"{self.namespace}/{self.name}"

    @property
    def id(self) -> str | None:
        """Its workload id, once it has one."""
        return self.status.get("workloadId")

    @property
    def status(self) -> Json:
        """Its status."""
        return self.item.get("status") or {}

    @property
    def deleting(self) -> bool:
        """Whether somebody deleted it."""
        return "deletionTimestamp" in self.item["metadata"]

    @property
    def finalized(self) -> bool:
        """Whether it cannot go without us."""
        return names.FINALIZER_ULTRASERVERS in (self.item["metadata"].get("finalizers") or ())

    @property
    def nodes(self) -> tuple[str, ...]:
        """All nodes that its status names."""
        return tuple(node for each in self.sets for node in each.nodes)

    @property
    def template(self) -> str:
        """The name of its claim template."""
        wished = self.spec.resource_claim_template if self.spec else None
        return (wished.name if wished else None) or self.name

    @property
    def strategy(self) -> FailureStrategy:
        """What it wants when nodes fail."""
        policy = self.spec.allocation_policy if self.spec else None
        return policy.failure_strategy if policy else "NoOp"


def read(item: Json) -> Workload:
    """Understand a workload."""
    sets = tuple(
        NodeSet(each["ultraServer"], tuple(each["nodes"])) for each in (item.get("status") or {}).get("sets") or ()
    )
    try:
        spec = NeuronUltraServerWorkloadSpec.model_validate(item.get("spec") or {})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        return Workload(item, None, f"spec.{field}: {first['msg']}", sets)
    return Workload(item, spec, _problem(spec), sets)


def _problem(spec: NeuronUltraServerWorkloadSpec) -> str:
    try:
        kind = catalog.instance_type(spec.instance_type)
    except catalog.UnknownInstanceType as error:
        return f"spec.instanceType: {error}"
    if kind.ultraserver is None:
        return f"spec.instanceType: {kind.name} is no member of an UltraServer; choose one of {', '.join(members())}"
    lnc = spec.config.logical_neuron_core if spec.config else None
    if lnc is not None and lnc not in kind.chip.logical_neuron_core_values:
        values = " or ".join(map(str, kind.chip.logical_neuron_core_values))
        return f"spec.config.logicalNeuronCore: {kind.name} has {values}; change it or leave it out"
    return ""


def members() -> list[str]:
    """The instance types that UltraServers are made of."""
    return [kind.name for kind in catalog.instance_types() if kind.ultraserver]


def holders(workloads: Iterable[Workload]) -> dict[str, Workload]:
    """Who has which node."""
    found: dict[str, Workload] = {}
    for workload in sorted((w for w in workloads if w.finalized), key=_seniority):
        for node in workload.nodes:
            found.setdefault(node, workload)
    return found


def owner(ref: str) -> str:
    """How sentences call a workload."""
    return f"the NeuronUltraServerWorkload {ref}"


def workload_ids(items: Iterable[Json]) -> dict[str, str]:
    """The workload ids that nodes are to carry: those of a workload that is being deleted take no more pods."""
    return {node: w.id for node, w in holders(map(read, items)).items() if w.id and not w.deleting}


def new_id(workload: Workload, taken: Mapping[str, str]) -> str:
    """An id for a workload: AWS's, its name, unless it is too long for a label or `taken` by a namesake."""
    if len(workload.name) <= _ID_LENGTH and taken.get(workload.name, workload.uid) == workload.uid:
        return workload.name
    digest = hashlib.sha256(workload.ref.encode()).hexdigest()[:8]
    return f"{workload.name[: _ID_LENGTH - 9]}-{digest}"


def _seniority(workload: Workload) -> tuple[str, str, str]:
    created = workload.item["metadata"].get("creationTimestamp") or ""
    # RFC 3339 in UTC sorts as text
    return str(workload.status.get("allocationTime") or created), created, workload.ref
