"""Names that other parts, manifests and people rely on."""

from typing import Final

GROUP: Final = "neuron-sim.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"

# AWS docs: deploy/eks/dra.rst
AWS_DRIVER_NAME: Final = "neuron.aws.com"
# The agents' second driver: the EFA cards of their nodes.
EFA_DRIVER_NAME: Final = "efa.neuron-sim.dev"
# UltraServers as devices of several nodes: we publish them, the agents prepare them (neuron_dra_driver.names). Not in
# AWS's domain, since `allocationMode: All` of AWS's class must not take one.
ULTRASERVER_DRIVER_NAME: Final = "ultraserver.neuron-sim.dev"
# A second device of each, that every pod of a gang may have (neuron_dra_driver.names), and the condition for which
# kube-scheduler waits before it binds a pod that has it, with its opposite.
BARRIER_DEVICE: Final = "gang-barrier"
CONDITION_COMPLETE: Final = "neuron-sim.dev/gang-complete"
CONDITION_GIVEN_UP: Final = "neuron-sim.dev/gang-given-up"
# AWS docs: deploy/eks/ultraserver-operator.rst
AWS_GROUP: Final = "neuron.aws.com"
AWS_VERSION: Final = "v1"
DEVICE_CLASS: Final = "neuron-device.neuron-sim.dev"
CORE_CLASS: Final = "neuroncore.neuron-sim.dev"
PHYSICAL_CORE_CLASS: Final = "physical-neuroncore.neuron-sim.dev"
EFA_CLASS: Final = "efa.networking.k8s.aws"
EXTENDED_RESOURCE: Final = "aws.amazon.com/neuron"
CORE_EXTENDED_RESOURCE: Final = "aws.amazon.com/neuroncore"
EXTENDED_RESOURCE_PREFIX: Final = "aws.amazon.com/neuron"
# k8s.io/api/resource/v1: AllocationResultsMaxSize
DEVICES_PER_CLAIM: Final = 32

FIELD_MANAGER: Final = "neuron-sim-operator"

LABEL_POOL: Final = "neuron-sim.dev/pool"
LABEL_SIMULATED: Final = "neuron-sim.dev/simulated"
# On virtual nodes, which KWOK watches, and their NeuronNodes, which their agent does (neuron_dra_driver.names).
LABEL_VIRTUAL: Final = "neuron-sim.dev/virtual"
# KWOK's own, for what shall not be scheduled to nodes without a machine
TAINT_KWOK: Final = "kwok.x-k8s.io/node"
# On nodes whose agent serves (or did a moment ago) the device plugins: what is in their capacity is ours.
LABEL_DEVICE_PLUGIN: Final = "neuron-sim.dev/device-plugin"
# On our DeviceClass: the extendedResourceName that the chart wrote, whatever the API server kept of it.
ANNOTATION_EXTENDED_RESOURCE: Final = "neuron-sim.dev/extended-resource-name"
LABEL_INSTANCE_TYPE: Final = "node.kubernetes.io/instance-type"
# AWS docs: tools/neuron-observer/install-configure.html, set by the device plugin
LABEL_PRESENT: Final = "neuron.amazonaws.com/present"
# EKS user guide: ml-workload-topology; 1 is the top of the network, 3 the closest
LABELS_NETWORK: Final = (
    "topology.k8s.aws/network-node-layer-1",
    "topology.k8s.aws/network-node-layer-2",
    "topology.k8s.aws/network-node-layer-3",
)
# AWS docs: deploy/eks/ultraserver.rst. Which sets of servers a node can work in, as the runtime's numbers for them ...
LABEL_ULTRASERVER_MODE: Final = "neuron.amazonaws.com/ultraserver-mode"
# ... and for sets of so many: which set, and which server of it
LABELS_ULTRASERVER_SETS: Final = {
    2: ("neuron.amazonaws.com/ultraserver-server-id-2", "neuron.amazonaws.com/ultraserver-node-id-2"),
    4: ("neuron.amazonaws.com/ultraserver-server-id-4", "neuron.amazonaws.com/ultraserver-node-id-4"),
}
# SageMaker HyperPod writes it; read, never written
LABEL_HYPERPOD_ULTRASERVER: Final = "topology.k8s.aws/ultraserver-id"
# The whole UltraServer, whatever its size: AWS's labels stop at sets of four.
LABEL_ULTRASERVER: Final = "neuron-sim.dev/ultraserver-id"
LABEL_ULTRASERVER_NODE: Final = "neuron-sim.dev/ultraserver-node"
# operator-for-ai-chips-on-aws: config/nfd/nfd-rule.yaml, found by the PCI ids of the chips
LABEL_NFD: Final = "feature.node.kubernetes.io/aws-neuron"

# On the NeuronUltraServerWorkloads that have nodes, until these are free again
FINALIZER_ULTRASERVERS: Final = "neuron-sim.dev/ultraservers"
# On the claim templates of a NeuronUltraServerWorkload and the claims made from them: its UID and its workload id. The
# agent reads the second (neuron_dra_driver.names).
LABEL_WORKLOAD: Final = "neuron-sim.dev/ultraserver-workload"
ANNOTATION_WORKLOAD_ID: Final = "neuron-sim.dev/workload-id"
ANNOTATION_DIGEST: Final = "neuron-sim.dev/digest"
# On NeuronFaults that a scenario made: its name
LABEL_SCENARIO: Final = "neuron-sim.dev/scenario"
# On nodes that are held for a gang of pods
TAINT_RESERVED: Final = "neuron-sim.dev/reserved"

# AWS's node problem detector (src/k8/neuron-problem-detector), and EKS's node monitoring agent
CONDITION_NEURON_HEALTH: Final = "NeuronHealth"
CONDITION_ACCELERATED_HARDWARE: Final = "AcceleratedHardwareReady"
CONDITIONS_HEALTH: Final = (CONDITION_NEURON_HEALTH, CONDITION_ACCELERATED_HARDWARE)

TAINT_CONTROL_PLANE: Final = "node-role.kubernetes.io/control-plane"
