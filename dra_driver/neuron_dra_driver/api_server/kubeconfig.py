"""Reads a kubeconfig file: for an agent outside of a pod, which is a test, a benchmark or a person at a node.

Imported only then, and the YAML reader for a file that is not JSON. Certificates and keys as files or as data, tokens,
and commands that print a token (`exec`, as the clouds use) are understood.
"""

import asyncio
import base64
import contextlib
import json
import os
import ssl
import tempfile
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from ..errors import AgentError
from .http_client import Access

EARLY = 60.0
"""Seconds before its end that a token is fetched anew."""


def read(path: Path) -> Access:
    """The cluster of the current context."""
    try:
        config = _content(path.read_text())
        context = _named(config, "context", config["current-context"])
        cluster = _named(config, "cluster", context["cluster"])
        user = _named(config, "user", context["user"]) if context.get("user") else {}
        return _access(cluster, user, base=path.parent)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise AgentError(f"kubeconfig {path} cannot be used: {_reason(error)}") from error


def _content(text: str) -> Any:
    """JSON is YAML, too, but the reader for all of it is a fifth of the agent's start."""
    with contextlib.suppress(json.JSONDecodeError):
        return json.loads(text)
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def _reason(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


def _named(config: Mapping[str, Any], kind: str, name: str) -> dict[str, Any]:
    for entry in config[f"{kind}s"]:
        if entry["name"] == name:
            found: dict[str, Any] = entry[kind] or {}
            return found
    raise KeyError(f"{kind} {name}")


def _access(cluster: Mapping[str, Any], user: Mapping[str, Any], *, base: Path) -> Access:
    if cluster.get("proxy-url"):
        raise ValueError("proxy-url is not supported, the API server must be in reach")
    tls = None
    if cluster["server"].startswith("https:"):
        authority = _material(cluster, "certificate-authority", base)
        tls = ssl.create_default_context(cadata=authority.decode() if authority else None)
        if cluster.get("insecure-skip-tls-verify"):
            tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        if certificate := _material(user, "client-certificate", base):
            _present(tls, certificate, _material(user, "client-key", base) or b"")
    return Access(
        url=cluster["server"],
        tls=tls,
        tls_name=cluster.get("tls-server-name"),
        authorization=_Token(user, base).header,
    )


def _material(source: Mapping[str, Any], key: str, base: Path) -> bytes | None:
    if data := source.get(f"{key}-data"):
        return base64.b64decode(data)
    return (base / source[key]).read_bytes() if source.get(key) else None


def _present(tls: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """OpenSSL takes the client's certificate from a file only."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(certificate + b"\n" + key)
        file.flush()
        tls.load_cert_chain(file.name)


class _Token:
    """The user's token, wherever it comes from."""

    def __init__(self, user: Mapping[str, Any], base: Path) -> None:
        self._user = user
        self._base = base
        self._printed = ""
        self._until = 0.0

    async def header(self) -> str:
        user = self._user
        if path := user.get("tokenFile"):
            token = (self._base / path).read_text().strip()
        elif command := user.get("exec"):
            if time.time() >= self._until - EARLY:
                await self._run(command)
            token = self._printed
        else:
            token = user.get("token") or ""
        return f"Bearer {token}" if token else ""

    async def _run(self, command: Mapping[str, Any]) -> None:
        """The command prints an ExecCredential."""
        environment = {pair["name"]: pair["value"] for pair in command.get("env") or []}
        asked = {"apiVersion": command.get("apiVersion"), "kind": "ExecCredential", "spec": {"interactive": False}}
        process = await asyncio.create_subprocess_exec(
            command["command"],
            *(command.get("args") or []),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, **environment, "KUBERNETES_EXEC_INFO": json.dumps(asked)},
        )
        printed, _ = await process.communicate()
        try:
            status = json.loads(printed)["status"]
            self._printed = status["token"]
        except (ValueError, KeyError, TypeError) as error:
            raise ConnectionError(f"{command['command']} of the kubeconfig printed no token") from error
        until = status.get("expirationTimestamp")
        self._until = datetime.fromisoformat(until).timestamp() if until else float("inf")
