"""The operator's Deployment."""

OPERATOR = "neuron-sim-operator"


def test_two_replicas_on_two_nodes_if_there_are_two(default):
    deployment = default.get("Deployment", OPERATOR)
    assert deployment["spec"]["replicas"] == 2
    apart = default.pod(OPERATOR)["affinity"]["podAntiAffinity"]
    (term,) = apart["preferredDuringSchedulingIgnoredDuringExecution"]
    affinity = term["podAffinityTerm"]
    assert affinity["topologyKey"] == "kubernetes.io/hostname"
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert labels.items() >= affinity["labelSelector"]["matchLabels"].items()


def test_it_can_be_scaled_to_nothing(render):
    assert render({"operator": {"replicas": 0}}).get("Deployment", OPERATOR)["spec"]["replicas"] == 0


def test_it_runs_where_all_nodes_are_tainted_as_neuron_nodes(default):
    assert {"key": "aws.amazon.com/neuron", "operator": "Exists"} in default.pod(OPERATOR)["tolerations"]


def test_its_lease_is_the_only_one_it_may_touch(default):
    rules = default.get("Role", OPERATOR)["rules"]
    create, others = [rule for rule in rules if "leases" in rule["resources"]]
    assert create["verbs"] == ["create"]
    assert (others["resources"], others["resourceNames"]) == (["leases"], [OPERATOR])


def test_its_lease_goes_with_the_release_and_is_never_reset_by_it(default):
    assert "spec" not in default.get("Lease", OPERATOR)


def test_it_knows_the_namespace_of_its_lease_and_its_own_name(default):
    fields = {
        env["name"]: env["valueFrom"]["fieldRef"]["fieldPath"]
        for env in default.container(OPERATOR)["env"]
        if "valueFrom" in env
    }
    assert fields.items() >= {"POD_NAMESPACE": "metadata.namespace", "POD_NAME": "metadata.name"}.items()


def test_no_budget_keeps_a_single_node_from_being_drained(default):
    assert not default.all("PodDisruptionBudget")
