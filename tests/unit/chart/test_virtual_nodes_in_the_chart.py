"""Virtual nodes are installed where the chart is told so, with no more rights than they need."""

import re

import pytest
import yaml
from neuron_operator.virtual_nodes import base_labels

AGENT, KWOK = "neuron-sim-virtual-agent", "neuron-sim-kwok"


@pytest.fixture(scope="module")
def virtual(render):
    return render({"virtualNodes": {"enabled": True}})


def writes(manifests, role):
    return {
        (resource, verb)
        for kind in ("ClusterRole", "Role")
        for found in manifests.all(kind)
        if found["metadata"]["name"] == role
        for rule in found["rules"]
        for resource in rule["resources"]
        for verb in {"create", "update", "patch", "delete"} & set(rule["verbs"])
    }


def test_nothing_of_them_is_there_unless_asked_for(default):
    named = [found["metadata"]["name"] for found in default.objects]
    assert not [name for name in named if "virtual" in name or "kwok" in name]
    assert "--virtual-nodes" not in default.container("neuron-sim-operator")["args"]
    assert ("nodes", "create") not in writes(default, "neuron-sim-operator")


def test_the_operator_may_make_nodes_and_the_hook_delete_them(virtual):
    assert "--virtual-nodes" in virtual.container("neuron-sim-operator")["args"]
    assert {("nodes", "create"), ("nodes", "delete")} <= writes(virtual, "neuron-sim-operator")
    assert ("nodes", "delete") in writes(virtual, "neuron-sim-uninstall")
    policy = virtual.get("ValidatingAdmissionPolicy", "neuron-sim-operator-nodes")
    assert policy["spec"]["matchConstraints"]["resourceRules"][0]["operations"] == ["CREATE", "DELETE"]


def test_the_agent_writes_slices_and_statuses_only(virtual):
    assert writes(virtual, AGENT) == {
        ("resourceslices", "create"),
        ("resourceslices", "update"),
        ("resourceslices", "delete"),
        ("neuronnodes/status", "patch"),
    }
    for name in ("neuron-sim-resourceslices", f"{AGENT}-neuronnodes"):
        binding = virtual.get("ValidatingAdmissionPolicyBinding", name)
        assert binding["spec"]["validationActions"] == ["Deny"]


def test_kwok_writes_leases_of_nodes_in_one_namespace_only(virtual):
    (role,) = [found for found in virtual.all("Role") if found["metadata"]["name"] == KWOK]
    assert role["metadata"]["namespace"] == "kube-node-lease"
    assert ("leases", "create") in writes(virtual, KWOK)
    assert ("nodes", "patch") not in writes(virtual, KWOK)


def test_neither_runs_on_a_virtual_node(virtual):
    for name in (AGENT, KWOK):
        terms = virtual.pod(name)["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        (term,) = terms["nodeSelectorTerms"]
        assert term["matchExpressions"] == [{"key": "type", "operator": "NotIn", "values": ["kwok"]}]


def test_kwok_plays_the_nodes_that_the_operator_makes(virtual):
    documents = list(yaml.safe_load_all(virtual.get("ConfigMap", KWOK)["data"]["kwok.yaml"]))
    key, _, value = documents[0]["options"]["manageNodesWithLabelSelector"].partition("=")
    assert base_labels("any")[key] == value
    stages = {found["metadata"]["name"] for found in documents[1:]}
    assert stages == {"node-ready", "pod-running", "pod-succeeded", "pod-gone"}


def test_kwok_of_ones_own(render):
    manifests = render({"virtualNodes": {"enabled": True, "kwok": {"enabled": False}}})
    assert not [found for found in manifests.objects if found["metadata"]["name"] == KWOK]


def test_kwok_is_of_the_version_that_the_tooling_builds(virtual, pytestconfig):
    versions = (pytestconfig.rootpath / "hack" / "versions").read_text()
    (pinned,) = re.findall(r"^KWOK_VERSION=(\S+)", versions, re.MULTILINE)
    assert virtual.container(KWOK)["image"] == f"registry.k8s.io/kwok/kwok:{pinned}"


@pytest.mark.parametrize(("value", "seconds"), [(None, 40), (0, 0), (120, 120)])
def test_how_long_leases_last(render, value, seconds):
    manifests = render({"virtualNodes": {"enabled": True, "kwok": {"leaseSeconds": value}}})
    configuration, *_ = yaml.safe_load_all(manifests.get("ConfigMap", KWOK)["data"]["kwok.yaml"])
    assert configuration["options"]["nodeLeaseDurationSeconds"] == seconds
