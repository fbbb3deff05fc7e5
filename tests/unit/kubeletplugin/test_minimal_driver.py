"""The example driver against a fake kubelet and a fake API server: what the documentation shows works."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from dra_fake_kubelet import FakeKubelet
from neuron_dra_driver.kubeletplugin import ApiError, CDIFolder, ClaimRef, KubeletPlugin

EXAMPLE = Path(__file__).parents[3] / "manifests/examples/minimal-dra-driver/driver.py"
REF = ClaimRef("team", "mine", "uid-1")
CLAIM = {
    "metadata": {"namespace": "team", "name": "mine", "uid": "uid-1"},
    "status": {
        "allocation": {
            "devices": {
                "results": [
                    {"request": "devices", "driver": "fake.example.com", "pool": "node-1", "device": name}
                    for name in ("fake-1", "fake-3")
                ]
            }
        }
    },
}


class Api:
    """As much of an API server as the example asks for."""

    def __init__(self) -> None:
        self.slices: list[dict[str, Any]] = []

    async def request(
        self, method: str, path: str, *, body: Mapping[str, Any] | None = None, **_: Any
    ) -> dict[str, Any]:
        if path == "/api/v1/nodes/node-1":
            return {"metadata": {"uid": "uid-of-node"}}
        if path.endswith("/namespaces/team/resourceclaims/mine"):
            return CLAIM
        if path.endswith("/resourceslices"):
            if body is None:
                return {"items": self.slices, "metadata": {"resourceVersion": "1"}}
            made = {"name": "made", "uid": "u", "resourceVersion": "2"}
            self.slices.append({**body, "metadata": {**body["metadata"], **made}})
            return self.slices[-1]
        raise ApiError(404, f"{method} {path} not found")

    async def watch(self, path: str, **_: Any) -> AsyncGenerator[tuple[str, dict[str, Any]], None]:
        await asyncio.Event().wait()
        yield "BOOKMARK", {}


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def driver(host: Path, api: Api, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The example, with folders and API server of the test."""
    spec = importlib.util.spec_from_file_location("minimal_driver", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    @asynccontextmanager
    async def in_cluster() -> AsyncGenerator[Api, None]:
        yield api

    folders = {"plugins_dir": host / "plugins", "registry_dir": host / "registry"}
    monkeypatch.setattr(module, "in_cluster", in_cluster)
    monkeypatch.setattr(module, "KubeletPlugin", partial(KubeletPlugin, **folders))
    monkeypatch.setattr(module, "CDIFolder", partial(CDIFolder, directory=host / "cdi"))
    monkeypatch.setattr(module, "Path", lambda path: host / path.removeprefix("/tmp/"))
    monkeypatch.setenv("POD_UID", "pod-1")
    return module


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110, the driver tells nobody
            await asyncio.sleep(0.001)


async def test_the_example_does_what_its_page_says(
    driver: ModuleType, host: Path, api: Api, kubelet: FakeKubelet
) -> None:
    (host / "broken-fake-1").touch()
    running = asyncio.create_task(driver.main("node-1"))
    await until(lambda: list((host / "registry").iterdir()))
    assert not api.slices, "the kubelet knows nothing yet"
    await kubelet.pick_up()
    plugin = kubelet.only_plugin()
    await until(lambda: api.slices)
    assert api.slices[0]["spec"]["devices"] == [{"name": f"fake-{n}"} for n in range(4)]

    prepared = (await plugin.prepare(REF)).claims["uid-1"]
    assert prepared.error == ""
    assert [(d.pool_name, d.device_name, list(d.cdi_device_ids)) for d in prepared.devices] == [
        ("node-1", name, [f"fake.example.com/claim=uid-1_{name}"]) for name in ("fake-1", "fake-3")
    ]
    (file,) = (host / "cdi").iterdir()
    edits = [device["containerEdits"] for device in json.loads(file.read_text())["devices"]]
    assert edits == [{"env": ["FAKE_1=granted"]}, {"env": ["FAKE_3=granted"]}]

    report = await plugin.watch_health().read()
    assert {d.device.device_name: d.health for d in report.devices} == {
        "fake-0": 1,
        "fake-1": 2,
        "fake-2": 1,
        "fake-3": 1,
    }

    gone = (await plugin.prepare(ClaimRef("team", "other", "uid-2"))).claims["uid-2"]
    assert "does not exist any more" in gone.error
    assert (await plugin.unprepare(REF)).claims["uid-1"].error == ""
    assert list((host / "cdi").iterdir()) == []

    os.kill(os.getpid(), signal.SIGTERM)
    await running
    assert list((host / "registry").iterdir()) == []
    assert api.slices, "what is published stays for the next one"


def test_the_example_is_as_short_as_promised() -> None:
    assert len(EXAMPLE.read_text().splitlines()) < 100
