"""The loop on live watches; the taint beside those of others; an uninstall in the middle; Events that nobody takes."""

import asyncio
import contextlib
import copy
import sys
from pathlib import Path

import pytest
from neuron_operator import kube, names
from neuron_operator.gangs import names as gang_names
from neuron_operator.gangs import taints
from neuron_operator.hooks.uninstall import uninstall
from neuron_operator.kube import ApiError, NotFound

sys.path.insert(0, str(Path(__file__).parent))
from gangs_lab import Faulty, Lab

OTHERS = {"key": "aws.amazon.com/neuron", "effect": "NoSchedule"}


@pytest.fixture
def lab(new_cluster):
    return Lab(new_cluster())


class Watched(Faulty):
    """An API server whose watches tell at once what changed."""

    def __init__(self, lab):
        super().__init__(lab)
        self.asked = {}

    async def list(self, resource, *, labels="", fields=""):
        self.asked[resource] = labels
        return await self._lab.api.list(resource, labels=labels, fields=fields)

    async def watch(self, resource, *, version, labels="", fields=""):
        seen = {}
        while True:
            there = copy.deepcopy(self._lab.api.of(resource))
            for key, item in there.items():
                if seen.get(key) != item and (not labels or labels in item["metadata"].get("labels", {})):
                    yield "MODIFIED", item
            for key in seen.keys() - there.keys():
                seen[key]["metadata"]["resourceVersion"] = str(self._lab.api.version)
                yield "DELETED", seen[key]
            seen = there
            await asyncio.sleep(0)


async def test_it_watches_places_and_lets_go(lab):
    api = Watched(lab)
    running = asyncio.create_task(lab.gangs.run(api))
    lab.workload("train", 4)
    lab.control()
    async with asyncio.timeout(20):
        while len(lab.bound("train")) < 4 or lab.phase("train") != "Bound" or lab.taints():
            lab.schedule()
            await asyncio.sleep(0)
    assert api.asked[kube.PODS] == gang_names.LABEL_GANG, "the API server leaves out all other pods"
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def test_taints_of_others_stay(lab):
    lab.node("n0-0", lambda item: item["spec"].update(taints=[OTHERS]))
    await taints.reserve(lab.api, "n0-0", "a-1")
    assert lab.taints() == {"n0-0": "a-1"}
    await taints.reserve(lab.api, "n0-0", "b-1")
    assert lab.taints() == {"n0-0": "b-1"}
    await taints.reserve(lab.api, "n0-0", None)
    assert lab.api.of(kube.NODES)["n0-0"]["spec"]["taints"] == [OTHERS]


async def test_a_node_that_is_right_is_not_written(lab):
    await taints.reserve(lab.api, "n0-0", None)
    assert not lab.api.writes


def test_a_node_that_is_known_is_reserved_without_being_read(lab):
    lab.workload("train", 4)
    lab.control()
    lab.deliver()
    read = []
    get = lab.api.get

    async def counted(resource, name, **options):
        read.append(resource)
        return await get(resource, name, **options)

    lab.api.get = counted
    lab.step()
    assert len(lab.taints()) == 4
    assert kube.NODES not in read


def test_taints_that_came_meanwhile_or_say_since_when_stay(lab):
    since = {"key": "example.com/drain", "effect": "NoExecute", "timeAdded": "2026-11-21T12:00:00Z"}
    lab.node("n0-0", lambda item: item["spec"].update(taints=[since]))
    lab.workload("train", 4, spec={"tolerations": [{"operator": "Exists"}]})
    lab.control()
    lab.deliver()
    lab.node("n0-1", lambda item: item["spec"].update(taints=[OTHERS]))
    lab.step()
    assert len(lab.taints()) == 4
    assert lab.api.of(kube.NODES)["n0-0"]["spec"]["taints"][0] == since
    assert lab.api.of(kube.NODES)["n0-1"]["spec"]["taints"][0] == OTHERS


async def test_an_uninstall_ends_reservations(lab):
    await taints.reserve(lab.api, "n0-0", "a-1")
    said = []
    await uninstall(lab.api, driver_name=names.AWS_DRIVER_NAME, timeout=0, say=said.append)
    assert not lab.taints()


def test_an_event_that_is_not_taken_stops_nothing(lab):
    lab.workload("train", 8)
    lab.control()
    lab.deliver()
    forbidden = ApiError(403, "Forbidden", "the namespace is being terminated")
    create = lab.api.create

    async def no_events(resource, body):
        if resource == kube.EVENTS:
            lab.refusals = getattr(lab, "refusals", 0) + 1
            raise forbidden
        return await create(resource, body)

    lab.api.create = no_events
    lab.step()
    lab.step()
    assert lab.refusals == 8, "and is not tried again and again"


def test_a_pod_that_is_gone_when_it_is_let_go_is_forgotten(lab):
    lab.workload("train", 2)
    lab.control()
    merge, dropped = lab.api.merge, []

    async def gone(resource, name, body, **options):
        if name == "train-1" and not dropped:
            dropped.append(lab.api.drop(kube.PODS, "default/train-1"))
            raise NotFound(404, "NotFound", name)
        return await merge(resource, name, body, **options)

    lab.api.merge = gone
    lab.settle()
    assert len(lab.bound("train")) == 2
    assert lab.phase("train") == "Bound"
