"""The API server by HTTP, for what tests read, apply and delete all the time: a kubectl is a tenth of a second of CPU.

Arguments are those of kubectl, objects are plain dictionaries.
"""

import argparse
import json
from collections.abc import Iterator
from functools import cache, cached_property
from typing import Any

import kubernetes
import yaml
from waiting import until

Object = dict[str, Any]

GROUPS = {
    **dict.fromkeys(("configmaps", "events", "namespaces", "nodes", "pods", "serviceaccounts"), "v1"),
    **dict.fromkeys(("deployments", "statefulsets"), "apps/v1"),
    "jobs": "batch/v1",
    **dict.fromkeys(
        ("deviceclasses", "resourceclaims", "resourceclaimtemplates", "resourceslices"), "resource.k8s.io/v1"
    ),
    **dict.fromkeys(("neuronfaults", "neurongangs", "neuronnodepools", "neuronnodes"), "neuron-sim.dev/v1alpha1"),
    **dict.fromkeys(("neuronultraservers", "neuronultraserverworkloads"), "neuron.aws.com/v1"),
}
"""The API version of the kinds that tests name without it, by plural."""

ARGUMENTS = argparse.ArgumentParser("kubectl", add_help=False)
ARGUMENTS.add_argument("kind")
ARGUMENTS.add_argument("names", nargs="*")
ARGUMENTS.add_argument("-n", dest="namespace")
ARGUMENTS.add_argument("-A", action="store_true")
ARGUMENTS.add_argument("-l", dest="labels")
ARGUMENTS.add_argument("--field-selector", dest="fields")
ARGUMENTS.add_argument("--all", action="store_true")
ARGUMENTS.add_argument("--grace-period", type=int)
ARGUMENTS.add_argument("--wait", default="true", choices=("true", "false"))
ARGUMENTS.add_argument("--timeout", default="60s", help="seconds")
ARGUMENTS.add_argument("--ignore-not-found", action="store_true")


class Failed(AssertionError):
    """A command or a request that failed, with what was answered."""


class Api:
    """The API server of one cluster."""

    def __init__(self, kubeconfig: str) -> None:
        self._kubeconfig = kubeconfig

    @cached_property
    def _client(self) -> kubernetes.client.ApiClient:
        return kubernetes.config.new_client_from_config(self._kubeconfig)

    def get(self, *arguments: str) -> Object:
        """An object, or a list of them; a missing object is {}."""
        asked = ARGUMENTS.parse_intermixed_args(arguments)
        selectors = {"labelSelector": asked.labels, "fieldSelector": asked.fields}
        return self._request("GET", path(asked, *asked.names), selectors, missing=True)

    def apply(self, manifest: str | Object, namespace: str | None) -> None:
        """Server-side, each object of a manifest, as a manager that wins over others."""
        for obj in objects(manifest):
            metadata, version = obj["metadata"], obj["apiVersion"]
            plural, namespaced = self._kinds(version)[obj["kind"]]
            scope = metadata.get("namespace", namespace or "default") if namespaced else None
            query = {"fieldManager": "tests", "force": "true", "fieldValidation": "Strict"}
            self._request("PATCH", f"{root(version, scope)}/{plural}/{metadata['name']}", query, body=obj)

    def delete(self, *arguments: str) -> None:
        """Delete objects by name, by label or all, and wait until they are gone."""
        asked = ARGUMENTS.parse_intermixed_args(arguments)
        body: Object = {"propagationPolicy": "Background"}
        if asked.grace_period is not None:
            body["gracePeriodSeconds"] = asked.grace_period
        if not asked.names and not asked.all and not asked.labels:
            raise Failed(f"name what to delete, or say --all: {' '.join(arguments)}")
        selectors = {"labelSelector": asked.labels}
        found = [
            one
            for name in asked.names or [None]
            for one in listed(self._request("GET", path(asked, *[name] if name else []), selectors, missing=True))
        ]
        if len(found) < len(asked.names) and not asked.ignore_not_found:
            raise Failed(f"not all of them are there: {' '.join(arguments)}")
        for one in found:
            self._request("DELETE", path(asked, one["metadata"]["name"]), {}, body=body, missing=True)
        if asked.wait == "true":
            self._gone(asked, {one["metadata"]["name"]: one["metadata"]["uid"] for one in found})

    def _gone(self, asked: argparse.Namespace, uids: dict[str, str]) -> None:
        def left() -> list[str]:
            there = {one["metadata"]["uid"] for one in listed(self._request("GET", path(asked), {}))} if uids else ()
            return [name for name, uid in uids.items() if uid in there]

        until(
            lambda: not left(),
            what=f"{asked.kind} {', '.join(uids)} gone",
            timeout=float(asked.timeout.removesuffix("s")),
            details=left,
        )

    @cache  # noqa: B019  (one for each cluster, which lives as long as the tests)
    def _kinds(self, version: str) -> dict[str, tuple[str, bool]]:
        """Plural, and whether it has a namespace, of each kind."""
        resources = self._request("GET", root(version), {})["resources"]
        return {one["kind"]: (one["name"], one["namespaced"]) for one in resources if "/" not in one["name"]}

    def _request(
        self, method: str, path: str, query: dict[str, str | None], *, body: Object | None = None, missing: bool = False
    ) -> Object:
        asked = [(key, value) for key, value in query.items() if value]
        headers = {"Content-Type": "application/apply-patch+yaml"} if method == "PATCH" else {}
        answer = self._client.call_api(
            *self._client.param_serialize(method, path, query_params=asked, header_params=headers, body=body)
        )
        text = answer.read()
        if answer.status == 404 and missing:
            return {}
        if answer.status >= 300:
            try:
                text = json.loads(text)["message"]
            except ValueError:
                text = text.decode(errors="replace")
            raise Failed(f"{method} {path}: {answer.status} {answer.reason}: {text}")
        found: Object = json.loads(text)
        return found


def objects(manifest: str | Object) -> Iterator[Object]:
    """The objects of a manifest, those in lists included."""
    for document in yaml.load_all(manifest, yaml.CSafeLoader) if isinstance(manifest, str) else [manifest]:
        if document and document["kind"] == "List":
            yield from document["items"]
        elif document:
            yield document


def listed(answer: Object) -> list[Object]:
    """The objects in an answer: of a list, the one that was named, or none."""
    return list(answer.get("items", [answer] if answer else []))


def root(version: str, namespace: str | None = None) -> str:
    """Where the API server has the resources of an API version."""
    base = f"/apis/{version}" if "/" in version else f"/api/{version}"
    return f"{base}/namespaces/{namespace}" if namespace else base


def path(asked: argparse.Namespace, name: str = "") -> str:
    """Where it has what was asked for."""
    plural = plural_of(asked.kind)
    return f"{root(GROUPS[plural], asked.namespace)}/{plural}{f'/{name}' if name else ''}"


def plural_of(kind: str) -> str:
    """The plural of a kind that tests name without its API version; "" for all others."""
    return next((plural for plural in (kind, f"{kind}s", f"{kind}es") if plural in GROUPS), "")
