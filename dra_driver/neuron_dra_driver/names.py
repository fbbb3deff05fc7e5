"""Names that the agent shares with other processes: each is written once, here."""

import sys
from pathlib import Path

DRIVER_NAME = "neuron.aws.com"

API_GROUP = "neuron-sim.dev"
API_VERSION = "v1alpha1"
SIMULATED = f"{API_GROUP}/simulated"
"""Label of every object, annotation of every CDI file, attribute of every device that we make."""

POD_CLAIM_NAME = "resource.kubernetes.io/pod-claim-name"
EXTENDED_RESOURCE_CLAIM = "resource.kubernetes.io/extended-resource-claim"


def version() -> str:
    """The version of this distribution; a source tree that nobody installed has none.

    importlib.metadata would tell, and bring a mail parser, CSV and ZIP archives into each node's memory.
    """
    for folder in sys.path:
        for found in Path(folder).glob("neuron_sim-*.dist-info"):
            return found.name.removeprefix("neuron_sim-").removesuffix(".dist-info")
    return "0.0.0+source"
