"""Names of sockets and their limit of 107 bytes."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from neuron_dra_driver.kubeletplugin.plugin import KUBELET_PLUGINS_DIR, KUBELET_REGISTRY_DIR
from neuron_dra_driver.kubeletplugin.sockets import (
    MAX_PATH,
    is_served,
    registration_socket,
    remove_dead,
    service_socket,
)

POD = "0e5b1cf5-3f8c-4d4b-9a5e-6a3e7a0c9d11"


@pytest.mark.parametrize(
    ("instance", "service", "registration"),
    [
        (None, "neuron.aws.com/dra.sock", "neuron.aws.com-reg.sock"),
        (POD, f"neuron.aws.com/dra-{POD}.sock", f"neuron.aws.com-{POD}-reg.sock"),
    ],
)
def test_names_are_those_of_the_upstream_library(instance: str | None, service: str, registration: str) -> None:
    driver = "neuron.aws.com"
    assert service_socket(KUBELET_PLUGINS_DIR, driver_name=driver, instance=instance) == KUBELET_PLUGINS_DIR / service
    assert (
        registration_socket(KUBELET_REGISTRY_DIR, driver_name=driver, instance=instance)
        == KUBELET_REGISTRY_DIR / registration
    )


def test_the_longest_driver_name_still_fits_and_differs_by_driver_and_instance() -> None:
    names = [("a" * 62 + "x", POD), ("a" * 62 + "y", POD), ("a" * 62 + "x", POD[::-1])]
    for function, folder in ((service_socket, KUBELET_PLUGINS_DIR), (registration_socket, KUBELET_REGISTRY_DIR)):
        paths = {function(folder, driver_name=driver, instance=instance) for driver, instance in names}
        assert len(paths) == 3
        assert all(len(str(path)) <= MAX_PATH for path in paths)


def test_a_folder_too_long_is_named() -> None:
    with pytest.raises(ValueError, match="use a shorter folder"):
        service_socket(Path("/" + "x" * 100), driver_name="d", instance=None)


def test_hashed_names_of_the_dead_are_found_as_well(host: Path) -> None:
    driver = "d" * 63
    path = registration_socket(host / "registry", driver_name=driver, instance="i" * 40)
    assert driver not in path.name
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
        assert is_served(path)
        remove_dead(host / "plugins", host / "registry", driver_name=driver)
        assert path.exists()
    remove_dead(host / "plugins", host / "registry", driver_name=driver)
    assert not path.exists()
