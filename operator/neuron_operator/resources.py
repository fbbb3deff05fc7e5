"""The custom resources as pydantic models: the one place where their fields are described.

The CRDs are generated from these models (``crds``), so a description here is what ``kubectl explain`` prints.
The models also read objects that an older or newer CRD let through: unknown fields are ignored, and whatever
does not fit becomes a condition of the pool instead of a crash.

NeuronNodePool is the user's wish. NeuronNode says what one node is: the operator writes its spec, the node's
agent its status, so that no field has two writers. NeuronFault says what is broken: the operator checks it and
merges all of a node into its NeuronNode, so that the agent has one object to watch.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

Version = Annotated[str, Field(max_length=32, pattern=r"^[0-9]+(\.[0-9]+){1,3}$")]
Timestamp = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
Partitions = Literal["none", "logical", "physical"]
Devices = Literal["chips", "node", "both"]
Road = Literal["DRA", "DevicePlugin"]
Duration = Annotated[str, Field(max_length=32, pattern=r"^([0-9]{1,5}h)?([0-9]{1,5}m)?([0-9]{1,7}s)?$", min_length=2)]
FaultType = Literal[
    "SRAMUncorrectable",
    "HBMUncorrectable",
    "HBMRepairable",
    "NCUncorrectable",
    "DMAError",
    "Hang",
    "LinkDown",
    "DeviceLost",
    "DriverFailed",
    "EFADown",
    "HBMCorrectable",
    "SRAMCorrectable",
    "ThermalThrottle",
    "MemoryLeak",
]
FaultEffect = Literal["None", "NoSchedule", "NoExecute"]
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
    last_transition_time: Timestamp = Field(description="When the status last changed.")
    observed_generation: int | None = Field(
        default=None, ge=0, description="Generation of the spec that this was judged on."
    )


class PoolTopology(Model):
    """How the nodes of a pool are spread in the network: how many are under one network node of each layer."""

    nodes_per_layer3: int | None = Field(
        default=None,
        ge=1,
        le=10000,
        description="Nodes under one network node of layer 3, the closest; whole UltraServers on UltraServer types."
        " Absent: those of four UltraServers, or four nodes with neighbouring numbers in their names.",
    )
    nodes_per_layer2: int | None = Field(
        default=None,
        ge=1,
        le=100000,
        description="Nodes under one network node of layer 2, a multiple of nodesPerLayer3. Absent: all of the pool.",
    )
    nodes_per_layer1: int | None = Field(
        default=None,
        ge=1,
        le=1000000,
        description="Nodes under one network node of layer 1, the top, a multiple of nodesPerLayer2."
        " Absent: all of the cluster.",
    )


class Taint(Model):
    """A Kubernetes taint of a node."""

    key: LabelKey = Field(description="Key that a toleration names.")
    value: LabelValue | None = Field(default=None, description="Value that goes with the key.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] = Field(
        description="What happens to pods that do not tolerate it."
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
    count: int | None = Field(
        default=None,
        ge=0,
        le=20_000,
        description="Virtual nodes that the pool makes, named after it and numbered from 0; nodeSelector is left out"
        " then. They have no machine: KWOK plays them and their pods. The last ones go first when it gets smaller, and"
        " all go with the pool. Absent: the pool takes nodes that are there.",
    )
    taints: list[Taint] | None = Field(
        default=None,
        max_length=16,
        description="Taints that virtual nodes are made with. Absent: kwok.x-k8s.io/node=fake:NoSchedule, so that pods"
        " that need a machine stay away. Nodes that exist keep theirs.",
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
    resources: Literal["Auto", "DRA", "DevicePlugin"] = Field(
        default="Auto",
        description="How pods get devices: by Dynamic Resource Allocation (DRA), or by device plugins for"
        " aws.amazon.com/neuron and aws.amazon.com/neuroncore (DevicePlugin). Auto: DRA where the API server keeps"
        " extendedResourceName (Kubernetes 1.36), so that plain pods work there too, else DevicePlugin.",
    )
    partitions: Partitions | None = Field(
        default=None,
        description="Parts of a chip that are offered besides whole chips: none, logical NeuronCores, or logical and"
        " physical ones. The scheduler's work grows with the square of the nodes that have any: none on large fleets."
        " Absent: none on virtual nodes, else logical.",
    )
    devices: Devices | None = Field(
        default=None,
        description="Whole devices that are offered: chips, the node as one device, or both; node and both on"
        " UltraServer types only. Absent: both on UltraServer types, else chips; chips on virtual nodes.",
    )
    topology: PoolTopology | None = Field(
        default=None,
        description="How the nodes are spread in the network. A node that has a place keeps it when this changes, and"
        " labels that others wrote on a node go before it. UltraServers need nothing here: they follow from the type.",
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
    ultra_servers: int | None = Field(default=None, ge=0, description="UltraServers that the pool's nodes are in.")
    ready_ultra_servers: int | None = Field(
        default=None, ge=0, description="UltraServers with all of their servers, ready and not broken."
    )
    conditions: list[Condition] | None = Field(
        default=None,
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        description="Accepted, Ready, Overlapping, LabelsComplete, ResourcesSettled, PlainPods, PartitionsAffordable"
        " and, on UltraServer types, UltraServersComplete.",
    )


class NodeFault(Model):
    """An active NeuronFault, as the node's agent needs it."""

    name: str = Field(min_length=1, max_length=253, description="NeuronFault that it comes from.")
    type: FaultType = Field(description="What is broken.")
    chip: int | None = Field(default=None, ge=0, le=127, description="Chip that is broken. Absent: the whole node.")
    core: int | None = Field(
        default=None, ge=0, le=127, description="Physical NeuronCore of the chip. Absent: the whole chip."
    )
    peer: int | None = Field(default=None, ge=0, le=127, description="Chip at the other end of a link.")
    efa: int | None = Field(default=None, ge=0, le=63, description="EFA card. Absent: all of the node's, or none.")
    effect: FaultEffect = Field(description="Effect of the taint on the devices that are hit.")
    message: str = Field(max_length=1024, description="The cause in a sentence.")
    since: Timestamp = Field(description="Since when it is broken.")
    events_per_minute: int | None = Field(default=None, ge=1, le=6000, description="How often an error is corrected.")
    percent: int | None = Field(default=None, ge=1, le=99, description="How much of it.")


class UltraServerSeat(Model):
    """A node's place in its UltraServer."""

    id: str = Field(max_length=16, pattern=r"^[a-z0-9]{16}$", description="The UltraServer.")
    size: int = Field(ge=2, le=64, description="Servers that the UltraServer has when it is complete.")
    node: int = Field(ge=0, le=63, description="Number of this server in it, from 0.")


class NeuronNodeSpec(Model):
    """What one node is. Written by the operator, read by the node's agent."""

    pool: str = Field(min_length=1, max_length=63, description="NeuronNodePool that the node belongs to.")
    instance_type: str = Field(min_length=1, max_length=64, description="EC2 instance type that is simulated.")
    logical_neuron_core: int = Field(ge=1, le=8, description="Physical NeuronCores per logical NeuronCore (LNC).")
    sdk_version: Version = Field(description="Neuron SDK release whose tools and versions the node shows.")
    driver_version: Version = Field(description="Version of the Neuron driver that the node reports.")
    resources: Road = Field(description="How pods get devices.")
    partitions: Partitions = Field(description="Parts of a chip that are offered besides whole chips.")
    devices: Devices | None = Field(
        default=None, description="Whole devices that are offered: chips, the node as one device, or both."
    )
    instance_id: str = Field(
        alias="instanceID",
        max_length=64,
        pattern=r"^i-[0-9a-f]{17}$",
        description="EC2 instance id, made from the node's UID.",
    )
    network_nodes: list[Annotated[str, Field(max_length=63)]] = Field(
        max_length=4, description="Network nodes above the instance, from the top (layer 1) downwards."
    )
    ultra_server: UltraServerSeat | None = Field(
        default=None, description="Place in an UltraServer. Absent on nodes that are in none."
    )
    capacity_block_id: str | None = Field(
        default=None,
        alias="capacityBlockID",
        max_length=64,
        pattern=r"^cr-[0-9a-f]{17}$",
        description="EC2 capacity block of the UltraServer, made from its id.",
    )
    workload_id: str | None = Field(
        alias="workloadID",
        default=None,
        min_length=1,
        max_length=63,
        description="Workload id of the NeuronUltraServerWorkload that the node is allocated to.",
    )
    faults: list[NodeFault] | None = Field(
        default=None, max_length=64, description="What is broken on the node, by name."
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
        default=None,
        ge=0,
        description="Claims, and allocations of the device plugin, that are prepared on the node now.",
    )
    other_road_claims: int | None = Field(
        default=None,
        ge=0,
        description="Those of them that pods got by the other road, before spec.resources changed.",
    )
    hardware_record: str | None = Field(
        default=None,
        max_length=262144,
        description="Of a virtual node: JSON with which its agent goes on counting what faults have left behind.",
    )
    conditions: list[Condition] | None = Field(
        default=None,
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        description="Ready.",
    )


class FaultTarget(Model):
    """The hardware that is broken, as the host numbers it."""

    node_name: str = Field(min_length=1, max_length=253, description="Node whose hardware is broken.")
    chip: int | None = Field(
        default=None, ge=0, le=127, description="Chip that is broken, as in neuron-device-N. Absent: the whole node."
    )
    core: int | None = Field(
        default=None,
        ge=0,
        le=127,
        description="Physical NeuronCore that is broken, numbered from 0 in the chip. Absent: the whole chip.",
    )
    peer: int | None = Field(
        default=None, ge=0, le=127, description="For LinkDown: the chip at the other end of the link."
    )
    efa: int | None = Field(
        default=None,
        ge=0,
        le=63,
        description="For EFADown: the card, numbered from 0 by PCI addresses. Absent: all cards of the node.",
    )


class FaultRandom(Model):
    """Times that are drawn: exponentially distributed, and the same for the same seed."""

    seed: int = Field(default=0, ge=0, le=2147483647, description="Another seed, other times.")
    mean_time_between: Duration = Field(description="Mean time from healthy to broken, such as 2h; at least 10s.")
    mean_duration: Duration = Field(description="Mean time from broken to healthy, such as 90s.")


class FaultSchedule(Model):
    """When it is broken. Without any of it: from the NeuronFault's creation to its deletion."""

    start_time: Timestamp | None = Field(default=None, description="When it breaks for the first time.")
    start_after: Duration | None = Field(
        default=None, description="The same, counted from the NeuronFault's creation, such as 90s or 1h30m."
    )
    end_time: Timestamp | None = Field(default=None, description="From when on it is whole for good.")
    end_after: Duration | None = Field(default=None, description="The same, counted from the NeuronFault's creation.")
    duration: Duration | None = Field(default=None, description="How long it is broken. Absent: until the end.")
    repeat_every: Duration | None = Field(
        default=None, description="From one break to the next; longer than duration, which it needs."
    )
    repeats: int | None = Field(
        default=None, ge=1, le=100000, description="How many times it breaks, with repeatEvery. Absent: for ever."
    )
    random: FaultRandom | None = Field(
        default=None, description="Breaks and heals by chance, instead of duration, repeatEvery and repeats."
    )


class NeuronFaultSpec(Model):
    """What is broken, and when. Deleting the NeuronFault heals it."""

    target: FaultTarget = Field(description="The hardware that is broken.")
    type: FaultType = Field(
        description="What is broken: an error of the Neuron driver's, a lost device, link, card or driver, or hardware"
        " that works worse: HBMCorrectable, SRAMCorrectable, ThermalThrottle, MemoryLeak."
    )
    effect: FaultEffect | None = Field(
        default=None,
        description="Effect of the taint on every device that contains what is broken: None only shows it, NoSchedule"
        " keeps new pods away, NoExecute also evicts those that have the device. Absent: NoSchedule for what is broken,"
        " None for what works worse.",
    )
    message: str | None = Field(
        default=None, max_length=1024, description="The cause in a sentence, for conditions and Events."
    )
    events_per_minute: int | None = Field(
        default=None, ge=1, le=6000, description="Of HBMCorrectable and SRAMCorrectable: how often. Absent: 6."
    )
    percent: int | None = Field(
        default=None,
        ge=1,
        le=99,
        description="Of ThermalThrottle: how much slower, absent: 50. Of MemoryLeak: of a core's memory each minute,"
        " absent: 5.",
    )
    schedule: FaultSchedule | None = Field(
        default=None, description="When it is broken. Absent: until this NeuronFault is deleted."
    )


class NeuronFaultStatus(Model):
    """What became of the fault."""

    observed_generation: int | None = Field(
        default=None, ge=0, description="Generation of the spec that the status describes."
    )
    conditions: list[Condition] | None = Field(
        default=None,
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        description="Active.",
    )
    active_since: Timestamp | None = Field(default=None, description="Since when it is broken, while it is.")
    next_change: Timestamp | None = Field(default=None, description="When it heals or breaks next, by its schedule.")
