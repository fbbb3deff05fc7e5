"""What the runtime is told of a node's place in its UltraServer, in the variables of AWS's init script.

The script (src/k8/k8s-ultraserver-init-script.sh) numbers all workers of a job, where we know one set of them: of a job
on one set it is the same. What the first worker's pod is called (NEURON_GLOBAL_TOPOID0_HOST), nobody knows on a node.
"""

from collections.abc import Mapping

from neuron_device_model.ultraserver import NO_NODE, NO_SET, Seat, runtime_mode

from ..allocations.config import (
    GLOBAL_TOPOLOGY_ID,
    ULTRASERVER_MODE,
    ULTRASERVER_NODE_ID,
    ULTRASERVER_SERVER_ID,
)


def environment(servers: int, seat: Seat | None) -> Mapping[str, str]:
    """The variables of a worker of a set of so many servers: 1, 2 or 4."""
    set_id, number = (seat.set_id(servers), seat.set_node(servers)) if seat else (NO_SET, NO_NODE)
    return {
        ULTRASERVER_MODE: str(runtime_mode(servers)),
        ULTRASERVER_SERVER_ID: set_id,
        ULTRASERVER_NODE_ID: str(number),
        GLOBAL_TOPOLOGY_ID: str(max(number, 0)),
    }
