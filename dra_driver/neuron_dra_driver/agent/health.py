"""Whether this process can still serve the kubelet: it asks itself over its own socket, as the kubelet would.

Nothing else makes it unhealthy. A restart cures neither an API server that is away nor a full disk, and would only
take the sockets from pods that want to end.
"""

from pathlib import Path

import grpc.aio

# An empty NodeUnprepareResourcesRequest is no bytes at all.
METHOD = "/k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin/NodeUnprepareResources"
TIMEOUT = 5.0


async def answers(socket: Path) -> bool:
    """Whether the DRA service behind a socket answers a call without claims."""
    async with grpc.aio.insecure_channel(f"unix:{socket.absolute()}") as channel:
        try:
            await channel.unary_unary(METHOD, request_serializer=bytes, response_deserializer=bytes)(
                b"", timeout=TIMEOUT
            )
        except grpc.aio.AioRpcError:
            return False
    return True
