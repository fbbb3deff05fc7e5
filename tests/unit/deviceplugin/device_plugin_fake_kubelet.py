"""What a kubelet does with device plugins, over real sockets: wipes, registers, watches, calls, and tells who has what.

It has the real one's flaw as well (1.36): when a client's stream ends, the client that has the resource's name *then*
is disconnected, whichever it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from neuron_dra_driver.deviceplugin.proto import deviceplugin_v1beta1_pb2 as pb
from neuron_dra_driver.deviceplugin.proto import podresources_v1_pb2 as pod_pb

OWN_POOL = [("grpc.use_local_subchannel_pool", 1)]

PREFERRED = (pb.PreferredAllocationRequest, pb.PreferredAllocationResponse)
METHODS: dict[str, tuple[Any, Any]] = {
    "GetDevicePluginOptions": (pb.Empty, pb.DevicePluginOptions),
    "GetPreferredAllocation": PREFERRED,
    "Allocate": (pb.AllocateRequest, pb.AllocateResponse),
    "PreStartContainer": (pb.PreStartContainerRequest, pb.PreStartContainerResponse),
}


@dataclass
class Client:
    """A plugin that has registered."""

    endpoint: str
    channel: grpc.aio.Channel
    options: pb.DevicePluginOptions

    def call(self, method: str, request: Any, *, timeout: float = 20) -> Any:
        asks, answers = METHODS[method]
        rpc = self.channel.unary_unary(
            f"/v1beta1.DevicePlugin/{method}",
            request_serializer=asks.SerializeToString,
            response_deserializer=answers.FromString,
        )
        return rpc(request, timeout=timeout)


@dataclass
class FakeKubelet:
    """Its folder survives restarts, as on a node."""

    folder: Path
    refuse: str = ""
    devices: dict[str, dict[str, str]] = field(default_factory=dict)
    """By resource: health by id, as the plugin said last; empty when it does not watch."""
    numa: dict[str, tuple[int, ...]] = field(default_factory=dict)
    registered: list[str] = field(default_factory=list)
    clients: dict[str, Client] = field(default_factory=dict)
    given: dict[tuple[str, str, str], list[tuple[str, list[str]]]] = field(default_factory=dict)
    """What PodResources tells: by namespace, pod and container."""
    active: set[str] = field(default_factory=set)
    """Uids of the pods that are not over."""
    allocated: dict[tuple[str, str], dict[str, set[str]]] = field(default_factory=dict)
    """Its checkpoint: by pod uid and container, the ids of each resource."""
    _server: grpc.aio.Server | None = None
    _watching: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def pod_resources(self) -> Path:
        return self.folder / "pod-resources.sock"

    async def start(self) -> None:
        for path in self.folder.iterdir():
            if path.is_socket():
                path.unlink()
        server = grpc.aio.server()
        register = grpc.unary_unary_rpc_method_handler(
            self._register,
            request_deserializer=pb.RegisterRequest.FromString,
            response_serializer=pb.Empty.SerializeToString,
        )
        listing = grpc.unary_unary_rpc_method_handler(
            self._list,
            request_deserializer=pod_pb.ListPodResourcesRequest.FromString,
            response_serializer=pod_pb.ListPodResourcesResponse.SerializeToString,
        )
        server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler("v1beta1.Registration", {"Register": register}),
                grpc.method_handlers_generic_handler("v1.PodResourcesLister", {"List": listing}),
            )
        )
        for name in ("kubelet.sock", "pod-resources.sock"):
            server.add_insecure_port(f"unix://{self.folder / name}")
        await server.start()
        self._server = server

    @property
    def streams(self) -> int:
        return len(self._watching)

    @property
    def stopped(self) -> bool:
        return self._server is None

    async def stop(self) -> None:
        for task in list(self._watching):
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        for client in self.clients.values():
            await client.channel.close()
        self.clients.clear()
        self.devices.clear()
        if self._server:
            await self._server.stop(None)
            self._server = None

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    async def until(self, condition: Callable[[], Any], *, timeout: float = 20) -> None:
        async with asyncio.timeout(timeout):
            while not condition():  # noqa: ASYNC110 - plugins signal nobody
                await asyncio.sleep(0.002)

    async def watches(self, resource: str, count: int | None = None) -> dict[str, str]:
        """Wait until the resource's devices are known."""
        await self.until(lambda: len(self.devices.get(resource, ())) == count if count else resource in self.devices)
        return self.devices[resource]

    async def allocate(self, resource: str, *ids: str, timeout: float = 20) -> pb.ContainerAllocateResponse:
        request = pb.AllocateRequest()
        request.container_requests.add(devices_ids=ids)
        answer = await self.clients[resource].call("Allocate", request, timeout=timeout)
        return answer.container_responses[0]

    async def prefer(
        self, resource: str, available: Iterable[str], count: int, *, must_include: Iterable[str] = ()
    ) -> list[str]:
        request = pb.PreferredAllocationRequest()
        request.container_requests.add(
            available_deviceIDs=available, must_include_deviceIDs=must_include, allocation_size=count
        )
        answer = await self.clients[resource].call("GetPreferredAllocation", request)
        return list(answer.container_responses[0].deviceIDs)

    async def admit(self, pod: dict[str, Any]) -> dict[str, pb.ContainerAllocateResponse]:
        """Admit a pod as the kubelet's device manager does; what each of its containers gets.

        Ids of init containers are used again for the pod's other containers, and no ids of other pods.
        """
        metadata = pod["metadata"]
        reusable: dict[str, set[str]] = {}
        answers = {}
        for key in [key for key in self.allocated if key[0] not in self.active]:
            del self.allocated[key]
        self.active.add(metadata["uid"])
        try:
            for container in pod["spec"].get("initContainers", []):
                answers |= await self._admit_container(metadata, container, reusable)
                mine = self.allocated.get((metadata["uid"], container["name"]), {})
                for resource, ids in mine.items():
                    again = reusable.setdefault(resource, set())
                    again.difference_update(ids) if container.get("restartPolicy") == "Always" else again.update(ids)
                if container.get("restartPolicy") == "Always":
                    self._list_container(metadata, container["name"])
            for container in pod["spec"]["containers"]:
                answers |= await self._admit_container(metadata, container, reusable)
                for resource, ids in self.allocated.get((metadata["uid"], container["name"]), {}).items():
                    reusable.get(resource, set()).difference_update(ids)
                self._list_container(metadata, container["name"])
        except BaseException:
            self.over(pod)
            raise
        return answers

    def over(self, pod: dict[str, Any]) -> None:
        """A pod has ended; its ids are free again, and nobody is told."""
        self.active.discard(pod["metadata"]["uid"])
        self.end(f"{pod['metadata']['namespace']}/{pod['metadata']['name']}")

    async def _admit_container(
        self, metadata: dict[str, Any], container: dict[str, Any], reusable: dict[str, set[str]]
    ) -> dict[str, pb.ContainerAllocateResponse]:
        answers = {}
        for resource, quantity in container.get("resources", {}).get("limits", {}).items():
            count = int(quantity)
            mine = set(sorted(reusable.get(resource, ()))[:count])
            if len(mine) < count:
                used = {id_ for given in self.allocated.values() for id_ in given.get(resource, ())}
                healthy = {id_ for id_, health in self.devices[resource].items() if health == "Healthy"}
                available = healthy - used
                if len(available) < count - len(mine):
                    raise RuntimeError(f"requested number of devices unavailable for {resource}")
                wished = await self.prefer(resource, available | mine, count, must_include=mine)
                for id_ in [*(i for i in wished if i in available), *sorted(available)]:
                    if len(mine) < count:
                        mine.add(id_)
            answers[container["name"]] = await self.allocate(resource, *mine)
            self.allocated.setdefault((metadata["uid"], container["name"]), {})[resource] = mine
        return answers

    def _list_container(self, metadata: dict[str, Any], container: str) -> None:
        for resource, ids in self.allocated.get((metadata["uid"], container), {}).items():
            self.give(f"{metadata['namespace']}/{metadata['name']}", container, resource, sorted(ids))

    def give(self, pod: str, container: str, resource: str, ids: Iterable[str]) -> None:
        """Note for PodResources what a container has; `pod` is namespace/name."""
        namespace, _, name = pod.partition("/")
        self.given.setdefault((namespace, name, container), []).append((resource, list(ids)))

    def end(self, pod: str) -> None:
        """A pod is over."""
        namespace, _, name = pod.partition("/")
        for key in [key for key in self.given if key[:2] == (namespace, name)]:
            del self.given[key]

    async def _register(self, request: pb.RegisterRequest, context: Any) -> pb.Empty:
        if self.refuse or request.version != "v1beta1":
            await context.abort(grpc.StatusCode.UNKNOWN, self.refuse or "wrong version")
        channel = grpc.aio.insecure_channel(f"unix://{self.folder / request.endpoint}", options=OWN_POOL)
        client = Client(request.endpoint, channel, pb.DevicePluginOptions())
        client.options = await client.call("GetDevicePluginOptions", pb.Empty(), timeout=10)
        self.clients[request.resource_name] = client
        self.registered.append(request.resource_name)
        task = asyncio.create_task(self._run_client(request.resource_name, client))
        self._watching.add(task)
        task.add_done_callback(self._watching.discard)
        return pb.Empty()

    async def _run_client(self, resource: str, client: Client) -> None:
        watch = client.channel.unary_stream(
            "/v1beta1.DevicePlugin/ListAndWatch",
            request_serializer=pb.Empty.SerializeToString,
            response_deserializer=pb.ListAndWatchResponse.FromString,
        )
        try:
            async for answer in watch(pb.Empty()):
                self.devices[resource] = {device.ID: device.health for device in answer.devices}
                self.numa.update({d.ID: tuple(node.ID for node in d.topology.nodes) for d in answer.devices})
        except (grpc.aio.AioRpcError, asyncio.CancelledError):
            pass
        if now := self.clients.pop(resource, None):  # the flaw: `now` may be another client
            await now.channel.close()
        self.devices.pop(resource, None)

    async def _list(self, request: Any, context: Any) -> pod_pb.ListPodResourcesResponse:
        answer = pod_pb.ListPodResourcesResponse()
        pods: dict[tuple[str, str], Any] = {}
        for (namespace, name, container), given in self.given.items():
            if (namespace, name) not in pods:
                pods[namespace, name] = answer.pod_resources.add(namespace=namespace, name=name)
            message = pods[namespace, name].containers.add(name=container)
            for resource, ids in given:
                message.devices.add(resource_name=resource, device_ids=ids)
        return answer
