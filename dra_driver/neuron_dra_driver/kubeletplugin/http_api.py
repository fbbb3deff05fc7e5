"""A connection from a pod to its API server, on aiohttp: for drivers that bring no Kubernetes client of their own.

The one module that needs aiohttp; the rest of the library does not import it.
"""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from .rest import Object
from .slice_client import ApiError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

TIMEOUT = 10.0
SILENCE = 330.0
"""A watch without even a bookmark (one a minute) is dead. A little more than the slice controller's own patience."""


def in_cluster(environment: Mapping[str, str] = os.environ, account: Path = SERVICE_ACCOUNT) -> HttpApi:
    """The API server of the cluster that this process is a pod of, with the rights of the pod's service account."""
    try:
        host, port = environment["KUBERNETES_SERVICE_HOST"], environment["KUBERNETES_SERVICE_PORT"]
    except KeyError:
        raise RuntimeError("this process is no pod of a cluster: run it in one, or make an HttpApi") from None
    return HttpApi(
        f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        token=account / "token",
        tls=ssl.create_default_context(cafile=account / "ca.crt"),
    )


class HttpApi:
    """Implements `ApiServer`; to be entered and left. `token` is read for every call, because kubelets replace it."""

    def __init__(self, url: str, *, token: Path | None = None, tls: ssl.SSLContext | bool = True) -> None:
        self._url = url
        self._token = token
        self._tls = tls

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            self._url, connector=aiohttp.TCPConnector(ssl=self._tls), timeout=aiohttp.ClientTimeout(total=TIMEOUT)
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

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
        content = None if body is None else json.dumps(body, separators=(",", ":"))
        headers = self._headers() | ({} if body is None else {"Content-Type": content_type})
        async with self._session.request(method, path, params=params, data=content, headers=headers) as answer:
            found: Object = json.loads(await _accepted(answer))
            return found

    async def watch(self, path: str, *, params: Mapping[str, str]) -> AsyncGenerator[tuple[str, Object], None]:
        """Events as they come."""
        asked = {**params, "watch": "true", "allowWatchBookmarks": "true"}
        patience = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT, sock_read=SILENCE)
        async with self._session.get(path, params=asked, headers=self._headers(), timeout=patience) as answer:
            if not answer.ok:
                await _accepted(answer)
            # Events are longer than the lines that aiohttp would read.
            rest = b""
            async for chunk in answer.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    event = json.loads(line)
                    yield event["type"], event["object"]

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token.read_text().strip()}"} if self._token else {}


async def _accepted(answer: aiohttp.ClientResponse) -> bytes:
    content = await answer.read()
    if answer.ok:
        return content
    try:
        message = json.loads(content)["message"]
    except (ValueError, KeyError, TypeError):
        message = content.decode(errors="replace")[:500]
    raise ApiError(answer.status, message)
