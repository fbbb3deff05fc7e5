"""What the tools say of a chip and a view does not: how neuron-monitor and the driver call it, what it can compute.

Sources: AWS docs (neuron-monitor user guide: trainium2, v4, v3d), captures of trn1 and inf2 (trainium v2 v2,
inferentia2 v3 v2), the driver's neuron_sysfs_metrics.c for its names. Trainium3's and Inferentia's words for
neuron-monitor were not seen anywhere and are chosen by the pattern of the others.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from neuron_device_model.view import View


class Chip:
    """A family of chips, by the words of each tool."""

    __slots__ = ("arch", "core_version", "device_version", "physical_cores", "tflops", "title", "type")

    def __init__(
        self,
        type: str,
        *,
        device_version: str,
        core_version: str,
        arch: str,
        title: str,
        physical_cores: int,
        tflops: float,
    ) -> None:
        self.type = type
        self.device_version = device_version
        self.core_version = core_version
        self.arch = arch
        """The driver's suffix: NDv3, NCv3."""
        self.title = title
        self.physical_cores = physical_cores
        self.tflops = tflops
        """Dense, in BF16."""


_CHIPS = {
    "inf1": Chip(
        "inferentia", device_version="v1", core_version="v1", arch="v1", title="Inferentia", physical_cores=4, tflops=64
    ),
    "inf2": Chip(
        "inferentia2",
        device_version="v3",
        core_version="v2",
        arch="v3",
        title="Inferentia2",
        physical_cores=2,
        tflops=190,
    ),
    "trn1": Chip(
        "trainium", device_version="v2", core_version="v2", arch="v2", title="Trainium1", physical_cores=2, tflops=190
    ),
    "trn2": Chip(
        "trainium2", device_version="v4", core_version="v3", arch="v3", title="Trainium2", physical_cores=8, tflops=667
    ),
    "trn3": Chip(
        "trainium3", device_version="v5", core_version="v4", arch="v4", title="Trainium3", physical_cores=8, tflops=671
    ),
}


def chip_of(view: View) -> Chip:
    """The chip of a view's instance type."""
    return _CHIPS[view["instance_type"].removeprefix("ml.")[:4]]


def core_version(view: View) -> str:
    """As the tools call the view's cores: v2, v3, or v3d where two physical cores are one."""
    return chip_of(view).core_version + ("d" if view["logical_neuroncore_config"] == 2 else "")


def cores_of_a_chip(view: View) -> int:
    """How many cores the view's chips have at its logical NeuronCore configuration, given or not."""
    return chip_of(view).physical_cores // (view["logical_neuroncore_config"] or 1)


def flops_of_a_core(view: View) -> float:
    """What one of the view's cores can do in a second."""
    return chip_of(view).tflops * 1e12 / cores_of_a_chip(view)
