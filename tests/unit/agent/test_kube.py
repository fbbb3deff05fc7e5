"""The calls to the API server, over real HTTP."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest
from neuron_dra_driver.api_server import kube as kube_module
from neuron_dra_driver.api_server.http_client import Access
from neuron_dra_driver.api_server.kube import Kube, ServiceAccountToken, _in_cluster
from neuron_dra_driver.errors import AgentError
from neuron_dra_driver.kubeletplugin import ApiError

SELECTOR = "spec.driver=neuron.aws.com,spec.nodeName=worker-1"


async def test_a_claim_keeps_fields_that_nobody_knows(api: Any, kube: Kube, make: Any) -> None:
    claim = make.claim() | {"new": {"field": [1]}}
    claim["metadata"]["new"] = True
    api.put("resourceclaims", claim)
    found = await kube.claim("team", "mine")
    assert found == api.items("resourceclaims")[0]
    assert type(found["metadata"]) is dict


async def test_a_claim_that_is_not_there(kube: Kube) -> None:
    assert await kube.claim("team", "none") is None


async def test_a_claim_is_asked_for_until_somebody_listens(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 8\r\n\r\n{"a": 1}')
        await writer.drain()
        writer.close()

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    monkeypatch.setattr(kube_module, "PAUSE", 0.01)
    async with Kube(make.kubeconfig(tmp_path, f"http://127.0.0.1:{port}")) as kube:
        asked = asyncio.create_task(kube.claim_patiently("team", "mine"))
        await asyncio.sleep(0.05)
        assert not asked.done()
        async with await asyncio.start_server(answer, "127.0.0.1", port):
            assert await asked == {"a": 1}
        monkeypatch.setattr(kube_module, "PATIENCE", 0.05)
        with pytest.raises(ConnectionRefusedError):
            await kube.claim_patiently("team", "other")


async def test_a_refusal_has_status_and_message(api: Any, kube: Kube) -> None:
    with pytest.raises(ApiError, match='nodes "none" not found') as refused:
        await kube.node_uid("none")
    assert refused.value.status == 404
    api.away = True
    with pytest.raises(ApiError, match="no API server here") as away:
        await kube.claim("team", "mine")
    assert away.value.status == 503


async def test_slices_are_made_changed_watched_and_deleted(api: Any, kube: Kube) -> None:
    spec = {"driver": "neuron.aws.com", "nodeName": "worker-1"}
    api.put("resourceslices", {"metadata": {"name": "elsewhere"}, "spec": spec | {"nodeName": "worker-2"}})
    assert (await kube.slices.list(field_selector=SELECTOR))[0] == []
    made = await kube.slices.create({"metadata": {"generateName": "s-"}, "spec": spec})
    changed = await kube.slices.replace(made | {"spec": spec | {"pool": {}}})
    metadata = changed["metadata"]
    await kube.slices.delete(metadata["name"], uid=metadata["uid"], resource_version=metadata["resourceVersion"])
    assert [s["metadata"]["name"] for s in api.items("resourceslices")] == ["elsewhere"]

    _, version = await kube.slices.list(field_selector=SELECTOR)
    made = await kube.slices.create({"metadata": {"generateName": "s-"}, "spec": spec})
    events = kube.slices.watch(field_selector=SELECTOR, resource_version=version)
    kind, seen = await anext(events)
    assert (kind, seen["metadata"]["uid"]) == ("ADDED", made["metadata"]["uid"])
    await events.aclose()


async def test_the_neuron_node_is_followed(api: Any, kube: Kube) -> None:
    changes = kube.follow_neuron_node("worker-1")
    assert await anext(changes) is None
    api.put("neuronnodes", {"metadata": {"name": "worker-2"}, "spec": {}})
    api.put("neuronnodes", {"metadata": {"name": "worker-1"}, "spec": {"instanceType": "inf2.xlarge"}})
    seen = await anext(changes)
    assert seen is not None
    assert seen["spec"] == {"instanceType": "inf2.xlarge"}
    await kube.patch_neuron_node_status("worker-1", {"devices": 1})
    seen = await anext(changes)
    assert seen is not None
    assert seen["status"] == {"devices": 1}
    api.delete("neuronnodes", "worker-1")
    assert await anext(changes) is None
    api.end_watches()
    with pytest.raises(StopAsyncIteration):
        await anext(changes)


async def test_a_rotated_token_is_read_again(api: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = tmp_path / "token"
    token.write_text("an-old-token\n")
    monkeypatch.setattr(kube_module, "_in_cluster", lambda _: Access(api.url, authorization=token_of(token)))
    async with Kube() as kube:
        with pytest.raises(ApiError) as refused:
            await kube.node_uid("worker-1")
        assert refused.value.status == 401
        token.write_text("a-token\n")
        assert await kube.node_uid("worker-1") == "uid-of-the-node"


def token_of(path: Path) -> Any:
    return ServiceAccountToken(path).header


def test_outside_a_pod_it_says_what_to_give() -> None:
    with pytest.raises(AgentError, match="give --kubeconfig"):
        _in_cluster({})


def test_a_kubeconfig_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="cannot be used"):
        Kube(tmp_path / "none")
