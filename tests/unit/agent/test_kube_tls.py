"""Who the API server is, and who asks it: certificates, names and tokens, over real TLS."""

import asyncio
import base64
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from neuron_dra_driver.api_server import kube as kube_module
from neuron_dra_driver.api_server.http_client import Access, HttpClient
from neuron_dra_driver.api_server.kube import Kube, _in_cluster
from neuron_dra_driver.errors import AgentError

CERTIFICATES = Path(__file__).parent / "certificates"
KNOWN, UNKNOWN = CERTIFICATES / "known.crt", CERTIFICATES / "unknown.crt"


@dataclass
class Server:
    """Answers everything with a Node, and a watch with two events."""

    context: ssl.SSLContext
    port: int = 0
    connections: int = 0
    tokens: list[str] = field(default_factory=list)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            while True:
                first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                self.tokens += [line.partition(": ")[2] for line in lines if line.startswith("Authorization")]
                if "watch=true" in first:
                    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                    for kind in ("ADDED", "MODIFIED"):
                        event = json.dumps({"type": kind, "object": {}}).encode() + b"\n"
                        writer.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")
                    writer.write(b"0\r\n\r\n")
                else:
                    body = json.dumps({"metadata": {"uid": "uid-of-the-node"}}).encode()
                    writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        writer.close()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """Its certificate is `known`."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(KNOWN, KNOWN.with_suffix(".key"))
    found = Server(context)
    # A handshake that is refused is told to the loop's handler, and is what these tests are about.
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    listening = await asyncio.start_server(found.handle, "127.0.0.1", 0, ssl=context)
    found.port = listening.sockets[0].getsockname()[1]
    yield found
    listening.close()


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """What the kubelet mounts into a pod."""
    (tmp_path / "ca.crt").write_bytes(KNOWN.read_bytes())
    (tmp_path / "token").write_text("one\n")
    return tmp_path


def in_pod(server: Server, secrets: Path, monkeypatch: pytest.MonkeyPatch) -> Kube:
    environment = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(server.port)}
    monkeypatch.setattr(kube_module, "_in_cluster", lambda _: _in_cluster(environment, secrets))
    return Kube()


def by_kubeconfig(
    server: Server,
    folder: Path,
    cluster: Mapping[str, Any],
    user: Mapping[str, Any] | None = None,
    *,
    host: str = "127.0.0.1",
) -> Kube:
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": f"https://{host}:{server.port}", **cluster}}],
        "users": [{"name": "u", "user": dict(user or {})}],
    }
    path = folder / "config"
    path.write_text(yaml.safe_dump(config))
    return Kube(path)


async def test_a_pod_trusts_the_authority_that_the_kubelet_mounts(
    server: Server, secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with in_pod(server, secrets, monkeypatch) as kube:
        assert await kube.node_uid("worker-1") == "uid-of-the-node"
    assert server.tokens == ["Bearer one"]


async def test_a_server_of_an_unknown_authority_is_refused_and_told_nothing(
    server: Server, secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (secrets / "ca.crt").write_bytes(UNKNOWN.read_bytes())
    async with in_pod(server, secrets, monkeypatch) as kube:
        with pytest.raises(ssl.SSLCertVerificationError, match="certificate verify failed: self-signed certificate"):
            await kube.node_uid("worker-1")
        with pytest.raises(ssl.SSLCertVerificationError):
            await anext(kube.watch("/api/v1/nodes", params={}))
    assert server.tokens == []


async def test_a_rotated_token_goes_out_on_the_connection_that_is_open(
    server: Server, secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with in_pod(server, secrets, monkeypatch) as kube:
        await kube.node_uid("worker-1")
        replacement = secrets / "next"
        replacement.write_text("two\n")
        replacement.replace(secrets / "token")  # as the kubelet does it
        await kube.node_uid("worker-1")
    assert server.tokens == ["Bearer one", "Bearer two"]
    assert server.connections == 1


async def test_a_server_may_renew_its_certificate_under_the_same_authority(
    server: Server, secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bundle of two authorities is how a cluster moves from one to the other."""
    (secrets / "ca.crt").write_bytes(KNOWN.read_bytes() + UNKNOWN.read_bytes())
    async with in_pod(server, secrets, monkeypatch) as before:
        await before.node_uid("worker-1")
    server.context.load_cert_chain(UNKNOWN, UNKNOWN.with_suffix(".key"))
    async with in_pod(server, secrets, monkeypatch) as after:
        assert await after.node_uid("worker-1") == "uid-of-the-node"


async def test_a_watch_comes_over_tls(server: Server, secrets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with in_pod(server, secrets, monkeypatch) as kube:
        assert [kind async for kind, _ in kube.watch("/api/v1/nodes", params={})] == ["ADDED", "MODIFIED"]


@pytest.mark.parametrize("how", ["file", "data"])
async def test_a_kubeconfig_names_the_authority(server: Server, tmp_path: Path, how: str) -> None:
    (tmp_path / "ca.crt").write_bytes(KNOWN.read_bytes())
    authority = {
        "file": {"certificate-authority": "ca.crt"},  # from the kubeconfig's folder
        "data": {"certificate-authority-data": base64.b64encode(KNOWN.read_bytes()).decode()},
    }[how]
    async with by_kubeconfig(server, tmp_path, authority) as kube:
        assert await kube.node_uid("worker-1") == "uid-of-the-node"


@pytest.mark.parametrize("authority", [{}, {"certificate-authority": str(UNKNOWN)}], ids=["the system's", "another"])
async def test_a_kubeconfig_without_the_right_authority_is_refused(
    server: Server, tmp_path: Path, authority: dict[str, str]
) -> None:
    async with by_kubeconfig(server, tmp_path, authority) as kube:
        with pytest.raises(ssl.SSLCertVerificationError, match="certificate verify failed"):
            await kube.node_uid("worker-1")


async def test_nothing_is_checked_where_the_kubeconfig_says_so(server: Server, tmp_path: Path) -> None:
    async with by_kubeconfig(server, tmp_path, {"insecure-skip-tls-verify": True}) as kube:
        assert await kube.node_uid("worker-1") == "uid-of-the-node"


async def test_a_certificate_of_another_name_is_refused_unless_that_name_is_expected(
    server: Server, tmp_path: Path
) -> None:
    known = {"certificate-authority": str(KNOWN)}
    async with by_kubeconfig(server, tmp_path, known, host="localhost") as kube:
        with pytest.raises(ssl.SSLCertVerificationError, match="'localhost'"):
            await kube.node_uid("worker-1")
    named = known | {"tls-server-name": "127.0.0.1"}
    async with by_kubeconfig(server, tmp_path, named, host="localhost") as kube:
        assert await kube.node_uid("worker-1") == "uid-of-the-node"


async def test_a_client_shows_its_certificate(server: Server, tmp_path: Path) -> None:
    server.context.load_verify_locations(UNKNOWN)
    server.context.verify_mode = ssl.CERT_REQUIRED
    known = {"certificate-authority": str(KNOWN)}
    pair = {"client-certificate": str(UNKNOWN), "client-key": str(UNKNOWN.with_suffix(".key"))}
    async with by_kubeconfig(server, tmp_path, known, pair) as kube:
        assert await kube.node_uid("worker-1") == "uid-of-the-node"
    async with by_kubeconfig(server, tmp_path, known) as kube:
        with pytest.raises((ConnectionError, ssl.SSLError)):  # an alert, or its end overtook it
            await kube.node_uid("worker-1")


@pytest.mark.parametrize(
    ("authority", "sentence"),
    [
        pytest.param({"certificate-authority": "none.crt"}, r"none\.crt", id="no such file"),
        pytest.param({"certificate-authority-data": "bm9uZQ=="}, "cannot be used", id="no certificate"),
    ],
)
async def test_an_authority_that_is_none_says_where(
    server: Server, tmp_path: Path, authority: dict[str, str], sentence: str
) -> None:
    with pytest.raises(AgentError, match=sentence):
        by_kubeconfig(server, tmp_path, authority)


async def test_a_server_that_speaks_no_tls_is_an_outage() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    listening = await asyncio.start_server(handler, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    client = HttpClient(Access(f"https://127.0.0.1:{port}", ssl.create_default_context()))
    with pytest.raises(OSError):  # noqa: PT011 (OpenSSL's words for it change)
        await client.request("GET", "/", timeout=5)
    listening.close()
