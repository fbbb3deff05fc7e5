"""`pools` of the values become NeuronNodePools."""


def specs(manifests):
    return {pool["metadata"]["name"]: pool["spec"] for pool in manifests.all("NeuronNodePool")}


def test_without_values_there_is_one_of_trn2(default):
    assert specs(default) == {
        "default": {"instanceType": "trn2.48xlarge", "resources": "Auto", "partitions": "logical"}
    }


def test_specs_are_handed_on_as_they_are(render):
    spec = {"instanceType": "inf2.48xlarge", "nodeSelector": {"matchLabels": {"a": "b"}}}
    assert specs(render({"pools": {"inf": spec}}))["inf"] == spec


def test_the_default_pool_can_be_changed_in_part(render):
    changed = specs(render({"pools": {"default": {"logicalNeuronCore": 1, "partitions": "none"}}}))["default"]
    assert changed.items() >= {"instanceType": "trn2.48xlarge", "logicalNeuronCore": 1, "partitions": "none"}.items()


def test_the_default_pool_can_be_left_out(render):
    mine = {"instanceType": "trn2u.48xlarge", "devices": "node", "resources": "DRA"}
    assert specs(render({"pools": {"default": None, "mine": mine}})) == {"mine": mine}
    assert specs(render({"pools": None})) == {}
