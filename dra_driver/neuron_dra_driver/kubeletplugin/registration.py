"""Tells the kubelet who the plugin is, and remembers what the kubelet made of it.

The kubelet finds the socket (inotify and a rescan every second), asks GetInfo with a deadline of one
second, connects to the endpoint named there and reports the outcome. After its own restart it asks again;
nothing has to be done for that but to keep serving.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc

from .proto import pluginregistration_v1_pb2 as pb

SERVICE = "pluginregistration.Registration"
PLUGIN_TYPE = "DRAPlugin"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Registration:
    """What the kubelet said last about registering the plugin. That it went away later, it does not say."""

    registered: bool
    error: str = ""


class RegistrationService:
    """GetInfo and NotifyRegistrationStatus."""

    def __init__(
        self,
        *,
        driver_name: str,
        endpoint: Path,
        services: tuple[str, ...],
        on_registration: Callable[[Registration], None],
    ) -> None:
        self._info = pb.PluginInfo(
            type=PLUGIN_TYPE, name=driver_name, endpoint=str(endpoint), supported_versions=services
        )
        self._on_registration = on_registration

    def handlers(self) -> grpc.GenericRpcHandler:
        """What a gRPC server has to be given to serve this."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "GetInfo": grpc.unary_unary_rpc_method_handler(
                    self._get_info,
                    request_deserializer=pb.InfoRequest.FromString,
                    response_serializer=pb.PluginInfo.SerializeToString,
                ),
                "NotifyRegistrationStatus": grpc.unary_unary_rpc_method_handler(
                    self._notify,
                    request_deserializer=pb.RegistrationStatus.FromString,
                    response_serializer=pb.RegistrationStatusResponse.SerializeToString,
                ),
            },
        )

    async def _get_info(self, request: pb.InfoRequest, context: object) -> pb.PluginInfo:
        return self._info

    async def _notify(self, request: pb.RegistrationStatus, context: object) -> pb.RegistrationStatusResponse:
        registration = Registration(request.plugin_registered, request.error)
        if registration.registered:
            log.info("the kubelet registered the plugin", extra={"endpoint": self._info.endpoint})
        else:
            log.error(
                "the kubelet refused the plugin: %s",
                registration.error,
                extra={"endpoint": self._info.endpoint},
            )
        self._on_registration(registration)
        return pb.RegistrationStatusResponse()
