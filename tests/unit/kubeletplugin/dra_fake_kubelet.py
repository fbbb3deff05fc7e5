"""What a kubelet does with plugins, over real sockets: picks up, registers, calls, unregisters; records all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio
from neuron_dra_driver.kubeletplugin import ClaimRef
from neuron_dra_driver.kubeletplugin.proto import dra_v1_pb2 as dra
from neuron_dra_driver.kubeletplugin.proto import health_v1_pb2, health_v1alpha1_pb2
from neuron_dra_driver.kubeletplugin.proto import pluginregistration_v1_pb2 as registration


@dataclass
class Plugin:
    """A registered plugin and the connection to its service."""

    info: registration.PluginInfo
    channel: grpc.aio.Channel

    def call(self, method: str, claims: Iterable[ClaimRef], *, timeout: float = 45) -> Any:
        types: dict[str, tuple[Any, Any]] = {
            "NodePrepareResources": (dra.NodePrepareResourcesRequest, dra.NodePrepareResourcesResponse),
            "NodeUnprepareResources": (dra.NodeUnprepareResourcesRequest, dra.NodeUnprepareResourcesResponse),
        }
        request, response = types[method]
        rpc = self.channel.unary_unary(
            f"/k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin/{method}",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        messages = [dra.Claim(namespace=c.namespace, uid=c.uid, name=c.name) for c in claims]
        return rpc(request(claims=messages), timeout=timeout)

    def prepare(self, *claims: ClaimRef, timeout: float = 45) -> Any:
        return self.call("NodePrepareResources", claims, timeout=timeout)

    def unprepare(self, *claims: ClaimRef, timeout: float = 45) -> Any:
        return self.call("NodeUnprepareResources", claims, timeout=timeout)

    def watch_health(self, version: str = "v1") -> Any:
        """A stream of reports in one version of the service."""
        messages: Any = {"v1": health_v1_pb2, "v1alpha1": health_v1alpha1_pb2}[version]
        rpc = self.channel.unary_stream(
            f"/{version}.DRAResourceHealth/NodeWatchResources",
            request_serializer=messages.NodeWatchResourcesRequest.SerializeToString,
            response_deserializer=messages.NodeWatchResourcesResponse.FromString,
        )
        return rpc(messages.NodeWatchResourcesRequest())


@dataclass
class FakeKubelet:
    """`pick_up` is one round of the plugin watcher: what inotify or the rescan would bring about."""

    registry: Path
    refuse: str = ""
    plugins: dict[str, Plugin] = field(default_factory=dict)
    record: list[str] = field(default_factory=list)

    async def pick_up(self) -> None:
        found = {path.name: path for path in self.registry.iterdir() if path.is_socket()}
        for name in self.plugins.keys() - found.keys():
            await self.plugins.pop(name).channel.close()
            self.record.append(f"unregister {name}")
        for name in sorted(found.keys() - self.plugins.keys()):
            await self._register(name, found[name])

    async def _register(self, name: str, path: Path) -> None:
        async with grpc.aio.insecure_channel(f"unix://{path}") as channel:
            get_info = channel.unary_unary(
                "/pluginregistration.Registration/GetInfo",
                request_serializer=registration.InfoRequest.SerializeToString,
                response_deserializer=registration.PluginInfo.FromString,
            )
            info = await get_info(registration.InfoRequest(), timeout=1)
            if not self.refuse:
                service = grpc.aio.insecure_channel(f"unix://{info.endpoint}")
                self.plugins[name] = Plugin(info, service)
            notify = channel.unary_unary(
                "/pluginregistration.Registration/NotifyRegistrationStatus",
                request_serializer=registration.RegistrationStatus.SerializeToString,
                response_deserializer=registration.RegistrationStatusResponse.FromString,
            )
            status = registration.RegistrationStatus(plugin_registered=not self.refuse, error=self.refuse)
            await notify(status, timeout=5)
            self.record.append(f"{'refuse' if self.refuse else 'register'} {name}")

    async def restart(self) -> None:
        """It forgets its plugins and finds them again."""
        await self.stop()
        await self.pick_up()

    async def stop(self) -> None:
        for plugin in self.plugins.values():
            await plugin.channel.close()
        self.plugins.clear()

    def only_plugin(self) -> Plugin:
        (plugin,) = self.plugins.values()
        return plugin
