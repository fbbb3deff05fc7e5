"""What doctor asks a cluster, all of it before anything is judged.

A question that the cluster refuses (a user who may not list nodes, an API that is not served) becomes an
Unanswered in its place, so that one missing permission costs one line of the report and not the report. Only
a server that cannot be reached at all ends the questioning.

Whether a feature is on is not guessed from the version: gates can be set either way, and managed clusters do.
A field behind a gate that is off is dropped without a word, so a dry-run create is sent with the field and
the answer is read. Fields that only a status has cannot be tried so: for these the API server's metrics tell the gate.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from neuron_operator.pending import UNSCHEDULED

from neuron_cli.cluster import Cluster, Refused

Object = dict[str, Any]
T = TypeVar("T")

RESOURCE_API = "/apis/resource.k8s.io/v1"
OUR_API = "/apis/neuron-sim.dev/v1alpha1"
SIMULATED = "neuron-sim.dev/simulated"
AGENTS = "app.kubernetes.io/name=neuron-sim,app.kubernetes.io/component=agent"
GATE = re.compile(r'^kubernetes_feature_enabled\{name="([^"]+)"[^}]*\} ([01])$', re.MULTILINE)
# A driver that exists nowhere: nothing could be scheduled onto these, were the dry run to leak.
PROBE = "probe.neuron-sim.dev"

CLASS_PROBE: Object = {
    "apiVersion": "resource.k8s.io/v1",
    "kind": "DeviceClass",
    "metadata": {"name": PROBE},
    "spec": {
        "selectors": [{"cel": {"expression": f"device.driver == '{PROBE}'"}}],
        "extendedResourceName": f"{PROBE}/chip",
    },
}


@dataclass(frozen=True, slots=True)
class Unanswered:
    """The cluster refused the question."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What one cluster answered."""

    version: str
    resource_api: Object | Unanswered
    """The discovery document of resource.k8s.io."""
    class_echo: Object | Unanswered
    devices_echo: Object | Unanswered
    counters_echo: Object | Unanswered
    nodes: list[Object] | Unanswered
    daemon_sets: list[Object] | Unanswered
    deployments: list[Object] | Unanswered
    unmarked_slices: list[Object] | Unanswered
    """ResourceSlices that are not ours."""
    device_classes: list[Object] | Unanswered
    our_api: Object | Unanswered
    """The discovery document of neuron-sim.dev/v1alpha1; empty where the CRDs are not installed."""
    pools: list[Object] | Unanswered
    neuron_nodes: list[Object] | Unanswered
    faults: list[Object] | Unanswered
    gates: dict[str, bool] | Unanswered
    """The API server's feature gates."""
    agent_pods: list[Object] | Unanswered
    waiting_pods: list[Object] | Unanswered
    """Pods that have no node yet."""


def gather(cluster: Cluster) -> Facts:
    """Ask everything."""
    slices = f"{RESOURCE_API}/resourceslices"
    ours = {"labelSelector": f"{SIMULATED}=true"}
    return Facts(
        version=str(cluster.get("/version").get("gitVersion", "")),
        resource_api=answer(lambda: cluster.get("/apis/resource.k8s.io"), absent={}),
        class_echo=answer(lambda: cluster.dry_run(f"{RESOURCE_API}/deviceclasses", CLASS_PROBE)),
        devices_echo=answer(lambda: cluster.dry_run(slices, slice_probe(devices=True))),
        counters_echo=answer(lambda: cluster.dry_run(slices, slice_probe(devices=False))),
        nodes=answer(lambda: cluster.items("/api/v1/nodes")),
        daemon_sets=answer(lambda: cluster.items("/apis/apps/v1/daemonsets")),
        deployments=answer(lambda: cluster.items("/apis/apps/v1/deployments", **ours)),
        unmarked_slices=answer(lambda: cluster.items(slices, labelSelector=f"{SIMULATED}!=true"), absent=[]),
        device_classes=answer(lambda: cluster.items(f"{RESOURCE_API}/deviceclasses"), absent=[]),
        our_api=answer(lambda: cluster.get(OUR_API), absent={}),
        pools=answer(lambda: cluster.items(f"{OUR_API}/neuronnodepools"), absent=[]),
        neuron_nodes=answer(lambda: cluster.items(f"{OUR_API}/neuronnodes"), absent=[]),
        faults=answer(lambda: cluster.items(f"{OUR_API}/neuronfaults"), absent=[]),
        gates=answer(lambda: feature_gates(cluster.text("/metrics"))),
        agent_pods=answer(lambda: cluster.items("/api/v1/pods", labelSelector=AGENTS)),
        waiting_pods=answer(lambda: cluster.items("/api/v1/pods", fieldSelector=UNSCHEDULED)),
    )


def feature_gates(metrics: str) -> dict[str, bool]:
    """The gates that a component of Kubernetes tells among its metrics."""
    return {name: value == "1" for name, value in GATE.findall(metrics)}


def slice_probe(*, devices: bool) -> Object:
    """A slice with what sits behind gates: on a device or, since a slice cannot hold both, counters."""
    content: Object = (
        {
            "devices": [
                {
                    "name": "probe",
                    "taints": [{"key": f"{PROBE}/probe", "value": "probe", "effect": "NoSchedule"}],
                    "bindingConditions": [f"{PROBE}/ready"],
                    "bindingFailureConditions": [f"{PROBE}/failed"],
                }
            ]
        }
        if devices
        else {"sharedCounters": [{"name": "probe", "counters": {"core-0": {"value": "1"}}}]}
    )
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceSlice",
        "metadata": {"name": PROBE},
        "spec": {
            "driver": PROBE,
            "pool": {"name": PROBE, "generation": 1, "resourceSliceCount": 1},
            "allNodes": True,
            **content,
        },
    }


def answer(question: Callable[[], T], *, absent: T | None = None) -> T | Unanswered:
    """Ask; `absent` is what a 404 means, where it means something."""
    try:
        return question()
    except Refused as refused:
        if refused.status == 404 and absent is not None:
            return absent
        return Unanswered(str(refused))
