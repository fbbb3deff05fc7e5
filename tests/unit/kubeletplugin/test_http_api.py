"""The library's own connection to an API server, over real HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from neuron_dra_driver.kubeletplugin import ApiError, ClaimRef, RestSlices, node_uid, read_claim
from neuron_dra_driver.kubeletplugin.http_api import HttpApi, in_cluster

SLICES = "/apis/resource.k8s.io/v1/resourceslices"


class Server:
    """Answers what a test puts into it."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], Any] = {}
        self.requests: list[tuple[str, str, dict[str, str], Any]] = []
        self.tokens: list[str | None] = []
        self.content_types: list[str] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json() if request.can_read_body else None
        self.requests.append((request.method, request.path, dict(request.query), body))
        self.tokens.append(request.headers.get("Authorization"))
        self.content_types.append(request.content_type)
        answer = self.answers.get((request.method, request.path))
        if answer is None:
            message = {"kind": "Status", "message": f"{request.path} not found"}
            return web.json_response(message, status=404)
        if isinstance(answer, web.StreamResponse):
            return answer
        if isinstance(answer, list):
            stream = web.StreamResponse()
            await stream.prepare(request)
            for part in answer:
                await stream.write(part)
                await asyncio.sleep(0)
            return stream
        return web.json_response(answer)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    fake = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", fake.handle)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield fake
    await runner.cleanup()


async def test_claims_and_nodes_are_read(server: Server) -> None:
    path = "/apis/resource.k8s.io/v1/namespaces/team/resourceclaims/mine"
    server.answers["GET", path] = {"metadata": {"uid": "uid-2"}, "newer": {"than": "us"}}
    server.answers["GET", "/api/v1/nodes/node-1"] = {"metadata": {"uid": "uid-of-node"}}
    async with HttpApi(server.url) as api:
        assert await read_claim(api, ClaimRef("team", "mine", "uid-1")) == server.answers["GET", path]
        assert await read_claim(api, ClaimRef("team", "gone", "uid-1")) is None
        assert await node_uid(api, "node-1") == "uid-of-node"
        assert server.tokens == [None] * 3


async def test_a_refusal_has_status_and_message(server: Server) -> None:
    server.answers["GET", "/api/v1/nodes/broken"] = web.Response(status=503, text="no API server here")
    async with HttpApi(server.url) as api:
        with pytest.raises(ApiError, match="/api/v1/nodes/none not found") as refused:
            await node_uid(api, "none")
        assert refused.value.status == 404
        with pytest.raises(ApiError, match="no API server here"):
            await node_uid(api, "broken")


async def test_slices_are_listed_made_replaced_and_deleted(server: Server) -> None:
    server.answers["GET", SLICES] = {"metadata": {"resourceVersion": "7"}}
    server.answers["POST", SLICES] = server.answers["PUT", f"{SLICES}/s-1"] = {"metadata": {"name": "s-1"}}
    server.answers["DELETE", f"{SLICES}/s-1"] = {}
    async with HttpApi(server.url) as api:
        slices = RestSlices(api)
        assert await slices.list(field_selector="spec.driver=x") == ([], "7")
        made = await slices.create({"metadata": {"generateName": "s-"}})
        assert await slices.replace(made) == made
        await slices.delete("s-1", uid="u", resource_version="8")
    assert server.requests == [
        ("GET", SLICES, {"fieldSelector": "spec.driver=x"}, None),
        ("POST", SLICES, {}, {"metadata": {"generateName": "s-"}}),
        ("PUT", f"{SLICES}/s-1", {}, {"metadata": {"name": "s-1"}}),
        ("DELETE", f"{SLICES}/s-1", {}, {"preconditions": {"uid": "u", "resourceVersion": "8"}}),
    ]
    assert server.content_types[1:] == ["application/json"] * 3


async def test_watch_events_come_whole_however_they_are_cut(server: Server) -> None:
    events = [
        {"type": "ADDED", "object": {"metadata": {"name": "s-1"}, "spec": {"devices": ["x" * 300_000]}}},
        {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "9"}}},
    ]
    text = b"".join(json.dumps(event).encode() + b"\n" for event in events)
    server.answers["GET", SLICES] = [text[:10], text[10:200_000], text[200_000:-5], text[-5:]]
    async with HttpApi(server.url) as api:
        watch = RestSlices(api).watch(field_selector="spec.driver=x", resource_version="8")
        assert [event async for event in watch] == [(event["type"], event["object"]) for event in events]
    assert server.requests[0][2] == {
        "fieldSelector": "spec.driver=x",
        "resourceVersion": "8",
        "watch": "true",
        "allowWatchBookmarks": "true",
    }


async def test_a_watch_that_is_refused_says_so(server: Server) -> None:
    async with HttpApi(server.url) as api:
        with pytest.raises(ApiError, match="not found"):
            await anext(RestSlices(api).watch(field_selector="spec.driver=x", resource_version="8"))


async def test_a_rotated_token_is_read_again(server: Server, tmp_path: Path) -> None:
    token = tmp_path / "token"
    server.answers["GET", "/"] = {}
    async with HttpApi(server.url, token=token) as api:
        for text in ("old\n", "new"):
            token.write_text(text)
            await api.request("GET", "/")
    assert server.tokens == ["Bearer old", "Bearer new"]


def test_outside_of_a_cluster_the_error_says_what_to_do() -> None:
    with pytest.raises(RuntimeError, match="no pod of a cluster"):
        in_cluster({})
