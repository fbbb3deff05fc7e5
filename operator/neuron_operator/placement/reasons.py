"""Why a gang does not fit, in sentences that name what to free or to change."""

from collections.abc import Collection, Iterable, Sequence
from typing import Final

from neuron_operator.placement.index import Domain, Node, Query
from neuron_operator.placement.model import LEVELS, Considered, Level

_NOUNS: Final[dict[Level, tuple[str, str]]] = {
    "node": ("node", "nodes"),
    "row": ("row of a node", "nodes"),
    "ultraserver-2": ("pair of an UltraServer", "pairs of UltraServers"),
    "ultraserver": ("UltraServer", "UltraServers"),
    "network-3": ("network node of layer 3", "network nodes of layer 3"),
    "network-2": ("network node of layer 2", "network nodes of layer 2"),
    "network-1": ("network node of layer 1", "network nodes of layer 1"),
}
_NAMED: Final = 4
"""Nodes that one sentence names; of the others it gives the number."""


def reasons(query: Query, domains: Sequence[Domain]) -> tuple[str, ...]:
    """Why no domain has room, the most helpful sentence first."""
    gang = query.gang
    noun, nouns = _NOUNS[gang.level]
    asked = [domain for domain in domains if query.of_kind(domain.kind)]
    if gang.nodes is not None:
        asked = [domain for domain in asked if any(map(query.may_use, domain.nodes))]
    if not asked:
        return (_nothing_to_ask(query, domains, nouns),)
    best = min(asked, key=lambda domain: domain.promise(query))
    room, if_empty = best.room(query), best.room_if_empty(query)
    where = _where(gang.level, best)
    if if_empty < gang.size:
        return (
            f"No {noun} can ever hold {_wish(query)}: {len(asked)} {nouns} considered, and {where} has room for "
            f"{if_empty} even when it is empty. {_advice(query)}",
        )
    return (
        f"No {noun} has room for {_wish(query)}: {len(asked)} {nouns} considered, and the best, {where}, "
        f"has room for {room}.",
        _state_of(query, best),
        _what_to_free(query, best),
    )


def considered(query: Query, domains: Iterable[Domain], *, whole: Collection[str] = ()) -> tuple[Considered, ...]:
    """Every domain that was considered, the most promising first. `whole`: those of which one UltraServer has room for
    all of the gang.
    """
    asked = [domain for domain in domains if query.of_kind(domain.kind)]
    return tuple(
        Considered(
            level=query.gang.level,
            domain=domain.id,
            nodes=tuple(node.state.name for node in domain.nodes),
            room=query.gang.size if domain.id in whole else domain.room(query),
            room_if_empty=domain.room_if_empty(query),
            lacks=() if domain.id in whole else _lacks(query, domain),
        )
        for domain in sorted(asked, key=lambda domain: (domain.id not in whole, domain.promise(query)))
    )


def _nothing_to_ask(query: Query, domains: Sequence[Domain], nouns: str) -> str:
    gang = query.gang
    if gang.nodes is not None and any(query.of_kind(domain.kind) for domain in domains):
        return (
            f"None of the {len(gang.nodes)} nodes that gang {gang.name} may go to is in one of the {nouns}: "
            "change its selector, affinity or tolerations, or its level."
        )
    kind = f" of type {gang.instance_type}" if gang.instance_type else ""
    return f"The fleet has no {nouns}{kind}: change the level or the instance type of gang {gang.name}, or add nodes."


def _lacks(query: Query, domain: Domain) -> tuple[str, ...]:
    if domain.room(query) >= query.gang.size:
        return ()
    full = query.room_if_empty(domain.kind)
    lacks = [f"Node {_says(query, node)}." for node in domain.nodes if query.room(node) < full]
    if domain.room_if_empty(query) < query.gang.size:
        lacks.append(f"Even when it is empty there is room for {domain.room_if_empty(query)} of {query.gang.size}.")
    return tuple(lacks)


def _state_of(query: Query, domain: Domain) -> str:
    full = query.room_if_empty(domain.kind)
    short = [node for node in domain.nodes if query.room(node) < full]
    named = "; ".join(f"node {_says(query, node)}" for node in short[:_NAMED])
    more = f"; and {len(short) - _NAMED} more" if len(short) > _NAMED else ""
    if len(domain.nodes) == 1:
        return _sentence(named)
    return _sentence(
        f"{_where(query.gang.level, domain)}: {len(domain.nodes) - len(short)} of {len(domain.nodes)} nodes free; "
        f"{named}{more}"
    )


def _what_to_free(query: Query, domain: Domain) -> str:
    """The fewest nodes that would make room, open ones first."""
    missing = query.gang.size - domain.room(query)
    full = query.room_if_empty(domain.kind)
    gains = sorted(
        ((full - query.room(node), node) for node in domain.nodes if query.may_use(node) and query.room(node) < full),
        key=lambda item: (item[1].state.closed is not None, -item[0], item[1].state.name),
    )
    chosen = []
    for gain, node in gains:
        if missing <= 0:
            break
        chosen.append(node)
        missing -= gain
    names = [f"{node.state.name} ({_in_the_way(query, node)})" for node in chosen]
    listed = _listed(names) if len(names) <= _NAMED else f"{', '.join(names[:_NAMED])} and {len(names) - _NAMED} more"
    return f"It would fit there if {listed} {'was' if len(names) == 1 else 'were'} free."


def _in_the_way(query: Query, node: Node) -> str:
    if node.state.closed:
        return node.state.closed
    if query.out_of_reach(node):
        return "without an EFA card that works"
    return f"used by {_listed(node.holders)}" if node.holders else f"{len(node.free)} of {node.state.chips} chips free"


def _says(query: Query, node: Node) -> str:
    """What a node lacks, as the end of a sentence that begins with its name."""
    state = node.state
    if not query.may_use(node):
        return f"{state.name} is not among the nodes that the gang may go to"
    if state.closed:
        return f"{state.name} is {state.closed}"
    if query.out_of_reach(node):
        needs = "its pods claim some" if query.gang.efa else "between UltraServers the gang's traffic goes over them"
        return f"{state.name} has no EFA card that works, and {needs}"
    users = f", used by {_listed(node.holders)}" if node.holders else ""
    said = f"{state.name} has {len(node.free)} of {state.chips} chips free{users}"
    if query.demand.row and len(node.free) >= query.row_chips(node):
        said += f", but no {query.row_chips(node)} beside one another in one row"
    return said


def _wish(query: Query) -> str:
    gang = query.gang
    pods = "1 pod" if gang.size == 1 else f"{gang.size} pods"
    chips = f"{gang.chips} chip{'s' if gang.chips != 1 else ''}"
    if gang.whole_nodes:
        what = " with a whole node each" if gang.size > 1 else " with a whole node"
    elif gang.chips:
        what = f" with {chips} each" if gang.size > 1 else f" with {chips}"
    else:
        what = ""
    apart = " on different nodes" if gang.spread and not gang.whole_nodes and gang.size > 1 else ""
    return f"gang {gang.name}, {pods}{what}{apart}"


def _advice(query: Query) -> str:
    farther = LEVELS[LEVELS.index(query.level) + 1 :]
    if query.level == "row":
        farther = ("node", *farther)
    wider = f", or for a level farther out, such as {farther[0]}" if farther else ""
    return f"Ask for fewer pods or chips{wider}."


def _where(level: Level, domain: Domain) -> str:
    return domain.id if level in ("node", "row") else f"{_NOUNS[level][0]} {domain.id}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
