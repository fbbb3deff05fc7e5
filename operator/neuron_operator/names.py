"""Names that other parts, manifests and people rely on."""

from typing import Final

GROUP: Final = "neuron-sim.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"

# AWS docs: deploy/eks/dra.rst
AWS_DRIVER_NAME: Final = "neuron.aws.com"
DEVICE_CLASS: Final = "neuron-device.neuron-sim.dev"
CORE_CLASS: Final = "neuroncore.neuron-sim.dev"
PHYSICAL_CORE_CLASS: Final = "physical-neuroncore.neuron-sim.dev"
EXTENDED_RESOURCE: Final = "aws.amazon.com/neuron"
CORE_EXTENDED_RESOURCE: Final = "aws.amazon.com/neuroncore"
EXTENDED_RESOURCE_PREFIX: Final = "aws.amazon.com/neuron"
# k8s.io/api/resource/v1: AllocationResultsMaxSize
DEVICES_PER_CLAIM: Final = 32

FIELD_MANAGER: Final = "neuron-sim-operator"

LABEL_POOL: Final = "neuron-sim.dev/pool"
LABEL_SIMULATED: Final = "neuron-sim.dev/simulated"
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
# operator-for-ai-chips-on-aws: config/nfd/nfd-rule.yaml, found by the PCI ids of the chips
LABEL_NFD: Final = "feature.node.kubernetes.io/aws-neuron"

TAINT_CONTROL_PLANE: Final = "node-role.kubernetes.io/control-plane"
