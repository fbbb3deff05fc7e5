"""What the operator knows of the cluster, kept in memory.

Filled from two sides. Watches (``handlers``) bring every change as it happens. Complete lists (``reconciler``)
come at the start, after every break of a watch and every few minutes, because a watch that had to be
restarted never tells what was deleted meanwhile. Both sides, and the answers to our own writes, meet here in
any order: the higher resource version wins, and a deletion leaves a tombstone until a list is newer than it.
Kubernetes defines the order of resource versions of one kind since 1.35 (KEP-5504); etcd's revisions have
always had it.

Until every kind was listed once there is no snapshot, so a half-filled state can never be mistaken for a
cluster whose nodes are gone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from neuron_operator.foreign import Finding
from neuron_operator.nodes import NodeFacts, node_facts
from neuron_operator.planning import Snapshot
from neuron_operator.roads import PlainPods
from neuron_operator.ultraservers.workloads import workload_ids

Json = dict[str, Any]
T = TypeVar("T")

NODES_ON_THE_LOOP = 200
"""Planning takes a tenth of a millisecond a node: for as many as these it keeps nobody else waiting for long."""


@dataclass(frozen=True, slots=True)
class _Entry(Generic[T]):
    version: int
    value: T | None
    """None: deleted."""


class Store(Generic[T]):
    """The objects of one kind, each as the projection that decisions need."""

    def __init__(self, project: Callable[[Json], T]) -> None:
        self._project = project
        self._entries: dict[str, _Entry[T]] = {}
        self._list_version = 0
        self.listed = False

    def observe(self, item: Json, *, deleted: bool = False) -> bool:
        """Take in one object; whether that changed anything that decisions need."""
        name = key(item)
        version = int(item["metadata"]["resourceVersion"])
        before = self._entries.get(name)
        # what the last list did not know and is not newer had been deleted by then
        if version <= (before.version if before is not None else self._list_version):
            return False
        value = None if deleted else self._project(item)
        self._entries[name] = _Entry(version, value)
        return value != (before.value if before else None)

    def forget(self, name: str) -> None:
        """Take in that our deletion of an object was accepted; the watch will tell when it happened."""
        before = self._entries.get(name)
        if before is not None:
            self._entries[name] = _Entry(before.version, None)

    def replace(self, items: Sequence[Json], *, version: int) -> bool:
        """Take in a complete list, read at a resource version; whether that changed anything."""
        first, self.listed = not self.listed, True
        changes = [self.observe(item) for item in items]
        changed = any(changes)
        listed = {key(item) for item in items}
        gone = [n for n, entry in self._entries.items() if n not in listed and entry.version <= version]
        for name in gone:
            changed = self._entries.pop(name).value is not None or changed
        self._list_version = max(self._list_version, version)
        return changed or first

    def get(self, name: str) -> T | None:
        """One object, None if there is none."""
        entry = self._entries.get(name)
        return entry.value if entry is not None else None

    def where(self, holds: Callable[[T], bool]) -> list[T]:
        """Those of which something is so."""
        return [entry.value for entry in self._entries.values() if entry.value is not None and holds(entry.value)]

    def values(self) -> list[T]:
        """What exists, by name."""
        return [entry.value for _, entry in sorted(self._entries.items()) if entry.value is not None]


def key(item: Mapping[str, Any]) -> str:
    """What tells an object from all others of its kind."""
    metadata = item["metadata"]
    namespace = metadata.get("namespace")
    return f"{namespace}/{metadata['name']}" if namespace else str(metadata["name"])


def _whole(item: Json) -> Json:
    metadata: Mapping[str, Any] = item["metadata"]
    return {**item, "metadata": {key: value for key, value in metadata.items() if key != "managedFields"}}


class Fleet:
    """All that a plan is made from."""

    def __init__(self, *, driver_name: str, virtual_nodes: bool = True) -> None:
        """`virtual_nodes`: whether there may be any."""
        self.pools: Store[Json] = Store(_whole)
        self.neuron_nodes: Store[Json] = Store(_whole)
        self.faults: Store[Json] = Store(_whole)
        self.workloads: Store[Json] = Store(_whole)
        self.ultraservers: Store[Json] = Store(_whole)
        self.nodes: Store[NodeFacts] = Store(node_facts)
        self.foreign: tuple[Finding, ...] | None = None
        self.plain_pods: PlainPods | None = None
        self._driver_name = driver_name
        self._virtual_nodes = virtual_nodes

    def snapshot(self) -> Snapshot | None:
        """The cluster now; None while it is not known completely."""
        stores = (self.pools, self.neuron_nodes, self.faults, self.workloads, self.ultraservers, self.nodes)
        complete = all(store.listed for store in stores)
        if not complete or self.foreign is None:
            return None
        return Snapshot(
            pools=self.pools.values(),
            nodes=self.nodes.values(),
            neuron_nodes=self.neuron_nodes.values(),
            driver_name=self._driver_name,
            foreign=self.foreign,
            plain_pods=self.plain_pods,
            faults=self.faults.values(),
            workload_ids=workload_ids(self.workloads.values()),
            virtual_nodes=self._virtual_nodes,
        )
