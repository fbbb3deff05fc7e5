"""CustomResourceDefinitions, generated from the models in the modules ``resources``.

A CRD wants a *structural* OpenAPI schema: no references, no ``anyOf`` over types, no titles. pydantic emits
JSON schema with all of them, so ``structural`` inlines and simplifies. Optional fields become plain optional
ones: the API server prunes an explicit null of a field that is not nullable, which is what people mean by it.

The catalogue goes into the schema as CEL rules rather than as an ``enum``, because a rule can say what to
change. The price is that a CRD knows the catalogue of its own release only; the operator judges again and
writes a condition when the two differ.

``python -m neuron_operator crds --output charts/neuron-sim/crds`` writes the files.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from neuron_device_model import catalog
from neuron_device_model.faults import GRADED, RATED
from pydantic import BaseModel

from neuron_operator import names
from neuron_operator.expansion import servers_joined
from neuron_operator.gangs.resources import NeuronGangSpec, NeuronGangStatus
from neuron_operator.resources import (
    NeuronFaultSpec,
    NeuronFaultStatus,
    NeuronNodePoolSpec,
    NeuronNodePoolStatus,
    NeuronNodeSpec,
    NeuronNodeStatus,
)
from neuron_operator.ultraservers.resources import (
    NeuronUltraServerSpec,
    NeuronUltraServerStatus,
    NeuronUltraServerWorkloadSpec,
    NeuronUltraServerWorkloadStatus,
)

Json = dict[str, Any]

_KEPT = (
    "type", "format", "description", "default", "enum", "minimum", "maximum", "minLength", "maxLength", "pattern",
    "minItems", "maxItems", "minProperties", "maxProperties", "required",
    "x-kubernetes-list-type", "x-kubernetes-list-map-keys",
)  # fmt: skip


def manifests() -> tuple[Json, ...]:
    """The CRDs, ready to be applied."""
    return (_pool_crd(), _node_crd(), _fault_crd(), _gang_crd(), _ultraserver_crd(), _workload_crd())


def write(folder: Path) -> tuple[Path, ...]:
    """Write one file per CRD, named as Helm expects them; returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for manifest in manifests():
        path = folder / file_name(manifest)
        path.write_text(render(manifest), encoding="utf-8")
        written.append(path)
    return tuple(written)


def file_name(manifest: Json) -> str:
    """File of a CRD: its plural."""
    return f"{manifest['spec']['names']['plural']}.yaml"


def render(manifest: Json) -> str:
    """YAML text of a CRD, with a line that says how to change it."""
    folder = "ultraservers/" if manifest["spec"]["group"] == names.AWS_GROUP else ""
    head = f"# Generated from operator/neuron_operator/{folder}resources.py: edit that, then\n"
    head += "# python -m neuron_operator crds --output charts/neuron-sim/crds\n"
    return head + yaml.safe_dump(manifest, sort_keys=False, width=110, allow_unicode=True)


def structural(model: type[BaseModel]) -> Json:
    """OpenAPI v3 schema of a model as a CRD accepts it."""
    schema = model.model_json_schema(by_alias=True)
    return _simplify(schema, definitions=schema.get("$defs", {}))


def _simplify(schema: Mapping[str, Any], *, definitions: Mapping[str, Any]) -> Json:
    if "$ref" in schema:
        referred = definitions[schema["$ref"].removeprefix("#/$defs/")]
        return _simplify({**referred, **{k: v for k, v in schema.items() if k != "$ref"}}, definitions=definitions)
    if "anyOf" in schema:
        (only,) = [option for option in schema["anyOf"] if option != {"type": "null"}]
        return _simplify({**only, **{k: v for k, v in schema.items() if k != "anyOf"}}, definitions=definitions)
    plain: Json = {key: schema[key] for key in _KEPT if schema.get(key) is not None}
    if "const" in schema:
        plain["enum"] = [schema["const"]]
    if "items" in schema:
        plain["items"] = _simplify(schema["items"], definitions=definitions)
    if "properties" in schema:
        plain["properties"] = {
            name: _simplify(value, definitions=definitions) for name, value in schema["properties"].items()
        }
    if "additionalProperties" in schema and isinstance(schema["additionalProperties"], Mapping):
        plain["additionalProperties"] = _simplify(schema["additionalProperties"], definitions=definitions)
    return plain


def _rule(rule: str, message: str) -> Json:
    return {"rule": rule, "message": message}


def _cel_list(values: Iterable[str]) -> str:
    return "[" + ", ".join(f"'{value}'" for value in values) + "]"


def _instance_type_rule() -> Json:
    known = [instance_type.name for instance_type in catalog.instance_types()]
    return {
        "rule": f"self in {_cel_list(known)}",
        "messageExpression": "'unknown instance type \"' + self + '\": choose one of "
        + ", ".join(known)
        + " (`neuron-sim types` describes them)'",
        "message": "unknown instance type: `neuron-sim types` lists the known ones",
    }


def _sdk_version_rule() -> Json:
    known = [release.version for release in catalog.sdk_releases()]
    return _rule(
        f"self in {_cel_list(known)}",
        f"unknown Neuron SDK release: choose one of {', '.join(known)},"
        f" or leave sdkVersion out for {catalog.DEFAULT_SDK_VERSION}",
    )


def _logical_neuron_core_rules() -> list[Json]:
    """One rule per LNC value, so that the message can name the types that have it."""
    types = catalog.instance_types()
    values = sorted({value for it in types for value in it.chip.logical_neuron_core_values} | {1})
    rules = [
        _rule(
            f"!has(self.logicalNeuronCore) || self.logicalNeuronCore in {values}",
            f"logicalNeuronCore must be one of {', '.join(map(str, values))}, or be left out",
        )
    ]
    for value in values:
        fitting = [it.name for it in types if value in (it.chip.logical_neuron_core_values or (1,))]
        if len(fitting) < len(types):
            rules.append(
                _rule(
                    f"!has(self.logicalNeuronCore) || self.logicalNeuronCore != {value}"
                    f" || self.instanceType in {_cel_list(fitting)}",
                    f"logicalNeuronCore {value} does not exist on this instance type, only on"
                    f" {', '.join(fitting)}: leave logicalNeuronCore out or choose one of these types",
                )
            )
    return rules


def _devices_rule() -> Json:
    fitting = [it.name for it in catalog.instance_types() if it.ultraserver]
    return _rule(
        f"!has(self.devices) || self.devices == 'chips' || self.instanceType in {_cel_list(fitting)}",
        "devices node and both exist on UltraServer types only, which offer the whole node as one device: leave devices"
        f" out or choose one of {', '.join(fitting)}",
    )


def _network_rules() -> list[Json]:
    return [
        _rule(
            f"!has(self.{above}) || (has(self.{below}) && self.{above} % self.{below} == 0)",
            f"{above} must be a multiple of {below}, which must be given too: change it or leave it out",
        )
        for above, below in (("nodesPerLayer2", "nodesPerLayer3"), ("nodesPerLayer1", "nodesPerLayer2"))
    ]


def _whole_ultraservers_rules() -> list[Json]:
    """One rule per size of UltraServers, so that the message can name it."""
    members = [it for it in catalog.instance_types() if it.ultraserver]
    return [
        _rule(
            "!has(self.topology) || !has(self.topology.nodesPerLayer3) ||"
            f" !(self.instanceType in {_cel_list(it.name for it in members if servers_joined(it) == servers)}) ||"
            f" self.topology.nodesPerLayer3 % {servers} == 0",
            f"topology.nodesPerLayer3 must be a multiple of {servers} on this instance type, whose UltraServers have"
            f" {servers} servers each and stay together: change it or leave it out",
        )
        for servers in sorted({servers_joined(it) for it in members})
    ]


def _fault_rules() -> list[Json]:
    return [
        _rule(
            "!has(self.target.core) || has(self.target.chip)",
            "target.core is a core of a chip: add target.chip, or leave target.core out",
        ),
        _rule(
            "self.type != 'DeviceLost' || !has(self.target.core)",
            "DeviceLost is a chip that is gone, or all of the node's: leave target.core out",
        ),
        _rule(
            "self.type != 'DriverFailed' || (!has(self.target.chip) && !has(self.target.core))",
            "DriverFailed is of the whole node: leave target.chip and target.core out",
        ),
        _rule(
            "(self.type == 'LinkDown') == has(self.target.peer)",
            "target.peer is the other end of a link: LinkDown needs target.chip and target.peer, others have no peer",
        ),
        _rule(
            "!has(self.target.peer) || (has(self.target.chip) && !has(self.target.core)"
            " && self.target.chip != self.target.peer)",
            "a link joins two chips: give target.chip and target.peer, which differ, and no target.core",
        ),
        _rule(
            "self.type == 'EFADown' ? !has(self.target.chip) && !has(self.target.core) : !has(self.target.efa)",
            "target.efa is for EFADown, which has neither target.chip nor target.core",
        ),
        _rule(
            f"!has(self.eventsPerMinute) || self.type in {_cel_list(RATED)}",
            f"eventsPerMinute is for {' and '.join(RATED)}: leave it out",
        ),
        _rule(
            f"!has(self.percent) || self.type in {_cel_list(GRADED)}",
            f"percent is for {' and '.join(GRADED)}: leave it out",
        ),
    ]


def _schedule_rules() -> list[Json]:
    return [
        _rule(
            "!has(self.startTime) || !has(self.startAfter)",
            "startTime and startAfter say the same: leave one of them out",
        ),
        _rule("!has(self.endTime) || !has(self.endAfter)", "endTime and endAfter say the same: leave one of them out"),
        _rule(
            "!has(self.repeatEvery) || (has(self.duration) && duration(self.duration) < duration(self.repeatEvery))",
            "repeatEvery needs a duration that is shorter",
        ),
        _rule("!has(self.repeats) || has(self.repeatEvery)", "repeats needs repeatEvery"),
        _rule(
            "!has(self.random) || (!has(self.duration) && !has(self.repeatEvery))",
            "random draws the times itself: leave duration, repeatEvery and repeats out",
        ),
        _rule(
            "!has(self.random) || duration(self.random.meanTimeBetween) >= duration('10s')",
            "random.meanTimeBetween is at least 10s",
        ),
    ]


def _selector_rules() -> list[Json]:
    return [
        _rule(
            "self.operator in ['In', 'NotIn'] ? has(self.values) && size(self.values) > 0"
            " : !has(self.values) || size(self.values) == 0",
            "operators In and NotIn need values; Exists and DoesNotExist must have none",
        )
    ]


def _virtual_rules() -> list[Json]:
    return [
        _rule(
            "has(self.count) == has(oldSelf.count)",
            "a pool goes on making its own nodes, or taking nodes that are there: make another pool",
        ),
        _rule(
            "!has(self.count) || !has(self.nodeSelector)",
            "a pool with a count makes its own nodes: leave nodeSelector or count out",
        ),
        _rule(
            "!has(self.count) || self.resources != 'DevicePlugin'",
            "virtual nodes have no kubelet to serve, so they serve DRA only: leave resources out",
        ),
        _rule(
            "has(self.count) || !has(self.taints)",
            "taints are for virtual nodes, which a pool with a count makes: taint nodes that are there with kubectl",
        ),
    ]


def _pool_crd() -> Json:
    spec = structural(NeuronNodePoolSpec)
    spec["x-kubernetes-validations"] = [
        *_logical_neuron_core_rules(),
        _devices_rule(),
        *_whole_ultraservers_rules(),
        *_virtual_rules(),
    ]
    spec["properties"]["topology"]["x-kubernetes-validations"] = _network_rules()
    spec["properties"]["instanceType"]["x-kubernetes-validations"] = [_instance_type_rule()]
    spec["properties"]["sdkVersion"]["x-kubernetes-validations"] = [_sdk_version_rule()]
    selector = spec["properties"]["nodeSelector"]["properties"]
    selector["matchExpressions"]["items"]["x-kubernetes-validations"] = _selector_rules()
    return _crd(
        kind="NeuronNodePool",
        plural="neuronnodepools",
        short_name="nnp",
        description="A set of nodes that are to become nodes of one AWS Neuron instance type.",
        scale={"specReplicasPath": ".spec.count", "statusReplicasPath": ".status.nodes"},
        spec=spec,
        status=structural(NeuronNodePoolStatus),
        rules=[
            _rule(
                "size(self.metadata.name) <= 63",
                "the name becomes a label value on nodes: choose one of at most 63 characters",
            )
        ],
        columns=[
            _column("Type", ".spec.instanceType"),
            _column("Nodes", ".status.nodes", "integer"),
            _column("Ready", ".status.readyNodes", "integer"),
            _column("Devices", ".status.devices", "integer"),
            _column("Resources", ".status.resources"),
            _column("Accepted", '.status.conditions[?(@.type=="Accepted")].status'),
            _column("LNC", ".spec.logicalNeuronCore", "integer", wide=True),
            _column("UltraServers", ".status.ultraServers", "integer", wide=True),
            _column("Complete", ".status.readyUltraServers", "integer", wide=True),
            _column("Partitions", ".spec.partitions", wide=True),
            _column("SDK", ".spec.sdkVersion", wide=True),
            _column("Reason", '.status.conditions[?(@.type=="Accepted")].reason', wide=True),
            _column("Age", ".metadata.creationTimestamp", "date"),
        ],
    )


def _node_crd() -> Json:
    return _crd(
        kind="NeuronNode",
        plural="neuronnodes",
        short_name="nn",
        description="What one node is: written by the operator, served by the node's agent. Not to be edited.",
        spec=structural(NeuronNodeSpec),
        status=structural(NeuronNodeStatus),
        rules=[],
        columns=[
            _column("Pool", ".spec.pool"),
            _column("Type", ".spec.instanceType"),
            _column("LNC", ".spec.logicalNeuronCore", "integer"),
            _column("Devices", ".status.devices", "integer"),
            _column("Claims", ".status.preparedClaims", "integer"),
            _column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
            _column("Reason", '.status.conditions[?(@.type=="Ready")].reason', wide=True),
            _column("Resources", ".spec.resources", wide=True),
            _column("Partitions", ".spec.partitions", wide=True),
            _column("SDK", ".spec.sdkVersion", wide=True),
            _column("Driver", ".spec.driverVersion", wide=True),
            _column("Instance", ".spec.instanceID", wide=True),
            _column("UltraServer", ".spec.ultraServer.id", wide=True),
            _column("Server", ".spec.ultraServer.node", "integer", wide=True),
            _column("Workload", ".spec.workloadID", wide=True),
            _column("Age", ".metadata.creationTimestamp", "date"),
        ],
    )


def _fault_crd() -> Json:
    spec = structural(NeuronFaultSpec)
    spec["x-kubernetes-validations"] = _fault_rules()
    spec["properties"]["schedule"]["x-kubernetes-validations"] = _schedule_rules()
    return _crd(
        kind="NeuronFault",
        plural="neuronfaults",
        short_name="nf",
        description="Hardware that is broken: its devices get a taint and become unhealthy until this is deleted, or"
        " as its schedule says.",
        spec=spec,
        status=structural(NeuronFaultStatus),
        rules=[],
        columns=[
            _column("Node", ".spec.target.nodeName"),
            _column("Chip", ".spec.target.chip", "integer"),
            _column("Core", ".spec.target.core", "integer"),
            _column("Type", ".spec.type"),
            _column("Effect", ".spec.effect"),
            _column("Active", '.status.conditions[?(@.type=="Active")].status'),
            _column("Reason", '.status.conditions[?(@.type=="Active")].reason', wide=True),
            _column("Next", ".status.nextChange", wide=True),
            _column("Age", ".metadata.creationTimestamp", "date"),
        ],
    )


def _gang_crd() -> Json:
    return _crd(
        kind="NeuronGang",
        plural="neurongangs",
        short_name="ng",
        description="Pods that run close together, all of them or none. Made by the operator from the labels of the"
        " pods, not to be edited.",
        scope="Namespaced",
        spec=structural(NeuronGangSpec),
        status=structural(NeuronGangStatus),
        rules=[],
        columns=[
            _column("Size", ".spec.size", "integer"),
            _column("Topology", ".spec.topology"),
            _column("Phase", ".status.phase"),
            _column("Domain", ".status.domain"),
            _column("Reason", '.status.conditions[?(@.type=="Placed")].reason'),
            _column("Chips", ".spec.chips", "integer", wide=True),
            _column("Rollbacks", ".status.attempts", "integer", wide=True),
            _column("Message", '.status.conditions[?(@.type=="Placed")].message', wide=True),
            _column("Age", ".metadata.creationTimestamp", "date"),
        ],
    )


def _workload_rules() -> list[Json]:
    fixed = {"instanceType": True, "topologySize": True, "serverCount": True}
    fixed |= {"resourceClaimTemplate": False, "config": False}
    return [
        _rule(
            f"self.{field} == oldSelf.{field}"
            if required
            else f"has(self.{field}) == has(oldSelf.{field}) &&"
            f" (!has(self.{field}) || self.{field} == oldSelf.{field})",
            f"{field} cannot be changed: delete the workload and make another one",
        )
        for field, required in fixed.items()
    ]


def _ultraserver_type_rule() -> Json:
    known = [it.name for it in catalog.instance_types() if it.ultraserver]
    return _rule(
        f"self in {_cel_list(known)}",
        f"no instance type that UltraServers are made of: choose one of {', '.join(known)}",
    )


def _workload_crd() -> Json:
    spec = structural(NeuronUltraServerWorkloadSpec)
    spec["x-kubernetes-validations"] = _workload_rules()
    spec["properties"]["instanceType"]["x-kubernetes-validations"] = [_ultraserver_type_rule()]
    return _crd(
        kind="NeuronUltraServerWorkload",
        plural="neuronultraserverworkloads",
        short_name=None,
        description="Nodes of UltraServers for a workload: allocated whole, and claimed by pods through a generated"
        " ResourceClaimTemplate. As AWS's UltraServer operator has it.",
        group=names.AWS_GROUP,
        version=names.AWS_VERSION,
        scope="Namespaced",
        spec=spec,
        status=structural(NeuronUltraServerWorkloadStatus),
        rules=[],
        columns=[
            _column("Type", ".spec.instanceType"),
            _column("Size", ".spec.topologySize", "integer"),
            _column("Servers", ".spec.serverCount", "integer"),
            _column("State", ".status.state"),
            _column("Nodes", ".status.totalNodesAllocated", "integer"),
            _column("Reason", '.status.conditions[?(@.type=="Allocated")].reason', wide=True),
            _column("Workload", ".status.workloadId", wide=True),
            _column("UltraServers", ".status.allocatedUltraServers", wide=True),
            _column("Strategy", ".spec.allocationPolicy.failureStrategy", wide=True),
            _column("Age", ".metadata.creationTimestamp", "date"),
        ],
    )


def _ultraserver_crd() -> Json:
    return _crd(
        kind="NeuronUltraServer",
        plural="neuronultraservers",
        short_name=None,
        description="An UltraServer of the fleet: its nodes, and which workloads have them. Written by the operator,"
        " not to be edited. As AWS's UltraServer operator has it.",
        group=names.AWS_GROUP,
        version=names.AWS_VERSION,
        scope="Namespaced",
        spec=structural(NeuronUltraServerSpec),
        status=structural(NeuronUltraServerStatus),
        rules=[],
        columns=[
            _column("Type", ".spec.instanceType"),
            _column("State", ".status.state"),
            _column("Free1", ".status.availableConfigurations.oneNode", "integer"),
            _column("Free2", ".status.availableConfigurations.twoNodes", "integer"),
            _column("Free4", ".status.availableConfigurations.fourNodes", "integer"),
            _column("Workloads", ".status.allocations[*].workloadRef"),
            _column("Nodes", ".spec.nodes[*].name", wide=True),
            _column("Mode", ".status.topology.mode", wide=True),
            _column("Age", ".metadata.creationTimestamp", "date"),
        ],
    )


def _column(name: str, path: str, kind: str = "string", *, wide: bool = False) -> Json:
    return {"name": name, "type": kind, "jsonPath": path, **({"priority": 1} if wide else {})}


def _crd(
    *,
    kind: str,
    plural: str,
    short_name: str | None,
    description: str,
    spec: Json,
    status: Json,
    rules: list[Json],
    columns: list[Json],
    group: str = names.GROUP,
    version: str = names.VERSION,
    scope: Literal["Cluster", "Namespaced"] = "Cluster",
    scale: Mapping[str, str] | None = None,
) -> Json:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}", "labels": {names.LABEL_SIMULATED: "true"}},
        "spec": {
            "group": group,
            "scope": scope,
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                **({"shortNames": [short_name]} if short_name else {}),
                "categories": ["neuron-sim"],
            },
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "description": description,
                            "required": ["spec"],
                            "properties": {
                                "apiVersion": {"type": "string"},
                                "kind": {"type": "string"},
                                "metadata": {"type": "object"},
                                "spec": spec,
                                "status": status,
                            },
                            **({"x-kubernetes-validations": rules} if rules else {}),
                        }
                    },
                    "subresources": {"status": {}, **({"scale": dict(scale)} if scale else {})},
                    "additionalPrinterColumns": columns,
                }
            ],
        },
    }
