"""The example plugin against a fake kubelet: what the documentation shows works."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
from functools import partial
from pathlib import Path
from types import ModuleType

import grpc
import pytest
from device_plugin_fake_kubelet import FakeKubelet
from neuron_dra_driver.deviceplugin import DevicePlugin, given_devices

EXAMPLE = Path(__file__).parents[3] / "manifests/examples/minimal-device-plugin/plugin.py"
TOY = "fake.example.com/toy"


@pytest.fixture
def example(folder: Path, kubelet: FakeKubelet, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The example, with the folders of the test."""
    spec = importlib.util.spec_from_file_location("minimal_plugin", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "DevicePlugin", partial(DevicePlugin, folder=folder, look_every=0.02))
    monkeypatch.setattr(module, "given_devices", partial(given_devices, kubelet.pod_resources))
    monkeypatch.setattr(module, "Path", lambda path: folder / path.removeprefix("/tmp/"))
    return module


async def test_the_example_does_what_its_page_says(
    example: ModuleType, folder: Path, kubelet: FakeKubelet, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    (folder / "broken-toy-3").touch()
    kubelet.give("team/toys", "ctr0", TOY, ["toy-0", "toy-1"])
    running = asyncio.create_task(example.main())
    assert await kubelet.watches(TOY) == {f"toy-{n}": "Healthy" for n in range(3)} | {"toy-3": "Unhealthy"}
    assert await kubelet.prefer(TOY, ["toy-2", "toy-1", "toy-0"], 2) == ["toy-0", "toy-1"]
    assert dict((await kubelet.allocate(TOY, "toy-1", "toy-0")).envs) == {"TOYS": "toy-0,toy-1"}
    with pytest.raises(grpc.aio.AioRpcError, match=r"there is no toy-9 \(any more\)"):
        await kubelet.allocate(TOY, "toy-9")
    await kubelet.until(lambda: "in use: {'team/toys': ['toy-0', 'toy-1']}" in caplog.text)
    os.kill(os.getpid(), signal.SIGTERM)
    await running
    assert not (folder / "toy.sock").exists()


def test_the_example_is_as_short_as_promised() -> None:
    assert len(EXAMPLE.read_text().splitlines()) < 100
