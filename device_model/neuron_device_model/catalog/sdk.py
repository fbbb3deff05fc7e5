"""The Neuron SDK releases: which versions of driver, runtime and tools belong together."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from neuron_device_model.catalog.documents import document
from neuron_device_model.catalog.nearest import not_known
from neuron_device_model.catalog.rows import Row, reading

DEFAULT_SDK_VERSION = "2.32.0"


class UnknownSdkRelease(LookupError):
    """No such SDK release; the message lists the known ones and names the nearest."""


@dataclass(frozen=True, slots=True)
class SdkRelease:
    """The package versions of one Neuron SDK release."""

    version: str
    driver_version: str
    tools_version: str
    runtime_version: str
    collectives_version: str
    compiler_version: str


def sdk_release(version: str) -> SdkRelease:
    """The release of this version."""
    try:
        return _by_version()[version]
    except KeyError:
        raise UnknownSdkRelease(not_known("Neuron SDK version", version, _by_version())) from None


def sdk_releases() -> tuple[SdkRelease, ...]:
    """Every release, newest first."""
    return tuple(_by_version().values())


@cache
def _by_version() -> Mapping[str, SdkRelease]:
    return MappingProxyType({release.version: release for release in load_sdk_releases(document("sdk.toml"))})


def load_sdk_releases(rows: Row) -> list[SdkRelease]:
    """Read an SDK file."""
    found = []
    with reading(rows) as file:
        for row in file.rows("release"):
            with reading(row):
                found.append(
                    SdkRelease(
                        version=row.text("version"),
                        driver_version=row.text("driver_version"),
                        tools_version=row.text("tools_version"),
                        runtime_version=row.text("runtime_version"),
                        collectives_version=row.text("collectives_version"),
                        compiler_version=row.text("compiler_version"),
                    )
                )
    return found
