"""Gangs in the chart: who adds the gate, what is refused, and what the operator may do with pods.

What the policies' expressions decide can be told by an API server only: tests/cluster.
"""

import re
from typing import get_args

import pytest
from neuron_operator import names as operator_names
from neuron_operator.gangs import names
from neuron_operator.placement import Level
from neuron_operator.webhook import PATH

MUTATING = "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy"
POD_GROUPS = "scheduling.k8s.io/v1alpha2/PodGroup"
BARRIER = "gang-barrier.neuron-sim.dev"


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


@pytest.mark.parametrize("values", [{"gangs": {"addGate": False}}, {"gangs": {"enabled": False}}])
@pytest.mark.parametrize("apis", [[], [MUTATING]])
def test_pods_bring_it_themselves_where_nobody_wishes_it(render, values, apis):
    manifests = render(values, apis=apis)
    assert not manifests.all("MutatingAdmissionPolicy")
    assert not manifests.all("MutatingAdmissionPolicyBinding")
    assert not manifests.all("MutatingWebhookConfiguration")
    assert "--webhook-certificates=/certificates" not in manifests.container("neuron-sim-operator")["args"]


@pytest.mark.parametrize(("values", "apis"), [({}, []), ({"gangs": {"webhook": True}}, [MUTATING])])
def test_else_a_webhook_adds_it(render, values, apis):
    manifests = render(values, apis=apis)
    assert not manifests.all("MutatingAdmissionPolicy")
    (configuration,) = manifests.all("MutatingWebhookConfiguration")
    (webhook,) = configuration["webhooks"]
    service, secret = (manifests.get(kind, "neuron-sim-webhook") for kind in ("Service", "Secret"))
    assert webhook["clientConfig"]["service"]["name"] == service["metadata"]["name"]
    assert webhook["clientConfig"]["caBundle"] == secret["data"]["ca.crt"]
    assert webhook["clientConfig"]["service"]["path"] == PATH
    operator = manifests.container("neuron-sim-operator")
    assert "--webhook-certificates=/certificates" in operator["args"]
    assert service["spec"]["ports"][0]["targetPort"] in [port["name"] for port in operator["ports"]]
    (volume,) = manifests.pod("neuron-sim-operator")["volumes"]
    assert volume["secret"]["secretName"] == secret["metadata"]["name"]


def test_a_dead_webhook_holds_up_nobody_elses_pods(default):
    """It is asked about pods with the label of a gang only, which must not be scheduled without the gate."""
    ((webhook,),) = [found["webhooks"] for found in default.all("MutatingWebhookConfiguration")]
    (selector,) = webhook["objectSelector"]["matchExpressions"]
    assert selector == {"key": names.LABEL_GANG, "operator": "Exists"}
    (rule,) = webhook["rules"]
    assert (rule["resources"], rule["operations"]) == (["pods"], ["CREATE"])
    assert (webhook["failurePolicy"], webhook["timeoutSeconds"]) == ("Fail", 5)


def test_the_notes_say_where_pods_have_to_bring_the_gate(render):
    assert "neuron-sim.dev/gang themselves: gangs.addGate is false" in render.notes({"gangs": {"addGate": False}})
    assert "neuron-sim.dev/gang themselves" not in render.notes()
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


def test_gangs_can_be_left_to_the_scheduler(render):
    """Then the operator writes no pods, and nobody waits at a gate that nobody opens."""
    left = render({"gangs": {"podGroups": True}}, apis=[MUTATING, POD_GROUPS])
    arguments = left.container("neuron-sim-operator")["args"]
    assert {"--no-gangs", "--pod-groups"} <= set(arguments)
    (policy,) = left.all("MutatingAdmissionPolicy")
    (mutation,) = policy["spec"]["mutations"]
    assert "podGroupName: object.metadata.labels['neuron-sim.dev/gang']" in mutation["applyConfiguration"]["expression"]
    assert "schedulingGates" not in mutation["applyConfiguration"]["expression"]
    assert left.get("ValidatingAdmissionPolicy", "neuron-sim-gang-labels")
    (role,) = [role for role in left.all("ClusterRole") if role["metadata"]["name"] == "neuron-sim-operator"]
    verbs = {verb for rule in role["rules"] if "pods" in rule["resources"] for verb in rule["verbs"]}
    assert verbs == {"list", "watch", "delete"}
    (rule,) = [rule for rule in role["rules"] if "podgroups" in rule["resources"]]
    assert rule["verbs"] == ["get", "list", "watch", "create", "delete"]


def test_a_cluster_without_pod_groups_is_told(render):
    with pytest.raises(render.Refused, match="does not serve PodGroups"):
        render({"gangs": {"podGroups": True}}, apis=[MUTATING])


def test_by_default_there_are_no_pod_groups(default):
    assert "--pod-groups" not in default.container("neuron-sim-operator")["args"]


def test_the_barrier_comes_with_its_class_its_flag_and_its_rights_only_where_it_is_wished(render, default):
    manifests = render({"gangs": {"barrier": True}})
    spec = manifests.get("DeviceClass", BARRIER)["spec"]
    assert "gangBarrier.orValue(false) == true" in spec["selectors"][0]["cel"]["expression"]
    assert spec["extendedResourceName"] == "neuron-sim.dev/gang-barrier"
    assert "--gang-barrier" in manifests.container("neuron-sim-operator")["args"]
    (rule,) = status_rules(manifests, "resourceclaims/driver")
    assert rule["resourceNames"] == [operator_names.ULTRASERVER_DRIVER_NAME]
    assert rule["verbs"] == ["arbitrary-node:patch"]
    assert [rule["verbs"] for rule in status_rules(manifests, "resourceclaims/status")] == [["patch"]]
    assert not status_rules(manifests, "resourceclaims/binding")
    assert BARRIER not in [found["metadata"]["name"] for found in default.all("DeviceClass")]
    assert "--gang-barrier" not in default.container("neuron-sim-operator")["args"]
    assert not status_rules(default, "resourceclaims/status") + status_rules(default, "resourceclaims/driver")


def status_rules(manifests, resource):
    role = manifests.get("ClusterRole", "neuron-sim-operator")
    return [rule for rule in role["rules"] if resource in rule["resources"]]


def test_without_gangs_there_is_no_barrier(render):
    manifests = render({"gangs": {"barrier": True, "enabled": False}})
    assert "--gang-barrier" not in manifests.container("neuron-sim-operator")["args"]


@pytest.mark.parametrize(
    ("values", "kubernetes", "words"),
    [({}, "1.35.0", "use 1.36 or newer"), ({"ultraServerDevices": 0}, "1.36.0", "ultraServerDevices is 0")],
)
def test_the_barrier_is_refused_where_it_cannot_be(render, values, kubernetes, words):
    with pytest.raises(render.Refused, match=words):
        render({"gangs": {"barrier": True}, **values}, kubernetes=kubernetes)
