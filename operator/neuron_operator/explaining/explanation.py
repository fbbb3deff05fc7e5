"""Puts together why a pod or a claim waits: what is asked for, what each node lacks, what would help.

``Explanation`` is what the command line prints and, with ``--output json``, its documented form. Its summary is one
text of a few sentences that stands alone, in an Event too.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from neuron_device_model.advertise import RESERVED_TAINT

from neuron_operator import names, pending
from neuron_operator.conditions import listing
from neuron_operator.explaining import binding, node_rules, quota
from neuron_operator.explaining.demand import ClaimDemand, Demand, Known, of_claim, of_pod, of_resources
from neuron_operator.explaining.fitting import Fit, Lack, Remedy, fit, remedy
from neuron_operator.explaining.supply import Supply, Taint
from neuron_operator.node_affinity import selects

Json = Mapping[str, Any]
State = Literal["waiting", "fits", "placed", "over"]

# Nodes whose way out is looked for, and ways out that are told.
_TRIED, _TOLD = 20, 3
_SUMMED_UP = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of a cluster."""

    nodes: Sequence[Json]
    neuron_nodes: Sequence[Json]
    supplies: Mapping[str, Supply]
    known: Known
    bound: Sequence[Json] = ()
    """Pods that have a node; only needed for nodes on the device-plugin road."""
    quotas: Sequence[Json] = ()
    """Of the namespace that it is about."""
    events: Sequence[Json] = ()
    """About the object itself, the latest last."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a node could take it, and what it lacks."""

    node: str
    fits: bool
    lacks: tuple[str, ...] = ()
    sure: bool = True
    """False: it fits if the selectors that were not read choose the devices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why something waits, or where it is."""

    subject: str
    state: State
    summary: str
    asks: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    """What no node could change."""
    remedies: tuple[str, ...] = ()
    """What would have to be freed or changed, the nearest first."""
    nodes: tuple[Verdict, ...] = ()
    not_read: tuple[str, ...] = ()
    """CEL selectors that were not evaluated."""
    said: tuple[str, ...] = ()
    """The words of Kubernetes itself."""


@dataclass(slots=True)
class Judged:
    """A node that was judged."""

    rules: list[str] = field(default_factory=list)
    """What it lacks, devices aside."""
    devices: list[str] = field(default_factory=list)
    supply: Supply | None = None
    claims: tuple[ClaimDemand, ...] = ()
    plugin: Mapping[str, int] = field(default_factory=dict)
    """What a device plugin of the node serves of it."""
    bound: Sequence[Json] = ()
    missing: int = 0
    lasting: bool = False
    sure: bool = True


def explain_pod(pod: Json, facts: Facts) -> Explanation:
    """Why a pod waits, or where it is."""
    metadata, spec, status = pod["metadata"], pod.get("spec") or {}, pod.get("status") or {}
    subject = f"pod {metadata.get('namespace') or 'default'}/{metadata.get('name') or metadata.get('generateName')}"
    demand = of_pod(pod, facts.known)
    said = (*_scheduler_said(status), *_events_said(facts.events))
    if status.get("phase") in ("Succeeded", "Failed"):
        text = f"The pod is over: {status['phase']}"
        return Explanation(subject=subject, state="over", summary=text, asks=_asks(demand), said=said)
    if node := spec.get("nodeName"):
        claims = [*demand.placed, *of_resources(pod, facts.known)]
        text = f"The pod is on node {node}" + "".join(f"; {each.name} has {_devices(each.devices)}" for each in claims)
        return Explanation(subject=subject, state="placed", summary=text, asks=_asks(demand), said=said)
    if text := binding.awaited(pod, facts.known.claims.values()):
        return Explanation(subject=subject, state="waiting", summary=text, asks=_asks(demand), said=said)
    problems = [*_gates(pod), *demand.problems, *quota.exceeded(demand, facts.quotas)]
    if "deletionTimestamp" in metadata:
        problems.insert(0, "The pod is being deleted")
    return _explain(subject, "the pod", demand, facts, problems=problems, pod=pod, said=said)


def explain_claim(claim: Json, facts: Facts) -> Explanation:
    """Why a claim waits, or what it has and who uses it."""
    metadata = claim["metadata"]
    subject = f"claim {metadata.get('namespace') or 'default'}/{metadata['name']}"
    demand = of_claim(claim, facts.known)
    if demand.placed:
        consumers = [each["name"] for each in (claim.get("status") or {}).get("reservedFor") or ()]
        users = f"pods that use it: {listing(consumers)}" if consumers else "no pod uses it"
        text = f"The claim has {_devices(demand.placed[0].devices)}; {users}"
        return Explanation(subject=subject, state="placed", summary=text, said=_events_said(facts.events))
    waits = "a claim gets its devices when a pod that names it is scheduled"
    found = _explain(subject, "the claim", demand, facts, problems=list(demand.problems), pod=None, said=())
    if found.state != "fits":
        return found
    return Explanation(
        subject=subject,
        state="fits",
        summary=f"{found.summary}: {waits}",
        asks=found.asks,
        nodes=found.nodes,
        not_read=found.not_read,
    )


def _explain(
    subject: str,
    what: str,
    demand: Demand,
    facts: Facts,
    *,
    problems: list[str],
    pod: Json | None,
    said: tuple[str, ...],
) -> Explanation:
    judged = judge(demand, facts, pod=pod)
    verdicts = tuple(
        Verdict(name, not (each.rules or each.devices), (*each.rules, *each.devices), each.sure)
        for name, each in judged.items()
    )
    remedies = () if any(verdict.fits for verdict in verdicts) else tuple(_remedies(judged, demand, facts))
    # what no node of any road could do is one problem, not one for each node
    if demand.too_many and not any(_plugin(node, demand) for node in facts.nodes):
        problems.append(demand.too_many)
    fits = any(verdict.fits for verdict in verdicts) and not problems
    return Explanation(
        subject=subject,
        state="fits" if fits else "waiting",
        summary=_summary(what, problems, verdicts, judged, remedies),
        asks=_asks(demand),
        problems=tuple(problems),
        remedies=remedies,
        nodes=verdicts,
        not_read=demand.unread,
        said=said,
    )


def judge(demand: Demand, facts: Facts, *, pod: Json | None) -> dict[str, Judged]:
    """Every node of the cluster, judged."""
    neuron = {item["metadata"]["name"]: item for item in facts.neuron_nodes}
    on_node: dict[str, list[Json]] = defaultdict(list)
    for other in facts.bound:
        on_node[other["spec"]["nodeName"]].append(other)
    found = {}
    for node in facts.nodes:
        name = node["metadata"]["name"]
        found[name] = _judge(demand, node, neuron.get(name), facts.supplies.get(name), on_node[name], pod)
    return found


def _judge(
    demand: Demand,
    node: Json,
    neuron: Json | None,
    supply: Supply | None,
    bound: Sequence[Json],
    pod: Json | None,
) -> Judged:
    judged = Judged(rules=node_rules.lacks(pod, node) if pod else [], supply=supply)
    name, labels = node["metadata"]["name"], node["metadata"].get("labels") or {}
    judged.rules += [
        f"{placed.name} has its devices elsewhere: {listing(placed.devices)}"
        for placed in demand.placed
        if placed.selector and not selects(placed.selector, name=name, labels=labels)
    ]
    judged.plugin, judged.bound = _plugin(node, demand), bound
    plugin = judged.plugin
    judged.devices += _plugin_lacks(demand, node, plugin, bound)
    rest = [resource for resource in demand.plain if resource not in plugin]
    claims = [*demand.claims]
    if rest and demand.plain_claim and not demand.too_many:
        kept = tuple(request for request in demand.plain_claim.requests if request.name in rest)
        claims += [ClaimDemand(demand.plain_claim.name, kept)] if kept else []
    if rest and demand.too_many:
        judged.devices.append("could serve that many devices by a device plugin only, and has none")
        judged.lasting = True
    if unserved := [resource for resource in demand.unserved if resource in rest]:
        judged.devices.append(f"has no {' and no '.join(unserved)}, and no DeviceClass serves it")
        judged.lasting = True
    judged.claims = tuple(claims)
    if claims:
        result = fit(supply or Supply(node["metadata"]["name"]), claims)
        if isinstance(result, Fit):
            judged.sure = result.sure
        else:
            judged.devices += [_refined(reason, result, neuron) for reason in result.reasons]
            judged.missing, judged.lasting = result.missing, judged.lasting or result.lasting
    return judged


def _refined(reason: str, lack: Lack, neuron: Json | None) -> str:
    """The same with what its NeuronNode tells of the cause."""
    if not lack.absent:
        return reason
    if neuron is None:
        return f"{reason} (it is in no NeuronNodePool)"
    spec, pool = neuron["spec"], neuron["spec"].get("pool")
    if spec.get("resources") == "DevicePlugin":
        return f"{reason} (it serves device plugins; set resources to DRA in NeuronNodePool {pool} for claims)"
    if not_ready := _not_ready(neuron):
        return f"{reason}: {not_ready}"
    partitions = spec.get("partitions")
    if names.PHYSICAL_CORE_CLASS in lack.absent and partitions != "physical":
        said = f"NeuronNodePool {pool} has partitions {partitions}, and physical cores need physical"
        return f"{reason.partition(' (')[0]} ({said})"
    if names.CORE_CLASS in lack.absent and partitions == "none":
        said = f"NeuronNodePool {pool} has partitions none, and cores need logical or physical"
        return f"{reason.partition(' (')[0]} ({said})"
    return f"{reason}: it is a {spec.get('instanceType')} of NeuronNodePool {pool}"


def _not_ready(neuron: Json) -> str:
    conditions = (neuron.get("status") or {}).get("conditions") or ()
    ready = next((each for each in conditions if each["type"] == "Ready"), None)
    if ready is None:
        return "no agent has reported on it yet"
    return "" if ready["status"] == "True" else f"its agent says {ready.get('reason')}: {ready.get('message')}"


def _plugin(node: Json, demand: Demand) -> dict[str, int]:
    """The extended resources that a device plugin of the node serves, and how many."""
    capacity = (node.get("status") or {}).get("allocatable") or {}
    amounts = {resource: str(capacity.get(resource, "0")) for resource in demand.plain}
    return {resource: int(text) for resource, text in amounts.items() if text.isdecimal() and int(text)}


def _plugin_lacks(demand: Demand, node: Json, plugin: Mapping[str, int], bound: Sequence[Json]) -> Iterator[str]:
    for resource, total in plugin.items():
        wanted = demand.plain[resource]
        users = _users(resource, bound)
        free = total - sum(amount for _, amount in users)
        if wanted > total:
            yield f"has {total} {resource}, and {wanted} are asked for"
        elif wanted > free:
            details = listing([f"{amount} by pod {name}" for name, amount in users])
            yield f"{free} of {total} {resource} are free, {wanted} are asked for: taken are {details}"


def plugin_room(demand: Demand, plugin: Mapping[str, int], bound: Sequence[Json]) -> int:
    """How many such pods a device plugin still has devices for."""
    return min(
        (total - sum(amount for _, amount in _users(resource, bound))) // demand.plain[resource]
        for resource, total in plugin.items()
    )


def _users(resource: str, bound: Sequence[Json]) -> list[tuple[str, int]]:
    """The pods of a node that have some of a resource, and how much."""
    return sorted(
        (f"{pod['metadata'].get('namespace') or 'default'}/{pod['metadata']['name']}", amount)
        for pod in bound
        if (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")
        and (amount := pending.asked(pod, (resource,)).get(resource, 0))
    )


def _remedies(judged: Mapping[str, Judged], demand: Demand, facts: Facts) -> Iterator[str]:
    for name, each in judged.items():
        if each.rules and not each.devices and (each.supply or not demand.claims) and not _foreign(each.rules):
            yield f"Node {name} has what is asked for, but {_and(each.rules)}"
            break
    near = sorted(
        (name for name, each in judged.items() if each.devices and not each.rules and not each.lasting and each.claims),
        key=lambda name: judged[name].missing,
    )
    neuron = {item["metadata"]["name"]: item for item in facts.neuron_nodes}
    found: list[tuple[str, Remedy]] = []
    for name in near[:_TRIED]:
        supply = judged[name].supply
        way = remedy(supply, judged[name].claims) if supply else None
        if way is not None:
            found.append((name, way))
    found.sort(key=lambda pair: pair[1].cost)
    for name, way in found[:_TOLD]:
        yield f"Node {name} would do if {_and(_steps(way, neuron.get(name)))}"
    allowed = [each for each in judged.values() if not each.rules]
    if allowed and not found and all(each.lasting for each in allowed):
        yield "No node has that even when it is empty: ask for less or for something else, or change a NeuronNodePool"


def _foreign(rules: Sequence[str]) -> bool:
    return any("elsewhere" in rule for rule in rules)


def _steps(way: Remedy, neuron: Json | None) -> list[str]:
    steps = [f"{holder} ended" if holder.pods else f"{holder} was deleted" for holder in way.holders]
    faults = dict.fromkeys(_fault(device, taint, neuron) for device, taint in way.taints)
    return steps + list(faults)


def _fault(device: str, taint: Taint, neuron: Json | None) -> str:
    """What would take a taint away: the NeuronFault that it comes from, where that is known."""
    if taint.key == RESERVED_TAINT:
        return f"the NeuronUltraServerWorkload with the id {taint.value} gave it back"
    for fault in (neuron or {}).get("spec", {}).get("faults") or ():
        chips = {f"neuron-device-{fault[end]}" for end in ("chip", "peer") if end in fault}
        of_chip = not chips or device in chips or "core" in device
        if fault["type"] == taint.value and of_chip:
            return f"NeuronFault {fault['name']} was deleted"
    return f"the taint {taint.key}={taint.value} of {device} was taken away"


def _summary(
    what: str,
    problems: Sequence[str],
    verdicts: Sequence[Verdict],
    judged: Mapping[str, Judged],
    remedies: Sequence[str],
) -> str:
    fitting = [verdict.node for verdict in verdicts if verdict.fits]
    if problems:
        return ". ".join(problems)
    if fitting:
        sure = any(verdict.sure for verdict in verdicts if verdict.fits)
        unless = "" if sure else ", if the selectors that were not evaluated choose their devices"
        return f"{len(fitting)} of {len(verdicts)} nodes could take {what} now ({listing(fitting)}){unless}"
    if not verdicts:
        return "There are no nodes"
    groups = [f"{_nodes(nodes)}: {_and(_telling(lacks))}" for lacks, nodes in grouped(verdicts)]
    more = f"; and {len(groups) - _SUMMED_UP} other causes" if groups[_SUMMED_UP:] else ""
    ways = "".join(f". {way}" for way in remedies[:1])
    of = "The node cannot" if len(verdicts) == 1 else f"None of {len(verdicts)} nodes can"
    return f"{of} take {what}: {'; '.join(groups[:_SUMMED_UP])}{more}{ways}"


def grouped(verdicts: Sequence[Verdict]) -> list[tuple[tuple[str, ...], list[str]]]:
    """Nodes that lack the same, the most informative first: those that have devices, then the many."""
    groups: dict[tuple[str, ...], list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        if not verdict.fits:
            groups[tuple(short(lack) for lack in verdict.lacks)].append(verdict)
    ordered = sorted(groups.items(), key=lambda pair: (_irrelevant(pair[0]), -len(pair[1])))
    # what one node lacks is told in full
    return [
        (found[0].lacks if len(found) == 1 else lacks, [verdict.node for verdict in found]) for lacks, found in ordered
    ]


def _irrelevant(lacks: Sequence[str]) -> bool:
    return any(lack.startswith("has no devices for claims") for lack in lacks)


def _telling(lacks: Sequence[str]) -> list[str]:
    """Where there are no devices, the rest does not matter."""
    found = [short(lack) for lack in lacks]
    return [lack for lack in found if _irrelevant([lack])] or found


def short(lack: str) -> str:
    """What is lacking, without who or what is the cause."""
    return lack.partition(": ")[0]


def _nodes(found: Sequence[str]) -> str:
    return found[0] if len(found) == 1 else f"{len(found)} nodes"


def _and(parts: Sequence[str]) -> str:
    return " and ".join(parts)


def _asks(demand: Demand) -> tuple[str, ...]:
    found = [f"{amount} {resource}" for resource, amount in demand.plain.items()]
    for claim in demand.claims:
        for request in claim.requests:
            either = " or ".join(
                f"{'all' if ask.count is None else ask.count} of DeviceClass {ask.device_class}"
                + (" with admin access" if ask.admin else "")
                for ask in request.asks
            )
            rules = "".join(
                f", {'different' if constraint.distinct else 'the same'} {constraint.attribute}"
                for constraint in claim.constraints
                if constraint.covers(request.name)
            )
            found.append(f"{claim.name}, request {request.name}: {either}{rules}")
    return (*found, *(f"{placed.name}: has {listing(placed.devices)}" for placed in demand.placed))


def _devices(devices: Sequence[str]) -> str:
    """Devices of a node, those in a row by the first and the last."""
    by_node: dict[str, list[str]] = defaultdict(list)
    for device in devices:
        node, _, name = device.partition("/")
        by_node[node].append(name)
    return listing([f"{listing(_runs(names))} of {node}" for node, names in by_node.items()])


def _runs(names: Sequence[str]) -> list[str]:
    runs: list[list[str]] = []
    for name in sorted(names, key=lambda name: (name.rstrip("0123456789"), _number(name))):
        stem = name.rstrip("0123456789")
        last = runs[-1][-1] if runs else ""
        if last.rstrip("0123456789") == stem and _number(last) + 1 == _number(name):
            runs[-1].append(name)
        else:
            runs.append([name])
    return [f"{run[0]} to {run[-1]}" if run[2:] else ", ".join(run) for run in runs]


def _number(name: str) -> int:
    digits = name[len(name.rstrip("0123456789")) :]
    return int(digits) if digits else -1


def _gates(pod: Json) -> Iterator[str]:
    gates = [gate["name"] for gate in (pod.get("spec") or {}).get("schedulingGates") or ()]
    if not gates:
        return
    gang = (pod["metadata"].get("labels") or {}).get(f"{names.GROUP}/gang")
    if gang and f"{names.GROUP}/gang" in gates:
        yield (
            f"The pod waits for its gang {gang} to be placed as a whole: `neuron-sim explain gang/{gang} -n"
            f" {pod['metadata'].get('namespace') or 'default'}` says what that lacks"
        )
        return
    yield f"The pod is held by scheduling gates, and whoever set them has to take them away: {listing(gates)}"


def _scheduler_said(status: Json) -> tuple[str, ...]:
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition.get("status") != "True" and condition.get("message"):
            return (f"scheduler: {condition['message']}",)
    return ()


def _events_said(events: Sequence[Json]) -> tuple[str, ...]:
    warnings = [
        event for event in events if event.get("type") == "Warning" and event.get("reason") != "FailedScheduling"
    ]
    texts = (f"{event.get('reason')}: {event.get('note') or event.get('message')}" for event in warnings)
    return tuple(dict.fromkeys(texts))[-3:]
