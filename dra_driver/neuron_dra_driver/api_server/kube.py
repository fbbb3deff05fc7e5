"""The agent's calls to the API server, all of them, as plain dicts.

The ClusterRole that they need:

    resource.k8s.io   resourceclaims        get watch
    resource.k8s.io   resourceslices        list watch create update delete
    core              nodes                 get
    neuron-sim.dev    neuronnodes           list watch      (not when it runs alone)
    neuron-sim.dev    neuronnodes/status    patch           (not when it runs alone)

Kubernetes clients drop fields that are newer than their models, and the small ones know neither bookmarks nor
preconditions, so these few calls are plain HTTP. `http_client` says why even that is our own.
"""

import asyncio
import contextlib
import os
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

import orjson

from ..errors import AgentError
from ..kubeletplugin import ApiError, RestSlices
from ..names import API_GROUP, API_VERSION
from .http_client import JSON, KEPT, Access, HttpClient, Stream

TIMEOUT = 10.0
PATIENCE, PAUSE = 5.0, 0.25
"""Seconds for which, and between which, a claim is asked for while there is nobody to answer: after an outage the
service's address leads nowhere for a moment, and what could not be prepared the kubelet tries again in a minute."""
SILENCE = 330.0
"""A watch that says nothing for so long is dead: the API server sends a bookmark about every minute. Longer than the
patience of the slice controller, which starts over without calling it an error."""

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

CLAIM = "/apis/resource.k8s.io/v1/namespaces/{namespace}/resourceclaims/{name}"
CLAIMS = "/apis/resource.k8s.io/v1/resourceclaims"
SLICES = "/apis/resource.k8s.io/v1/resourceslices"
NEURON_NODES = f"/apis/{API_GROUP}/{API_VERSION}/neuronnodes"

METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
"""What to accept where an object's metadata is enough: a twentieth of a ResourceSlice."""

Object = dict[str, Any]


class Kube:
    """One connection pool to the API server; implements `kubeletplugin.ApiServer`."""

    def __init__(self, kubeconfig: Path | None = None, *, kept: int = KEPT) -> None:
        """`kept`: idle connections at most."""
        self._http = HttpClient(_from_file(kubeconfig) if kubeconfig else _in_cluster(os.environ), kept=kept)
        self.slices = RestSlices(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    async def claim(self, namespace: str, name: str) -> Object | None:
        """A ResourceClaim as it is now."""
        try:
            return await self.request("GET", CLAIM.format(namespace=namespace, name=name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def claim_patiently(self, namespace: str, name: str) -> Object | None:
        """The same for the kubelet, which waits: asked for again, for a while, when no connection can be made."""
        clock = asyncio.get_running_loop().time
        until = clock() + PATIENCE
        while True:
            try:
                return await self.claim(namespace, name)
            except OSError:
                if clock() > until:
                    raise
            await asyncio.sleep(PAUSE)

    def follow_claims(self, version: str) -> contextlib.AbstractAsyncContextManager[Stream]:
        """The changes of all ResourceClaims after a version; without one, what there is comes first."""
        if version:
            return self.stream(CLAIMS, params={"resourceVersion": version})
        return self.stream(CLAIMS, params={"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"})

    async def node_uid(self, name: str) -> str:
        """The uid of a Node."""
        node = await self.request("GET", f"/api/v1/nodes/{name}")
        return str(node["metadata"]["uid"])

    async def follow_neuron_node(self, name: str) -> AsyncGenerator[Object | None, None]:
        """The NeuronNode of a node: as it is (None: there is none), then whenever it changes.

        Ends when the server ends the watch; the caller then asks again.
        """
        selector = {"fieldSelector": f"metadata.name={name}"}
        found = await self.request("GET", NEURON_NODES, params=selector)
        items = found.get("items") or []
        yield items[0] if items else None
        async for kind, neuron_node in self.watch(
            NEURON_NODES, params={**selector, "resourceVersion": found["metadata"]["resourceVersion"]}
        ):
            if kind == "ERROR":
                raise _refusal(neuron_node)
            if kind != "BOOKMARK":
                yield None if kind == "DELETED" else neuron_node

    async def patch_neuron_node_status(self, name: str, status: Mapping[str, Any]) -> None:
        """Replace the given fields of the status."""
        await self.request(
            "PATCH",
            f"{NEURON_NODES}/{name}/status",
            body={"status": status},
            content_type="application/merge-patch+json",
        )

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = JSON,
        accept: str = JSON,
        harmless_twice: bool | None = None,
    ) -> Object:
        """One call, one answer. `harmless_twice`: None means all but a POST."""
        status, content = await self._http.request(
            method,
            path + (f"?{urlencode(params)}" if params else ""),
            body=None if body is None else orjson.dumps(body),
            content_type=content_type,
            accept=accept,
            harmless_twice=harmless_twice,
            timeout=TIMEOUT,
        )
        if status >= 300:
            raise _error(status, content)
        found: Object = orjson.loads(content)
        return found

    async def watch(
        self, path: str, *, params: Mapping[str, str], accept: str = JSON
    ) -> AsyncGenerator[tuple[str, Object], None]:
        """Events as they come."""
        async with self.stream(path, params=params, accept=accept) as stream:
            async for line in stream.lines(silence=SILENCE):
                event = orjson.loads(line)
                yield event["type"], event["object"]

    @contextlib.asynccontextmanager
    async def stream(self, path: str, *, params: Mapping[str, str], accept: str = JSON) -> AsyncIterator[Stream]:
        """A watch as it is on the wire, an event per line."""
        query = urlencode({**params, "watch": "true", "allowWatchBookmarks": "true"})
        async with self._http.stream(f"{path}?{query}", timeout=TIMEOUT, accept=accept) as stream:
            if stream.status >= 300:
                raise _error(stream.status, await stream.content())
            yield stream


class ServiceAccountToken:
    """The pod's token; the kubelet replaces it about every hour, so it is read for every call."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def header(self) -> str:
        """The Authorization header."""
        return f"Bearer {self._path.read_text().strip()}"


def _in_cluster(environment: Mapping[str, str], secrets: Path = SERVICE_ACCOUNT) -> Access:
    try:
        host, port = environment["KUBERNETES_SERVICE_HOST"], environment["KUBERNETES_SERVICE_PORT"]
    except KeyError:
        raise AgentError("this is no pod of a cluster: give --kubeconfig") from None
    return Access(
        url=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        tls=ssl.create_default_context(cafile=str(secrets / "ca.crt")),
        authorization=ServiceAccountToken(secrets / "token").header,
    )


def _from_file(path: Path) -> Access:
    from . import kubeconfig

    return kubeconfig.read(path)


def _error(status: int, content: bytes) -> ApiError:
    try:
        message = orjson.loads(content)["message"]
    except (ValueError, KeyError, TypeError):
        message = content.decode(errors="replace")[:500]
    return ApiError(status, message)


def _refusal(status: Mapping[str, Any]) -> ApiError:
    """The error that a watch ended with."""
    return ApiError(int(status.get("code") or 500), str(status.get("message") or status))
