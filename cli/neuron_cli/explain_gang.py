"""``neuron-sim explain gang/NAME``: asks the cluster for all that the operator knows of gangs."""

from neuron_operator.explaining.explanation import Explanation

from neuron_cli import gang_view, reading
from neuron_cli.cluster import Cluster, ClusterError


def explain_gang(cluster: Cluster, namespace: str, name: str) -> Explanation:
    """Why a gang waits, or where it is."""
    found = reading.gangs(cluster, namespace)
    try:
        return gang_view.explain(found, namespace, name)
    except gang_view.NoGang as absent:
        raise ClusterError(str(absent)) from None
