"""No physical core is given away twice, and nothing that is free is withheld.

The scheduler knows devices and counters only. So the model here knows no more: it reads the offer as the API
has it and does Kubernetes' sums (dynamic-resource-allocation/structured, "counters").
"""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from neuron_device_model.advertise import Offer, offer
from neuron_device_model.catalog import DEFAULT_SDK_VERSION, InstanceType, instance_type, instance_types, sdk_release
from neuron_device_model.packing import Claim, Event, Release, replay
from neuron_device_model.partitions import OFFERED_DEVICES, PARTITIONS, part

SDK = sdk_release(DEFAULT_SDK_VERSION)
CHOICES = [(partitions, devices) for partitions in PARTITIONS for devices in OFFERED_DEVICES]


class Scheduler:
    """One pool, as kube-scheduler's allocator sees it."""

    def __init__(self, found: Offer) -> None:
        self.devices = {device["name"]: device for device in found.devices}
        self.allocated: list[str] = []
        self._free = Counter[tuple[str, str]]()
        for counters in found.counter_sets:
            for name, counter in counters["counters"].items():
                self._free[counters["name"], name] = int(counter["value"])

    def _needs(self, name: str) -> Counter[tuple[str, str]]:
        return Counter(
            {
                (consumption["counterSet"], counter): int(taken["value"])
                for consumption in self.devices[name].get("consumesCounters", ())
                for counter, taken in consumption["counters"].items()
            }
        )

    def can_allocate(self, name: str) -> bool:
        return name not in self.allocated and self._needs(name) <= self._free

    def allocate(self, name: str) -> None:
        self._free.subtract(self._needs(name))
        self.allocated.append(name)

    def release(self, name: str) -> None:
        self._free.update(self._needs(name))
        self.allocated.remove(name)

    def first_fit(self, count: int, **attributes: dict[str, Any]) -> list[str]:
        """Devices for a request that a class with such attributes admits; none where there are too few."""
        taken: list[str] = []
        for name, device in self.devices.items():
            admitted = attributes.items() <= {k.rpartition("/")[2]: v for k, v in device["attributes"].items()}.items()
            if len(taken) < count and admitted and self.can_allocate(name):
                self.allocate(name)
                taken.append(name)
        if len(taken) < count:
            for name in taken:
                self.release(name)
            return []
        return taken


def offered(kind: InstanceType, lnc: int, partitions: str, devices: str) -> Offer:
    return offer(
        kind, sdk=SDK, dra_driver_version="0.1.0", logical_neuron_core=lnc, partitions=partitions, devices=devices
    )


def cores(name: str, kind: InstanceType, lnc: int) -> set[int]:
    return set(part(name, kind, logical_neuron_core=lnc).physical_cores)


@st.composite
def nodes(draw: st.DrawFn) -> tuple[InstanceType, int, str, str]:
    kind = draw(st.sampled_from(instance_types()))
    lnc = draw(st.sampled_from(kind.chip.logical_neuron_core_values))
    return (kind, lnc, *draw(st.sampled_from(CHOICES)))


@given(nodes(), st.data())
def test_a_device_can_be_allocated_exactly_while_none_of_its_cores_is(
    node: tuple[InstanceType, int, str, str], data: st.DataObject
) -> None:
    kind, lnc, *_ = node
    scheduler = Scheduler(offered(*node))
    # Devices of a few chips, so that they meet.
    chips = data.draw(st.sets(st.integers(0, kind.chips - 1), min_size=1, max_size=2))
    near = [name for name in scheduler.devices if chips & set(part(name, kind, logical_neuron_core=lnc).chips)]
    for name in data.draw(st.lists(st.sampled_from(near), max_size=40)):
        if name in scheduler.allocated:
            scheduler.release(name)
            continue
        busy = set[int]().union(*(cores(other, kind, lnc) for other in scheduler.allocated))
        assert scheduler.can_allocate(name) == busy.isdisjoint(cores(name, kind, lnc))
        if scheduler.can_allocate(name):
            scheduler.allocate(name)


@pytest.mark.parametrize(("partitions", "devices"), CHOICES)
@pytest.mark.parametrize(("name", "lnc"), [("trn2.3xlarge", 2), ("trn2.3xlarge", 1), ("inf2.24xlarge", 1)])
def test_every_two_devices_exclude_one_another_exactly_if_they_share_a_core(
    name: str, lnc: int, partitions: str, devices: str
) -> None:
    kind = instance_type(name)
    scheduler = Scheduler(offered(kind, lnc, partitions, devices))
    for first, second in combinations(scheduler.devices, 2):
        scheduler.allocate(first)
        share = cores(first, kind, lnc) & cores(second, kind, lnc)
        assert scheduler.can_allocate(second) == (not share), (first, second)
        scheduler.release(first)


CLASSES: dict[str, dict[str, Any]] = {
    "core": {"resourceType": {"string": "neuron_core"}, "partition": {"string": "logical"}},
    "physical_core": {"resourceType": {"string": "neuron_core"}, "partition": {"string": "physical"}},
    "chip": {"resourceType": {"string": "neuron_device"}},
    "node": {"resourceType": {"string": "neuron_node"}},
}
KINDS = st.sampled_from(["core", "core", "physical_core", "chip", "node"])


@st.composite
def histories(draw: st.DrawFn) -> Sequence[Event]:
    events: list[Event] = []
    there: list[str] = []
    for number in range(draw(st.integers(0, 25))):
        if there and draw(st.booleans()):
            events.append(Release(there.pop(draw(st.integers(0, len(there) - 1)))))
        else:
            events.append(Claim(f"claim-{number}", draw(KINDS), draw(st.integers(1, 12))))  # type: ignore[arg-type]
            there.append(f"claim-{number}")
    return events


@given(histories(), st.sampled_from(["trn2.3xlarge", "trn2.48xlarge"]), st.sampled_from(CHOICES))
def test_the_replay_of_claims_gives_what_the_scheduler_gives(
    events: Sequence[Event], name: str, choice: tuple[str, str]
) -> None:
    kind = instance_type(name)
    partitions, devices = choice
    scheduler = Scheduler(offered(kind, 2, partitions, devices))
    held: dict[str, tuple[str, ...]] = {}
    for event in events:
        if isinstance(event, Release):
            for name in held.pop(event.name, ()):
                scheduler.release(name)
        elif taken := scheduler.first_fit(event.count, **CLASSES[event.kind]):
            held[event.name] = tuple(taken)
    assert replay(events, kind, logical_neuron_core=2, partitions=partitions, devices=devices).held == held
