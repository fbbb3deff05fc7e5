"""The fleet as placement looks at it: nodes, in units, under network nodes, with what was found out about them.

Three views of the same nodes, each made when it is first needed: units (an UltraServer, or a node that is in none),
trees of network nodes with units at the bottom, and the domains of a level, for people. Answers are kept where they
were found, and a node that changes clears those above it, so that one gang costs what it touches.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, lru_cache
from typing import Protocol, TypeAlias

from neuron_operator.placement.fitting import Demand, Fit, Shape, State, best_fit, room
from neuron_operator.placement.model import Gang, Level, NodeState
from neuron_operator.placement.rows import choose_run, longest_run, rows
from neuron_operator.placement.ways import ultraserver_type

Kind: TypeAlias = tuple[str, int]
"""Instance type and number of chips: what the nodes of a gang have in common."""

NETWORK_LEVELS: tuple[Level, ...] = ("network-1", "network-2", "network-3")
"""From the top."""


class Remembers(Protocol):
    """Has answers that are wrong once one of its nodes changed."""

    def forget(self) -> None:
        """Drop them."""


class Node:
    """A node and its free chips of now."""

    __slots__ = ("free", "holders", "state", "watchers")

    def __init__(self, state: NodeState) -> None:
        self.state = state
        self.free: tuple[int, ...] = () if state.closed else _ascending(state.free)
        self.holders = state.used_by
        # tuples, because thousands of empty lists would keep the garbage collector busy
        self.watchers: tuple[Remembers, ...] = ()

    @property
    def kind(self) -> Kind:
        """What it must have in common with the other nodes of a gang."""
        return self.state.instance_type, self.state.chips

    @property
    def whole(self) -> bool:
        """Nobody has a chip of it."""
        return len(self.free) == self.state.chips > 0

    def tell(self, watcher: Remembers) -> None:
        """Have it forget from now on when the node changes."""
        self.watchers += (watcher,)

    def change(self, free: Iterable[int]) -> None:
        """Other chips are free from now on."""
        self.free = tuple(sorted(free))
        for watcher in self.watchers:
            watcher.forget()


class Query:
    """A gang, as it is asked of every node and unit."""

    def __init__(self, gang: Gang, *, across: bool = False) -> None:
        """`across`: for more than one unit, so that its traffic goes over EFA."""
        self.gang = gang
        self.level = gang.level
        within = gang.level if gang.level == "ultraserver-2" else "node" if gang.level in ("node", "row") else "unit"
        self.demand = Demand(
            pods=gang.size,
            chips=gang.chips,
            whole=gang.whole_nodes,
            spread=gang.spread,
            within=within,
            row=gang.level == "row" and (gang.chips > 0 or gang.whole_nodes),
            network=across or gang.efa,
        )
        self._needs_domain = gang.level not in ("node", "row")
        self.cacheable = gang.nodes is None

    @cached_property
    def everywhere(self) -> "Query":
        """The same for a gang that may go to any node."""
        found = copy(self)
        found.gang, found.cacheable = replace(self.gang, nodes=None), True
        return found

    @property
    def fewest_chips(self) -> int:
        """Without so many free ones the gang fits nowhere."""
        return self.gang.size * (1 if self.gang.whole_nodes else self.gang.chips)

    def of_kind(self, kind: Kind) -> bool:
        """Whether the gang may have such nodes."""
        return self.gang.instance_type in (None, kind[0])

    def out_of_reach(self, node: Node) -> bool:
        """Whether it lacks the network that the gang needs."""
        return node.state.cut_off and self.demand.network

    def may_use(self, node: Node) -> bool:
        """Whether pods of the gang may go there at all, full or not."""
        state = node.state
        if self._needs_domain and self.level not in state.domains:
            return False
        return self.gang.nodes is None or state.name in self.gang.nodes

    def row_chips(self, node: Node) -> int:
        """Chips that the gang needs beside one another."""
        return self.gang.size * (node.state.chips if self.gang.whole_nodes else self.gang.chips)

    def run(self, node: Node) -> tuple[bool, tuple[int, ...]] | None:
        """The gang's chips in one row of a node, and whether that breaks a whole row."""
        return choose_run(*node.kind, node.free, self.row_chips(node))

    def room(self, node: Node) -> int:
        """How many of the pods fit on a node now."""
        if node.state.closed or self.out_of_reach(node) or not self.may_use(node):
            return 0
        most = room(len(node.free), node.state.chips, self.demand)
        if not self.demand.row:
            return most
        return min(most, longest_run(*node.kind, node.free) // (self.row_chips(node) // self.gang.size))

    def room_if_empty(self, kind: Kind) -> int:
        """How many of the pods fit on an empty node."""
        name, chips = kind
        most = int(chips > 0) if self.demand.whole else room(chips, chips, self.demand)
        if not self.demand.row or not most:
            return most
        return min(most, max(map(len, rows(name, chips))) // (chips if self.demand.whole else self.demand.chips))


class Unit:
    """An UltraServer, or a node that is in none."""

    __slots__ = ("_rooms", "id", "kind", "names", "networks", "nodes", "number", "shape", "stale")

    def __init__(self, number: int, identity: str, nodes: Sequence[Node], stale: set["Unit"]) -> None:
        self.number = number
        """Its place in the order of ids."""
        self.id = identity
        self.nodes = sorted(nodes, key=_by_position)
        self.names = tuple([node.state.name for node in self.nodes])
        self.kind: Kind = self.nodes[0].kind
        self.shape = _shape(self.nodes)
        self.networks = tuple([self.nodes[0].state.domains.get(level) for level in NETWORK_LEVELS])
        self.stale = stale
        """Where it puts itself when a node changes."""
        self._rooms: dict[Demand, int] | None = None

    @property
    def likeness(self) -> Hashable:
        """Equal for units that are the same to every gang that may go to any node."""
        parts: list[Hashable] = [self.shape]
        for node in self.nodes:
            domains = node.state.domains
            parts += (node.free, node.state.closed is None, node.state.cut_off)
            parts += ("ultraserver" in domains, "ultraserver-2" in domains)
        return tuple(parts)

    def room(self, query: Query) -> int:
        """How many pods of the gang fit here, at most all."""
        if self._rooms is None:
            self._rooms = {}
        found = self._rooms.get(query.demand) if query.cacheable else None
        if found is None:
            found = min(query.demand.pods, sum(map(query.room, self.nodes)))
            if query.cacheable:
                self._rooms[query.demand] = found
        return found

    def forget(self) -> None:
        """A node changed."""
        self._rooms = None
        self.stale.add(self)

    def fit(self, query: Query, pods: int) -> Fit | None:
        """The best way to have so many pods of a gang here."""
        demand = query.demand._replace(pods=pods)
        usable = [not (node.state.closed or query.out_of_reach(node)) and query.may_use(node) for node in self.nodes]
        breaks_row: tuple[bool, ...] = ()
        if demand.row:
            runs = [query.run(node) for node in self.nodes]
            usable = [so_far and run is not None for so_far, run in zip(usable, runs, strict=True)]
            breaks_row = tuple(run is not None and run[0] for run in runs)
        state: State = tuple(
            [len(node.free) if may else ~len(node.free) for node, may in zip(self.nodes, usable, strict=True)]
        )
        return best_fit(self.shape, state, breaks_row, demand)


@dataclass(slots=True, eq=False)
class Alike:
    """Units that are the same to a gang, and what was found for one of them."""

    units: set[Unit] = field(default_factory=set)
    _fits: dict[Demand, Fit | None] = field(default_factory=dict)

    @property
    def kind(self) -> Kind:
        """Of all of them."""
        return next(iter(self.units)).kind

    def fit(self, query: Query) -> Fit | None:
        """The best way to have a gang in one of them."""
        try:
            return self._fits[query.demand]
        except KeyError:
            found = self._fits[query.demand] = next(iter(self.units)).fit(query, query.gang.size)
            return found


class Units:
    """Units, and which of them are alike: a fleet of thousands has some tens of different ones."""

    def __init__(self, nodes: Iterable[Node], apart: Sequence[Level] = ()) -> None:
        """By their UltraServers, in the order of ids; nodes in different domains of the levels `apart` are apart."""
        members: dict[tuple[str | int, ...], list[Node]] = {}
        for node in nodes:
            state = node.state
            domains = state.domains
            identity = domains.get("ultraserver") or domains.get("ultraserver-2") or state.name
            place = [domains.get(level, "") for level in apart] if apart else ()
            members.setdefault((state.instance_type, state.chips, *place, identity), []).append(node)
        self._stale: set[Unit] = set()
        self._all = [
            Unit(number, str(key[-1]), members[key], self._stale) for number, key in enumerate(sorted(members))
        ]
        self._stale.update(self._all)
        self._alike: dict[Hashable, Alike] = {}
        self._class_of: dict[Unit, Hashable] = {}
        for unit in self._all:
            for node in unit.nodes:
                node.tell(unit)

    def __iter__(self) -> Iterator[Unit]:
        return iter(self._all)

    def fits(self, query: Query) -> Iterator[tuple[Fit, Iterable[Unit]]]:
        """Where a gang fits, and how. To units of which it may use all nodes, it is a gang that may go anywhere."""
        allowed = query.gang.nodes
        for alike in self._classes():
            units = alike.units if allowed is None else [unit for unit in alike.units if allowed.issuperset(unit.names)]
            if units and query.of_kind(alike.kind) and (fit := alike.fit(query.everywhere)):
                yield fit, units
        if allowed is not None:
            partly = (unit for unit in self._all if 0 < sum(name in allowed for name in unit.names) < len(unit.names))
            for unit in partly:
                if query.of_kind(unit.kind) and (fit := unit.fit(query, query.gang.size)):
                    yield fit, (unit,)

    def _classes(self) -> Iterable[Alike]:
        while self._stale:
            unit = self._stale.pop()
            before = self._class_of.get(unit)
            if before is not None:
                self._alike[before].units.remove(unit)
                if not self._alike[before].units:
                    del self._alike[before]
            now = self._class_of[unit] = unit.likeness
            self._alike.setdefault(now, Alike()).units.add(unit)
        return self._alike.values()


@dataclass(slots=True, eq=False)
class Group:
    """A network node, with what is below it."""

    level: Level
    id: str
    kind: Kind
    groups: list["Group"] = field(default_factory=list)
    units: list[Unit] = field(default_factory=list)
    """Directly below it."""
    _rooms: dict[Demand, int] = field(default_factory=dict)
    _sums: tuple[int, int] | None = None

    def room(self, query: Query) -> int:
        """How many pods of the gang fit here, at most all."""
        found = self._rooms.get(query.demand) if query.cacheable else None
        if found is None:
            in_groups = sum(group.room(query) for group in self.groups)
            found = min(query.demand.pods, in_groups + sum(unit.room(query) for unit in self.units))
            if query.cacheable:
                self._rooms[query.demand] = found
        return found

    def sums(self) -> tuple[int, int]:
        """Whole nodes and free chips."""
        if self._sums is None:
            parts = [group.sums() for group in self.groups]
            parts += [
                (sum(node.whole for node in unit.nodes), sum(len(node.free) for node in unit.nodes))
                for unit in self.units
            ]
            self._sums = sum(whole for whole, _ in parts), sum(free for _, free in parts)
        return self._sums

    def forget(self) -> None:
        """A node below it changed."""
        self._rooms.clear()
        self._sums = None


@dataclass(slots=True)
class Tree:
    """The network nodes of one level, and all that are below."""

    units: Units
    tiers: list[list[Group]]
    """The groups of each level, the lowest level first; the last are the level's own domains."""


@dataclass(slots=True, eq=False)
class Domain:
    """A domain of a level, as people are told about it."""

    id: str
    kind: Kind
    nodes: list[Node]
    _promises: dict[Demand, tuple[bool, int, int, str]] = field(default_factory=dict)

    def promise(self, query: Query) -> tuple[bool, int, int, str]:
        """Less is more promising: it could hold the gang, then it holds most of it now."""
        found = self._promises.get(query.demand) if query.cacheable else None
        if found is None:
            size = query.gang.size
            nodes = len(self.nodes) if query.cacheable else sum(map(query.may_use, self.nodes))
            if_empty = min(size, nodes * query.room_if_empty(self.kind))
            found = if_empty < size, -min(size, sum(map(query.room, self.nodes))), -if_empty, self.id
            if query.cacheable:
                self._promises[query.demand] = found
        return found

    def room(self, query: Query) -> int:
        """How many pods of the gang fit here, at most all."""
        return -self.promise(query)[1]

    def room_if_empty(self, query: Query) -> int:
        """How many would if nothing were used and nothing closed."""
        return -self.promise(query)[2]

    def forget(self) -> None:
        """A node changed."""
        self._promises.clear()


def make_tree(nodes: Iterable[Node], level: Level) -> Tree:
    """Nodes that have the level, under the network nodes from that level downwards.

    An UltraServer of which some nodes are under another network node is two units here, so that no gang straddles.
    """
    levels = NETWORK_LEVELS[NETWORK_LEVELS.index(level) :]
    places: dict[Kind, dict[tuple[str, ...], list[Unit]]] = {}
    units = Units([node for node in nodes if level in node.state.domains], levels)
    for unit in units:
        domains = unit.nodes[0].state.domains
        place = tuple(domains.get(step, "") for step in levels)
        places.setdefault(unit.kind, {}).setdefault(place, []).append(unit)
    tree = Tree(units, [[] for _ in levels])
    for kind, by_place in sorted(places.items()):
        _add_groups(tree, kind, by_place, levels)
    return tree


def _add_groups(
    tree: Tree, kind: Kind, by_place: Mapping[tuple[str, ...], Sequence[Unit]], levels: Sequence[Level]
) -> None:
    groups: dict[tuple[str, ...], Group] = {}
    for place, units in sorted(by_place.items()):
        for depth, step in enumerate(levels, start=1):
            if place[:depth] not in groups:
                group = groups[place[:depth]] = Group(step, place[depth - 1], kind)
                tree.tiers[len(levels) - depth].append(group)
                if depth > 1:
                    groups[place[: depth - 1]].groups.append(group)
            for unit in units:
                for node in unit.nodes:
                    node.tell(groups[place[:depth]])
        groups[place].units += units


def make_domains(nodes: Iterable[Node], level: Level) -> list[Domain]:
    """The domains of a level."""
    members: dict[tuple[Kind, str], list[Node]] = {}
    for node in nodes:
        identity = node.state.name if level in ("node", "row") else node.state.domains.get(level)
        if identity is not None:
            members.setdefault((node.kind, identity), []).append(node)
    found = [
        Domain(identity, kind, sorted(here, key=_by_position)) for (kind, identity), here in sorted(members.items())
    ]
    for domain in found:
        for node in domain.nodes:
            node.tell(domain)
    return found


def _by_position(node: Node) -> tuple[int, str]:
    position = node.state.position
    return (-1 if position is None else position, node.state.name)


def _shape(nodes: Sequence[Node]) -> Shape:
    first = nodes[0].state
    numbers: dict[str, int] = {}
    pairs = []
    for node in nodes:
        # no id begins with a slash
        pair = node.state.domains.get("ultraserver-2") or f"/{node.state.name}"
        pairs.append(numbers.setdefault(pair, len(numbers)))
    return Shape(
        *nodes[0].kind,
        tuple([node.state.position for node in nodes]),
        tuple(pairs),
        complete=len(nodes) > 1 and len(nodes) >= _servers(first.instance_type),
    )


@cache
def _servers(type_name: str) -> int:
    """Nodes that an UltraServer must have to be complete; 0: not known."""
    kind = ultraserver_type(type_name)
    return kind.servers if kind else 0


@lru_cache(maxsize=1 << 14)
def _ascending(chips: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(set(chips)))
