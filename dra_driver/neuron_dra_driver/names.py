"""Names that the agent shares with other processes: each is written once, here."""

from importlib import metadata

DRIVER_NAME = "neuron.aws.com"

API_GROUP = "neuron-sim.dev"
API_VERSION = "v1alpha1"
SIMULATED = f"{API_GROUP}/simulated"
"""Label of every object, annotation of every CDI file, attribute of every device that we make."""

POD_CLAIM_NAME = "resource.kubernetes.io/pod-claim-name"
EXTENDED_RESOURCE_CLAIM = "resource.kubernetes.io/extended-resource-claim"


def version() -> str:
    """The version of this distribution; a source tree that nobody installed has none."""
    try:
        return metadata.version("neuron-sim")
    except metadata.PackageNotFoundError:
        return "0.0.0+source"
