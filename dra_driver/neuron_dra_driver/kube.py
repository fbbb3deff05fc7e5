"""The agent's calls to the API server, all of them, as plain dicts.

The ClusterRole that they need:

    resource.k8s.io   resourceclaims        get
    resource.k8s.io   resourceslices        list watch create update delete
    core              nodes                 get
    neuron-sim.dev    neuronnodes           list watch      (not when it runs alone)
    neuron-sim.dev    neuronnodes/status    patch           (not when it runs alone)

Kubernetes clients drop fields that are newer than their models, and the small ones know neither bookmarks nor
preconditions, so these few calls are plain HTTP. lightkube reads kubeconfig files, and is imported only then: with its
models it takes 5 MiB, and every node runs an agent.
"""

import json
import os
import ssl
from collections.abc import AsyncGenerator, Generator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2

from .errors import AgentError
from .kubeletplugin import ApiError, SliceObject
from .names import API_GROUP, API_VERSION

TIMEOUT = 10.0
SILENCE = 330.0
"""A watch that says nothing for so long is dead: the API server sends a bookmark about every minute. Longer than the
patience of the slice controller, which starts over without calling it an error."""

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

CLAIMS = "/apis/resource.k8s.io/v1/namespaces/{namespace}/resourceclaims/{name}"
SLICES = "/apis/resource.k8s.io/v1/resourceslices"
NEURON_NODES = f"/apis/{API_GROUP}/{API_VERSION}/neuronnodes"

Object = dict[str, Any]


class Kube:
    """One connection pool to the API server. Raises ApiError when the server refuses, anything else is an outage."""

    def __init__(self, kubeconfig: Path | None = None) -> None:
        self._http = _from_file(kubeconfig) if kubeconfig else _in_cluster(os.environ)
        self.slices = Slices(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def claim(self, namespace: str, name: str) -> Object | None:
        """A ResourceClaim as it is now."""
        try:
            return await self.request("GET", CLAIMS.format(namespace=namespace, name=name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

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
        content_type: str = "application/json",
    ) -> Object:
        """One call, one answer."""
        answer = await self._http.request(
            method,
            path,
            params=params,
            content=None if body is None else json.dumps(body).encode(),
            headers={} if body is None else {"Content-Type": content_type},
        )
        if answer.is_error:
            raise _error(answer.status_code, answer.content)
        found: Object = json.loads(answer.content)
        return found

    async def watch(self, path: str, *, params: Mapping[str, str]) -> AsyncGenerator[tuple[str, Object], None]:
        """Events as they come."""
        async with self._http.stream(
            "GET",
            path,
            params={**params, "watch": "true", "allowWatchBookmarks": "true"},
            timeout=httpx2.Timeout(TIMEOUT, read=SILENCE),
        ) as answer:
            if answer.is_error:
                raise _error(answer.status_code, await answer.aread())
            async for line in answer.aiter_lines():
                event = json.loads(line)
                yield event["type"], event["object"]


class Slices:
    """ResourceSlices; implements `kubeletplugin.SliceClient`."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube

    async def list(self, *, field_selector: str) -> tuple[list[SliceObject], str]:
        """All that match, and the list's version."""
        found = await self._kube.request("GET", SLICES, params={"fieldSelector": field_selector})
        return found.get("items") or [], found["metadata"]["resourceVersion"]

    def watch(self, *, field_selector: str, resource_version: str) -> AsyncGenerator[tuple[str, SliceObject], None]:
        """Events after a version."""
        return self._kube.watch(SLICES, params={"fieldSelector": field_selector, "resourceVersion": resource_version})

    async def create(self, body: SliceObject) -> SliceObject:
        """Make a slice."""
        return await self._kube.request("POST", SLICES, body=body)

    async def replace(self, body: SliceObject) -> SliceObject:
        """Write a slice that nobody wrote since it was read."""
        return await self._kube.request("PUT", f"{SLICES}/{body['metadata']['name']}", body=body)

    async def delete(self, name: str, *, uid: str, resource_version: str) -> None:
        """Delete a slice that nobody wrote since it was read."""
        preconditions = {"uid": uid, "resourceVersion": resource_version}
        await self._kube.request("DELETE", f"{SLICES}/{name}", body={"preconditions": preconditions})


class ServiceAccountToken(httpx2.Auth):
    """The pod's token; the kubelet replaces it about every hour, so it is read for every call."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        """Sign a request."""
        request.headers["Authorization"] = f"Bearer {self._path.read_text().strip()}"
        yield request


def _in_cluster(environment: Mapping[str, str], secrets: Path = SERVICE_ACCOUNT) -> httpx2.AsyncClient:
    try:
        host, port = environment["KUBERNETES_SERVICE_HOST"], environment["KUBERNETES_SERVICE_PORT"]
    except KeyError:
        raise AgentError("this is no pod of a cluster: give --kubeconfig") from None
    return httpx2.AsyncClient(
        base_url=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        verify=ssl.create_default_context(cafile=secrets / "ca.crt"),
        auth=ServiceAccountToken(secrets / "token"),
        timeout=httpx2.Timeout(TIMEOUT),
        trust_env=False,
    )


def _from_file(kubeconfig: Path) -> httpx2.AsyncClient:
    from lightkube.config.client_adapter import AsyncClient, ConnectionParams
    from lightkube.config.kubeconfig import KubeConfig
    from lightkube.core.exceptions import ConfigError

    try:
        config = KubeConfig.from_file(kubeconfig).get()
        assert config, "there is one, or get raises"
        return AsyncClient(config, ConnectionParams(timeout=httpx2.Timeout(TIMEOUT)))
    except (ConfigError, KeyError) as error:
        raise AgentError(f"kubeconfig {kubeconfig} cannot be used: {error}") from error


def _error(status: int, content: bytes) -> ApiError:
    try:
        message = json.loads(content)["message"]
    except (ValueError, KeyError, TypeError):
        message = content.decode(errors="replace")[:500]
    return ApiError(status, message)


def _refusal(status: Mapping[str, Any]) -> ApiError:
    """The error that a watch ended with."""
    return ApiError(int(status.get("code") or 500), str(status.get("message") or status))
