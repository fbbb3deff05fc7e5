"""What a pod or a claim asks for, read from it, its claims and templates, and the DeviceClasses.

Whatever no node could change (a class that does not exist, more devices than a claim holds) is a problem in a
sentence; the rest is what ``fitting`` tries on each node.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from neuron_operator import names, pending
from neuron_operator.conditions import listing
from neuron_operator.explaining.cel_reading import Selector, selector

Json = Mapping[str, Any]

_IMPLICIT = "deviceclass.resource.kubernetes.io/"


@dataclass(frozen=True, slots=True)
class Ask:
    """So many devices of a class; a request has several where any of them would do."""

    device_class: str
    selectors: tuple[Selector, ...]
    count: int | None
    """None: all there are."""
    tolerations: tuple[Json, ...] = ()
    admin: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """A request of a claim."""

    name: str
    asks: tuple[Ask, ...]


@dataclass(frozen=True, slots=True)
class Constraint:
    """An attribute in which the devices of some requests are to be the same, or all different."""

    requests: frozenset[str]
    """Empty: of all requests."""
    attribute: str
    distinct: bool = False

    def covers(self, request: str) -> bool:
        """Whether it is about a request."""
        return not self.requests or request in self.requests


@dataclass(frozen=True, slots=True)
class ClaimDemand:
    """A claim that has no devices yet."""

    name: str
    """As in `claim neurons`."""
    requests: tuple[Request, ...]
    constraints: tuple[Constraint, ...] = ()


@dataclass(frozen=True, slots=True)
class Placed:
    """A claim that has its devices already, which ties its pods to nodes."""

    name: str
    selector: Json
    devices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Demand:
    """All that is asked for."""

    claims: tuple[ClaimDemand, ...] = ()
    placed: tuple[Placed, ...] = ()
    plain: Mapping[str, int] = field(default_factory=dict)
    """Extended resources, for nodes whose device plugin serves them."""
    plain_claim: ClaimDemand | None = None
    """The claim that the scheduler would make of them, for nodes with DRA; None where no class serves one of them."""
    unserved: tuple[str, ...] = ()
    """Extended resources that no DeviceClass serves."""
    too_many: str = ""
    """Why that claim cannot be, in a sentence."""
    problems: tuple[str, ...] = ()
    awaited: tuple[str, ...] = ()
    """Templates whose claims are not made yet."""

    @property
    def unread(self) -> tuple[str, ...]:
        """Selectors that could not be read."""
        claims = (*self.claims, *((self.plain_claim,) if self.plain_claim else ()))
        asks = (ask for claim in claims for request in claim.requests for ask in request.asks)
        return tuple(dict.fromkeys(s.expression for ask in asks for s in ask.selectors if not s.read))


@dataclass(frozen=True, slots=True)
class Known:
    """The objects that a demand refers to."""

    classes: Mapping[str, Json]
    claims: Mapping[tuple[str, str], Json]
    """By namespace and name."""
    templates: Mapping[tuple[str, str], Json]


def of_pod(pod: Json, known: Known) -> Demand:
    """What a pod asks for."""
    spec, namespace = pod.get("spec") or {}, pod["metadata"].get("namespace") or "default"
    made = {
        status["name"]: status.get("resourceClaimName")
        for status in (pod.get("status") or {}).get("resourceClaimStatuses") or ()
    }
    problems: list[str] = []
    awaited: list[str] = []
    claims: list[ClaimDemand] = []
    placed: list[Placed] = []
    for entry in spec.get("resourceClaims") or ():
        template = entry.get("resourceClaimTemplateName")
        name = entry.get("resourceClaimName") or made.get(entry["name"])
        claim = known.claims.get((namespace, name)) if name else None
        if claim is not None:
            _take(claim, known, claims, placed, problems)
        elif template and (found := known.templates.get((namespace, template))) is not None:
            awaited.append(template)
            said = f"claim {entry['name']} (of template {template})"
            demanded, wrong = _claim(said, (found.get("spec") or {}).get("spec") or {}, known.classes)
            claims.append(demanded)
            problems += wrong
        elif template:
            problems.append(
                f"ResourceClaimTemplate {template} does not exist in namespace {namespace}: apply it, or name one of"
                f" {_there_are(known.templates, namespace)}"
            )
        elif name:
            problems.append(
                f"ResourceClaim {name} does not exist in namespace {namespace}, and the scheduler waits for it in"
                f" silence: apply it, or name one of {_there_are(known.claims, namespace)}"
            )
    return Demand(
        claims=tuple(claims),
        placed=tuple(placed),
        problems=tuple(problems),
        awaited=tuple(awaited),
        **_plain(pod, known.classes),
    )


def of_resources(pod: Json, known: Known) -> tuple[Placed, ...]:
    """The claim that the scheduler made of a pod's extended resources, if it has its devices."""
    made = (pod.get("status") or {}).get("extendedResourceClaimStatus") or {}
    claim = known.claims.get((pod["metadata"].get("namespace") or "default", made.get("resourceClaimName") or ""))
    placed: list[Placed] = []
    if claim is not None:
        _take(claim, known, [], placed, [])
    return tuple(placed)


def of_claim(claim: Json, known: Known) -> Demand:
    """What a claim asks for."""
    claims: list[ClaimDemand] = []
    placed: list[Placed] = []
    problems: list[str] = []
    _take(claim, known, claims, placed, problems)
    return Demand(claims=tuple(claims), placed=tuple(placed), problems=tuple(problems))


def _take(claim: Json, known: Known, claims: list[ClaimDemand], placed: list[Placed], problems: list[str]) -> None:
    name = f"claim {claim['metadata']['name']}"
    allocation = (claim.get("status") or {}).get("allocation")
    if allocation:
        results = (allocation.get("devices") or {}).get("results") or ()
        placed.append(
            Placed(name, allocation.get("nodeSelector") or {}, tuple(f"{r['pool']}/{r['device']}" for r in results))
        )
        return
    demanded, wrong = _claim(name, claim.get("spec") or {}, known.classes)
    claims.append(demanded)
    problems += wrong


def _claim(name: str, spec: Json, classes: Mapping[str, Json]) -> tuple[ClaimDemand, list[str]]:
    devices = spec.get("devices") or {}
    requests = []
    problems = []
    for item in devices.get("requests") or ():
        alternatives = item.get("firstAvailable") or [item.get("exactly") or {}]
        requests.append(Request(item["name"], tuple(_ask(each, classes) for each in alternatives)))
        problems += [
            f"{name} asks for DeviceClass {each['deviceClassName']}, which does not exist: there are"
            f" {listing(sorted(classes)) or 'none'}"
            for each in alternatives
            if each.get("deviceClassName") and each["deviceClassName"] not in classes
        ]
    fewest = sum(min((ask.count or 1) for ask in request.asks) for request in requests)
    if fewest > names.DEVICES_PER_CLAIM:
        problems.append(
            f"{name} asks for {fewest} devices, and a claim holds {names.DEVICES_PER_CLAIM} at most: ask for larger"
            " ones (whole chips instead of cores), or spread them over several claims"
        )
    constraints = tuple(
        Constraint(
            frozenset(item.get("requests") or ()),
            item.get("matchAttribute") or item.get("distinctAttribute") or "",
            distinct="distinctAttribute" in item,
        )
        for item in devices.get("constraints") or ()
    )
    return ClaimDemand(name, tuple(requests), constraints), problems


def _ask(item: Json, classes: Mapping[str, Json]) -> Ask:
    name = item.get("deviceClassName") or ""
    of_class = (classes.get(name) or {}).get("spec") or {}
    written = (*(of_class.get("selectors") or ()), *(item.get("selectors") or ()))
    return Ask(
        device_class=name,
        selectors=tuple(selector(each["cel"]["expression"]) for each in written if each.get("cel")),
        count=None if item.get("allocationMode") == "All" else int(item.get("count") or 1),
        tolerations=tuple(item.get("tolerations") or ()),
        admin=bool(item.get("adminAccess")),
    )


def _plain(pod: Json, classes: Mapping[str, Json]) -> dict[str, Any]:
    """The extended resources that Neuron nodes or DeviceClasses could serve."""
    serving: dict[str, str] = {}
    for name, device_class in sorted(classes.items()):
        serving[f"{_IMPLICIT}{name}"] = name
        if resource := (device_class.get("spec") or {}).get("extendedResourceName"):
            serving[resource] = name
    wanted = [
        resource
        for resource in pending.resources_of(pod)
        if resource.startswith(names.EXTENDED_RESOURCE_PREFIX) or resource in serving
    ]
    plain = pending.asked(pod, wanted)
    if not plain:
        return {}
    served = {resource: amount for resource, amount in plain.items() if resource in serving}
    requests = tuple(
        Request(resource, (_ask({"deviceClassName": serving[resource], "count": amount}, classes),))
        for resource, amount in served.items()
    )
    too_many = sum(served.values()) > names.DEVICES_PER_CLAIM
    return {
        "plain": plain,
        "plain_claim": ClaimDemand("the pod", requests) if served else None,
        "unserved": tuple(resource for resource in plain if resource not in served),
        "too_many": pending.too_many(served) if too_many else "",
    }


def _there_are(known: Iterable[tuple[str, str]], namespace: str) -> str:
    found: Sequence[str] = sorted(name for space, name in known if space == namespace)
    return listing(found) if found else "those there are (none)"
