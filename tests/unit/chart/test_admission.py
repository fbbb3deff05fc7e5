"""The policies that hold each agent to its own node.

What their expressions decide can be told by an API server only: tests/cluster.
"""

import re

import pytest
from neuron_operator.extender.names import ALLOC_TIME, ALLOCATED, IDS, RESOURCE_TYPE

OPERATIONS = {"create": "CREATE", "update": "UPDATE", "patch": "UPDATE", "delete": "DELETE"}


@pytest.fixture
def policies(default):
    return agents(default)


def agents(manifests):
    found = manifests.all("ValidatingAdmissionPolicy")
    return [policy for policy in found if policy["metadata"]["name"].startswith("neuron-sim-agent-")]


def test_each_policy_is_bound_and_denies(default, policies):
    bindings = {b["spec"]["policyName"]: b["spec"] for b in default.all("ValidatingAdmissionPolicyBinding")}
    assert bindings.keys() >= {policy["metadata"]["name"] for policy in policies}
    assert all(binding["validationActions"] == ["Deny"] for binding in bindings.values())


def test_they_fail_closed_and_concern_nobody_but_the_agent(policies):
    for policy in policies:
        assert policy["spec"]["failurePolicy"] == "Fail"
        (condition,) = policy["spec"]["matchConditions"]
        assert condition["expression"] == (
            'request.userInfo.username == "system:serviceaccount:default:neuron-sim-agent"'
        )


@pytest.mark.parametrize("account", ["agent", "virtual-agent"])
def test_every_write_that_a_role_allows_is_judged_and_nothing_else_is_looked_at(render, account):
    manifests = render({"virtualNodes": {"enabled": True}})
    allowed = {
        (group, resource, OPERATIONS[verb])
        for rule in manifests.get("ClusterRole", f"neuron-sim-{account}")["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        if verb in OPERATIONS
    }
    judged = {
        (group, resource, operation)
        for policy in manifests.all("ValidatingAdmissionPolicy")
        if f':neuron-sim-{account}"' in str(policy["spec"].get("matchConditions"))
        for rule in policy["spec"]["matchConstraints"]["resourceRules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for operation in rule["operations"]
    }
    assert judged == allowed


def test_the_agent_is_known_by_the_namespace_of_the_release(render):
    for policy in agents(render(namespace="somewhere")):
        (condition,) = policy["spec"]["matchConditions"]
        assert "system:serviceaccount:somewhere:neuron-sim-agent" in condition["expression"]


def test_a_token_without_a_node_is_refused_first(policies):
    for policy in policies:
        first = policy["spec"]["validations"][0]
        assert first["expression"] == "variables.node != ''"
        assert "names no node" in first["message"]


def test_slices_are_judged_by_one_policy_which_knows_who_writes(render):
    policy = render(namespace="somewhere").get("ValidatingAdmissionPolicy", "neuron-sim-resourceslices")["spec"]
    (condition,) = policy["matchConditions"]
    accounts = re.findall(r'"system:serviceaccount:somewhere:neuron-sim-([a-z-]+)"', condition["expression"])
    assert accounts == ["agent", "virtual-agent", "operator"]
    judged = [re.match(r"variables\.writer != '([a-z-]+)'", each["expression"]) for each in policy["validations"]]
    assert all(judged)
    assert {found[1] for found in judged if found} == set(accounts)
    assert all(each["reason"] == "Forbidden" for each in policy["validations"])
    assert policy["failurePolicy"] == "Fail"


def test_deletes_are_judged_by_what_is_deleted(default):
    policy = default.get("ValidatingAdmissionPolicy", "neuron-sim-resourceslices")
    assert "DELETE" in policy["spec"]["matchConstraints"]["resourceRules"][0]["operations"]
    slices = {v["name"]: v["expression"] for v in policy["spec"]["variables"]}["slices"]
    assert "request.operation == 'DELETE' ? [oldObject]" in slices


def test_a_pods_annotations_that_may_change_are_those_of_awss_contract(default):
    policy = default.get("ValidatingAdmissionPolicy", "neuron-sim-agent-pods")
    free = {v["name"]: v["expression"] for v in policy["spec"]["variables"]}["free"]
    assert set(re.findall(r"'([A-Z_]+)'", free)) == {IDS, ALLOC_TIME, ALLOCATED, RESOURCE_TYPE}


def test_every_refusal_says_why(policies):
    for policy in policies:
        for validation in policy["spec"]["validations"]:
            assert validation["reason"] == "Forbidden"
            assert "neuron-sim agent" in (validation.get("message") or validation["messageExpression"])
