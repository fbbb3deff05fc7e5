"""What preparing a claim writes and answers. Pure: what was granted and what the node is, in; bytes out.

Rendered anew in every prepare, never trusted from before: a reboot takes the files, and what the node is may have
changed since.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from neuron_device_model.cores import core_list
from neuron_device_model.view import View

from ..allocations.allocation import Allocation, base_name
from ..allocations.config import (
    LOGICAL_NC_CONFIG,
    SIMULATED_VARIABLE,
    VISIBLE_CORES,
)
from ..allocations.grants import Grant, GrantedRequest
from ..kubeletplugin import PreparedDevice
from ..node import SimulatedNode
from ..records.checkpoint import Entry
from . import cdi, device_metadata, ultraserver_environment
from .claim_folders import METADATA, ClaimFolders, RequestFiles
from .runtime_tree import RuntimeTree

TOOLS_ROOT = "/opt/aws/neuron"
TOOLS_ON_PATH = "/usr/local/bin"
VIEWS_ROOT = "/run/neuron-sim"


@dataclass(frozen=True, slots=True)
class Rendering:
    """A claim, ready to be written and answered."""

    entry: Entry
    files: Mapping[str, RequestFiles]
    """By request."""
    cdi_spec: Mapping[str, Any]
    answer: tuple[PreparedDevice, ...]


def render(
    grant: Grant,
    node: SimulatedNode,
    *,
    driver: str,
    folders: ClaimFolders,
    tree: RuntimeTree,
    before: Entry | None = None,
) -> Rendering:
    """Everything that this node has to write for a claim. `before`: as it is prepared now, with whatever devices."""
    allocation = grant.allocation
    entry = Entry(
        uid=allocation.uid,
        namespace=allocation.namespace,
        name=allocation.name,
        devices=grant.held,
        runtime=tree.digest,
        origin=allocation.origin,
        kubelet_ids=allocation.kubelet_ids,
        former=_former(grant, before) if before else (),
    )
    return Rendering(
        entry=entry,
        files={
            request.name: RequestFiles(
                view=orjson.dumps(request.view),
                metadata=device_metadata.content(allocation, request.devices, driver=driver, offered=node.devices),
                cores=_cores(request.view),
            )
            for request in grant.requests
        },
        cdi_spec=cdi.build(
            driver=driver,
            entry=entry,
            requests=[
                _edits(grant, request, node, driver=driver, folders=folders, tree=tree) for request in grant.requests
            ],
        ),
        answer=tuple(
            PreparedDevice(
                requests=(request.name,),
                pool=allocation.pool,
                device=device.name,
                cdi_device_ids=cdi.device_ids(driver, allocation.uid, request.name, device.name),
                share_id=device.share_id,
            )
            for request in grant.requests
            for device in request.devices
        ),
    )


def _former(grant: Grant, before: Entry) -> tuple[tuple[str, str], ...]:
    """What the kubelet was told of that is no device of the claim now."""
    told = {*before.former, *((base_name(held.request), held.device) for held in before.devices)}
    return tuple(sorted(told - {(base_name(held.request), held.device) for held in grant.held}))


def _edits(
    grant: Grant,
    request: GrantedRequest,
    node: SimulatedNode,
    *,
    driver: str,
    folders: ClaimFolders,
    tree: RuntimeTree,
) -> cdi.RequestEdits:
    allocation = grant.allocation
    folder, tools = folders.path(allocation.uid, request.name), str(tree.path)
    return cdi.RequestEdits(
        request=request.name,
        devices=[device.name for device in request.devices],
        device_nodes=[f"/dev/neuron{device['index']}" for device in request.view["devices"]],
        mounts=[
            cdi.Mount(tools, TOOLS_ROOT, recursive=True),
            *(cdi.Mount(f"{tools}/bin/{tool}", f"{TOOLS_ON_PATH}/{tool}") for tool in tree.tools),
            cdi.Mount(folder, f"{VIEWS_ROOT}/{allocation.uid}/{request.name}", recursive=True),
            *_metadata_mounts(allocation, folder, request.name, driver=driver),
        ],
        environment=_environment(grant, request, node),
    )


def _metadata_mounts(allocation: Allocation, folder: str, request: str, *, driver: str) -> list[cdi.Mount]:
    """The metadata belongs to a claim: by the other road there is none to name it by."""
    if allocation.origin != "claim":
        return []
    return [cdi.Mount(f"{folder}/{METADATA}", device_metadata.container_path(allocation, request, driver=driver))]


def _environment(grant: Grant, request: GrantedRequest, node: SimulatedNode) -> Mapping[str, str]:
    """What the runtime reads. In a container that uses several requests, the last one's value of a variable holds."""
    environment = {SIMULATED_VARIABLE: "true"}
    if node.instance_type.chip.has_logical_neuron_cores:
        environment[LOGICAL_NC_CONFIG] = str(request.logical_neuron_core)
    if visible := _visible_cores(grant, request):
        environment[VISIBLE_CORES] = visible
    if request.config.ultraserver:
        environment |= ultraserver_environment.environment(request.config.ultraserver.ultraserver_mode, node.seat)
    if request.config.simulation:
        environment |= request.config.simulation.environment
    return environment


def _visible_cores(grant: Grant, request: GrantedRequest) -> str:
    """The cores to name to the runtime, none where it has to look for itself.

    Whole chips are all visible anyway. Of a claim with several requests nobody knows which of them a container uses,
    and a list would hide the others' cores from it or name cores that it does not have; the view says what is there.
    """
    together = [other for other in grant.requests if other.user == request.user]
    if len(together) > 1 and not request.user:
        return ""
    if all(chip.cores is None for other in together for chip in other.chips):
        return ""
    return core_list(core for other in together for core in _cores(other.view))


def _cores(view: View) -> list[int]:
    return [core for device in view["devices"] for core in device["core_ids"]]
