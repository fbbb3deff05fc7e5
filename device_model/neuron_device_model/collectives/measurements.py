"""Published results of nccom-test, and the question to the model that each of them answers.

measurements.csv has every row that was found, with its source. Our reading of it stands in four columns: `read_as` and
`read_lnc` say which instance type and LNC we take it for, where the source does not, and `use` what it is good for,
with the reason in `why`: `fit` for the parameters, `check` to compare only, `algorithm` for the algorithm that was
printed, `no` for none of these.
"""

import csv
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from neuron_device_model.collectives.datatypes import DataType, data_type
from neuron_device_model.collectives.fabric import Core, Fabric, Node
from neuron_device_model.collectives.model import Estimate, estimate, estimate_shares
from neuron_device_model.collectives.operations import ALL_GATHER_V, operation
from neuron_device_model.collectives.parameters import Parameters

DATA = Path(__file__).parent / "measurements.csv"


@dataclass(frozen=True, slots=True)
class Measurement:
    """One published row."""

    use: str
    fabric: Fabric
    ranks: tuple[Core, ...]
    operation: str
    dtype: str
    size: int
    seconds: float
    algorithm: str
    """As nccom-test printed it; empty where it did not."""
    source: str

    @property
    def curve(self) -> str:
        """What it has in common with others: instance, nodes by ranks on each, LNC, operation, type."""
        nodes = len(self.fabric.nodes)
        return (
            f"{self.fabric.instance_type} {nodes}x{len(self.ranks) // nodes} LNC {self.fabric.logical_neuron_core} "
            f"{self.operation} {self.dtype}"
        )

    @property
    def element(self) -> DataType:
        """The type; send/recv adds nothing, so where none is told, any will do."""
        return data_type("uint8" if self.dtype == "unspecified" else self.dtype)

    def modelled(self, parameters: Parameters | None = None) -> Estimate:
        """What the model says."""
        dtype = self.element
        if self.operation == ALL_GATHER_V.name:
            shares = [[self.size // len(self.ranks)] * len(self.ranks)] * len(self.ranks)
            return estimate_shares(self.fabric, self.ranks, self.operation, shares, dtype, parameters=parameters)
        return estimate(self.fabric, self.ranks, self.operation, self.size, dtype, parameters=parameters)

    def error(self, parameters: Parameters | None = None) -> float:
        """Relative: modelled over measured, less one."""
        return self.modelled(parameters).seconds / self.seconds - 1


@cache
def measurements() -> tuple[Measurement, ...]:
    """The rows that can be compared with the model, in the order of the file."""
    with DATA.open(newline="") as file:
        return tuple(_measurement(record) for record in csv.DictReader(file) if record["use"] != "no")


def _measurement(record: dict[str, str]) -> Measurement:
    count, nodes, size = int(record["ranks"]), int(record["nodes"]), int(record["size_bytes"])
    fabric = Fabric(record["read_as"], int(record["read_lnc"]), tuple(Node(f"node-{n}") for n in range(nodes)))
    if record["time_us"]:
        seconds = float(record["time_us"]) * 1e-6
    else:
        seconds = size * operation(record["op"]).bus_factor(count) / (float(record["busbw"]) * 1e9)
    algorithm = re.search(r"algorithm=(\w+)", record["source"])
    return Measurement(
        use=record["use"],
        fabric=fabric,
        ranks=tuple(core for node in range(nodes) for core in _ranks(fabric.cores(node), count // nodes, record)),
        operation=record["op"],
        dtype=record["dtype"],
        size=size,
        seconds=seconds,
        algorithm=algorithm.group(1) if algorithm else "",
        source=record["source"],
    )


def _ranks(cores: tuple[Core, ...], count: int, record: dict[str, str]) -> tuple[Core, ...]:
    """The first cores of a node; of a pair across dies, one of each die."""
    return (cores[0], cores[4]) if "cross-die" in record["source"] else cores[:count]
