"""What a virtual node offers, ready to be sent. Pure.

The devices are those of the agent on a real node (`node`). Of thousands of nodes most offer the same, but for their
names, so what they offer is turned into JSON once for all that are alike: those of an UltraServer, or those under the
same network node. And these differ by a few words only, which are put into JSON that was made once for all of a type.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import orjson
from neuron_device_model.efa import offered
from neuron_device_model.faults import read as read_fault

from ..errors import NodeError
from ..names import EFA_DRIVER_NAME
from ..node import SimulatedNode, from_neuron_node

# What makes no difference to devices: who the node is, and where it sits in its UltraServer.
_OF_ONE_NODE = frozenset({"pool", "instanceID", "ultraServer"})
# What is said of a node by an attribute of its devices and nothing more; so are its network nodes.
_WORDS = frozenset({"capacityBlockID", "workloadID"})
# UltraServers, or network nodes: their nodes come in the order of their names, which is not theirs.
_REMEMBERED = 2048


@dataclass(frozen=True, slots=True)
class Page:
    """What one ResourceSlice holds, as JSON; one of the two."""

    devices: bytes | None = None
    shared_counters: bytes | None = None


@dataclass(frozen=True, slots=True)
class Pool:
    """All slices of one driver, the same for every node that is alike."""

    driver: str
    pages: tuple[Page, ...]
    digest: str


@dataclass(frozen=True, slots=True)
class Content:
    """What is published for all nodes that are alike."""

    pools: tuple[Pool, ...]
    chips: int
    problem: NodeError | None = None
    """Why nothing is."""
    model: SimulatedNode | None = field(default=None, compare=False)
    """What nodes are that are alike, without what is one node's own: the same object for all of them."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is published for one node."""

    node: str
    node_uid: str
    content: Content


def wanted(neuron_node: Mapping[str, Any], *, driver: str, efa: bool, counters: bool) -> Wanted:
    """What a virtual node offers; `counters`: whether the API server keeps them."""
    metadata = neuron_node["metadata"]
    owner = next((found for found in metadata.get("ownerReferences") or () if found["kind"] == "Node"), None)
    spec = {key: value for key, value in neuron_node["spec"].items() if key not in _OF_ONE_NODE}
    content = _content(orjson.dumps(spec, option=orjson.OPT_SORT_KEYS), driver, efa, counters)
    return Wanted(metadata["name"], owner["uid"] if owner else "", content)


@lru_cache(maxsize=_REMEMBERED)
def _content(spec: bytes, driver: str, efa: bool, counters: bool) -> Content:
    """With the words that are its own, instead of the marks that stand for them."""
    read = orjson.loads(spec)
    words: dict[bytes, bytes] = {}

    def mark(word: str) -> str:
        stands = f"<{len(words)}>"
        words[orjson.dumps(stands)] = orjson.dumps(word)
        return stands

    if "networkNodes" in read:
        read["networkNodes"] = [mark(word) for word in read["networkNodes"]]
    for key in sorted(_WORDS & read.keys()):
        read[key] = mark(read[key])
    alike = _alike(orjson.dumps(read, option=orjson.OPT_SORT_KEYS), driver, efa, counters)
    pools = [
        _pool(pool.driver, [Page(_filled(page.devices, words), page.shared_counters) for page in pool.pages])
        for pool in alike.pools
    ]
    return Content(tuple(pools), alike.chips, alike.problem, alike.model)


def _filled(content: bytes | None, words: Mapping[bytes, bytes]) -> bytes | None:
    if content is None:
        return None
    for stands, word in words.items():
        content = content.replace(stands, word)
    return content


@lru_cache(maxsize=_REMEMBERED)
def _alike(spec: bytes, driver: str, efa: bool, counters: bool) -> Content:
    read = orjson.loads(spec)
    faults = read.pop("faults", None) or ()
    node = _whole(orjson.dumps(read, option=orjson.OPT_SORT_KEYS))
    if isinstance(node, NodeError):
        return Content((), 0, node)
    node = node.broken(tuple(map(read_fault, faults)))
    if node.resources != "DRA":
        text = "a virtual node has no kubelet that device plugins could serve: set resources: DRA in its pool"
        return Content((), 0, NodeError("NoKubelet", text))
    offer = node.offer if counters else node.offer.without_counters()
    pages = [
        Page(shared_counters=orjson.dumps(page.counter_sets))
        if page.counter_sets
        else Page(devices=orjson.dumps(page.devices))
        for page in offer.pages()
    ]
    pools = [_pool(driver, pages)]
    if efa and (cards := offered(node.instance_type, faults=node.faults)):
        pools.append(_pool(EFA_DRIVER_NAME, [Page(devices=orjson.dumps(cards))]))
    return Content(tuple(pools), node.instance_type.chips, model=node)


@lru_cache(maxsize=_REMEMBERED)
def _whole(spec: bytes) -> SimulatedNode | NodeError:
    try:
        return from_neuron_node({"metadata": {"name": "any"}, "spec": orjson.loads(spec)})
    except NodeError as error:
        return error


def _pool(driver: str, pages: list[Page]) -> Pool:
    digest = blake2b(driver.encode(), digest_size=8)
    for page in pages:
        digest.update(b"%d;" % len(page.devices or b""))
        digest.update(page.devices or page.shared_counters or b"")
    return Pool(driver, tuple(pages), digest.hexdigest())
