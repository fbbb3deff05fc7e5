"""Asking the kubelet who has which devices."""

from __future__ import annotations

from pathlib import Path

import pytest
from device_plugin_fake_kubelet import FakeKubelet
from neuron_dra_driver.deviceplugin import GivenDevices, PodResourcesError, given_devices


async def test_every_container_with_its_devices_of_all_numa_nodes(kubelet: FakeKubelet) -> None:
    kubelet.give("team/one", "main", "example.com/toy", ["toy-0"])
    kubelet.give("team/one", "main", "example.com/toy", ["toy-5"])
    kubelet.give("team/one", "main", "example.com/ball", ["ball-0"])
    kubelet.give("team/two", "sidecar", "example.com/toy", ["toy-1"])
    assert await given_devices(kubelet.pod_resources) == (
        GivenDevices("team", "one", "main", "example.com/toy", frozenset({"toy-0", "toy-5"})),
        GivenDevices("team", "one", "main", "example.com/ball", frozenset({"ball-0"})),
        GivenDevices("team", "two", "sidecar", "example.com/toy", frozenset({"toy-1"})),
    )


async def test_a_pod_that_ended_is_not_told(kubelet: FakeKubelet) -> None:
    kubelet.give("team/one", "main", "example.com/toy", ["toy-0"])
    kubelet.end("team/one")
    assert await given_devices(kubelet.pod_resources) == ()


async def test_a_kubelet_that_is_away_is_an_error_and_not_an_empty_list(folder: Path) -> None:
    with pytest.raises(PodResourcesError, match="does not answer"):
        await given_devices(folder / "nobody.sock")


async def test_after_a_restart_it_is_reached_at_once(kubelet: FakeKubelet) -> None:
    await kubelet.stop()
    with pytest.raises(PodResourcesError):
        await given_devices(kubelet.pod_resources)
    await kubelet.start()
    assert await given_devices(kubelet.pod_resources) == ()
