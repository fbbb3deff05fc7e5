"""A node's seat in its UltraServer, and the sets of one, two or four servers that work together there.

Real nodes tell their sets in labels, the runtime in variables, and both must name the same: the operator writes the
labels and the agent the variables, so what a set is called is said here, once. Sets are neighbours: servers 0 and 1
are a pair, 0 to 3 a set of four, and so on. The set of a whole UltraServer bears the UltraServer's id.
"""

from dataclasses import dataclass

from neuron_device_model.identity import ultraserver_set

SETS = (1, 2, 4)

# neuron_driver_shared.h: X4 is 1, X2H is 2, X1 is 4
_RUNTIME_MODES = {4: 1, 2: 2, 1: 4}

# what the Neuron driver tells where there is no such set
NO_SET = "0000000000000000"
NO_NODE = -1


@dataclass(frozen=True, slots=True)
class Seat:
    """Server number `node` of the UltraServer `id`, which has `size` servers."""

    id: str
    size: int
    node: int

    @property
    def sets(self) -> tuple[int, ...]:
        """How many servers can work together here, fewest first."""
        return tuple(servers for servers in SETS if servers <= self.size)

    @property
    def modes(self) -> str:
        """The runtime's numbers for these, as the label ultraserver-mode has them: 1_2_4."""
        return "_".join(str(mode) for mode in sorted(runtime_mode(servers) for servers in self.sets))

    def set_id(self, servers: int) -> str:
        """What the members of this seat's set of so many servers have in common."""
        if servers == 1:
            return NO_SET
        return self.id if servers == self.size else ultraserver_set(self.id, servers, self.node // servers)

    def set_node(self, servers: int) -> int:
        """The number of this seat in its set of so many servers."""
        return NO_NODE if servers == 1 else self.node % servers


def runtime_mode(servers: int) -> int:
    """The runtime's number for so many servers that work together."""
    return _RUNTIME_MODES[servers]
