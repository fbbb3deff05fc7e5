"""Who has which devices, as the kubelet tells it.

There is no call that returns devices to a plugin: a pod ends, and its devices are handed out again one day. A plugin
that keeps something for a container compares with this list to find out what is over.

What the list does not say: ordinary init containers (sidecars are in it), containers whose allocation is just being
answered, and, for a while after the kubelet's own restart, any pod. So an absence is no proof by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio

from .proto import podresources_v1_pb2 as pb

KUBELET_POD_RESOURCES_SOCKET = Path("/var/lib/kubelet/pod-resources/kubelet.sock")

_MAX_ANSWER = 16 << 20
"""As in the kubelet's own client."""


class PodResourcesError(Exception):
    """The kubelet does not tell."""


@dataclass(frozen=True, slots=True)
class GivenDevices:
    """Devices of one resource that a container has."""

    namespace: str
    pod: str
    container: str
    resource: str
    device_ids: frozenset[str]


async def given_devices(
    socket: Path = KUBELET_POD_RESOURCES_SOCKET, *, timeout: float = 5.0
) -> tuple[GivenDevices, ...]:
    """Every container of a pod that is not over, once for each resource of which it has devices."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", _MAX_ANSWER)]
    async with grpc.aio.insecure_channel(f"unix://{socket.absolute()}", options=options) as channel:
        call = channel.unary_unary(
            "/v1.PodResourcesLister/List",
            request_serializer=pb.ListPodResourcesRequest.SerializeToString,
            response_deserializer=pb.ListPodResourcesResponse.FromString,
        )
        try:
            answer = await call(pb.ListPodResourcesRequest(), timeout=timeout)
        except grpc.aio.AioRpcError as error:
            raise PodResourcesError(f"{socket} does not answer: {error.details()}") from error
    return tuple(
        given
        for pod in answer.pod_resources
        for container in pod.containers
        for given in _of_container(pod.namespace, pod.name, container)
    )


def _of_container(namespace: str, pod: str, container: pb.ContainerResources) -> Sequence[GivenDevices]:
    ids: dict[str, set[str]] = {}
    for part in container.devices:  # a part for each NUMA node
        ids.setdefault(part.resource_name, set()).update(part.device_ids)
    return [GivenDevices(namespace, pod, container.name, name, frozenset(found)) for name, found in ids.items()]
