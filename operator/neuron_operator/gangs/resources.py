"""NeuronGang as pydantic models, from which its CRD is generated."""

from typing import Annotated, Literal

from pydantic import Field

from neuron_operator.placement import Level
from neuron_operator.resources import Condition, Model, Timestamp

NodeName = Annotated[str, Field(max_length=253)]


class NeuronGangSpec(Model):
    """What the pods of a gang ask for. Written by the operator, from the labels of the first pod that it sees."""

    size: int = Field(ge=1, le=10000, description="Pods of the gang: all of them run, or none.")
    topology: Level = Field(default="ultraserver", description="How far apart the pods may be.")
    timeout_seconds: int = Field(
        default=300, ge=1, le=604800, description="Time from the reservation until all pods have to be bound."
    )
    chips: int = Field(default=0, ge=0, le=128, description="Chips that each pod takes.")
    whole_nodes: bool = Field(default=False, description="Each pod takes all chips of a node.")
    efa: bool = Field(default=False, description="The pods claim EFA cards.")


class NeuronGangStatus(Model):
    """What became of the gang."""

    observed_generation: int | None = Field(
        default=None, ge=0, description="Generation of the spec that the status describes."
    )
    phase: Literal["Pending", "Reserved", "Bound", "RollingBack"] | None = Field(
        default=None,
        description="Pending: no places yet. Reserved: places are promised and pods are on their way. Bound: all pods"
        " have their nodes. RollingBack: pods that were let go in vain are deleted.",
    )
    serial: int | None = Field(default=None, ge=0, description="Reservations made so far; the last is the current one.")
    nodes: list[NodeName] | None = Field(
        default=None, max_length=10000, description="The promised node of each pod, by the number of the pod."
    )
    domain: str | None = Field(
        default=None, max_length=253, description="The UltraServer, network node or node in which all of them are."
    )
    deadline: Timestamp | None = Field(
        default=None, description="When the reservation is rolled back if not all are bound."
    )
    attempts: int | None = Field(
        default=None, ge=0, description="Reservations that were rolled back since the gang last ran."
    )
    retry_at: Timestamp | None = Field(default=None, description="Not placed again before this time.")
    remake: list[Annotated[str, Field(max_length=262144)]] | None = Field(
        default=None,
        max_length=10000,
        description="Pods without a controller that were deleted and are made anew, as JSON; empty but for a moment.",
    )
    conditions: list[Condition] | None = Field(
        default=None,
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        description="Placed.",
    )
