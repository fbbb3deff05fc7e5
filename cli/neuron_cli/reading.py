"""Reads what explain, what-if and topology need of a cluster. What may be forbidden to a user and is not needed for
an answer is left out when it is.

ResourceSlices are most of it (12 kB for each node), so they are turned into what is needed page by page.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from neuron_operator.explaining.demand import Known
from neuron_operator.explaining.explanation import Facts
from neuron_operator.explaining.pod_group import named, waits
from neuron_operator.explaining.supply import supplies
from neuron_operator.gangs.names import LABEL_GANG
from neuron_operator.nodes import node_facts

from neuron_cli import gang_view
from neuron_cli.cluster import Cluster, Refused
from neuron_cli.driver_name import driver_name
from neuron_cli.facts import OUR_API, RESOURCE_API
from neuron_cli.gang_view import Gangs
from neuron_cli.topology.view import FleetView, view

Object = dict[str, Any]
T = TypeVar("T")

# Kubernetes 1.36, behind gates
POD_GROUP_API = "/apis/scheduling.k8s.io/v1alpha2"
_NOT_OVER = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed"


def facts(cluster: Cluster, namespace: str, *, pods: bool, about: str = "") -> Facts:
    """All that decides about pods and claims of a namespace; `about`: the uid of whom the Events are wanted."""
    claims = cluster.items(f"{RESOURCE_API}/resourceclaims")
    neuron_nodes = cluster.items(f"{OUR_API}/neuronnodes")
    by_plugins = any(node["spec"].get("resources") == "DevicePlugin" for node in neuron_nodes)
    templates = cluster.items(f"{RESOURCE_API}/namespaces/{namespace}/resourceclaimtemplates")
    nodes = cluster.items("/api/v1/nodes")
    return Facts(
        nodes=nodes,
        neuron_nodes=neuron_nodes,
        supplies=supplies(cluster.each(f"{RESOURCE_API}/resourceslices"), claims, nodes=nodes),
        known=known(cluster.items(f"{RESOURCE_API}/deviceclasses"), claims, templates),
        bound=bound_pods(cluster) if pods and by_plugins else (),
        quotas=allowed(lambda: cluster.items(f"/api/v1/namespaces/{namespace}/resourcequotas"), []),
        events=allowed(lambda: events(cluster, namespace, about), []) if about else (),
    )


def known(classes: list[Object], claims: list[Object], templates: list[Object]) -> Known:
    """What a pod may refer to, by its names."""
    return Known(
        classes={item["metadata"]["name"]: item for item in classes},
        claims={(item["metadata"]["namespace"], item["metadata"]["name"]): item for item in claims},
        templates={(item["metadata"]["namespace"], item["metadata"]["name"]): item for item in templates},
    )


def bound_pods(cluster: Cluster) -> list[Object]:
    """The pods that have a node and are not over."""
    return cluster.items("/api/v1/pods", fieldSelector=_NOT_OVER)


def events(cluster: Cluster, namespace: str, uid: str) -> list[Object]:
    """The Events about an object, the latest last."""
    found = cluster.items(f"/api/v1/namespaces/{namespace}/events", fieldSelector=f"involvedObject.uid={uid}")
    return sorted(found, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))


def allowed(question: Callable[[], T], otherwise: T) -> T:
    """An answer, or what to do without it where the user may not ask."""
    try:
        return question()
    except Refused as refused:
        if refused.status == 403:
            return otherwise
        raise


def pod_group(cluster: Cluster, namespace: str, pod: Object) -> str:
    """Why a pod waits for the rest of its PodGroup; empty if it does not."""
    if not (name := named(pod)):
        return ""
    group = absent(lambda: cluster.get(f"{POD_GROUP_API}/namespaces/{namespace}/podgroups/{name}"), None)
    return waits(name, group, cluster.items(f"/api/v1/namespaces/{namespace}/pods"))


def fleet(cluster: Cluster) -> FleetView:
    """The fleet's topology, and who uses what of it."""
    neuron_nodes = cluster.items(f"{OUR_API}/neuronnodes")
    by_plugins = any(node["spec"].get("resources") == "DevicePlugin" for node in neuron_nodes)
    return view(
        neuron_nodes,
        allowed(lambda: cluster.items(f"{RESOURCE_API}/resourceclaims"), []),
        bound_pods(cluster) if by_plugins else (),
        {node["metadata"]["name"] for node in cluster.each("/api/v1/nodes") if not node_facts(node).ready},
    )


def gangs(cluster: Cluster, namespace: str) -> Gangs:
    """All gangs, and what claims and templates of a namespace ask for."""
    neuron_nodes = cluster.items(f"{OUR_API}/neuronnodes")
    by_plugins = any(node["spec"].get("resources") == "DevicePlugin" for node in neuron_nodes)
    return gang_view.gangs(
        driver_name=driver_name(cluster),
        members=cluster.items("/api/v1/pods", labelSelector=LABEL_GANG),
        records=absent(lambda: cluster.items(f"{OUR_API}/neurongangs"), []),
        nodes=cluster.items("/api/v1/nodes"),
        neuron_nodes=neuron_nodes,
        claims=cluster.items(f"{RESOURCE_API}/resourceclaims"),
        templates=cluster.items(f"{RESOURCE_API}/namespaces/{namespace}/resourceclaimtemplates"),
        bound=bound_pods(cluster) if by_plugins else (),
    )


def absent(question: Callable[[], T], otherwise: T) -> T:
    """An answer, or what it means that the cluster does not have the kind."""
    try:
        return question()
    except Refused as refused:
        if refused.status == 404:
            return otherwise
        raise
