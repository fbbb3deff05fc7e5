"""The cores of this container's claims as ranks of the cost model: which chip of the host, which core of the chip.

Numbers in a container are its own; what a collective costs follows from the host's. A core keeps its place in its chip
through all numbering, so its original number, by which its file is called, tells it.
"""

from __future__ import annotations

from dataclasses import dataclass

from neuron_runtime import chips, nrt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from neuron_runtime.nrt import Given

LNC = "NEURON_LOGICAL_NC_CONFIG"
LNC_OLD = "NEURON_RT_VIRTUAL_CORE_SIZE"
_SET, _NUMBER = "NEURON_RT_ULTRASERVER_SERVER_ID", "NEURON_RT_ULTRASERVER_NODE_ID"


class ClaimError(Exception):
    """These cores cannot form a group; the message says what to change."""


@dataclass(frozen=True)
class GivenCore:
    """A rank's core: its number in the container, its chip on the host, its number in the chip."""

    number: int
    chip: int
    core: int


@dataclass(frozen=True)
class Place:
    """An instance's share of a job: what it is, and the cores of its ranks in their order."""

    instance_type: str
    instance_id: str
    logical_neuron_core: int
    cores: tuple[GivenCore, ...]
    ultraserver: str | None = None
    seat: int = 0
    network: tuple[str, ...] = ()
    """The instance's network nodes, the spine first."""


def place(given: Given, taken: Collection[int], environment: Mapping[str, str]) -> Place:
    """Where the cores with these numbers are. Raises ClaimError."""
    first = given[0][1]
    lnc = first["logical_neuroncore_config"] or 1
    if any((view["logical_neuroncore_config"] or 1) != lnc for _, view in given):
        raise ClaimError("the claims of this container have different logical NeuronCore configurations: use one")
    wanted = environment.get(LNC) or environment.get(LNC_OLD)
    if wanted and wanted != str(lnc) and chips.chip_of(first).physical_cores == 8:
        raise ClaimError(
            f"{LNC}={wanted}, but the devices of this claim were given with {lnc}: "
            "change it, or the logicalNeuronCore of the claim's configuration"
        )
    hosts = [device["host_index"] for _, view in given for device in view["devices"] for _ in device["core_ids"]]
    per_chip = chips.cores_of_a_chip(first)
    cores = tuple(
        GivenCore(core.id, host, int(core.path.rpartition("/")[2]) % per_chip)
        for core, host in zip(nrt.given_cores(given), hosts, strict=True)
    )
    by_number = {core.number: core for core in cores}
    ultraserver, seat = environment.get(_SET, ""), environment.get(_NUMBER, "")
    return Place(
        first["instance_type"].removeprefix("ml."),
        first["instance_id"],
        lnc,
        tuple(by_number[number] for number in sorted(taken)),
        ultraserver if ultraserver.strip("0") else None,
        int(seat) if seat.isascii() and seat.isdigit() and len(seat) < 4 else 0,
        tuple(first.get("network_nodes") or ()),  # claims that were prepared by agents of before have none
    )
