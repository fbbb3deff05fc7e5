"""Virtual nodes: the Node objects of a pool with a `count`. Pure.

There is no machine behind them. KWOK renews their leases and plays the pods that are bound to them, and the agent of
virtual nodes publishes their devices; to the scheduler, and to everybody else here, they are nodes like all others.

A Node is written once and complete: with the labels of its place in the fleet, and with a status as a kubelet would
report it. Each write that is saved so is one for each of thousands of nodes. The pool owns them, so they go with it
also when no operator runs; and by that owner, not by their names or labels, they are told from nodes of others.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from neuron_device_model.catalog import InstanceType

from neuron_operator import names
from neuron_operator.nodes import HealthCondition, NodeFacts

Json = dict[str, Any]

NAME_LENGTH = 57
"""What a pool's name may have, so that names of nodes fit into the label `kubernetes.io/hostname`."""

# kwok.sigs.k8s.io/docs/user/kwok-manage-nodes-and-pods
_KWOK_ANNOTATION = "kwok.x-k8s.io/node"
_CONDITIONS = (
    ("Ready", "True", "KubeletReady"),
    ("MemoryPressure", "False", "KubeletHasSufficientMemory"),
    ("DiskPressure", "False", "KubeletHasNoDiskPressure"),
    ("PIDPressure", "False", "KubeletHasSufficientPID"),
)
_PODS = "110"
_STORAGE = "1Ti"


def node_names(pool: str, count: int) -> list[str]:
    """The names of a pool's virtual nodes."""
    return [f"{pool}-{number}" for number in range(count)]


def base_labels(name: str) -> dict[str, str]:
    """Labels that a virtual node has whatever its pool says, a kubelet's and the controller manager's among them."""
    return {
        "type": "kwok",
        names.LABEL_VIRTUAL: "true",
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "beta.kubernetes.io/os": "linux",
        "beta.kubernetes.io/arch": "amd64",
    }


def to_be(name: str) -> NodeFacts:
    """A node that is to be made, as far as its place in the fleet is concerned."""
    return NodeFacts(
        name=name,
        uid="",
        labels={},
        own_labels=frozenset(),
        other_labels=frozenset(),
        control_plane=False,
        provider_id="",
        neuron_capacity=(),
    )


def node(
    name: str,
    *,
    pool: Mapping[str, Any],
    labels: Mapping[str, str],
    taints: list[Json],
    instance_type: InstanceType,
    health: Sequence[HealthCondition],
    now: str,
) -> Json:
    """The Node to create; `pool` is the NeuronNodePool that owns it, `labels` what its place says.

    `health`: what its conditions say of its devices, so that no second write has to.
    """
    metadata = pool["metadata"]
    room = {
        "cpu": str(instance_type.vcpus),
        "memory": f"{instance_type.memory_gib}Gi",
        "pods": _PODS,
        "ephemeral-storage": _STORAGE,
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {**base_labels(name), **labels},
            "annotations": {_KWOK_ANNOTATION: "fake"},
            "ownerReferences": [
                {
                    "apiVersion": names.API_VERSION,
                    "kind": "NeuronNodePool",
                    "name": metadata["name"],
                    "uid": metadata["uid"],
                    "controller": True,
                }
            ],
        },
        "spec": {"taints": taints},
        "status": {
            "capacity": room,
            "allocatable": room,
            "addresses": [{"type": "Hostname", "address": name}],
            "conditions": [
                {
                    "type": kind,
                    "status": status,
                    "reason": reason,
                    "message": message,
                    "lastHeartbeatTime": now,
                    "lastTransitionTime": now,
                }
                for kind, status, reason, message in (
                    *((*condition, "a virtual node of neuron-sim, played by KWOK") for condition in _CONDITIONS),
                    *((found.type, found.status, found.reason, found.message) for found in health),
                )
            ],
            "nodeInfo": {
                "architecture": "amd64",
                "operatingSystem": "linux",
                "bootID": "",
                "containerRuntimeVersion": "kwok",
                "kernelVersion": "kwok",
                "kubeProxyVersion": "kwok",
                "kubeletVersion": "kwok",
                "machineID": "",
                "osImage": "kwok",
                "systemUUID": "",
            },
        },
    }
