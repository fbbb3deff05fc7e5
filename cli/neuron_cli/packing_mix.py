"""A mix of claims in one line, and what becomes of it on an empty node. Pure, and without a cluster.

    8x1,-3,2x4chip     eight claims of one core each; the third is released; then two claims of four chips each

Claims are numbered as they arrive, from 1. Releases belong to it: while nothing is released, no chip is ever broken
without need.
"""

import re
from dataclasses import asdict

from neuron_device_model.catalog import InstanceType
from neuron_device_model.packing import Claim, Event, Packing, Release, Usage, replay
from neuron_device_model.partitions import PartKind

MOST_CLAIMS = 1000
KINDS: dict[str, PartKind] = {
    "": "core",
    "core": "core",
    "physical-core": "physical_core",
    "chip": "chip",
    "node": "node",
}
CLAIMS = re.compile(r"([1-9][0-9]{0,6})x([1-9][0-9]{0,6})([a-z-]*)", re.ASCII)
RELEASE = re.compile(r"-([1-9][0-9]{0,6})", re.ASCII)


class Unreadable(ValueError):
    """No mix; the message says what to write."""


def events(mix: str) -> list[Event]:
    """The claims and releases of a mix, in order."""
    found: list[Event] = []
    arrived = 0
    there: set[int] = set()
    for word in re.split(r"[\s,]+", mix.strip()):
        if release := RELEASE.fullmatch(word):
            number = int(release[1])
            if number not in there:
                raise Unreadable(f"{word!r} releases a claim that is not there: {arrived} have arrived by then")
            there.remove(number)
            found.append(Release(str(number)))
        elif (claims := CLAIMS.fullmatch(word)) and claims[3] in KINDS:
            first, arrived = arrived + 1, arrived + int(claims[1])
            if arrived > MOST_CLAIMS:
                raise Unreadable(f"{word!r} makes it more than {MOST_CLAIMS} claims: try fewer")
            there.update(range(first, arrived + 1))
            found += [Claim(str(n), KINDS[claims[3]], int(claims[2])) for n in range(first, arrived + 1)]
        else:
            kinds = ", ".join(f"2x4{kind}" for kind in KINDS if kind)
            raise Unreadable(f"{word!r} is no part of a mix: write 2x4 for two claims of four cores, {kinds}, or -1")
    return found


def packed(mix: str, kind: InstanceType, *, logical_neuron_core: int | None = None) -> Packing:
    """What becomes of a mix on an empty node that offers everything that it can be cut into."""
    lnc = kind.chip.default_logical_neuron_core if logical_neuron_core is None else logical_neuron_core
    return replay(events(mix), kind, logical_neuron_core=lnc, partitions="physical", devices="both")


def document(packing: Packing) -> dict[str, object]:
    """The same for programs."""
    return {
        "end": _moment(packing.last),
        "worst": _moment(packing.worst),
        "refused": [
            {
                "claim": refusal.claim.name,
                "kind": refusal.claim.kind,
                "count": refusal.claim.count,
                "reason": refusal.reason,
            }
            for refusal in packing.refused
        ],
        "held": {name: list(devices) for name, devices in packing.held.items()},
    }


def _moment(usage: Usage) -> dict[str, int]:
    return {**asdict(usage), "untouched": usage.untouched}
