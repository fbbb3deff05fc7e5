"""Names that the agent shares with other processes: each is written once, here."""

import sys
from functools import cache
from pathlib import Path

DRIVER_NAME = "neuron.aws.com"
EFA_DRIVER_NAME = "efa.neuron-sim.dev"
"""Not DRANET's own (`dra.net`): it may live on the same nodes, for their real network."""
ULTRASERVER_DRIVER_NAME = "ultraserver.neuron-sim.dev"
"""Of UltraServers as devices of several nodes, which the operator publishes (neuron_operator.names)."""
BARRIER_DEVICE = "gang-barrier"
"""The commit barrier of gangs, beside the UltraServer in its pool. Kube-scheduler's only: a container gets nothing."""

API_GROUP = "neuron-sim.dev"
API_VERSION = "v1alpha1"
SIMULATED = f"{API_GROUP}/simulated"
"""Label of every object, annotation of every CDI file, attribute of every device that we make."""

VIRTUAL = f"{API_GROUP}/virtual"
"""Label of virtual nodes, their NeuronNodes and their slices."""

WORKLOAD_ID = f"{API_GROUP}/workload-id"
"""Annotation of claims that were made from a NeuronUltraServerWorkload's template: whose nodes they may have."""

POD_CLAIM_NAME = "resource.kubernetes.io/pod-claim-name"
EXTENDED_RESOURCE_CLAIM = "resource.kubernetes.io/extended-resource-claim"


@cache
def version() -> str:
    """The version of this distribution; a source tree that nobody installed has none.

    importlib.metadata would tell, and bring a mail parser, CSV and ZIP archives into each node's memory.
    """
    for folder in sys.path:
        for found in Path(folder).glob("neuron_sim-*.dist-info"):
            return found.name.removeprefix("neuron_sim-").removesuffix(".dist-info")
    return "0.0.0+source"
