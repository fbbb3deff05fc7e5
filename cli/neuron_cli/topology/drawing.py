"""The fleet on a terminal.

A character for each chip, in rows as the chips are wired: a letter is who holds it, `·` is free, `x` broken, `/` where
a link is down. What a letter means stands at the end of the node's line, so that a line that `grep` found says all.
Colours only repeat it.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from string import ascii_letters

from neuron_device_model.catalog import UnknownInstanceType, instance_type
from rich.text import Text

from neuron_cli import render
from neuron_cli.topology.view import Chip, FleetView, NodeView, summary

# Nodes, and UltraServers, that are drawn one by one without being asked for.
NODES, LINES = 64, 40
COLOURS = ("cyan", "magenta", "blue", "green", "yellow", "bright_cyan", "bright_magenta", "bright_blue")
LAYERS = 3


def draw(fleet: FleetView, *, everything: bool) -> None:
    """Print the fleet, or what it comes to if it is large."""
    render.drawing(lines(fleet, everything=everything))


def lines(fleet: FleetView, *, everything: bool) -> Iterator[Text]:
    """The lines of the drawing."""
    yield Text(headline(fleet), style="bold")
    if everything or len(fleet.nodes) <= NODES:
        yield from _nodes(fleet)
        yield Text(
            "· free   letter: who holds it (capital: some of its cores)   / a link is down   x broken", style="dim"
        )
    else:
        yield from _pools(fleet)
        yield from _worth_a_look(fleet)
        yield Text("")
        yield Text(
            f"{len(fleet.nodes)} nodes are not drawn one by one: --ultraserver ID, --node NODE, --pool POOL, or --all"
        )


def headline(fleet: FleetView) -> str:
    """The fleet in a line."""
    found = summary(fleet)
    text = (
        f"{_count(found['nodes'], 'node')}, {_count(found['chips'], 'chip')}: {found['chips_free']:,} free,"
        f" {found['chips_used']:,} used, {found['chips_cut']:,} cut into cores, {found['chips_broken']:,} broken"
    )
    if found["chips_unlinked"]:
        text += f", {found['chips_unlinked']:,} without a link"
    if found["nodes_not_ready"]:
        text += f"; {_count(found['nodes_not_ready'], 'node')} not ready"
    if found["ultraservers"]:
        text += f"; {_count(found['ultraservers'], 'UltraServer')}, {found['ultraservers_untouched']:,} wholly free"
    if found["ultraservers_degraded"]:
        text += f", {found['ultraservers_degraded']:,} degraded"
    return text


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def _nodes(fleet: FleetView) -> Iterator[Text]:
    servers = {each.id: each for each in fleet.ultraservers}
    width = max((len(node.name) for node in fleet.nodes), default=0)
    above: tuple[str, ...] = ()
    within: str | None = None
    for node in fleet.nodes:
        layers = node.network_nodes[:LAYERS]
        for depth, name in enumerate(layers):
            if layers[: depth + 1] != above[: depth + 1]:
                yield Text(f"{'  ' * depth}{name}  (network layer {depth + 1})", style="dim")
                within = None
        above = layers
        indent = "  " * len(layers)
        if node.ultraserver and node.ultraserver != within and node.ultraserver in servers:
            server = servers[node.ultraserver]
            members = [each for each in fleet.nodes if each.ultraserver == server.id]
            free, chips = sum(each.free for each in members), sum(len(each.chips) for each in members)
            block = f", capacity block {server.capacity_block}" if server.capacity_block else ""
            text = Text.assemble(
                indent,
                (f"UltraServer {server.id}", "bold"),
                f"  {server.instance_type}, {free} of {chips} chips free{block}",
            )
            if server.lacks:
                text.append(f"  degraded: {'; '.join(server.lacks)}", style="red")
            yield text
        within = node.ultraserver
        yield _node(node, indent + ("  " if node.ultraserver else ""), width)


def _node(node: NodeView, indent: str, width: int) -> Text:
    holders = list(dict.fromkeys(tuple(chip.held_by) for chip in node.chips if chip.held_by))
    marks = {holder: ascii_letters[number % 26] for number, holder in enumerate(holders)}
    text = Text(indent)
    if node.position is not None:
        text.append(f"{node.position:>2} ")
    text.append(f"{node.name:<{width}}  ")
    row = _row(node)
    for chip in node.chips:
        if chip.number and chip.number % row == 0:
            text.append(" ")
        text.append(*_mark(chip, marks, holders))
    text.append(f"  {node.free:>2} free  {node.instance_type}")
    for holder, mark in marks.items():
        count = sum(tuple(chip.held_by) == holder for chip in node.chips)
        who = ", ".join(holder[:3]) + (f" and {len(holder) - 3} more" if holder[3:] else "")
        text.append(f"  {mark}={who} ({count})", style=COLOURS[holders.index(holder) % len(COLOURS)])
    for other in node.elsewhere:
        text.append(f"  {other}", style="cyan")
    for one, peer, fault in node.links:
        text.append(f"  /={fault}: link of chips {one} and {peer}", style="red")
    of_links = {fault for _, _, fault in node.links}
    for fault in dict.fromkeys(fault for chip in node.chips for fault in chip.faults if fault not in of_links):
        numbers = [str(chip.number) for chip in node.chips if fault in chip.faults]
        where = "the whole node" if len(numbers) == len(node.chips) else f"chip {', '.join(numbers)}"
        text.append(f"  x={fault}: {where}", style="red")
    for card in node.cards:
        text.append(f"  {card}", style="red")
    if not node.ready:
        text.append(f"  not ready: {node.why}", style="red")
    return text


def _mark(chip: Chip, marks: dict[tuple[str, ...], str], holders: Sequence[tuple[str, ...]]) -> tuple[str, str]:
    if chip.state in ("broken", "unlinked"):
        return "x" if chip.state == "broken" else "/", "bold red"
    if chip.state == "free":
        return "·", "dim"
    holder = tuple(chip.held_by)
    mark = marks[holder]
    return (mark.upper() if chip.state == "cut" else mark), COLOURS[holders.index(holder) % len(COLOURS)]


def _row(node: NodeView) -> int:
    """Chips in a row of the torus, else four."""
    try:
        kind = instance_type(node.instance_type)
    except UnknownInstanceType:
        return 4
    return kind.shape[-1] if kind.topology == "torus2d" else 4


def _pools(fleet: FleetView) -> Iterator[Text]:
    pools = Counter((node.pool, node.instance_type) for node in fleet.nodes)
    for (pool, kind), count in sorted(pools.items()):
        members = [node for node in fleet.nodes if (node.pool, node.instance_type) == (pool, kind)]
        chips = sum(len(node.chips) for node in members)
        free = sum(node.free for node in members)
        by_use = Counter("all" if n.untouched else "none" if n.free == 0 else "some" for n in members)
        yield Text("")
        yield Text(f"pool {pool}: {count:,} × {kind}, {free:,} of {chips:,} chips free")
        yield Text(
            f"  nodes with all chips free {by_use['all']:,}, with some {by_use['some']:,}, with none {by_use['none']:,}"
        )
        servers = [each for each in fleet.ultraservers if each.pool == pool and each.instance_type == kind]
        if servers:
            free_nodes = {node.name for node in members if node.untouched}
            wholly = Counter(len(free_nodes.intersection(each.members.values())) for each in servers)
            text = ", ".join(f"{number}: {wholly[number]:,}" for number in sorted(wholly, reverse=True))
            yield Text(f"  UltraServers by their wholly free nodes  {text}")


def _worth_a_look(fleet: FleetView) -> Iterator[Text]:
    degraded = [each for each in fleet.ultraservers if each.state == "Degraded"]
    alone = [node for node in fleet.nodes if not node.ultraserver and not node.ready]
    broken = [node for node in fleet.nodes if any(chip.state == "broken" for chip in node.chips)]
    for title, texts in (
        ("UltraServers that are degraded", [f"{each.id}: {'; '.join(each.lacks)}" for each in degraded]),
        ("nodes that are not ready", [f"{node.name}: {node.why}" for node in alone]),
        (
            "nodes with broken chips",
            [f"{n.name}: {', '.join(str(c.number) for c in n.chips if c.faults)}" for n in broken],
        ),
        (
            "nodes with links that are down",
            [f"{n.name}: {', '.join(f'{one}-{other}' for one, other, _ in n.links)}" for n in fleet.nodes if n.links],
        ),
        ("nodes with broken EFA cards", [f"{n.name}: {'; '.join(n.cards)}" for n in fleet.nodes if n.cards]),
    ):
        if texts:
            yield Text("")
            yield Text(f"{title}: {len(texts):,}", style="red")
            for line in texts[: LINES // 4]:
                yield Text(f"  {line}")
            if texts[LINES // 4 :]:
                yield Text(f"  … and {len(texts) - LINES // 4:,} more")
