"""A fake API server: answers what a test puts in, over real HTTP, to a real kubeconfig."""

import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

# the objects of a fleet are a module of this folder
sys.path.insert(0, str(Path(__file__).parent))


@dataclass
class FakeCluster:
    """Answers by path; whatever is not known is a 404, as on a real server."""

    answers: dict[str, Any] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    drops: tuple[str, ...] = ()
    writable: str = ""
    created: list[Any] = field(default_factory=list)
    asked: list[tuple[str, str, dict[str, list[str]]]] = field(default_factory=list)
    url: str = ""

    def respond(self, method: str, target: str, body: Any) -> tuple[int, Any]:
        path, query = urlsplit(target).path, parse_qs(urlsplit(target).query)
        self.asked.append((method, path, query))
        if path in self.refused:
            return 403, {"kind": "Status", "message": f'User "jane" cannot do that to {path}'}
        if method == "POST" and self.writable != path:
            assert query["dryRun"] == ["All"], "doctor must not write"
            return 201, without(body, self.drops)
        if method == "POST":
            self.created.append(body)
            return 201, body
        if path not in self.answers:
            return 404, {"kind": "Status", "message": "the server could not find the requested resource"}
        answer = self.answers[path]
        if isinstance(answer, list):
            start = int(query.get("continue", ["0"])[0])
            end = start + int(query["limit"][0])
            more = {"continue": str(end)} if end < len(answer) else {}
            return 200, {"metadata": more, "items": answer[start:end]}
        return 200, answer


def without(thing: Any, dropped: tuple[str, ...]) -> Any:
    """What a server stores of an object whose fields are behind gates that are off."""
    if isinstance(thing, dict):
        return {key: without(value, dropped) for key, value in thing.items() if key not in dropped}
    if isinstance(thing, list):
        return [without(part, dropped) for part in thing]
    return thing


@pytest.fixture
def fake() -> Iterator[FakeCluster]:
    cluster = FakeCluster()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            status, answer = cluster.respond(self.command, self.path, body)
            data = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = answer  # noqa: N815 (named by the protocol)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    cluster.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield cluster
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def kubeconfig(fake: FakeCluster, tmp_path: Path) -> Path:
    return write_kubeconfig(tmp_path / "kubeconfig", fake.url)


@pytest.fixture
def kubeconfig_of_nobody(tmp_path: Path) -> Path:
    """Of a server that does not listen."""
    return write_kubeconfig(tmp_path / "nobody", "http://127.0.0.1:1")


def write_kubeconfig(path: Path, url: str) -> Path:
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "test",
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": "jane"}}],
                "clusters": [{"name": "test", "cluster": {"server": url}}],
                "users": [{"name": "jane", "user": {"token": "secret"}}],
            }
        )
    )
    return path
