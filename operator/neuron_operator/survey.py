"""Complete looks at the cluster, which watches alone cannot give (``fleet`` says why).

Real Neuron outside of the nodes, and our own DeviceClass, are only looked at here, every half minute: a watch
on all ResourceSlices would bring megabytes for every slice that our own agents write, where the selectors
below let the API server answer with nothing.
"""

from neuron_operator import foreign, kube, names
from neuron_operator.fleet import Fleet
from neuron_operator.kube import Api, ApiError, NotFound
from neuron_operator.roads import plain_pods

_FORBIDDEN = 403


async def list_objects(fleet: Fleet, api: Api) -> bool:
    """Bring the fleet state up to complete lists; whether anything changed."""
    changed = False
    for store, resource in (
        (fleet.nodes, kube.NODES),
        (fleet.pools, kube.POOLS),
        (fleet.neuron_nodes, kube.NEURON_NODES),
        (fleet.faults, kube.FAULTS),
        (fleet.workloads, kube.ULTRASERVER_WORKLOADS),
        (fleet.ultraservers, kube.ULTRASERVERS),
    ):
        listing = await api.list(resource)
        changed = store.replace(listing.items, version=listing.version) or changed
    return changed


async def look_around(fleet: Fleet, api: Api, *, driver_name: str) -> bool:
    """Look for real Neuron and at our DeviceClass; whether anything changed."""
    before = (fleet.foreign, fleet.plain_pods)
    slices = await api.list(kube.SLICES, labels=f"{names.LABEL_SIMULATED}!=true", fields=f"spec.driver={driver_name}")
    daemon_sets = await api.list(kube.DAEMON_SETS, labels=f"{names.LABEL_SIMULATED}!=true")
    fleet.foreign = (
        *foreign.in_slices(slices.items, driver_name=driver_name),
        *foreign.in_daemon_sets(daemon_sets.items),
    )
    try:
        device_class = await api.get(kube.DEVICE_CLASSES, names.DEVICE_CLASS)
        fleet.plain_pods = plain_pods(device_class)
    except NotFound:
        fleet.plain_pods = None  # Helm makes it last, and takes it away first
    except ApiError as error:
        if error.status != _FORBIDDEN:
            raise
        fleet.plain_pods = None  # worth a condition, not worth standing still
    return before != (fleet.foreign, fleet.plain_pods)
