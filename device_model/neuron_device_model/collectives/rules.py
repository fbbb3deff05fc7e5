"""Which groups a platform's runtime takes: their sizes, and where a slice of cores may begin.

Sources: AWS docs (libraries/nxd-inference/developer_guides/feature-guide.rst, about-neuron/calculator for the sizes;
vllm-neuron's tutorial-epd-1e-1pd-xeypd.md for the alignment on Trn2: a group on cores 4 to 11 fails). Trn3 is not
documented: the sizes of Trn2, and no alignment, because behind a switch no place is better than another.
"""

from collections.abc import Sequence

from neuron_device_model.catalog import InstanceType
from neuron_device_model.collectives.errors import UnsupportedCollective
from neuron_device_model.collectives.fabric import Core, Fabric
from neuron_device_model.collectives.operations import PERMUTE, SEND_RECV, Operation

_GROUP_SIZES = {"trainium": (1, 2, 4, 8, 16, 32), "inferentia2": (1, 2, 4, 8, 12, 24)}
_GROUP_SIZES_SINCE_TRAINIUM2 = (1, 2, 4, 8, 16, 32, 64, 128)


def group_sizes(kind: InstanceType) -> tuple[int, ...]:
    """How many ranks of a group may be on one instance."""
    return _GROUP_SIZES.get(kind.chip.name, _GROUP_SIZES_SINCE_TRAINIUM2)


def check_group(fabric: Fabric, ranks: Sequence[Core], numbers: Sequence[int], what: Operation) -> None:
    """Raise UnsupportedCollective where the runtime refuses a group.

    `numbers` are those of the cores on their instances, as the processes there see them. Messages between two cores
    have no group.
    """
    kind = fabric.kind
    if not kind.chip.cc_cores:
        raise UnsupportedCollective(f"{kind.name} has no collectives: choose Inferentia2 or Trainium")
    if what in (SEND_RECV, PERMUTE):
        return
    of_nodes: dict[int, list[int]] = {}
    for core, number in zip(ranks, numbers, strict=True):
        of_nodes.setdefault(core.node, []).append(number)
    for cores in of_nodes.values():
        size = len(cores)
        if size not in group_sizes(kind):
            sizes = ", ".join(map(str, group_sizes(kind)))
            raise UnsupportedCollective(f"groups of {size} ranks on one {kind.name}: it has groups of {sizes}")
        first = min(cores)
        is_slice = sorted(cores) == list(range(first, first + size))
        if kind.topology.startswith("torus") and is_slice and first % size:
            raise UnsupportedCollective(
                f"a group on cores {first}-{first + size - 1}: a slice of {size} cores starts at a multiple of {size}"
            )
