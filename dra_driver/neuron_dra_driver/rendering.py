"""What preparing a claim writes and answers. Pure: an allocation and what the node is, in; bytes out.

Rendered anew in every prepare, never trusted from before: a reboot takes the files, and what the node is may have
changed since.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from neuron_device_model.view import container_view

from . import cdi, device_metadata
from .checkpoint import Entry, HeldDevice
from .claim_folders import METADATA, VIEW, ClaimFolders, Files
from .claims import AllocatedRequest, Allocation
from .errors import ClaimError
from .kubeletplugin import PreparedDevice
from .node import SimulatedNode
from .runtime_tree import RuntimeTree

TOOLS_ROOT = "/opt/aws/neuron"
TOOLS_ON_PATH = "/usr/local/bin"
VIEWS_ROOT = "/run/neuron-sim"


@dataclass(frozen=True, slots=True)
class Rendering:
    """A claim, ready to be written and answered."""

    entry: Entry
    files: Files
    cdi_spec: Mapping[str, Any]
    answer: tuple[PreparedDevice, ...]


def render(
    allocation: Allocation, node: SimulatedNode, *, driver: str, folders: ClaimFolders, tree: RuntimeTree
) -> Rendering:
    """Everything that this node has to write for a claim."""
    for device in allocation.devices:
        if device.name not in node.devices:
            raise ClaimError(
                f"node {node.name} has no {device.name} (any more): it is a {node.instance_type.name} with "
                f"{len(node.devices)} devices now; delete the pod, so that it is scheduled again"
            )
    entry = Entry(
        uid=allocation.uid,
        namespace=allocation.namespace,
        name=allocation.name,
        devices=tuple(
            HeldDevice(
                request=device.request, pool=allocation.pool, device=device.name, admin_access=device.admin_access
            )
            for device in allocation.devices
        ),
        runtime=tree.digest,
    )
    requests = allocation.requests
    return Rendering(
        entry=entry,
        files={request.name: _files(allocation, request, node, driver=driver) for request in requests},
        cdi_spec=cdi.build(
            driver=driver,
            entry=entry,
            requests=[_edits(allocation, r, node, driver=driver, folders=folders, tree=tree) for r in requests],
        ),
        answer=tuple(
            PreparedDevice(
                requests=(request.name,),
                pool=allocation.pool,
                device=device.name,
                cdi_device_ids=(cdi.device_id(driver, allocation.uid, request.name),),
                share_id=device.share_id,
            )
            for request in requests
            for device in request.devices
        ),
    )


def _files(
    allocation: Allocation, request: AllocatedRequest, node: SimulatedNode, *, driver: str
) -> Mapping[str, bytes]:
    view = container_view(
        node.instance_type,
        host_devices=[device.index for device in request.devices],
        first_index=request.first_index,
        logical_neuron_core=node.logical_neuron_core,
        instance_id=node.instance_id,
        sdk=node.sdk,
        driver_version=node.driver_version,
    )
    return {
        VIEW: json.dumps(view).encode(),
        METADATA: device_metadata.content(allocation, request, driver=driver, devices=node.devices),
    }


def _edits(
    allocation: Allocation,
    request: AllocatedRequest,
    node: SimulatedNode,
    *,
    driver: str,
    folders: ClaimFolders,
    tree: RuntimeTree,
) -> cdi.RequestEdits:
    folder = folders.path(allocation.uid, request.name)
    return cdi.RequestEdits(
        request=request.name,
        device_nodes=[f"/dev/neuron{request.first_index + n}" for n in range(len(request.devices))],
        mounts=[
            cdi.Mount(str(tree.path), TOOLS_ROOT, recursive=True),
            *(cdi.Mount(str(tree.path / "bin" / tool), f"{TOOLS_ON_PATH}/{tool}") for tool in tree.tools),
            cdi.Mount(str(folder), f"{VIEWS_ROOT}/{allocation.uid}/{request.name}", recursive=True),
            cdi.Mount(str(folder / METADATA), device_metadata.container_path(allocation, request, driver=driver)),
        ],
        environment=_environment(node),
    )


def _environment(node: SimulatedNode) -> Mapping[str, str]:
    """No NEURON_RT_VISIBLE_CORES: whole chips are all visible, and of two claims' values the last would win."""
    environment = {"NEURON_SIM_SIMULATED": "true"}
    if node.instance_type.chip.has_logical_neuron_cores:
        environment["NEURON_LOGICAL_NC_CONFIG"] = str(node.logical_neuron_core)
    return environment
