"""The ResourceClaimTemplate of a workload: one claim takes one node of it, whole.

The device that is the whole node, where nodes offer it, as AWS's UltraServer samples ask for it; else all chips of a
node. The selector does not fail on devices without a workload id: an error in CEL would fail the scheduling of every
pod of the workload.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from neuron_device_model.advertise import RESERVED_TAINT

from neuron_operator import names
from neuron_operator.ultraservers.workloads import Workload

Json = dict[str, Any]

REQUEST = "neurons"
_CONFIG_VERSION = f"{names.AWS_GROUP}/{names.AWS_VERSION}"


def template(workload: Workload, *, driver_name: str, whole: bool) -> Json:
    """The claim template of a workload that has nodes."""
    assert workload.spec is not None, "a workload that is not understood has no nodes"
    domain = f'device.attributes["{driver_name}"]'
    kind = "neuron_node" if whole else "neuron_device"
    expression = (
        f'{domain}.?workloadId.orValue("") == "{workload.id}" && {domain}.?resourceType.orValue("") == "{kind}"'
    )
    exactly: Json = {
        "deviceClassName": driver_name,
        "selectors": [{"cel": {"expression": expression}}],
        **({"allocationMode": "ExactCount", "count": 1} if whole else {"allocationMode": "All"}),
        # by which the nodes' devices keep all others away, where the API server has device taints (1.36)
        "tolerations": [
            {"key": RESERVED_TAINT, "operator": "Equal", "value": workload.id, "effect": "NoSchedule"},
        ],
    }
    devices: Json = {"requests": [{"name": REQUEST, "exactly": exactly}]}
    parameters = []
    if whole:
        parameters.append({"kind": "UltraServerConfig", "ultraserverMode": workload.spec.topology_size})
    if workload.spec.config and workload.spec.config.logical_neuron_core:
        parameters.append({"kind": "NeuronConfig", "logicalNeuronCore": workload.spec.config.logical_neuron_core})
    if parameters:
        devices["config"] = [
            {
                "requests": [REQUEST],
                "opaque": {"driver": driver_name, "parameters": {"apiVersion": _CONFIG_VERSION, **each}},
            }
            for each in parameters
        ]
    spec: Json = {
        # copied to every claim that is made from it
        "metadata": {
            "labels": {names.LABEL_SIMULATED: "true", names.LABEL_WORKLOAD: workload.uid},
            "annotations": {names.ANNOTATION_WORKLOAD_ID: workload.id},
        },
        "spec": {"devices": devices},
    }
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": {
            "name": workload.template,
            "namespace": workload.namespace,
            "labels": {names.LABEL_SIMULATED: "true", names.LABEL_WORKLOAD: workload.uid},
            # of what was sent, not of what the API server adds
            "annotations": {names.ANNOTATION_DIGEST: hashlib.sha256(json.dumps(spec).encode()).hexdigest()[:16]},
            "ownerReferences": [
                {
                    "apiVersion": _CONFIG_VERSION,
                    "kind": "NeuronUltraServerWorkload",
                    "name": workload.name,
                    "uid": workload.uid,
                    "controller": True,
                }
            ],
        },
        "spec": spec,
    }


def is_of(found: Mapping[str, Any], workload: Workload) -> bool:
    """Whether a template was made for a workload."""
    return (found["metadata"].get("labels") or {}).get(names.LABEL_WORKLOAD) == workload.uid


def is_right(found: Mapping[str, Any], wished: Json) -> bool:
    """Whether a template is as wished. A template's spec cannot be changed: one that is not has to be made anew."""
    digests = [(each["metadata"].get("annotations") or {}).get(names.ANNOTATION_DIGEST) for each in (found, wished)]
    return digests[0] == digests[1]
