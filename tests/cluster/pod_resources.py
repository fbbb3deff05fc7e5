"""What the kubelet tells of given devices: PodResources v1, asked on the node as monitoring agents ask it.

The question is put by the Python of the node's agent, which has the socket's folder and gRPC. The answer is decoded
here, by the numbers of k8s.io/kubelet/pkg/apis/podresources/v1, and not by the agent's own messages: those know of
device plugins only, and a mistake in them would agree with itself.
"""

import base64
from collections.abc import Iterator
from dataclasses import dataclass

from harness import SYSTEM, Cluster, Failed

ASK = """
import base64, grpc, sys
with grpc.insecure_channel("unix:///var/lib/kubelet/pod-resources/kubelet.sock") as channel:
    answer = channel.unary_unary(f"/v1.PodResourcesLister/{sys.argv[1]}")(b"", timeout=20)
print(base64.b64encode(answer).decode())
"""


@dataclass(frozen=True)
class ClaimDevice:
    """A device that a container has by a claim."""

    claim: str
    namespace: str
    driver: str
    pool: str
    device: str
    cdi: tuple[str, ...]


@dataclass(frozen=True)
class Given:
    """What the containers of a pod have."""

    plugin: dict[str, set[str]]
    """The ids of device plugins by resource."""
    claims: tuple[ClaimDevice, ...]


def given(cluster: Cluster, node: str, namespace: str, pod: str) -> Given | None:
    """What the kubelet of a node says of a pod; None if it does not know it."""
    agent = cluster.agent(node)["metadata"]["name"]
    answer = base64.b64decode(cluster.execute(SYSTEM, agent, "python", "-c", ASK, "List", container="agent"))
    for found in _each(answer, 1):
        if (_text(found, 2), _text(found, 1)) == (namespace, pod):
            return _pod(found)
    return None


def offered(cluster: Cluster, node: str) -> dict[str, int]:
    """How many healthy devices the kubelet of a node has of each plugin; none while it does not answer.

    The node's allocatable resources may be those of the kubelet before this one.
    """
    agent = cluster.agent(node)["metadata"]["name"]
    ask = ("exec", "-n", SYSTEM, agent, "-c", "agent", "--", "python", "-c", ASK, "GetAllocatableResources")
    try:
        answer = base64.b64decode(cluster.kubectl(*ask))
    except Failed:
        return {}
    ids: dict[str, set[bytes]] = {}
    for devices in _each(answer, 1):  # once for each NUMA node
        ids.setdefault(_text(devices, 1), set()).update(_each(devices, 2))
    return {resource: len(found) for resource, found in ids.items()}


def _pod(message: bytes) -> Given:
    plugin: dict[str, set[str]] = {}
    claims = []
    for container in _each(message, 3):
        for devices in _each(container, 2):  # once for each NUMA node
            plugin.setdefault(_text(devices, 1), set()).update(one.decode() for one in _each(devices, 2))
        for claim in _each(container, 5):
            for device in _each(claim, 4):
                cdi = tuple(_text(one, 1) for one in _each(device, 1))
                names = (_text(claim, 2), _text(claim, 3), _text(device, 2), _text(device, 3), _text(device, 4))
                claims.append(ClaimDevice(*names, cdi))
    return Given(plugin, tuple(claims))


def _text(message: bytes, number: int) -> str:
    return next((found.decode() for found in _each(message, number)), "")


def _each(message: bytes, number: int) -> Iterator[bytes]:
    """The values of a field that are strings or messages."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        wire = key & 7
        if wire == 2:
            length, place = _varint(message, place)
            if key >> 3 == number:
                yield message[place : place + length]
            place += length
        elif wire == 0:
            _, place = _varint(message, place)
        else:
            place += {1: 8, 5: 4}[wire]


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 0x7F) << shift
        shift += 7
        place += 1
        if byte < 0x80:
            return value, place
