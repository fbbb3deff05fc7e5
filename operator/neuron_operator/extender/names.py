"""Names of AWS's contract between pods, scheduler extension and device plugin."""

from typing import Final

from neuron_operator import names

CHIPS: Final = names.EXTENDED_RESOURCE
CORES: Final = names.CORE_EXTENDED_RESOURCE

# On the pod; AWS docs and recordings of real pods
IDS: Final = "AWS_NEURON_IDS"
ALLOC_TIME: Final = "NEURON_ALLOC_TIME"
ALLOCATED: Final = "NEURON_ALLOCATED"
# Project-HAMi/HAMi: pkg/device/awsneuron/device.go, for requests of cores
RESOURCE_TYPE: Final = "NEURON_RESOURCE_TYPE"

# On the node; AWS docs: deploy/infrastructure/scheduler.rst
CHIP_MAP: Final = "NEURON_DEV_USAGE_MAP"
CORE_MAP: Final = "NEURON_CORE_USAGE_MAP"

FIELD_MANAGER: Final = "neuron-sim-scheduler"
