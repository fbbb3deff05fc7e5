"""The custom resources as pydantic models: the one place where their fields are described.

The CRDs are generated from these models (``crds``), so a description here is what ``kubectl explain`` prints.
The models also read objects that an older or newer CRD let through: unknown fields are ignored, and whatever
does not fit becomes a condition of the pool instead of a crash.

NeuronNodePool is the user's wish. NeuronNode says what one node is: the operator writes its spec, the node's
agent its status, so that no field has two writers.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

Version = Annotated[str, Field(max_length=32, pattern=r"^[0-9]+(\.[0-9]+){1,3}$")]
LabelKey = Annotated[str, Field(min_length=1, max_length=317)]
LabelValue = Annotated[str, Field(max_length=63)]


class Model(BaseModel):
    """Camel-cased on the wire, as Kubernetes objects are."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)


class LabelSelectorRequirement(Model):
    """One condition on a label; all conditions of a selector have to hold."""

    key: LabelKey = Field(description="Label that the condition is about.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = Field(
        description="In and NotIn compare with `values`; Exists and DoesNotExist look at the key only."
    )
    values: list[LabelValue] | None = Field(
        default=None, max_length=64, description="Values for In and NotIn; left out for the other two."
    )


class LabelSelector(Model):
    """The usual Kubernetes label selector."""

    match_labels: dict[str, LabelValue] | None = Field(
        default=None, max_length=64, description="Labels that a node must carry with exactly these values."
    )
    match_expressions: list[LabelSelectorRequirement] | None = Field(
        default=None, max_length=32, description="Further conditions on the node's labels."
    )


class Condition(Model):
    """A Kubernetes condition."""

    type: str = Field(max_length=316, description="What the condition is about.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    reason: str = Field(max_length=1024, description="The cause in one word, for programs.")
    message: str = Field(max_length=32768, description="The cause in a sentence, and what to change.")
    last_transition_time: str = Field(
        json_schema_extra={"format": "date-time"}, description="When the status last changed."
    )
    observed_generation: int | None = Field(
        default=None, ge=0, description="Generation of the spec that this was judged on."
    )


class NeuronNodePoolSpec(Model):
    """What the nodes of a pool are to be."""

    instance_type: str = Field(
        min_length=1,
        max_length=64,
        description="EC2 instance type that every node of the pool becomes, for example trn2.48xlarge."
        " `neuron-sim types` lists the catalogue.",
    )
    node_selector: LabelSelector | None = Field(
        default=None,
        description="Nodes that belong to the pool. Absent: every node without the NoSchedule taint"
        " node-role.kubernetes.io/control-plane. Labels that neuron-sim itself put on a node are not seen.",
    )
    logical_neuron_core: int | None = Field(
        default=None,
        ge=1,
        le=8,
        description="Physical NeuronCores per logical NeuronCore (LNC). Absent: the default of the chip.",
    )
    sdk_version: Version | None = Field(
        default=None,
        description="Neuron SDK release whose tools and versions the nodes show."
        " Absent: the release that this neuron-sim is modelled on.",
    )
    driver_version: Version | None = Field(
        default=None,
        description="Version of the Neuron driver that the nodes report. Absent: that of the SDK release.",
    )
    resources: Literal["Auto", "DRA"] = Field(
        default="Auto",
        description="How pods get devices: by Dynamic Resource Allocation (DRA);"
        " Auto chooses what serves plain pods best.",
    )
    partitions: Literal["none"] = Field(
        default="none", description="Parts of a chip that are offered besides whole chips."
    )


class NeuronNodePoolStatus(Model):
    """What became of the wish."""

    observed_generation: int | None = Field(
        default=None, ge=0, description="Generation of the spec that the status describes."
    )
    nodes: int | None = Field(default=None, ge=0, description="Nodes in the pool.")
    ready_nodes: int | None = Field(default=None, ge=0, description="Nodes of the pool whose agent serves devices.")
    devices: int | None = Field(default=None, ge=0, description="Neuron devices that the agents serve.")
    resources: str | None = Field(
        default=None, max_length=32, description="How pods get devices; the choice where the spec says Auto."
    )
    conditions: list[Condition] | None = Field(
        default=None,
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        description="Accepted, Ready, Overlapping, LabelsComplete, PlainPods.",
    )


class NeuronNodeSpec(Model):
    """What one node is. Written by the operator, read by the node's agent."""

    pool: str = Field(min_length=1, max_length=63, description="NeuronNodePool that the node belongs to.")
    instance_type: str = Field(min_length=1, max_length=64, description="EC2 instance type that is simulated.")
    logical_neuron_core: int = Field(ge=1, le=8, description="Physical NeuronCores per logical NeuronCore (LNC).")
    sdk_version: Version = Field(description="Neuron SDK release whose tools and versions the node shows.")
    driver_version: Version = Field(description="Version of the Neuron driver that the node reports.")
    resources: Literal["DRA"] = Field(description="How pods get devices.")
    partitions: Literal["none"] = Field(description="Parts of a chip that are offered besides whole chips.")
    instance_id: str = Field(
        alias="instanceID",
        max_length=64,
        pattern=r"^i-[0-9a-f]{17}$",
        description="EC2 instance id, made from the node's UID.",
    )
    network_nodes: list[Annotated[str, Field(max_length=63)]] = Field(
        max_length=4, description="Network nodes above the instance, from the top (layer 1) downwards."
    )


class NeuronNodeStatus(Model):
    """What the node's agent found and does."""

    observed_generation: int | None = Field(
        default=None, ge=0, description="Generation of the spec that the status describes."
    )
    dra_driver_version: str | None = Field(
        default=None, max_length=64, description="Version of the agent, which is the DRA driver."
    )
    devices: int | None = Field(default=None, ge=0, description="Neuron devices that the agent serves.")
    prepared_claims: int | None = Field(
        default=None, ge=0, description="ResourceClaims that are prepared on the node now."
    )
    conditions: list[Condition] | None = Field(
        default=None,
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        description="Ready.",
    )
