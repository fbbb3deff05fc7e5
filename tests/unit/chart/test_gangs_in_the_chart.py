"""Gangs in the chart: who adds the gate, what is refused, and what the operator may do with pods.

What the policies' expressions decide can be told by an API server only: tests/cluster.
"""

import re
from typing import get_args

import pytest
from neuron_operator.gangs import names
from neuron_operator.placement import Level

MUTATING = "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy"


@pytest.fixture
def newer(render):
    """A Kubernetes that has mutating policies."""
    return render(apis=[MUTATING])


def test_the_api_server_adds_the_gate_where_it_can(newer):
    (policy,) = newer.all("MutatingAdmissionPolicy")
    (binding,) = newer.all("MutatingAdmissionPolicyBinding")
    assert binding["spec"]["policyName"] == policy["metadata"]["name"]
    (selector,) = policy["spec"]["matchConstraints"]["objectSelector"]["matchExpressions"]
    assert selector == {"key": names.LABEL_GANG, "operator": "Exists"}
    (rule,) = policy["spec"]["matchConstraints"]["resourceRules"]
    assert (rule["resources"], rule["operations"]) == (["pods"], ["CREATE"])
    (mutation,) = policy["spec"]["mutations"]
    assert f'name: "{names.GATE}"' in mutation["applyConfiguration"]["expression"]


@pytest.mark.parametrize(
    ("values", "apis"),
    [({}, []), ({"gangs": {"addGate": False}}, [MUTATING]), ({"gangs": {"enabled": False}}, [MUTATING])],
)
def test_otherwise_pods_bring_it_themselves(render, values, apis):
    manifests = render(values, apis=apis)
    assert not manifests.all("MutatingAdmissionPolicy")
    assert not manifests.all("MutatingAdmissionPolicyBinding")


def test_the_notes_say_so(render):
    assert "neuron-sim.dev/gang themselves: the API server has no MutatingAdmissionPolicy" in render.notes()
    assert "neuron-sim.dev/gang themselves" not in render.notes({"gangs": {"enabled": False}})


def test_a_wrong_gang_is_refused_with_a_sentence(default):
    policy = default.get("ValidatingAdmissionPolicy", "neuron-sim-gang-labels")
    for validation in policy["spec"]["validations"]:
        assert validation["reason"] == "Invalid"
        assert re.search("use|say|write|leave", validation.get("messageExpression") or validation["message"])


def test_the_policy_knows_the_topologies_and_labels_of_the_operator(default):
    policy = default.get("ValidatingAdmissionPolicy", "neuron-sim-gang-labels")
    (levels,) = [
        v["expression"] for v in policy["spec"]["validations"] if v["expression"].startswith("variables.topology")
    ]
    assert set(re.findall(r"'([a-z0-9-]+)'", levels)) == set(get_args(Level))
    text = str(policy)
    for label in (names.LABEL_GANG, names.LABEL_SIZE, names.TOPOLOGY, names.ANNOTATION_TIMEOUT):
        assert f"'{label}'" in text


def test_the_annotations_that_the_operator_may_write_are_those_that_it_writes(default):
    policy = default.get("ValidatingAdmissionPolicy", "neuron-sim-operator-pods")
    free = {v["name"]: v["expression"] for v in policy["spec"]["variables"]}["free"]
    assert set(re.findall(r"'([^']+)'", free)) == {
        names.ANNOTATION_RESERVATION,
        names.ANNOTATION_PLACE,
        names.ANNOTATION_PINNED,
    }


def test_the_policies_are_bound_and_deny(default):
    for name in ("neuron-sim-gang-labels", "neuron-sim-operator-pods"):
        binding = default.get("ValidatingAdmissionPolicyBinding", name)["spec"]
        assert (binding["policyName"], binding["validationActions"]) == (name, ["Deny"])


def test_without_gangs_there_is_nothing_of_them(render):
    without = render({"gangs": {"enabled": False}}, apis=[MUTATING])
    assert "--no-gangs" in without.container("neuron-sim-operator")["args"]
    of_the_operator = without.get("ClusterRole", "neuron-sim-operator")["rules"]
    assert not [rule for rule in of_the_operator if "neurongangs" in rule["resources"]]
    policies = {policy["metadata"]["name"] for policy in without.all("ValidatingAdmissionPolicy")}
    assert "neuron-sim-gang-labels" not in policies
    assert "neuron-sim-operator-pods" in policies, "NeuronUltraServerWorkloads have pods deleted all the same"


def test_with_gangs_the_operator_places_them(default):
    assert "--no-gangs" not in default.container("neuron-sim-operator")["args"]
