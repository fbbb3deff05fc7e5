"""Gangs as the operator sees them, for `explain gang/NAME` and `what-if`: its own state and its own placement, fed from
lists instead of watches. So what is said here is what it would do. Pure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from neuron_operator.conditions import listing
from neuron_operator.explaining.explanation import Explanation, Facts, Verdict
from neuron_operator.explaining.explanation import State as Phase
from neuron_operator.explaining.supply import Holder
from neuron_operator.gangs.demand import Needs
from neuron_operator.gangs.eligibility import may_run
from neuron_operator.gangs.planning import promises
from neuron_operator.gangs.pods import Member, Terms, member
from neuron_operator.gangs.records import Record
from neuron_operator.gangs.standing import Standing
from neuron_operator.gangs.state import State
from neuron_operator.placement import Gang, NodeState, Refusal, consider, place

Object = Mapping[str, Any]


class NoGang(LookupError):
    """There is no such gang."""


@dataclass(frozen=True, slots=True)
class Gangs:
    """All gangs, and the fleet that they are placed on."""

    state: State
    fleet: tuple[NodeState, ...]


def gangs(
    *,
    driver_name: str,
    members: Sequence[Object],
    records: Sequence[Object],
    nodes: Sequence[Object],
    neuron_nodes: Sequence[Object],
    claims: Sequence[Object],
    templates: Sequence[Object],
    bound: Sequence[Object],
) -> Gangs:
    """Take in what was listed; `members` are pods with a gang's label, `bound` those that may have device plugins'."""
    state = State(driver_name=driver_name, barrier=True)
    state.nodes.listed(nodes)
    state.hardware.listed(neuron_nodes)
    state.claims.listed(claims)
    state.gangs.listed(records)
    state.pods.listed(members)
    state.list_plain(bound)
    found = _as_it_is(state)
    know(found, claims=claims, templates=templates)
    return found


def with_taken(gangs: Gangs, before: Facts, after: Facts) -> Gangs:
    """The same fleet after what pods took between the two, as if their claims were there. Changes `gangs`, too."""
    claims = gangs.state.claims
    for node, supply in after.supplies.items():
        known = before.supplies.get(node)
        for holder in supply.holders[len(known.holders) if known else 0 :]:
            claims.seen(_as_claim(holder, len(claims.values)), False)
    gangs.state.list_plain(after.bound)
    return _as_it_is(gangs.state)


def know(gangs: Gangs, *, claims: Sequence[Object], templates: Sequence[Object]) -> None:
    """Take in what claims and templates ask for."""
    for template, items in ((False, claims), (True, templates)):
        for item in items:
            reference = (item["metadata"]["namespace"], item["metadata"]["name"], template)
            allocated = "allocation" in (item.get("status") or {})
            gangs.state.looked(reference, {} if allocated else _devices(item, template=template))


def wish(gangs: Gangs, found: Member, *, size: int | None = None) -> Gang | str:
    """What a gang asks of placement, by one of its pods; or why that cannot be told."""
    if isinstance(found.terms, str):
        return found.terms
    needs = gangs.state.needs(found)
    if not isinstance(needs, Needs):
        return needs or "The pod names a ResourceClaim or a ResourceClaimTemplate that does not exist: create it"
    return _gang(found.key, found.terms, needs, able(gangs, found), size)


def able(gangs: Gangs, found: Member) -> frozenset[str]:
    """The nodes on which a pod may run by its own words."""
    return frozenset(
        name
        for name, facts in gangs.state.facts.items()
        if may_run(found.wish.spec, name=name, labels=facts.labels, taints=facts.taints)
    )


def as_member(pod: Object, name: str) -> Member:
    """A pod of a manifest as if it were waiting."""
    metadata = {**pod["metadata"], "name": name, "uid": f"what-if/{name}"}
    return member({**pod, "metadata": metadata})


def explain(gangs: Gangs, namespace: str, name: str) -> Explanation:
    """Where a gang is, or what each domain lacks for it; raises ``NoGang``."""
    key = (namespace, name)
    record, members = gangs.state.records.get(key), gangs.state.members.get(key, ())
    if record is None and not members:
        raise NoGang(f"there is no gang {name} in namespace {namespace}: `kubectl get neurongangs -A` lists them")
    subject = f"gang {namespace}/{name}"
    said = _said(record)
    if record is not None and record.phase in ("Bound", "Reserved"):
        text = said or f"The gang is {record.phase}"
        asks = _asks(Terms(record.size, record.level, record.timeout), record.needs)
        there: Phase = "placed" if record.phase == "Bound" else "waiting"
        return Explanation(subject=subject, state=there, summary=text, asks=asks, said=_at_barrier(gangs, members))
    problems = tuple(dict.fromkeys(m.terms for m in members if isinstance(m.terms, str)))
    alive = [each for each in members if each.alive]
    if not alive:
        text = said or "The gang has no pods"
        return Explanation(subject=subject, state="waiting", summary=text, problems=problems)
    asked = wish(gangs, min(alive, key=lambda each: each.order))
    if isinstance(asked, str):
        return Explanation(subject=subject, state="waiting", summary=asked, problems=(*problems, asked))
    considered = consider(gangs.fleet, asked)
    found = place(gangs.fleet, asked)
    refused = found.reasons if isinstance(found, Refusal) else ()
    verdicts = tuple(
        Verdict(
            f"{each.level} {each.domain}",
            each.fits,
            (f"room for {each.room} of {asked.size} pods", *map(_part, each.lacks)),
        )
        if not each.fits
        else Verdict(f"{each.level} {each.domain}", True)
        for each in considered
    )
    fits = [verdict.node for verdict in verdicts if verdict.fits]
    terms = alive[0].terms
    asks = _asks(terms, record.needs) if record and isinstance(terms, Terms) else _asked(asked)
    if fits:
        held = [each for each in alive if each.gates and not each.gated]
        other = " (other gates hold some of its pods back)" if held else ""
        text = f"The gang fits now, in {fits[0]}: the operator places it in a moment{other}"
    else:
        text = " ".join(refused)
    return Explanation(
        subject=subject,
        state="fits" if fits and not problems else "waiting",
        summary=text,
        asks=asks,
        problems=problems,
        nodes=verdicts,
        # of three sentences the last says what to free in the first domain
        remedies=tuple(
            refused[2].removesuffix(".").replace("It would fit there", f"{each.level} {each.domain} would do")
            for each in considered[:1]
            if len(refused) > 2
        ),
        said=(
            *((f"{len(alive)} of {asked.size} pods exist",) if len(alive) < asked.size else ()),
            *((f"operator: {said}",) if said and said != text else ()),
        ),
    )


def _at_barrier(gangs: Gangs, members: Sequence[Member]) -> tuple[str, ...]:
    """How many pods wait at the barrier, and for whom."""
    there = {uid for holding in gangs.state.at_barrier for uid in holding.pods}
    waiting = [each for each in members if not each.node and each.uid in there]
    absent = sorted(each.name for each in members if each.alive and not each.node and each.uid not in there)
    if not waiting:
        return ()
    return (f"{len(waiting)} pods wait at the barrier" + (f" for {listing(absent)}" if absent else ""),)


def _gang(key: tuple[str, str], terms: Terms, needs: Needs, nodes: frozenset[str], size: int | None) -> Gang:
    return Gang(
        name="/".join(key),
        size=size or terms.size,
        level=terms.level,
        chips=needs.chips,
        whole_nodes=needs.whole_node,
        efa=needs.efa,
        nodes=nodes,
    )


def _as_it_is(state: State) -> Gangs:
    standing = Standing()
    standing.look(state, promises(state))
    return Gangs(state, tuple(standing.states.values()))


def _as_claim(holder: Holder, number: int) -> Object:
    namespace, _, name = holder.pods[0].partition("/")
    results = [{"driver": driver, "pool": pool, "device": device} for driver, pool, device in sorted(holder.devices)]
    return {
        "metadata": {"namespace": namespace, "name": f"what-if/{number}", "resourceVersion": "1"},
        "status": {
            "allocation": {"devices": {"results": results}},
            "reservedFor": [{"resource": "pods", "name": name, "uid": f"what-if/{number}"}],
        },
    }


def _part(sentence: str) -> str:
    """A sentence as a part of another one."""
    return f"{sentence[:1].lower()}{sentence[1:]}".removesuffix(".")


def _said(record: Record | None) -> str:
    return str(record.said.get("message") or "") if record else ""


def _asks(terms: Terms, needs: Needs) -> tuple[str, ...]:
    each = "a whole node each" if needs.whole_node else f"{needs.chips} chips each"
    each += ", with EFA cards" if needs.efa else ""
    return (f"{terms.size} pods in one {terms.level}, {each}",)


def _asked(gang: Gang) -> tuple[str, ...]:
    return _asks(Terms(gang.size, gang.level, 0), Needs(gang.chips, gang.whole_nodes, gang.efa))


def _devices(item: Object, *, template: bool) -> Object:
    spec = item.get("spec") or {}
    return ((spec.get("spec") or {}) if template else spec).get("devices") or {}
