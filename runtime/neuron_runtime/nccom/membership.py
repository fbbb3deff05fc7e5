"""Who is in a group: what a process says of itself, why it is refused, which ranks it gets. Pure.

Ranks are numbered process by process. The process at the root's address is the first; the others follow in the order
of ``--hosts``, or of their host names, so that pods of a StatefulSet or an indexed Job have the ranks of their numbers.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from neuron_runtime.nccom.claims import GivenCore, Place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

PROTOCOL = 3
_MOST_CORES = 1024
_MOST_LAYERS = 8
_MOST_TEXT = 253


class HelloError(Exception):
    """What was sent is nothing that a process says of itself."""


@dataclass(frozen=True)
class Hello:
    """What a process says of itself, and of the job as it understands it."""

    host: str
    versions: str
    """Of protocol and runtime."""
    job: str
    """Operations, sizes, types and groups."""
    seed: int | None
    """None: that of the root."""
    processes: int
    place: Place
    port: int = 0
    """Where it waits for the others."""


def encoded(hello: Hello) -> bytes:
    """As it is sent."""
    return json.dumps(
        {
            "host": hello.host,
            "versions": hello.versions,
            "job": hello.job,
            "seed": hello.seed,
            "processes": hello.processes,
            "place": place_document(hello.place),
            "port": hello.port,
        }
    ).encode()


def place_document(place: Place) -> dict[str, Any]:
    """A place, for JSON."""
    return {
        "type": place.instance_type,
        "instance": place.instance_id,
        "lnc": place.logical_neuron_core,
        "cores": [[core.number, core.chip, core.core] for core in place.cores],
        "ultraserver": place.ultraserver,
        "seat": place.seat,
        "network": list(place.network),
    }


def decoded(content: bytes) -> Hello:
    """What was sent. Raises HelloError."""
    try:
        found = json.loads(content)
        return Hello(
            _text(found["host"]),
            _text(found["versions"]),
            _text(found["job"]),
            None if found["seed"] is None else _number(found["seed"]),
            _number(found["processes"]),
            place_of(found["place"]),
            _port(found["port"]),
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise HelloError(f"not understood: {error!r}") from None


def place_of(found: Any) -> Place:
    """A place out of JSON. Raises ValueError, KeyError or TypeError."""
    cores, network = found["cores"], found["network"]
    if not isinstance(cores, list) or not 0 < len(cores) <= _MOST_CORES:
        raise ValueError("no list of cores")
    if not isinstance(network, list) or len(network) > _MOST_LAYERS:
        raise ValueError("no list of network nodes")
    return Place(
        _text(found["type"]),
        _text(found["instance"]),
        _number(found["lnc"]),
        tuple(GivenCore(*(_number(part) for part in core)) for core in cores),
        None if found["ultraserver"] is None else _text(found["ultraserver"]),
        _number(found["seat"]),
        tuple(_text(node) for node in network),
    )


def refusal(root: Hello, other: Hello, joined: Sequence[Hello]) -> str | None:
    """Why a process cannot be in the root's group; None if it can."""
    if other.versions != root.versions:
        return f"{other.host} has version {other.versions}, the root {root.versions}: use one version in all pods"
    if other.job != root.job or other.processes != root.processes:
        return (
            f"{other.host} runs another job than the root {root.host}: "
            "use the same flags in all pods, or another root id"
        )
    if other.seed is not None and other.seed != root.seed:
        return (
            f"{other.host} has the seed {other.seed}, the root {root.seed or 'none'}: give the same --seed in all pods"
        )
    if len(other.place.cores) != len(root.place.cores):
        return f"{other.host} has {len(other.place.cores)} ranks, the root {len(root.place.cores)}: use as many in each"
    if len(joined) >= root.processes - 1:
        return f"the group of {root.host} is complete: use another root id for another job"
    taken = {core for hello in (root, *joined) for core in _physical(hello.place)}
    if taken & set(_physical(other.place)):
        return f"{other.host} brings cores that are in the group already: give each pod a claim of its own"
    return None


def ordered(hellos: Sequence[Hello], order: Sequence[int | None]) -> list[int]:
    """The places of these processes in the order of their ranks; `order` has their places in ``--hosts``, if any."""
    most = len(hellos)

    def key(place: int) -> tuple[int, list[str | int]]:
        wanted = order[place]
        return (most if wanted is None else wanted, _natural(hellos[place].host))

    return sorted(range(most), key=key)


def _natural(name: str) -> list[str | int]:
    """Numbers in a name as numbers: pod-10 comes after pod-9. Texts and numbers take turns, so any two compare."""
    return [int(part) if place % 2 else part for place, part in enumerate(re.split(r"([0-9]+)", name))]


def _physical(place: Place) -> list[tuple[str, int, int]]:
    return [(place.instance_id, core.chip, core.core) for core in place.cores]


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > _MOST_TEXT or not value.isprintable():
        raise ValueError("no short text")
    return value


def _port(value: Any) -> int:
    if _number(value) >= 1 << 16:
        raise ValueError("no port")
    return _number(value)


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 64:
        raise ValueError("no number from 0")
    return value
