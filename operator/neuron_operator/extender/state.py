"""What the extender knows of the cluster: nodes, the pods that are bound to them, and its own newest bindings.

Watches fill it, and they are late: a pod that was bound a moment ago is not bound yet in what they told. So a binding
is *assumed* from before it is sent until a watch tells of it, like in kube-scheduler. An assumption also ends with
its pod, with a binding that was refused, and with a complete list that was asked for after the binding had been
acknowledged. Where nobody knows whether the API server took the binding, it stays for a minute.

One event loop uses it and no method waits, so there is nothing to lock.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from neuron_operator.extender import names
from neuron_operator.extender.demand import Holding, holding
from neuron_operator.extender.occupancy import Occupancy, ServedNode, from_neuron_node, from_node, occupancy

Json = dict[str, Any]

UNCERTAIN = 60.0
"""Seconds; the API server gives up on a write before that."""


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """A Node object, as far as it matters."""

    served: ServedNode | None
    """What it is if it has no NeuronNode."""
    usage_maps: Mapping[str, str]
    ours: bool
    """Whether we wrote the usage maps."""


@dataclass(frozen=True, slots=True)
class _Assumption:
    holding: Holding
    acknowledged: float | None = None


class State:
    """The cluster, as decisions need it."""

    def __init__(self, changed: Callable[[], None] = lambda: None) -> None:
        self.nodes: dict[str, NodeFacts] = {}
        self._neuron_nodes: dict[str, ServedNode | None] = {}
        self._holdings: dict[str, Holding] = {}
        self._on_node: dict[str, set[str]] = {}
        self._assumed: dict[str, _Assumption] = {}
        self._occupancy: dict[str, Occupancy] = {}
        self._missing = {"nodes", "neuronnodes", "pods"}
        self._changed = changed

    @property
    def complete(self) -> bool:
        """Whether everything was listed once."""
        return not self._missing

    @property
    def assumed(self) -> int:
        """Bindings that no watch has told of."""
        return len(self._assumed)

    # --- what decisions ask

    def served(self, node: str) -> ServedNode | None:
        """A node of which devices are given out here; None: DRA, no Neuron at all, or not known."""
        if node in self._neuron_nodes:
            return self._neuron_nodes[node]
        facts = self.nodes.get(node)
        return facts.served if facts else None

    def occupancy(self, served: ServedNode, *, but: str = "") -> Occupancy:
        """What the pods of a node hold, but for one."""
        cached = self._occupancy.get(served.name)
        own = but in self._assumed or but in self._holdings
        if cached is None or own:
            found = occupancy(served, (held for held in self._of(served.name) if held.uid != but))
            if own:
                return found
            cached = self._occupancy[served.name] = found
        return cached

    def usage_maps(self, node: str) -> Mapping[str, str] | None:
        """What a node's annotations should say; None: nothing."""
        served = self.served(node)
        return self.occupancy(served).usage_maps() if served else None

    def _of(self, node: str) -> Iterable[Holding]:
        # the first is empty or nearly so
        assumed = {a.holding.uid: a.holding for a in self._assumed.values() if a.holding.node == node}
        return (assumed | {uid: self._holdings[uid] for uid in self._on_node.get(node, ())}).values()

    # --- what bindings do

    def assume(self, held: Holding) -> None:
        """A binding is about to be sent."""
        self.forget(held.uid)
        self._assumed[held.uid] = _Assumption(held)
        self._touch(held.node)

    def acknowledge(self, uid: str) -> None:
        """The API server took the binding."""
        assumption = self._assumed.get(uid)
        if assumption is not None:
            self._assumed[uid] = replace(assumption, acknowledged=time.monotonic())

    def forget(self, uid: str) -> None:
        """A binding was refused, or a watch has told of it."""
        gone = self._assumed.pop(uid, None)
        if gone is not None:
            self._touch(gone.holding.node)

    def doubt(self, uid: str) -> None:
        """Nobody knows whether the API server took the binding."""
        doubted = self._assumed.get(uid)

        def expire() -> None:
            if self._assumed.get(uid) is doubted:
                self.forget(uid)

        asyncio.get_running_loop().call_later(UNCERTAIN, expire)

    # --- what watches tell

    def list_pods(self, pods: Iterable[Json], asked: float) -> None:
        """All pods that are not over, as a list told that was asked for at some time."""
        self._holdings, self._on_node = {}, {}
        for held in map(holding, pods):
            if held is not None:
                self._hold(held)
        self._assumed = {
            uid: assumption
            for uid, assumption in self._assumed.items()
            if uid not in self._holdings and (assumption.acknowledged is None or assumption.acknowledged > asked)
        }
        self._occupancy.clear()
        self._listed("pods")

    def see_pod(self, pod: Json, deleted: bool) -> None:
        """A change of a pod."""
        uid = pod["metadata"]["uid"]
        before = self._holdings.pop(uid, None)
        if before is not None:
            self._on_node[before.node].discard(uid)
        now = None if deleted else holding(pod)
        if now is not None:
            self._hold(now)
        # an event from before the binding says nothing about it
        if deleted or (pod.get("spec") or {}).get("nodeName"):
            self.forget(uid)
        if before != now:
            for held in (before, now):
                if held is not None:
                    self._touch(held.node)

    def list_nodes(self, nodes: Iterable[Json], asked: float) -> None:
        """All nodes."""
        self.nodes = {node["metadata"]["name"]: _node_facts(node) for node in nodes}
        self._occupancy.clear()
        self._listed("nodes")

    def see_node(self, node: Json, deleted: bool) -> None:
        """A change of a node."""
        name = node["metadata"]["name"]
        before = self.nodes.pop(name, None)
        if not deleted:
            self.nodes[name] = _node_facts(node)
        if self.nodes.get(name) != before:
            self._touch(name)

    def list_neuron_nodes(self, neuron_nodes: Iterable[Json], asked: float) -> None:
        """All NeuronNodes."""
        self._neuron_nodes = {item["metadata"]["name"]: from_neuron_node(item) for item in neuron_nodes}
        self._occupancy.clear()
        self._listed("neuronnodes")

    def see_neuron_node(self, neuron_node: Json, deleted: bool) -> None:
        """A change of a NeuronNode."""
        name = neuron_node["metadata"]["name"]
        if deleted:
            self._neuron_nodes.pop(name, None)
        else:
            self._neuron_nodes[name] = from_neuron_node(neuron_node)
        self._touch(name)

    def _hold(self, held: Holding) -> None:
        self._holdings[held.uid] = held
        self._on_node.setdefault(held.node, set()).add(held.uid)

    def _listed(self, kind: str) -> None:
        self._missing.discard(kind)
        self._changed()

    def _touch(self, node: str) -> None:
        self._occupancy.pop(node, None)
        self._changed()


def _node_facts(node: Json) -> NodeFacts:
    annotations = node["metadata"].get("annotations") or {}
    return NodeFacts(
        served=from_node(node),
        usage_maps={key: annotations[key] for key in (names.CHIP_MAP, names.CORE_MAP) if key in annotations},
        ours=any(
            f"f:{names.CHIP_MAP}" in (entry.get("fieldsV1") or {}).get("f:metadata", {}).get("f:annotations", {})
            for entry in node["metadata"].get("managedFields") or ()
            if entry.get("manager") == names.FIELD_MANAGER
        ),
    )
