"""The device metadata file of KEP-5304: a container reads there what the ResourceSlice says about its devices.

Nothing in Kubernetes writes it but the driver. Path and content follow the device metadata protocol (Kubernetes docs:
"DRA device metadata in containers"): a JSON stream with the same object once per version of the schema, newest first.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from ..allocations.allocation import AllocatedDevice, Allocation

ROOT = "/var/run/kubernetes.io/dra-device-attributes"
VERSIONS = ("v1beta1", "v1alpha1")


def container_path(allocation: Allocation, request: str, *, driver: str) -> str:
    """Where a container finds the metadata of a request."""
    owner = (
        f"resourceclaimtemplates/{allocation.pod_claim_name}"
        if allocation.pod_claim_name
        else f"resourceclaims/{allocation.name}"
    )
    return f"{ROOT}/{owner}/{request}/{driver}-metadata.json"


def content(
    allocation: Allocation,
    devices: Sequence[AllocatedDevice],
    *,
    driver: str,
    offered: Mapping[str, Mapping[str, Any]],
) -> bytes:
    """The file of one request: its devices, and what the node says about those that it offers."""
    body: dict[str, Any] = {
        "metadata": {
            "name": allocation.name,
            "namespace": allocation.namespace,
            "uid": allocation.uid,
            "generation": 1,
        }
    }
    if allocation.pod_claim_name:
        body["podClaimName"] = allocation.pod_claim_name
    body["requests"] = [
        {
            "name": devices[0].request,
            "devices": [
                {
                    "driver": driver,
                    "pool": allocation.pool,
                    "name": device.name,
                    "attributes": offered.get(device.name, {}).get("attributes", {}),
                }
                for device in devices
            ],
        }
    ]
    stream = [
        {"kind": "DeviceMetadata", "apiVersion": f"metadata.resource.k8s.io/{version}", **body} for version in VERSIONS
    ]
    return b"".join(orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE) for document in stream)
