"""NeuronUltraServer and NeuronUltraServerWorkload, as pydantic models: see ``neuron_operator.resources``.

Groups, kinds, spec fields, defaults and states are AWS's (docs: deploy/eks/ultraserver-operator.rst). Its CRDs are not
published, so what the docs name without a field name is ours; docs/fidelity.md lists it.
"""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from neuron_operator.resources import Condition, Model, Timestamp

MAX_SERVERS = 1000

NodeName = Annotated[str, Field(max_length=253)]
FailureStrategy: TypeAlias = Literal["RestartAll", "MigrateAffected", "NoOp"]
WorkloadState: TypeAlias = Literal["Pending", "Allocating", "Allocated", "PartiallyAllocated", "Failed", "Deallocating"]


class AllocationPolicy(Model):
    """What happens to an allocation when its nodes fail."""

    failure_strategy: FailureStrategy = Field(
        default="NoOp",
        description="When a node is lost or broken: RestartAll gives back every node and allocates anew,"
        " MigrateAffected moves the sets that are hit, NoOp only reports it.",
    )


class TemplateName(Model):
    """The claim template that is generated."""

    name: str | None = Field(
        default=None,
        min_length=1,
        max_length=253,
        description="Name of the ResourceClaimTemplate that the pods of the workload refer to. Absent: the workload's.",
    )


class WorkloadConfig(Model):
    """Configuration of the devices."""

    logical_neuron_core: Literal[1, 2] | None = Field(
        default=None,
        json_schema_extra={"minimum": 1},
        description="Physical NeuronCores per logical NeuronCore (LNC) for the workload. Absent: the nodes' own.",
    )


class NeuronUltraServerWorkloadSpec(Model):
    """What a workload needs. Only the failure strategy can be changed later."""

    instance_type: str = Field(
        min_length=1, max_length=64, description="Instance type of the nodes: one that is a member of an UltraServer."
    )
    topology_size: Literal[1, 2, 4] = Field(
        json_schema_extra={"minimum": 1}, description="Nodes of one UltraServer that work together: 1, 2 or 4."
    )
    server_count: int = Field(
        ge=1,
        le=MAX_SERVERS,
        description="How many such sets are allocated. The workload has topologySize times as many nodes.",
    )
    allocation_policy: AllocationPolicy | None = Field(
        default=None, description="What happens to the allocation when nodes fail."
    )
    resource_claim_template: TemplateName | None = Field(
        default=None, description="The ResourceClaimTemplate that is generated."
    )
    config: WorkloadConfig | None = Field(default=None, description="Configuration of the devices.")


class WorkloadSet(Model):
    """Nodes of one UltraServer that work together."""

    ultra_server: str = Field(max_length=253, description="NeuronUltraServer that the nodes belong to.")
    nodes: list[NodeName] = Field(max_length=4, description="The nodes, neighbours first.")


class NeuronUltraServerWorkloadStatus(Model):
    """What the workload has."""

    observed_generation: int | None = Field(
        default=None, ge=0, description="Generation of the spec that the status describes."
    )
    state: WorkloadState | None = Field(default=None, description="Where the allocation stands.")
    workload_id: str | None = Field(
        default=None, max_length=63, description="What the devices of the workload's nodes carry as workloadId."
    )
    allocated_ultra_servers: list[Annotated[str, Field(max_length=253)]] | None = Field(
        default=None, max_length=MAX_SERVERS, description="NeuronUltraServers that nodes were allocated of."
    )
    total_nodes_allocated: int | None = Field(
        default=None, ge=0, description="Allocated nodes that are there and not broken."
    )
    allocation_time: Timestamp | None = Field(default=None, description="When the nodes were allocated.")
    sets: list[WorkloadSet] | None = Field(
        default=None, max_length=MAX_SERVERS, description="The nodes, one entry for each of serverCount."
    )
    conditions: list[Condition] | None = Field(
        default=None,
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        description="Allocated.",
    )


class UltraServerNode(Model):
    """A member."""

    name: NodeName = Field(description="The Kubernetes node.")
    node_id: int = Field(alias="nodeID", ge=0, le=35, description="Its number in the UltraServer.")


class NeuronUltraServerSpec(Model):
    """Which nodes form the UltraServer. Written by the operator."""

    ultraserver_id: str = Field(
        alias="ultraserverId", max_length=63, description="The capacity block that its nodes' devices carry."
    )
    instance_type: str = Field(min_length=1, max_length=64, description="EC2 instance type of its nodes.")
    size: int = Field(ge=1, le=36, description="Nodes that it has when it is complete.")
    nodes: list[UltraServerNode] = Field(max_length=36, description="The nodes that are there, by their number.")


class ServerLink(Model):
    """The NeuronLinks between two nodes."""

    node_ids: list[Annotated[int, Field(ge=0, le=35)]] = Field(
        alias="nodeIDs", max_length=2, description="Numbers of the two nodes."
    )
    state: Literal["Up", "Down"] = Field(description="Down: one of the two nodes is not there, not Ready or broken.")


class UltraServerTopology(Model):
    """How its nodes are joined."""

    mode: str = Field(
        max_length=63,
        description="The runtime's numbers of the sets that are possible, as in the label ultraserver-mode.",
    )
    links: list[ServerLink] = Field(max_length=64, description="Direct links between nodes.")


class AvailableConfigurations(Model):
    """How many sets of each size could be allocated now."""

    one_node: int = Field(ge=0, description="Sets of 1 node.")
    two_nodes: int = Field(ge=0, description="Sets of 2 nodes.")
    four_nodes: int = Field(ge=0, description="Sets of 4 nodes.")


class UltraServerAllocation(Model):
    """What a workload has of the UltraServer."""

    workload_ref: str = Field(max_length=317, description="The NeuronUltraServerWorkload, as namespace/name.")
    workload_id: str = Field(max_length=63, description="Its workload id.")
    nodes: list[NodeName] = Field(max_length=36, description="Its nodes.")


class NeuronUltraServerStatus(Model):
    """How the UltraServer is, and who has it. Written by the operator."""

    state: Literal["Ready", "Degraded"] | None = Field(
        default=None, description="Degraded: a node is missing, not Ready or broken."
    )
    topology: UltraServerTopology | None = Field(default=None, description="How the nodes are joined.")
    available_configurations: AvailableConfigurations | None = Field(
        default=None, description="What could be allocated now."
    )
    allocations: list[UltraServerAllocation] | None = Field(
        default=None, max_length=36, description="Which workload has which nodes."
    )
    conditions: list[Condition] | None = Field(
        default=None,
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        description="Ready.",
    )
