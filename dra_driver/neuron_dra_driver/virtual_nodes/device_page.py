"""The devices' metrics of all virtual nodes, on one page: what an agent on each of them would show.

A page of a thousand nodes has more than a hundred thousand lines, and a family's lines have to stand together. So what
the busy nodes say is worked out node by node, and the page is written family by family while it is sent; it is never in
memory as a whole. Nodes where nothing runs say the same but for their names, so their lines are made once for all that
are alike. The event loop, which has fleets to publish, gets its turn every few milliseconds, and clients that come
within a second share what was worked out.

What nodes have no machine for is worked out, too: vCPUs and memory are the instance type's, and what is used of them is
what the processes say.
"""

import asyncio
import logging
import time
import zlib
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from ..activity.exposition import FAMILIES, Shown, System, families, head, instance_labels, labels_of
from ..activity.jobs import job_on
from ..activity.losses import replayed
from ..activity.reports import VCPU_USAGE, Report
from ..hardware.history import History
from ..kubeletplugin import HealthStatus
from ..node import SimulatedNode
from ..node import seat as seat_of
from ..reporting.device_health import device_health
from .workloads import Use, Workloads

FRESH = 1.0
"""Seconds that what was worked out is shared."""
TURN = 0.005
"""Seconds after which others get theirs."""
BLOCK = 1 << 18
"""Bytes that are sent at once, about."""

_ANY = "\0"
"""Stands for the labels of a node where nothing runs."""
_OF_AGENTS = {
    "neuron_sim_agent_published_devices": "Devices that this node offers.",
    "neuron_sim_agent_unhealthy_devices": "Offered devices of which a part is broken.",
    "neuron_sim_agent_prepared_claims": "Claims that pods on this node use.",
    "neuron_sim_agent_node_info": "What the node is; always 1.",
}
"""Of an agent's own metrics those that are about the node; dashboards and alerts ask for them."""

log = logging.getLogger(__name__)


@dataclass
class _Node:
    model: SimulatedNode
    node: SimulatedNode
    history: History

    @cached_property
    def name(self) -> str:
        """The label that has it."""
        return labels_of(node=self.node.name)

    @cached_property
    def labels(self) -> str:
        """Those of all its series."""
        return instance_labels(self.node, node=self.node.name)


@dataclass(slots=True)
class _Said:
    """What a node says."""

    labels: str
    """Where they are to be put in; empty: they are there already."""
    families: Mapping[str, str]
    of_agent: Mapping[str, str]


class DevicePage:
    """See the module."""

    def __init__(self, workloads: Workloads, *, clock: Callable[[], float]) -> None:
        """`clock`: seconds since the epoch."""
        self._workloads = workloads
        self._clock = clock
        self._nodes: dict[str, _Node] = {}
        self._idle: dict[int, tuple[SimulatedNode, Mapping[str, str]]] = {}
        self._pages: dict[tuple[int, int], list[_Said]] = {}
        """What was worked out a moment ago, by part and parts."""
        self._making = asyncio.Lock()

    def node_is(self, neuron_node: Mapping[str, Any], model: SimulatedNode) -> None:
        """A node as it is now; `model`: what all that are alike are."""
        name, spec = neuron_node["metadata"]["name"], neuron_node["spec"]
        known = self._nodes.get(name)
        history = known.history if known else _history(name, (neuron_node.get("status") or {}).get("hardwareRecord"))
        history.observe(
            spec.get("faults") or (),
            model.instance_type,
            now=self._clock(),
            oldest=self._workloads.oldest(name),
        )
        instance_id, seat = spec.get("instanceID") or model.instance_id, seat_of(spec.get("ultraServer"))
        if (
            known is None
            or known.model is not model
            or (known.node.instance_id, known.node.seat) != (instance_id, seat)
        ):
            node = replace(model, name=name, instance_id=instance_id, seat=seat)
            self._nodes[name] = _Node(model, node, history)

    def node_is_gone(self, name: str) -> None:
        """There is no such node any more, or nothing is known of its devices."""
        self._nodes.pop(name, None)

    def record(self, name: str) -> str:
        """What to keep of a node's counters; empty: nothing."""
        known = self._nodes.get(name)
        return known.history.record() if known else ""

    async def blocks(self, part: int = 0, parts: int = 1) -> AsyncGenerator[bytes, None]:
        """The page, piece by piece, heads alone. Of several parts each node is in one, always the same."""
        page = await self._page(part, parts)
        for name, text in _OF_AGENTS.items():
            yield f"# HELP {name} {text}\n# TYPE {name} gauge\n".encode()
            async for block in _gathered(said.of_agent[name] for said in page):
                yield block
        for name in FAMILIES:
            found = (_lines(said, name) for said in page)
            first = next((text for text in found if text), None)
            if first is None:
                continue
            yield head(name).encode()
            yield first.encode()
            async for block in _gathered(found):
                yield block

    async def _page(self, part: int, parts: int) -> list[_Said]:
        async with self._making:
            page = self._pages.get((part, parts))
            if page is None:
                page = []
                turn = time.monotonic()
                for name, known in list(self._nodes.items()):
                    if zlib.crc32(name.encode()) % parts == part:
                        page.append(self._said(known))
                    if time.monotonic() - turn > TURN:
                        await asyncio.sleep(0)
                        turn = time.monotonic()
                self._pages[part, parts] = page
                asyncio.get_running_loop().call_later(FRESH, self._pages.pop, (part, parts), None)
            return page

    def _said(self, known: _Node) -> _Said:
        now = self._clock()
        uses = list(self._workloads.on(known.node.name))
        of_agent = _of_agent(known, claims=len(uses))
        shown = [one for use in uses for one in self._shown(known, use, now)]
        if not shown and not known.history:
            return _Said(known.labels, self._of_idle(known.model), of_agent)
        counters = known.history.counters(known.model.instance_type, now=now)
        system = _system(known.model, [process for one in shown for process in one.processes])
        return _Said("", families(known.node, shown, system, counters, instance=known.labels), of_agent)

    def _of_idle(self, model: SimulatedNode) -> Mapping[str, str]:
        found = self._idle.get(id(model))
        if found is None or found[0] is not model:
            used = {id(known.model) for known in self._nodes.values()}
            self._idle = {key: value for key, value in self._idle.items() if key in used}
            found = self._idle[id(model)] = (model, families(model, (), _system(model, ()), {}, instance=_ANY))
        return found[1]

    def _shown(self, known: _Node, use: Use, now: float) -> Iterator[Shown]:
        wish = self._workloads.wish_of(use)
        if wish is None:
            return
        kind = known.model.instance_type
        pods = self._workloads.pods_of(use)
        for view in use.see(known.model):
            job = job_on(view, wish, kind.chip)
            loss, found = replayed(
                known.history.faults(),
                view,
                physical_cores=kind.chip.physical_cores,
                executions=job.executions,
                born=wish.since,
                now=now,
            )
            cores = [core for device in view["devices"] for core in device["core_ids"]]
            yield Shown(use.allocation.name, view, pods, [job.report(cores, now=now, loss=loss, found=found)])


def _history(name: str, record: str | None) -> History:
    try:
        return History(record or "")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning("the record of node %s's hardware cannot be read (%s): its counters begin anew", name, error)
        return History()


def _lines(said: _Said, name: str) -> str:
    text = said.families.get(name, "")
    return text.replace(_ANY, said.labels) if said.labels else text


async def _gathered(texts: Iterator[str]) -> AsyncGenerator[bytes, None]:
    """In larger blocks, with a pause for others after each."""
    waiting: list[str] = []
    size = 0
    for text in filter(None, texts):
        waiting.append(text)
        size += len(text)
        if size >= BLOCK:
            yield "".join(waiting).encode()
            waiting, size = [], 0
            await asyncio.sleep(0)
    if waiting:
        yield "".join(waiting).encode()


def _of_agent(known: _Node, *, claims: int) -> Mapping[str, str]:
    node = known.node
    broken = 0
    if node.faults:
        broken = sum(one.status is HealthStatus.UNHEALTHY for one in device_health(node).values())
    what = labels_of(
        instance_type=node.instance_type.name,
        node=node.name,
        ultraserver_id=node.seat.id if node.seat else "",
        ultraserver_node=node.seat.node if node.seat else "",
    )
    values = ((known.name, len(node.devices)), (known.name, broken), (known.name, claims), (what, 1))
    return {name: f"{name}{{{labels}}} {value}\n" for name, (labels, value) in zip(_OF_AGENTS, values, strict=True)}


def _system(model: SimulatedNode, processes: list[Report] | tuple[()]) -> System:
    kind = model.instance_type
    usage = {name: min(sum(process["vcpu"][name] for process in processes) / 100, 1.0) for name in VCPU_USAGE}
    memory = kind.memory_gib << 30
    used = sum(sum(process["host"].values()) for process in processes)
    return System(
        vcpus=kind.vcpus,
        usage={name: round(ratio, 4) for name, ratio in usage.items()},
        memory={
            "memory_total_bytes": memory,
            "memory_used_bytes": min(used, memory),
            "swap_total_bytes": 0,
            "swap_used_bytes": 0,
        },
    )
