"""Which sizes are asked about, on which cores, and what the model answers. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from neuron_device_model.catalog import InstanceType, UnknownInstanceType, instance_type
from neuron_device_model.collectives import operations
from neuron_device_model.collectives.datatypes import DataType, data_type
from neuron_device_model.collectives.errors import UnsupportedCollective
from neuron_device_model.collectives.fabric import CORE, Core, Fabric, Link, Node
from neuron_device_model.collectives.model import Estimate, estimate, estimate_shares
from neuron_device_model.collectives.operations import Operation, operation
from neuron_device_model.collectives.rules import check_group

_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
DEFAULT_SIZES = tuple(1 << power for power in range(10, 31, 2))
BUSIEST = 5
"""Links that are named."""


class WrongSweep(ValueError):
    """What was asked for does not exist; the message says what to change."""


def parse_size(text: str) -> int:
    """Bytes of ``8``, ``64KiB`` or ``1MiB``."""
    digits = text.rstrip("BKMGi")
    unit = _UNITS.get(text[len(digits) :] or "B")
    if unit is None or not digits.isascii() or not digits.isdigit() or not 0 < int(digits) * unit <= 1 << 40:
        raise WrongSweep(f"{text!r} is not a size: write it like 1024, 64KiB or 1GiB")
    return int(digits) * unit


def shown_size(size: int) -> str:
    """The same, backwards."""
    unit = next((name for name in ("GiB", "MiB", "KiB") if size % _UNITS[name] == 0), "B")
    return f"{size // _UNITS[unit]}{unit}"


@dataclass(frozen=True)
class Question:
    """An operation on some cores."""

    fabric: Fabric
    cores: tuple[Core, ...]
    what: Operation
    dtype: DataType

    def answer(self, size: int) -> Estimate:
        """What the model says of a size. Raises WrongSweep."""
        try:
            if self.what not in (operations.ALL_GATHER_V, operations.ALL_TO_ALL_V):
                return estimate(self.fabric, self.cores, self.what, size, self.dtype)
            # without counts of their own, all shares are equal
            share = max(size // len(self.cores) // self.dtype.bytes, 1) * self.dtype.bytes
            table = [[share] * len(self.cores) for _ in self.cores]
            return estimate_shares(self.fabric, self.cores, self.what, table, self.dtype)
        except UnsupportedCollective as wrong:
            raise WrongSweep(str(wrong)) from None

    def answers(self, sizes: Sequence[int] = DEFAULT_SIZES) -> list[Estimate]:
        """The same for each size, ascending. Raises WrongSweep."""
        return [self.answer(size) for size in sorted(set(sizes))]

    def switches(self, found: Sequence[Estimate]) -> list[tuple[int, str]]:
        """From which size on which algorithm is used between the first and the last of these, to the element."""
        width = self.dtype.bytes
        changes = [(found[0].size, found[0].algorithm)]
        for one, other in pairwise(found):
            low = one.size // width
            while changes[-1][1] != other.algorithm:
                high = other.size // width
                # the smallest size above `low` with another algorithm than there is so far
                while high - low > 1:
                    middle = (low + high) // 2
                    if self.answer(middle * width).algorithm == changes[-1][1]:
                        low = middle
                    else:
                        high = middle
                changes.append((high * width, self.answer(high * width).algorithm))
                low = high
        return changes


def question(
    type_name: str,
    *,
    ranks: int,
    what: str,
    dtype: str,
    nodes: int = 1,
    lnc: int | None = None,
    ultraserver: bool = False,
) -> Question:
    """A question about the first cores of each node. Raises WrongSweep."""
    try:
        fabric, cores = board(type_name, ranks=ranks, nodes=nodes, lnc=lnc, ultraserver=ultraserver)
        numbers = [number for _ in range(nodes) for number in range(ranks // nodes)]
        check_group(fabric, cores, numbers, operation(what))
        return Question(fabric, cores, operation(what), data_type(dtype))
    except (UnknownInstanceType, UnsupportedCollective) as wrong:
        raise WrongSweep(str(wrong)) from None


def board(
    type_name: str, *, ranks: int, nodes: int, lnc: int | None, ultraserver: bool
) -> tuple[Fabric, tuple[Core, ...]]:
    """Some nodes, and the first cores of each. Raises WrongSweep and UnknownInstanceType."""
    kind = instance_type(type_name)
    fabric = _fabric(kind, nodes=nodes, lnc=lnc or kind.chip.default_logical_neuron_core, ultraserver=ultraserver)
    if ranks < 1 or ranks % nodes:
        raise WrongSweep(f"{ranks} ranks cannot be divided equally among {nodes} nodes")
    return fabric, tuple(_first_cores(fabric, ranks // nodes))


def _fabric(kind: InstanceType, *, nodes: int, lnc: int, ultraserver: bool) -> Fabric:
    if lnc != 1 and not kind.chip.has_logical_neuron_cores:
        raise WrongSweep(f"{kind.name} has no logical NeuronCores: leave --lnc out")
    if lnc not in (1, 2):
        raise WrongSweep(f"{lnc} is no logical NeuronCore configuration: give 1 or 2")
    if ultraserver and kind.ultraserver is None:
        raise WrongSweep(f"{kind.name} is not a member of an UltraServer: leave --ultraserver out")
    joined = "ultraserver" if ultraserver else None
    return Fabric(kind.name, lnc, tuple(Node(f"node-{number}", joined, number) for number in range(nodes)))


def _first_cores(fabric: Fabric, per_node: int) -> Iterator[Core]:
    for node in range(len(fabric.nodes)):
        cores = fabric.cores(node)
        if per_node > len(cores):
            raise WrongSweep(
                f"{fabric.instance_type} has {len(cores)} cores at logical NeuronCore configuration "
                f"{fabric.logical_neuron_core}, not {per_node}: use fewer ranks or more nodes"
            )
        yield from cores[:per_node]


def row(answer: Estimate) -> dict[str, object]:
    """A line of the table."""
    return {
        "size": shown_size(answer.size),
        "time_us": round(answer.time_us, 2),
        "algbw": round(answer.algbw, 2),
        "busbw": round(answer.busbw, 2),
        "algorithm": answer.algorithm,
    }


def document(answer: Estimate) -> dict[str, Any]:
    """All about one size, for programs: times in microseconds, bandwidths in GB/s of 10^9 bytes."""
    return {
        "size": answer.size,
        "time_us": answer.time_us,
        "algbw": answer.algbw,
        "busbw": answer.busbw,
        "algorithm": answer.algorithm,
        "launch_us": answer.launch_s * 1e6,
        "stages": [
            {
                "name": stage.name,
                "time_us": stage.seconds * 1e6,
                "waiting_us": stage.waiting_s * 1e6,
                "limited_by": _limit(stage.busiest, adding=stage.adding),
            }
            for stage in answer.stages
        ],
        "busiest_links": [
            {"link": shown_link(link), "kind": link.kind, "bytes": moved} for link, moved in busiest([answer])
        ],
    }


def busiest(answers: Sequence[Estimate]) -> list[tuple[Link, int]]:
    """The links that carry most for what they can, of all these operations together; those inside chips left out."""
    carried: dict[Link, float] = {}
    for answer in answers:
        for link, moved in answer.link_bytes().items():
            if link.kind != CORE:
                carried[link] = carried.get(link, 0.0) + moved
    ordered = sorted(carried.items(), key=lambda one: (-one[1] / one[0].nominal, one[0]))
    return [(link, round(moved)) for link, moved in ordered[:BUSIEST]]


def shown_link(link: Link) -> str:
    """A link in words."""
    return f"{link.domain}: {link.source} → {link.target}"


def _limit(link: Link | None, *, adding: bool) -> str:
    if adding:
        return "adding"
    return shown_link(link) if link else "waiting"
