"""What a node's pool of devices is as ResourceSlices, and what has to be written to get there. Pure.

The rules are those of the scheduler's allocator: of a pool only the slices with the highest `generation`
count, and only when there are `resourceSliceCount` of them; slices are tried in the order of their names.
So any change rewrites all slices of the pool under a new generation, and a pool of several slices has names
that begin with the slice's place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, TypeAlias, TypeGuard

SliceObject: TypeAlias = dict[str, Any]
"""A ResourceSlice (resource.k8s.io/v1) as the API server sends it."""

GENERATED_NAME_PREFIX = 58
"""How much of a `generateName` the API server keeps before its five random characters."""


@dataclass(frozen=True, slots=True)
class Slice:
    """What one ResourceSlice holds: devices or counter sets, plain dicts as in the API. Empty is valid."""

    devices: Sequence[Mapping[str, Any]] = ()
    shared_counters: Sequence[Mapping[str, Any]] = ()

    def __post_init__(self) -> None:
        if self.devices and self.shared_counters:
            raise ValueError("a slice holds devices or shared counters: put them into two slices of the pool")


@dataclass(frozen=True, slots=True)
class Pool:
    """All that a driver offers on a node, in order of preference.

    At least one slice: an empty one tells that the driver is there and has no devices.
    """

    name: str
    slices: tuple[Slice, ...]

    def __post_init__(self) -> None:
        if not self.slices:
            raise ValueError(f"pool {self.name} has no slice: give it an empty one, or publish None")


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose slices these are. The Node owns them, so they go when it goes; the labels mark them as ours."""

    driver_name: str
    node_name: str
    node_uid: str
    labels: Mapping[str, str]

    @property
    def field_selector(self) -> str:
        """Selects the slices of this driver on this node, whoever made them."""
        return f"spec.driver={self.driver_name},spec.nodeName={self.node_name}"

    def marks(self, found: SliceObject) -> bool:
        """Whether an object carries our labels."""
        return self.labels.items() <= (found["metadata"].get("labels") or {}).items()


@dataclass(frozen=True, slots=True)
class Write:
    """One slice to create, or to replace where the body has a name already."""

    index: int
    body: SliceObject

    @property
    def creates(self) -> bool:
        """Whether the API server has to find a name for it."""
        return "name" not in self.body["metadata"]


@dataclass(frozen=True, slots=True)
class Plan:
    """The calls that make what is there what is wanted, in their order: deletes first.

    Should the writes be refused, devices that no longer exist are gone at least.
    """

    generation: int
    deletes: tuple[SliceObject, ...] = ()
    writes: tuple[Write, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.deletes or self.writes)


def plan(
    identity: Identity,
    pool: Pool | None,
    *,
    owned: Iterable[SliceObject],
    generation: int,
    accepted: Mapping[int, Mapping[str, Any]],
) -> Plan:
    """Compare and decide.

    `owned` are our slices on the server, `generation` the highest one ever used, `accepted` the content
    that the server made of what it was sent, by slice index: that counts as the wanted content too, else a
    field that the server drops would be written for ever.
    """
    owned = tuple(owned)
    present = [found for found in owned if "deletionTimestamp" not in found["metadata"]]
    if pool is None:
        return Plan(generation, deletes=tuple(present))
    current, obsolete = _match(identity, pool, present)
    used = {found["spec"]["pool"]["generation"] for found in current.values()}
    stands = (
        len(current) == len(pool.slices)
        and len(used) == 1
        and all(
            found["spec"]["pool"]["resourceSliceCount"] == len(pool.slices)
            and holds(content(found, identity), _wanted(identity, pool.slices[index]), accepted.get(index))
            for index, found in current.items()
        )
    )
    if stands:
        return Plan(max(used), deletes=tuple(obsolete))
    # Slices on their way out count: until they are gone, the allocator compares with theirs.
    highest = max([generation, *(found["spec"]["pool"]["generation"] for found in owned)])
    writes = tuple(
        Write(index, _body(identity, pool, index, generation=highest + 1, current=current.get(index)))
        for index in range(len(pool.slices))
    )
    return Plan(highest + 1, deletes=tuple(obsolete), writes=writes)


def content(found: SliceObject, identity: Identity) -> dict[str, Any]:
    """The part of an object that is ours to decide and does not change with the pool's generation."""
    metadata = found["metadata"]
    labels = metadata.get("labels") or {}
    spec = {key: value for key, value in found["spec"].items() if key != "pool"}
    return {
        "labels": {key: labels[key] for key in identity.labels if key in labels},
        "ownerReferences": metadata.get("ownerReferences") or [],
        **spec,
    }


def dropped_fields(identity: Identity, write: Write, stored: SliceObject) -> tuple[str, ...]:
    """Where the server's answer differs from what it was sent, as paths in `content`."""
    prefix = f"slices[{write.index}]." if write.body["spec"]["pool"]["resourceSliceCount"] > 1 else ""
    sent = content(write.body, identity)
    return tuple(prefix + path for path in differences(sent, content(stored, identity)))


def holds(actual: Mapping[str, Any], wanted: Mapping[str, Any], accepted: Mapping[str, Any] | None) -> bool:
    """Whether an object's content is what was wanted, or what the server makes of that."""
    if not any(differences(wanted, actual)):
        return True
    return accepted is not None and not any(differences(accepted, actual))


def differences(wanted: object, actual: object, path: str = "", *, quantities: bool = False) -> Iterator[str]:
    """Paths where `actual` is not `wanted`, the topmost of each.

    What the API server does to every object is no difference: empty fields left out, quantities and
    timestamps in their canonical form, `timeAdded` filled in.
    """
    if isinstance(wanted, Mapping) and isinstance(actual, Mapping):
        for key in dict.fromkeys((*wanted, *actual)):
            if key == "timeAdded" and key not in wanted:
                continue
            yield from differences(
                wanted.get(key),
                actual.get(key),
                _below(path, key),
                quantities=quantities or key in ("capacity", "counters"),
            )
    elif _is_list(wanted) and _is_list(actual) and len(wanted) == len(actual):
        for place, (one, other) in enumerate(zip(wanted, actual, strict=True)):
            yield from differences(one, other, f"{path}[{place}]", quantities=quantities)
    elif wanted != actual and not (
        (_is_empty(wanted) and _is_empty(actual))
        or (quantities and _same(_quantity, wanted, actual))
        or (path.endswith(".timeAdded") and _same(_second, wanted, actual))
    ):
        yield path


def _match(
    identity: Identity, pool: Pool, present: list[SliceObject]
) -> tuple[dict[int, SliceObject], list[SliceObject]]:
    """Which object stands for which slice of the pool, and those that stand for none."""
    # The server cuts the prefix and appends to it; as much as this is left in any case.
    prefixes = [_generate_name(identity, pool, index)[:GENERATED_NAME_PREFIX] for index in range(len(pool.slices))]
    current: dict[int, SliceObject] = {}
    obsolete = []
    # Of duplicates the newest stays: that is the one the allocator looks at.
    for found in sorted(present, key=lambda found: -found["spec"]["pool"]["generation"]):
        places = (
            index
            for index, prefix in enumerate(prefixes)
            if index not in current and found["metadata"]["name"].startswith(prefix)
        )
        index = next(places, None)
        if index is None or found["spec"]["pool"]["name"] != pool.name:
            obsolete.append(found)
        else:
            current[index] = found
    return current, obsolete


def _body(identity: Identity, pool: Pool, index: int, *, generation: int, current: SliceObject | None) -> SliceObject:
    wanted = _wanted(identity, pool.slices[index])
    labels, owners = wanted.pop("labels"), wanted.pop("ownerReferences")
    metadata: dict[str, Any] = {"generateName": _generate_name(identity, pool, index)}
    if current is not None:
        # Annotations and further labels are left to whoever put them there.
        metadata = dict(current["metadata"])
        labels = {**(metadata.get("labels") or {}), **labels}
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceSlice",
        "metadata": {**metadata, "labels": labels, "ownerReferences": owners},
        "spec": {
            **wanted,
            "pool": {
                "name": pool.name,
                "generation": generation,
                "resourceSliceCount": len(pool.slices),
            },
        },
    }


def _wanted(identity: Identity, wanted: Slice) -> dict[str, Any]:
    """A slice in the form of `content`."""
    result: dict[str, Any] = {
        "labels": dict(identity.labels),
        "ownerReferences": [
            {
                "apiVersion": "v1",
                "kind": "Node",
                "name": identity.node_name,
                "uid": identity.node_uid,
                "controller": True,
            }
        ],
        "driver": identity.driver_name,
        "nodeName": identity.node_name,
    }
    if wanted.shared_counters:
        result["sharedCounters"] = list(wanted.shared_counters)
    else:
        result["devices"] = list(wanted.devices)
    return result


def _generate_name(identity: Identity, pool: Pool, index: int) -> str:
    """As drivers on upstream's helper are seen to name theirs; places are hexadecimal, so that they sort."""
    driver, node = identity.driver_name, identity.node_name
    return f"{node}-{driver}-" if len(pool.slices) == 1 else f"{index:05x}-{driver}-{node}-"


def _below(path: str, key: str) -> str:
    if not key.isidentifier():
        return f"{path}[{key}]"
    return f"{path}.{key}" if path else key


def _is_list(value: object) -> TypeGuard[Sequence[object]]:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _is_empty(value: object) -> bool:
    return value is None or (isinstance(value, Mapping | Sequence) and not value)


_QUANTITY = re.compile(r"([+-]?[0-9.]+)(?:([eE][+-]?[0-9]+)|([KMGTPE]i)|([numkMGTPE]))?")
_BINARY = {f"{letter}i": 1024**power for power, letter in enumerate("KMGTPE", start=1)}
_DECIMAL = {letter: Decimal(10) ** (3 * (power - 3)) for power, letter in enumerate("num kMGTPE")}


def _quantity(text: str) -> Decimal:
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no Kubernetes quantity")
    number, exponent, binary, decimal = match.groups()
    factor = Decimal(_BINARY.get(binary, 1)) * _DECIMAL.get(decimal, 1)
    return Decimal(number + (exponent or "")) * factor


def _second(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(microsecond=0)


def _same(parse: Any, one: object, other: object) -> bool:
    try:
        return bool(parse(str(one)) == parse(str(other)))
    except (ValueError, ArithmeticError, TypeError):
        return False
