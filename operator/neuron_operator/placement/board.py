"""Gangs onto the fleet: which domain, which nodes in it.

A gang gets the closest domain that has room, at most as wide as its level says, and among those the one that loses
least by it (`fitting`): UltraServers and pairs that are whole stay whole while there are others, and what is left
over is small. At equal loss a shorter way round its nodes (`ways`), then a network node with fewer whole nodes left,
then the name decide; so the answer depends on nothing but fleet and gang.

A gang that is wider than any UltraServer fills whole units, the roomiest first, and puts the rest where it fits
tightest, under the network node that it leaves fullest. Its traffic goes over EFA, so it gets no node of which all EFA
cards are down; inside a unit NeuronLink carries it, and such a node is as good as any.

One instance type per gang: a collective waits for its slowest member, and chips of two kinds have no link.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

from neuron_operator.placement.fitting import Demand, fill
from neuron_operator.placement.index import (
    NETWORK_LEVELS,
    Domain,
    Group,
    Node,
    Query,
    Tree,
    Unit,
    Units,
    make_domains,
    make_tree,
)
from neuron_operator.placement.model import Considered, Gang, Level, NodeState, Placement, Refusal
from neuron_operator.placement.reasons import considered, reasons
from neuron_operator.placement.ways import ring_cost

_MANY = 64
"""Different demands after which a board that is kept is made anew: each leaves answers at every domain."""


class Board:
    """A fleet on which gangs come and go; indexed once, for callers that ask often."""

    def __init__(self, fleet: Iterable[NodeState]) -> None:
        self._nodes: dict[str, Node] = {}
        for state in sorted(fleet, key=lambda state: state.name):
            if state.name in self._nodes:
                raise ValueError(f"node {state.name} is in the fleet twice: name each node once")
            self._nodes[state.name] = Node(state)
        self._free = sum(len(node.free) for node in self._nodes.values())
        self._touched: set[str] = set()
        """Nodes of which something was taken or released here."""
        self._asked: set[Demand] = set()
        self._trees: dict[Level, Tree] = {}
        self._domains: dict[Level, list[Domain]] = {}

    def renew(self, changed: Mapping[str, NodeState | None]) -> bool:
        """Take in the nodes that changed, as they are now; the others are as they were, whatever was taken here. False
        if it takes a new board, because nodes came, went (None) or moved, or because this one has grown.
        """
        if len(self._asked) > _MANY:
            return False
        for name, state in changed.items():
            node = self._nodes.get(name)
            if node is None and state is None:
                continue
            if node is None or state is None or not (node.state is state or _same_place(node.state, state)):
                return False
            if node.state is not state:
                node.state = state
                self._touched.add(name)
        for name in list(self._touched):
            node = self._nodes[name]
            node.holders = node.state.used_by
            self._change(node, () if node.state.closed else node.state.free)
        self._touched.clear()
        return True

    def place(self, gang: Gang) -> Placement | Refusal:
        """Where a gang would go. It takes nothing yet."""
        query = Query(gang)
        self._asked.add(query.demand)
        found = self._find(query)
        if not found:
            return Refusal(gang.name, reasons(_widest(gang), self._domains_of(gang.level)))
        return self._placement(query, found)

    def take(self, placement: Placement) -> None:
        """A gang has what was found for it."""
        for name, chips in _by_node(placement).items():
            node = self._node(name)
            if not chips <= set(node.free):
                raise ValueError(f"node {name} has not all of {sorted(chips)} free: place gang {placement.gang} anew")
            self._change(node, set(node.free) - chips)
            node.holders += (f"gang {placement.gang}",)

    def release(self, placement: Placement) -> None:
        """A gang that had taken a placement is gone."""
        for name, chips in _by_node(placement).items():
            node = self._node(name)
            if f"gang {placement.gang}" not in node.holders:
                raise ValueError(f"gang {placement.gang} has nothing on node {name}: release what was taken, once")
            first = node.holders.index(f"gang {placement.gang}")
            node.holders = node.holders[:first] + node.holders[first + 1 :]
            self._change(node, set(node.free) | chips)

    def consider(self, gang: Gang) -> tuple[Considered, ...]:
        """All domains of the gang's level, the most promising first."""
        domains = self._domains_of(gang.level)
        if gang.level not in NETWORK_LEVELS:
            return considered(Query(gang), domains)
        fits = self._tree(gang.level).units.fits(Query(gang))
        whole = {unit.nodes[0].state.domains[gang.level] for _, alike in fits for unit in alike}
        return considered(_widest(gang), domains, whole=whole)

    # --- looking

    def _find(self, query: Query) -> list[tuple[Node, int]]:
        if query.fewest_chips > self._free:
            return []  # a fleet that is full need not be looked at any closer
        if query.level in NETWORK_LEVELS:
            return self._in_network(query)
        return self._in_one_unit(self._units, query)

    def _in_network(self, query: Query) -> list[tuple[Node, int]]:
        tree = self._tree(query.level)
        found = self._in_one_unit(tree.units, query)
        query = _widest(query.gang)
        for tier in tree.tiers:
            if found:
                break
            asked = (group for group in tier if query.of_kind(group.kind))
            roomy = [group for group in asked if group.room(query) >= query.gang.size]
            # best fit: the fewest whole nodes, then chips, left
            tightest = min(roomy, key=lambda group: (*group.sums(), group.id), default=None)
            found = _spread(tightest, query, query.gang.size) if tightest else []
        return found

    def _in_one_unit(self, units: Units, query: Query) -> list[tuple[Node, int]]:
        fits = list(units.fits(query))
        if not fits:
            return []
        best = min(fit.score for fit, _ in fits)
        equal = [unit for fit, alike in fits if fit.score == best for unit in alike]
        top, middle, closest = self._whole

        def left(unit: Unit) -> tuple[int, int, int, int]:
            one, two, three = unit.networks
            return closest[three], middle[two], top[one], unit.number

        chosen = min(equal, key=left)
        return _in_unit(chosen, query, query.gang.size)

    def _placement(self, query: Query, found: Sequence[tuple[Node, int]]) -> Placement:
        gang = query.gang
        nodes = [node for node, pods in found for _ in range(pods)]
        first = nodes[0].state
        return Placement(
            gang=gang.name,
            nodes=tuple(node.state.name for node in nodes),
            cost=ring_cost([node.state for node in nodes]),
            domain=first.name if gang.level in ("node", "row") else first.domains[gang.level],
            chips=tuple(chips for node, pods in found for chips in _chips(query, node, pods)),
        )

    # --- what is known

    @cached_property
    def _whole(self) -> list[Counter[str | None]]:
        """Whole nodes below each network node, of each layer."""
        whole = [node.state.domains for node in self._nodes.values() if node.whole]
        return [Counter([domains.get(level) for domains in whole]) for level in NETWORK_LEVELS]

    @cached_property
    def _units(self) -> Units:
        return Units(self._nodes.values())

    def _tree(self, level: Level) -> Tree:
        if level not in self._trees:
            self._trees[level] = make_tree(self._nodes.values(), level)
        return self._trees[level]

    def _domains_of(self, level: Level) -> list[Domain]:
        if level not in self._domains:
            self._domains[level] = make_domains(self._nodes.values(), level)
        return self._domains[level]

    def _node(self, name: str) -> Node:
        try:
            return self._nodes[name]
        except KeyError:
            raise ValueError(f"node {name} is not in the fleet: make a new board of the fleet of now") from None

    def _change(self, node: Node, free: Iterable[int]) -> None:
        before, whole, had = node.whole, self._whole, len(node.free)
        node.change(free)
        self._free += len(node.free) - had
        self._touched.add(node.state.name)
        for level, counted in zip(NETWORK_LEVELS, whole, strict=True):
            counted[node.state.domains.get(level)] += node.whole - before


def place(fleet: Sequence[NodeState], gang: Gang) -> Placement | Refusal:
    """Where a gang goes: all of its pods, in one domain of its level, or the reasons why not.

    It is refused only if no domain has room. Among those that have, see above which one it gets. The order of `fleet`
    does not matter, equal questions have equal answers, and nothing is kept. Pods share nodes where their chips fit,
    unless the gang wants whole nodes or is spread; pods without chips need nothing of a node. CPU, memory and
    whatever else a scheduler looks at are the caller's to leave out by `Gang.nodes`.
    """
    return Board(fleet).place(gang)


def place_all(fleet: Sequence[NodeState], gangs: Iterable[Gang]) -> list[Placement | Refusal]:
    """The same for many gangs, in the order of their arrival: each sees what those before it took."""
    board = Board(fleet)
    answers = []
    for gang in gangs:
        answer = board.place(gang)
        if isinstance(answer, Placement):
            board.take(answer)
        answers.append(answer)
    return answers


def consider(fleet: Sequence[NodeState], gang: Gang) -> tuple[Considered, ...]:
    """All domains of a gang's level, the most promising first, with what each lacks."""
    return Board(fleet).consider(gang)


def _widest(gang: Gang) -> Query:
    """A gang as far apart as its level lets it be."""
    return Query(gang, across=gang.level in NETWORK_LEVELS)


def _spread(group: Group, query: Query, pods: int) -> list[tuple[Node, int]]:
    """So many pods under a network node, of which there must be room for all."""
    if group.groups:
        rooms = [part.room(query) for part in group.groups]
        return [
            found
            for index, of_part in sorted(fill(rooms, pods, key=lambda index, _: group.groups[index].sums()))
            for found in _spread(group.groups[index], query, of_part)
        ]
    rooms = [unit.room(query) for unit in group.units]

    def loss(index: int, rest: int) -> tuple[int, ...]:
        fit = group.units[index].fit(query, rest)
        return fit.score if fit else ()

    return [
        found
        for index, of_unit in sorted(fill(rooms, pods, key=loss))
        for found in _in_unit(group.units[index], query, of_unit)
    ]


def _in_unit(unit: Unit, query: Query, pods: int) -> list[tuple[Node, int]]:
    fit = unit.fit(query, pods)
    return [(node, count) for node, count in zip(unit.nodes, fit.taken, strict=True) if count] if fit else []


def _chips(query: Query, node: Node, pods: int) -> list[tuple[int, ...]]:
    run = query.run(node) if query.demand.row else None
    free = run[1] if run else node.free
    each = node.state.chips if query.demand.whole else query.demand.chips
    return [free[pod * each : (pod + 1) * each] for pod in range(pods)]


def _same_place(one: NodeState, other: NodeState) -> bool:
    def place(state: NodeState) -> tuple[object, ...]:
        return state.chips, state.instance_type, state.position, state.domains

    return place(one) == place(other)


def _by_node(placement: Placement) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {}
    for name, chips in zip(placement.nodes, placement.chips, strict=True):
        found.setdefault(name, set()).update(chips)
    return found
