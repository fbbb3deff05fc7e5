"""What the API server has of a virtual node's slices, and what has to be written. Pure.

Of thousands of slices only the metadata is ever read, and a line is kept of each. That is enough to know whether a
slice is as it was written: the API server counts the changes of a slice's spec in `metadata.generation`, and we write
beside the digest of what we send the generation that this very write will lead to. Where the two agree, nobody has
changed the spec since, whichever process wrote it; so a restart reads a twentieth of the slices and writes none.

A pool's slices are rewritten together, under a new generation of the pool: the allocator counts only those of the
highest one (`kubeletplugin.slices`). A pool of whole chips is one slice, and a chip that changes is one write of it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from ..names import API_GROUP, SIMULATED, VIRTUAL
from .wanted import Page, Pool, Wanted

Object = dict[str, Any]

PUBLISHED = f"{API_GROUP}/published"
"""Annotation of a slice: what was written, and which generation of the slice that made."""
_LABELS = {SIMULATED: "true", VIRTUAL: "true"}


@dataclass(frozen=True, slots=True)
class Stamp:
    """What the annotation says."""

    digest: str
    pool_generation: int
    generation: int

    def __str__(self) -> str:
        return f"{self.digest}.{self.pool_generation}.{self.generation}"


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of one slice."""

    name: str
    uid: str
    version: int
    """Of the object; they can be compared."""
    node: str
    node_uid: str
    generation: int
    """Of the object's spec."""
    stamp: Stamp | None
    """None: it cannot be read, or somebody took it off."""
    foreign: Mapping[str, Any]
    """What others wrote into its metadata and is theirs: labels, annotations, finalizers. Nothing, as a rule."""

    @property
    def untouched(self) -> bool:
        """Whether the spec is as it was written."""
        return self.stamp is not None and self.stamp.generation == self.generation


@dataclass(frozen=True, slots=True)
class Write:
    """A slice to create (`record` is None), or to change."""

    name: str
    body: Object
    record: Record | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What makes a node's slices right: deletions first."""

    deletes: tuple[Record, ...] = ()
    writes: tuple[Write, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.deletes or self.writes)


def read(found: Mapping[str, Any]) -> Record:
    """The record of a slice; its metadata is enough."""
    metadata = found["metadata"]
    owner = next((each for each in metadata.get("ownerReferences") or () if each["kind"] == "Node"), None)
    return Record(
        name=metadata["name"],
        uid=metadata["uid"],
        version=int(metadata["resourceVersion"]),
        node=owner["name"] if owner else "",
        node_uid=owner["uid"] if owner else "",
        generation=metadata.get("generation") or 0,
        stamp=_stamp((metadata.get("annotations") or {}).get(PUBLISHED, "")),
        foreign=_foreign(metadata),
    )


def _foreign(metadata: Mapping[str, Any]) -> Object:
    found = {
        "labels": {key: value for key, value in (metadata.get("labels") or {}).items() if key not in _LABELS},
        "annotations": {key: value for key, value in (metadata.get("annotations") or {}).items() if key != PUBLISHED},
        "finalizers": metadata.get("finalizers") or [],
    }
    return {key: value for key, value in found.items() if value}


def _stamp(text: str) -> Stamp | None:
    try:
        digest, pool_generation, generation = text.split(".")
        return Stamp(digest, int(pool_generation), int(generation))
    except ValueError:
        return None


def plan(wanted: Wanted | None, records: Mapping[str, Record]) -> Plan:
    """Compare a node's slices, by name, with what it offers; None: nothing, there is no such node."""
    if wanted is None:
        return Plan(deletes=tuple(records.values()))
    writes: list[Write] = []
    expected: set[str] = set()
    for pool in wanted.content.pools:
        names = slice_names(wanted.node, pool)
        expected.update(names)
        writes += _writes(wanted, pool, names, records)
    return Plan(tuple(found for name, found in records.items() if name not in expected), tuple(writes))


def slice_names(node: str, pool: Pool) -> list[str]:
    """The names of a pool's slices. The scheduler reads slices in the order of their names.

    They are ours to choose, where drivers on nodes let the API server choose: so a slice that is sent twice is there
    once.
    """
    if len(pool.pages) == 1:
        return [f"{node}-{pool.driver}"]
    return [f"{index:05x}-{pool.driver}-{node}" for index in range(len(pool.pages))]


def _writes(wanted: Wanted, pool: Pool, names: list[str], records: Mapping[str, Record]) -> Iterable[Write]:
    present = [records[name] for name in names if name in records]
    stamps = {found.stamp for found in present if found.stamp}
    stands = (
        len(present) == len(names)
        and all(found.untouched and found.node_uid == wanted.node_uid for found in present)
        and {stamp.digest for stamp in stamps} == {pool.digest}
        and len({stamp.pool_generation for stamp in stamps}) == 1
    )
    if stands:
        return
    # A stamp may be lost or changed by hand, and a pool's generation is at least in so many writes of its slices.
    highest = max(
        [0, *(stamp.pool_generation for stamp in stamps), *(found.generation for found in present)],
    )
    for index, name in enumerate(names):
        yield _write(wanted, pool, index, name, records.get(name), pool_generation=highest + 1)


def _write(wanted: Wanted, pool: Pool, index: int, name: str, record: Record | None, *, pool_generation: int) -> Write:
    """All of the slice. The API server takes it in less time than a patch, which it would apply to JSON of its own."""
    stamp = Stamp(pool.digest, pool_generation, record.generation + 1 if record else 1)
    foreign = record.foreign if record else {}
    metadata: Object = {
        **foreign,
        "name": name,
        "labels": {**foreign.get("labels", {}), **_LABELS},
        "annotations": {**foreign.get("annotations", {}), PUBLISHED: str(stamp)},
        "ownerReferences": [
            {"apiVersion": "v1", "kind": "Node", "name": wanted.node, "uid": wanted.node_uid, "controller": True}
        ],
    }
    if record is not None:
        metadata["resourceVersion"] = str(record.version)  # only if it is still the slice that was judged
        metadata["managedFields"] = [{}]  # no book of who set which field, a seventh of the API server's time for it
    body = {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceSlice",
        "metadata": metadata,
        "spec": {
            "driver": pool.driver,
            "nodeName": wanted.node,
            "pool": {"name": wanted.node, "generation": pool_generation, "resourceSliceCount": len(pool.pages)},
            **_fragment(pool.pages[index]),
        },
    }
    return Write(name, body, record)


def _fragment(page: Page) -> Object:
    if page.devices is not None:
        return {"devices": orjson.Fragment(page.devices)}
    assert page.shared_counters is not None
    return {"sharedCounters": orjson.Fragment(page.shared_counters)}
