"""Under which driver name neuron-sim's devices are in a cluster.

The chart value ``driverName`` stands in what our DeviceClass selects, which whoever may use it may read; the arguments
of agents, which say it too, are in a namespace that many users may not look into.
"""

import re

from neuron_operator.names import AWS_DRIVER_NAME, DEVICE_CLASS

from neuron_cli.cluster import Cluster, Refused
from neuron_cli.facts import RESOURCE_API

_DRIVER = re.compile(r"""device\.driver == ["']([^"']+)["']""")


def driver_name(cluster: Cluster) -> str:
    """The driver name that the chart was installed with; AWS's own if the cluster does not tell."""
    try:
        found = cluster.get(f"{RESOURCE_API}/deviceclasses/{DEVICE_CLASS}")
    except Refused as refused:
        if refused.status not in (403, 404):
            raise
        return AWS_DRIVER_NAME
    selectors = found["spec"].get("selectors") or ()
    expressions = " ".join((each.get("cel") or {}).get("expression", "") for each in selectors)
    match = _DRIVER.search(expressions)
    return match.group(1) if match else AWS_DRIVER_NAME
