"""Gangs left to kube-scheduler: a PodGroup for each, from its first pod to its last."""

import asyncio
import sys
from pathlib import Path

import pytest
from neuron_operator import kube, names
from neuron_operator.gangs import names as gang_names
from neuron_operator.gangs.pod_groups import KEYS, PodGroups
from neuron_operator.kube import ApiError, Conflict
from neuron_operator.placement import LEVELS

sys.path.insert(0, str(Path(__file__).parent))
from gangs_lab import make_pod


class Site:
    """An API server, and PodGroups that look at it before each step."""

    def __init__(self, cluster):
        self.api = cluster
        self.pod_groups = PodGroups(cluster)

    def pod(self, name, gang, *, phase="Pending", **more):
        pod = make_pod(gang, 4, gated=False, **more)
        pod["metadata"] |= {"name": name}
        self.api.put(kube.PODS, {**pod, "status": {"phase": phase}})

    def step(self):
        self.pod_groups.pods.listed(list(self.api.of(kube.PODS).values()))
        self.pod_groups.groups.listed(list(self.api.of(kube.POD_GROUPS).values()))
        return asyncio.run(self.pod_groups.step())

    @property
    def there(self):
        return self.api.of(kube.POD_GROUPS)


@pytest.fixture
def site(cluster):
    return Site(cluster)


def test_the_first_pod_of_a_gang_makes_its_group(site):
    site.pod("train-0", "train")
    assert site.step()
    assert list(site.there) == ["default/train"]
    assert site.there["default/train"]["spec"] == {
        "schedulingPolicy": {"gang": {"minCount": 4}},
        "schedulingConstraints": {"topology": [{"key": "neuron-sim.dev/ultraserver-id"}]},
    }
    site.pod("train-1", "train")
    site.step()
    assert site.api.writes == ["create podgroups/train"]


@pytest.mark.parametrize("level", LEVELS)
def test_each_level_is_a_label_of_nodes(site, level):
    site.pod("train-0", "train", annotations={gang_names.TOPOLOGY: level})
    site.step()
    (topology,) = site.there["default/train"]["spec"]["schedulingConstraints"]["topology"]
    assert topology == {"key": KEYS[level]}


def test_the_last_pod_that_goes_takes_the_group_with_it(site):
    site.pod("train-0", "train")
    site.pod("other-0", "other")
    site.step()
    site.pod("train-0", "train", phase="Succeeded")
    site.step()
    assert list(site.there) == ["default/other"]


def test_a_group_that_somebody_else_made_is_used_and_stays(site):
    site.api.put(kube.POD_GROUPS, {"metadata": {"name": "train", "namespace": "default"}, "spec": {}})
    site.pod("train-0", "train")
    site.step()
    site.api.drop(kube.PODS, "default/train-0")
    site.step()
    assert not site.api.writes
    assert list(site.there) == ["default/train"]


def test_labels_that_make_no_sense_make_no_group(site):
    site.pod("train-0", "train", labels={gang_names.LABEL_SIZE: "many"})
    assert site.step()
    assert not site.there


@pytest.mark.parametrize("refusal", [ApiError(500, "InternalError", "etcd"), Conflict(409, "Conflict", "modified")])
def test_what_is_refused_is_tried_again(site, refusal):
    site.pod("train-0", "train")
    site.api.faults.append(ApiError(429, "TooManyRequests", "later"))
    assert not site.step()
    assert site.step()
    site.api.drop(kube.PODS, "default/train-0")
    site.api.faults.append(refusal)
    assert not site.step()
    assert site.step()
    assert not site.there


def test_a_group_of_the_same_name_that_came_meanwhile_is_taken(site):
    site.pod("train-0", "train")
    site.pod_groups.pods.listed(list(site.api.of(kube.PODS).values()))
    mine = {"name": "train", "namespace": "default", "labels": {names.LABEL_SIMULATED: "true"}}
    site.api.put(kube.POD_GROUPS, {"metadata": mine, "spec": {}})
    assert asyncio.run(site.pod_groups.step())
    assert list(site.pod_groups.groups.values) == ["default/train"]
