"""The one module that talks to an API server: plain dicts out, one sentence for what goes wrong.

Over the official client's transport (kubeconfig, credentials, TLS), but not its models: those drop fields
that are newer than themselves, and half of what doctor wants to know is whether a field is kept.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kubernetes import client, config
from urllib3.exceptions import HTTPError

Object = dict[str, Any]

CONNECT_SECONDS, READ_SECONDS = 5, 30
PAGE = 500


class ClusterError(Exception):
    """The cluster could not be asked; the message says what to change."""


class Refused(ClusterError):
    """The cluster answered, but not with what was asked for."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class Cluster:
    """One API server, read as the user of a kubeconfig."""

    def __init__(self, *, kubeconfig: Path | None, context: str | None) -> None:
        configuration = client.Configuration()
        self._kubeconfig, self._context = kubeconfig, context
        try:
            config.load_kube_config(  # type: ignore[no-untyped-call]
                config_file=str(kubeconfig) if kubeconfig else None,
                context=context,
                client_configuration=configuration,
            )
        except (config.ConfigException, OSError) as error:
            raise ClusterError(
                f"no cluster to ask: {one_line(error)} (set KUBECONFIG, or pass --kubeconfig and --context)"
            ) from error
        # The transport's own retries would turn an unreachable server into a minute of warnings.
        configuration.retries = False
        self._client = client.ApiClient(configuration)
        self._host = configuration.host

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._client.close()  # type: ignore[no-untyped-call]

    def get(self, path: str, **query: str) -> Object:
        """GET one object or list."""
        return self._ask("GET", path, query=query)

    def items(self, path: str, **query: str) -> list[Object]:
        """GET a list to its end, page by page."""
        return list(self.each(path, **query))

    def each(self, path: str, **query: str) -> Iterator[Object]:
        """GET a list to its end, of which no more than a page need be in memory."""
        proceed = ""
        while True:
            page = self.get(path, limit=str(PAGE), **({"continue": proceed} if proceed else {}), **query)
            yield from page.get("items") or ()
            proceed = page.get("metadata", {}).get("continue", "")
            if not proceed:
                return

    @property
    def namespace(self) -> str:
        """The namespace that the kubeconfig's context names, as kubectl takes it."""
        contexts, active = config.list_kube_config_contexts(  # type: ignore[no-untyped-call]
            config_file=str(self._kubeconfig) if self._kubeconfig else None
        )
        chosen = next((each for each in contexts if each["name"] == self._context), active)
        return str(chosen.get("context", {}).get("namespace") or "default")

    def dry_run(self, path: str, body: Object, **query: str) -> Object:
        """What the server would have stored, had this been created."""
        return self._ask("POST", path, query={"dryRun": "All", **query}, body=body)

    def text(self, path: str) -> str:
        """GET a page that is not JSON."""
        return self._read("GET", path, query={}).decode()

    def create(self, path: str, body: Object) -> Object:
        """Create an object."""
        return self._ask("POST", path, query={}, body=body)

    def delete(self, path: str) -> None:
        """Delete an object."""
        self._ask("DELETE", path, query={})

    def _ask(self, method: str, path: str, *, query: Mapping[str, str], body: Object | None = None) -> Object:
        found: Object = json.loads(self._read(method, path, query=query, body=body))
        return found

    def _read(self, method: str, path: str, *, query: Mapping[str, str], body: Object | None = None) -> bytes:
        request = self._client.param_serialize(
            method,
            path,
            query_params=list(query.items()),
            header_params={"Accept": "application/json, */*", "Content-Type": "application/json"},
            body=body,
            auth_settings=["BearerToken"],
        )
        try:
            response = self._client.call_api(*request, _request_timeout=(CONNECT_SECONDS, READ_SECONDS))
            answer: bytes = response.read()  # type: ignore[no-untyped-call]
        except (client.ApiException, HTTPError, OSError) as error:
            raise ClusterError(f"cannot reach the API server at {self._host}: {one_line(error)}") from error
        if response.status >= 400:
            raise Refused(refusal(method, path, response.status, answer), status=response.status)
        return answer


def refusal(method: str, path: str, status: int, answer: bytes) -> str:
    """The API server's own sentence about a refused request."""
    try:
        said = json.loads(answer)["message"]
    except (ValueError, LookupError, TypeError):
        said = f"{method} {path}: HTTP status {status}"
    if status == 401:
        return f"not logged in to the cluster: {said} (renew the credentials of the kubeconfig)"
    if status == 403:
        return f"not allowed: {said}"
    return str(said)


def one_line(error: BaseException) -> str:
    """An exception's text without its line breaks."""
    return " ".join(str(error).split()) or type(error).__name__
