"""Nothing of the chart may do, or run as, more than it needs."""

import pytest

WRITES = {"create", "update", "patch", "delete", "deletecollection"}
OPERATION = {"create": "CREATE", "update": "UPDATE", "patch": "UPDATE", "delete": "DELETE"}
AGENT = "neuron-sim-agent"


def rules(manifests, name=None):
    return [
        rule
        for kind in ("ClusterRole", "Role")
        for role in manifests.all(kind)
        if name in (None, role["metadata"]["name"])
        for rule in role["rules"]
    ]


@pytest.fixture(scope="module")
def whole(render):
    """With everything that can be switched on."""
    return render({"scheduler": {"enabled": True}, "virtualNodes": {"enabled": True}})


def test_no_rule_has_a_wildcard(whole):
    for rule in rules(whole):
        words = rule["apiGroups"] + rule["resources"] + rule["verbs"]
        assert not [word for word in words if "*" in word], rule


def test_no_rule_reaches_secrets_or_grants_rights(whole):
    for rule in rules(whole):
        assert not {"secrets", "serviceaccounts/token", "pods/exec", "clusterroles"} & set(rule["resources"])
        assert not {"escalate", "bind", "impersonate", "deletecollection"} & set(rule["verbs"])


def test_the_agent_writes_slices_statuses_annotations_and_events_only(default):
    writes = {
        (group, resource, verb)
        for rule in rules(default, AGENT)
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in WRITES & set(rule["verbs"])
    }
    assert writes == {
        ("resource.k8s.io", "resourceslices", "create"),
        ("resource.k8s.io", "resourceslices", "update"),
        ("resource.k8s.io", "resourceslices", "delete"),
        ("resource.k8s.io", "resourceclaims/status", "patch"),
        ("neuron-sim.dev", "neuronnodes/status", "patch"),
        ("", "pods", "patch"),
        ("events.k8s.io", "events", "create"),
    }


def test_the_agent_reports_the_devices_of_claims_of_its_own_node_and_drivers_only(default):
    (rule,) = [rule for rule in rules(default, AGENT) if "resourceclaims/driver" in rule["resources"]]
    assert rule["resourceNames"] == ["neuron.aws.com", "efa.neuron-sim.dev"]
    assert rule["verbs"] == ["associated-node:patch"]
    assert not [rule for rule in rules(default) if "resourceclaims/binding" in rule["resources"]]


def test_without_gangs_the_operator_reads_pods_and_deletes_those_of_workloads(render):
    without = rules(render({"gangs": {"enabled": False}}), "neuron-sim-operator")
    verbs = {verb for rule in without if "pods" in rule["resources"] for verb in rule["verbs"]}
    assert verbs == {"list", "delete"}


def test_with_gangs_every_write_of_the_operator_on_pods_is_held_to_them(default):
    verbs = {v for rule in rules(default, "neuron-sim-operator") if "pods" in rule["resources"] for v in rule["verbs"]}
    assert verbs == {"get", "list", "watch", "create", "patch", "delete"}
    policy = default.get("ValidatingAdmissionPolicy", "neuron-sim-operator-pods")["spec"]
    (rule,) = policy["matchConstraints"]["resourceRules"]
    assert {OPERATION[verb] for verb in verbs & WRITES} == set(rule["operations"])
    assert policy["failurePolicy"] == "Fail"


def test_the_operator_writes_ultraservers_in_its_own_namespace_only(default):
    everywhere = [rule for role in default.all("ClusterRole") for rule in role["rules"]]
    for rule in everywhere:
        if "neuronultraservers" in rule["resources"] and rule["verbs"] != ["list", "delete"]:
            assert not WRITES & set(rule["verbs"])


def test_every_write_of_the_agent_is_held_to_its_node(default):
    policed = {
        (group, resource, operation)
        for policy in default.all("ValidatingAdmissionPolicy")
        for rule in policy["spec"]["matchConstraints"]["resourceRules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for operation in rule["operations"]
    }
    for rule in rules(default, AGENT):
        for verb in WRITES & set(rule["verbs"]):
            for resource in rule["resources"]:
                assert (rule["apiGroups"][0], resource, OPERATION[verb]) in policed


def test_custom_resource_definitions_are_touched_by_hooks_and_by_name_only(default):
    for found in rules(default):
        if "customresourcedefinitions" in found["resources"] and found["verbs"] != ["create"]:
            ultraservers = {
                f"{plural}.neuron.aws.com" for plural in ("neuronultraservers", "neuronultraserverworkloads")
            }
            others = set(found["resourceNames"]) - ultraservers
            assert all(name.endswith(".neuron-sim.dev") for name in others)
    for name in (AGENT, "neuron-sim-operator"):
        assert not [rule for rule in rules(default, name) if "customresourcedefinitions" in rule["resources"]]


def test_no_container_can_gain_privileges_or_write_its_image(whole):
    for name, pod in whole.pods():
        for container in pod["spec"]["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["readOnlyRootFilesystem"] is True, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert not context.get("privileged"), name
        assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod["spec"].keys()


def test_all_but_the_agent_meet_the_restricted_pod_security_level(whole):
    others = {name: pod["spec"] for name, pod in whole.pods() if name != AGENT}
    assert len(others) == 9
    for name, spec in others.items():
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] == 65532, name
        mounted = {kind for volume in spec.get("volumes", ()) for kind in volume.keys() - {"name"}}
        assert mounted <= {"configMap", "emptyDir", "secret"}, name


def test_the_agent_is_root_for_the_sake_of_the_kubelets_folders_alone(default):
    spec = default.pod(AGENT)
    assert spec["securityContext"]["runAsUser"] == 0
    assert {tuple(volume) for volume in spec["volumes"]} == {("name", "hostPath")}


def test_tokens_are_mounted_where_they_are_used_only(default):
    assert all(not account["automountServiceAccountToken"] for account in default.all("ServiceAccount"))
    for name, pod in default.pods():
        assert pod["spec"]["automountServiceAccountToken"] == (name != "neuron-sim-test")


@pytest.mark.parametrize("name", ["neuron-sim-agent", "neuron-sim-operator"])
def test_containers_ask_for_what_they_need(default, name):
    resources = default.container(name)["resources"]
    assert resources["requests"].keys() == {"cpu", "memory"}
    # a limit on CPU would throttle prepares
    assert resources["limits"].keys() == {"memory"}
