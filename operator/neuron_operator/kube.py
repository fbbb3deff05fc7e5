"""The API server, as few calls on plain dicts: the only module that knows the client package.

The official client's generated models drop fields that they do not know and cost milliseconds per object, so
only its configuration, authentication and connection handling are used here, through the asyncio flavour that
shares the loop with kopf.
"""

import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration

from neuron_operator import names

Json = dict[str, Any]

_PAGE = 500
_TIMEOUT = 30.0
# the API server sends a bookmark about every minute
_SILENCE = 330.0


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of object and where the API server serves it."""

    group: str
    version: str
    plural: str

    def path(self, *, name: str | None = None, namespace: str | None = None, subresource: str = "") -> str:
        """URL path of a collection, an object or a subresource."""
        parts = ["apis", self.group, self.version] if self.group else ["api", self.version]
        parts += ["namespaces", namespace] if namespace else []
        parts += [self.plural] + ([name] if name else []) + ([subresource] if subresource else [])
        return "/" + "/".join(parts)


POOLS = Resource(names.GROUP, names.VERSION, "neuronnodepools")
NEURON_NODES = Resource(names.GROUP, names.VERSION, "neuronnodes")
FAULTS = Resource(names.GROUP, names.VERSION, "neuronfaults")
GANGS = Resource(names.GROUP, names.VERSION, "neurongangs")
ULTRASERVERS = Resource(names.AWS_GROUP, names.AWS_VERSION, "neuronultraservers")
ULTRASERVER_WORKLOADS = Resource(names.AWS_GROUP, names.AWS_VERSION, "neuronultraserverworkloads")
NODES = Resource("", "v1", "nodes")
PODS = Resource("", "v1", "pods")
EVENTS = Resource("events.k8s.io", "v1", "events")
LEASES = Resource("coordination.k8s.io", "v1", "leases")
DAEMON_SETS = Resource("apps", "v1", "daemonsets")
SLICES = Resource("resource.k8s.io", "v1", "resourceslices")
CLAIMS = Resource("resource.k8s.io", "v1", "resourceclaims")
CLAIM_TEMPLATES = Resource("resource.k8s.io", "v1", "resourceclaimtemplates")
DEVICE_CLASSES = Resource("resource.k8s.io", "v1", "deviceclasses")
POD_GROUPS = Resource("scheduling.k8s.io", "v1alpha2", "podgroups")
CRDS = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions")


class ApiError(Exception):
    """The API server said no, or could not be reached (status 0)."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{reason or 'error'}: {message}" if status else message)
        self.status = status
        self.reason = reason


class NotFound(ApiError):
    """There is no such object, or no such kind."""


class Conflict(ApiError):
    """The object exists already, is another one, or belongs to somebody else."""


@dataclass(frozen=True, slots=True)
class Listing:
    """All objects of a kind at one moment."""

    items: list[Json]
    version: int


class Api(Protocol):
    """What the rest of the operator asks of an API server."""

    async def list(self, resource: Resource, *, labels: str = "", fields: str = "") -> Listing:
        """List a kind in all namespaces."""
        ...

    async def get(self, resource: Resource, name: str, *, namespace: str | None = None) -> Json:
        """Read one object."""
        ...

    async def create(self, resource: Resource, body: Json) -> Json:
        """Create an object."""
        ...

    async def replace(self, resource: Resource, body: Json) -> Json:
        """Replace an object; its resource version, where given, has to be current."""
        ...

    async def apply(self, resource: Resource, body: Json, *, force: bool) -> Json:
        """Apply server-side as our field manager; ``force`` takes fields over from others."""
        ...

    async def merge(self, resource: Resource, name: str, body: Json, *, namespace: str | None = None) -> Json:
        """Merge into an object; a resource version or UID in it has to be the object's."""
        ...

    async def merge_status(
        self, resource: Resource, name: str, status: Json, *, namespace: str | None = None, version: str | None = None
    ) -> Json:
        """Merge into an object's status, if it is still of this resource version."""
        ...

    async def patch_conditions(self, node: str, conditions: Sequence[Json]) -> Json:
        """Patch some of a node's conditions, by their types; the others stay."""
        ...

    async def delete(
        self, resource: Resource, name: str, *, namespace: str | None = None, uid: str | None = None
    ) -> None:
        """Delete an object, if it is the one with this UID."""
        ...


class Kube:
    """``Api`` over HTTP."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def list(self, resource: Resource, *, labels: str = "", fields: str = "") -> Listing:
        """List a kind in all namespaces, page by page at one resource version."""
        items: list[Json] = []
        query = {"limit": str(_PAGE), "labelSelector": labels, "fieldSelector": fields}
        while True:
            page = await self._call("GET", resource.path(), query=query)
            items += page["items"]
            if not page["metadata"].get("continue"):
                return Listing(items, int(page["metadata"]["resourceVersion"]))
            query["continue"] = page["metadata"]["continue"]

    async def get(self, resource: Resource, name: str, *, namespace: str | None = None) -> Json:
        """Read one object."""
        return await self._call("GET", resource.path(name=name, namespace=namespace))

    async def create(self, resource: Resource, body: Json) -> Json:
        """Create an object."""
        path = resource.path(namespace=body["metadata"].get("namespace"))
        return await self._call("POST", path, body=body, query={"fieldManager": names.FIELD_MANAGER})

    async def replace(self, resource: Resource, body: Json) -> Json:
        """Replace an object; its resource version, where given, has to be current."""
        metadata = body["metadata"]
        path = resource.path(name=metadata["name"], namespace=metadata.get("namespace"))
        return await self._call("PUT", path, body=body, query={"fieldManager": names.FIELD_MANAGER})

    async def apply(self, resource: Resource, body: Json, *, force: bool) -> Json:
        """Apply server-side as our field manager; ``force`` takes fields over from others."""
        return await self._call(
            "PATCH",
            resource.path(name=body["metadata"]["name"], namespace=body["metadata"].get("namespace")),
            body=body,
            query={"fieldManager": names.FIELD_MANAGER, "force": "true" if force else "false"},
            content_type="application/apply-patch+yaml",
        )

    async def merge(self, resource: Resource, name: str, body: Json, *, namespace: str | None = None) -> Json:
        """Merge into an object; a resource version or UID in it has to be the object's."""
        return await self._call(
            "PATCH",
            resource.path(name=name, namespace=namespace),
            body=body,
            query={"fieldManager": names.FIELD_MANAGER},
            content_type="application/merge-patch+json",
        )

    async def merge_status(
        self, resource: Resource, name: str, status: Json, *, namespace: str | None = None, version: str | None = None
    ) -> Json:
        """Merge into an object's status, if it is still of this resource version."""
        return await self._call(
            "PATCH",
            resource.path(name=name, namespace=namespace, subresource="status"),
            body={"status": status, **({"metadata": {"resourceVersion": version}} if version else {})},
            query={"fieldManager": names.FIELD_MANAGER},
            content_type="application/merge-patch+json",
        )

    async def patch_conditions(self, node: str, conditions: Sequence[Json]) -> Json:
        """Patch some of a node's conditions, by their types; the others stay."""
        return await self._call(
            "PATCH",
            NODES.path(name=node, subresource="status"),
            body={"status": {"conditions": list(conditions)}},
            query={"fieldManager": names.FIELD_MANAGER},
            content_type="application/strategic-merge-patch+json",
        )

    async def annotate_node(self, name: str, annotations: Mapping[str, str | None], *, manager: str) -> None:
        """Set some annotations of a node, None removes one; by its status, which gives no right to change its spec."""
        await self._call(
            "PATCH",
            NODES.path(name=name, subresource="status"),
            body={"metadata": {"annotations": dict(annotations)}},
            query={"fieldManager": manager},
            content_type="application/merge-patch+json",
        )

    async def bind(self, *, namespace: str, name: str, uid: str, node: str, annotations: Mapping[str, str]) -> None:
        """Bind the pod with this UID to a node, and add the annotations to its own in the same write."""
        body = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name, "namespace": namespace, "uid": uid, "annotations": dict(annotations)},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        await self._call("POST", PODS.path(name=name, namespace=namespace, subresource="binding"), body=body)

    async def watch(
        self, resource: Resource, *, version: str, labels: str = "", fields: str = ""
    ) -> AsyncIterator[tuple[str, Json]]:
        """Events after a resource version, bookmarks included, until the API server ends the watch."""
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "labelSelector": labels,
            "fieldSelector": fields,
        }
        try:
            request = await self._client.param_serialize(
                "GET",
                resource.path(),
                query_params=[(key, value) for key, value in query.items() if value],
                header_params={"Accept": "application/json"},
                auth_settings=["BearerToken"],
            )
            patience = aiohttp.ClientTimeout(total=None, sock_connect=_TIMEOUT, sock_read=_SILENCE)
            response = (await self._client.call_api(*request, _request_timeout=patience)).response
            try:
                if response.status >= 300:
                    raise _error(response.status, await response.read())
                async for line in response.content:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise _error(int(event["object"].get("code") or 500), json.dumps(event["object"]).encode())
                    yield event["type"], event["object"]
            finally:
                response.close()
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise ApiError(0, "", f"API server: {error!r}") from error

    async def delete(
        self, resource: Resource, name: str, *, namespace: str | None = None, uid: str | None = None
    ) -> None:
        """Delete an object, if it is the one with this UID."""
        options: Json = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        await self._call("DELETE", resource.path(name=name, namespace=namespace), body=options)

    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Json | None = None,
        content_type: str = "application/json",
    ) -> Json:
        try:
            request = await self._client.param_serialize(
                method,
                path,
                query_params=[(key, value) for key, value in (query or {}).items() if value],
                header_params={"Accept": "application/json", "Content-Type": content_type},
                body=body,
                auth_settings=["BearerToken"],
            )
            response = await self._client.call_api(*request, _request_timeout=_TIMEOUT)
            text = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiError(0, "", f"API server: {error!r}") from error
        if response.status < 300:
            return dict(json.loads(text))
        raise _error(response.status, text)


def _error(status: int, text: bytes) -> ApiError:
    try:
        answer = json.loads(text)
        reason, message = str(answer.get("reason", "")), str(answer.get("message", ""))
    except (ValueError, AttributeError):  # a proxy in between answers in its own words
        reason, message = "", text[:500].decode(errors="replace")
    return {404: NotFound, 409: Conflict}.get(status, ApiError)(status, reason or f"HTTP {status}", message)


def _proxy(server: str) -> str | None:
    """The proxy that the environment names for the API server."""
    url = urlsplit(server)
    return None if proxy_bypass(url.netloc) else getproxies().get(url.scheme)


@asynccontextmanager
async def connect(kubeconfig: str | None = None) -> AsyncIterator[Kube]:
    """Connect as the pod's service account, or as the kubeconfig says."""
    configuration = Configuration()
    loading: Any = config
    if kubeconfig or "KUBERNETES_SERVICE_HOST" not in os.environ:
        await loading.load_kube_config(config_file=kubeconfig, client_configuration=configuration)
    else:
        loading.load_incluster_config(client_configuration=configuration)
    # asked once: aiohttp would ask the environment and ~/.netrc at each request, by two detours over a thread
    configuration.proxy = configuration.proxy or _proxy(configuration.host)
    configuration.client_session_kwargs = {"trust_env": False}
    client: Any = ApiClient(configuration)
    client.user_agent = names.FIELD_MANAGER
    try:
        yield Kube(client)
    finally:
        await client.close()
