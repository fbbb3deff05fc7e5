"""The collective operations, and how nccom-test counts their bytes.

`size` always means what nccom-test prints as size(B): for all_gather the gathered whole, for reduce_scatter what each
rank brings, for all_reduce and all_to_all the buffer of one rank, for send/recv and permute one message.
(AWS docs: neuron-runtime/about/collectives.rst, tools/neuron-sys-tools/nccom-test.rst)
"""

from dataclasses import dataclass

from neuron_device_model.catalog.nearest import not_known
from neuron_device_model.collectives.errors import UnsupportedCollective


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation. `aliases` are the short names that nccom-test takes too."""

    name: str
    aliases: tuple[str, ...] = ()
    reduces: bool = False

    def bus_factor(self, ranks: int) -> float:
        """Bus bandwidth over algorithm bandwidth: what the busiest wire carries of each byte of `size`."""
        if self in (SEND_RECV, PERMUTE):
            return 1.0
        return (2 if self is ALL_REDUCE else 1) * (ranks - 1) / ranks


ALL_GATHER = Operation("all_gather", ("allg",))
REDUCE_SCATTER = Operation("reduce_scatter", ("redsct",), reduces=True)
ALL_REDUCE = Operation("all_reduce", ("allr",), reduces=True)
ALL_TO_ALL = Operation("alltoall", ("all_to_all",))
ALL_GATHER_V = Operation("all_gatherv", ("allgv",))
ALL_TO_ALL_V = Operation("alltoallv")
SEND_RECV = Operation("sendrecv")
PERMUTE = Operation("permute")

OPERATIONS = (
    ALL_GATHER,
    REDUCE_SCATTER,
    ALL_REDUCE,
    ALL_TO_ALL,
    ALL_GATHER_V,
    ALL_TO_ALL_V,
    SEND_RECV,
    PERMUTE,
)

_BY_NAME = {name: operation for operation in OPERATIONS for name in (operation.name, *operation.aliases)}


def operation(name: str) -> Operation:
    """The operation of this name, long or short."""
    try:
        return _BY_NAME[name]
    except KeyError:
        raise UnsupportedCollective(not_known("operation", name, _BY_NAME)) from None
