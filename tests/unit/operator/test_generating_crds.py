"""The CRDs in the chart are what the models say, in the form that the API server takes."""

from pathlib import Path

import pytest
from neuron_device_model import catalog
from neuron_device_model.faults import EFFECTS, FAULT_TYPES
from neuron_device_model.partitions import OFFERED_DEVICES, PARTITIONS
from neuron_operator import crds
from neuron_operator.__main__ import main
from neuron_operator.resources import NeuronNodePoolSpec

CHART = Path(__file__).parents[3] / "charts" / "neuron-sim" / "crds"
MANIFESTS = crds.manifests()


def schemas(value, path=""):
    """Every schema within a manifest, with its path."""
    if isinstance(value, dict):
        if isinstance(value.get("type"), str) and path:
            yield path, value
        for key, below in value.items():
            yield from schemas(below, f"{path}.{key}")
    elif isinstance(value, list):
        for index, below in enumerate(value):
            yield from schemas(below, f"{path}[{index}]")


def openapi(manifest):
    return manifest["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def spec_of(kind):
    manifest = next(m for m in MANIFESTS if m["spec"]["names"]["kind"] == kind)
    return openapi(manifest)["properties"]["spec"]


@pytest.mark.parametrize("manifest", MANIFESTS, ids=crds.file_name)
def test_the_committed_file_is_the_generated_one(manifest):
    assert (CHART / crds.file_name(manifest)).read_text() == crds.render(manifest), (
        "run: python -m neuron_operator crds --output charts/neuron-sim/crds"
    )


def test_the_chart_has_no_other_crds():
    assert {path.name for path in CHART.iterdir()} == {crds.file_name(manifest) for manifest in MANIFESTS}


def test_the_command_writes_the_files(tmp_path):
    assert main(["crds", "--output", str(tmp_path / "new")]) == 0
    assert {p.name: p.read_text() for p in (tmp_path / "new").iterdir()} == {
        crds.file_name(manifest): crds.render(manifest) for manifest in MANIFESTS
    }


@pytest.mark.parametrize("manifest", MANIFESTS, ids=crds.file_name)
def test_schemas_are_structural_described_and_bounded(manifest):
    for path, schema in schemas(openapi(manifest)["properties"]):
        assert not schema.keys() & {"$ref", "$defs", "anyOf", "allOf", "title", "const"}, path
        if path.count(".") > 1 and path.rpartition(".")[2] not in ("items", "additionalProperties"):
            assert schema.get("description"), path
        if schema["type"] == "string" and "enum" not in schema and schema.get("format") != "date-time":
            assert path.count(".") == 1 or "maxLength" in schema, path
        if schema["type"] == "array":
            assert "maxItems" in schema or path.endswith("list-map-keys"), path
        if schema["type"] == "integer":
            assert "minimum" in schema, path


def test_a_wrong_instance_type_is_answered_with_the_catalogue():
    (rule,) = spec_of("NeuronNodePool")["properties"]["instanceType"]["x-kubernetes-validations"]
    for instance_type in catalog.instance_types():
        assert f"'{instance_type.name}'" in rule["rule"]
        assert instance_type.name in rule["messageExpression"]
    assert "neuron-sim types" in rule["message"]


def test_lnc_2_is_refused_exactly_where_the_chip_has_none():
    rules = spec_of("NeuronNodePool")["x-kubernetes-validations"]
    (rule,) = [rule for rule in rules if "!= 2" in rule["rule"]]
    for instance_type in catalog.instance_types():
        has = 2 in instance_type.chip.logical_neuron_core_values
        assert (f"'{instance_type.name}'" in rule["rule"]) is has


def test_a_whole_node_device_is_refused_exactly_where_there_is_no_ultraserver():
    (rule,) = [rule for rule in spec_of("NeuronNodePool")["x-kubernetes-validations"] if "self.devices" in rule["rule"]]
    for instance_type in catalog.instance_types():
        assert (f"'{instance_type.name}'" in rule["rule"]) is (instance_type.ultraserver is not None)


def test_a_fault_says_what_the_device_model_knows():
    fault = spec_of("NeuronFault")["properties"]
    assert fault["type"]["enum"] == list(FAULT_TYPES)
    assert set(fault["effect"]["enum"]) == set(EFFECTS)
    pool = spec_of("NeuronNodePool")["properties"]
    assert (pool["partitions"]["enum"], pool["devices"]["enum"]) == (list(PARTITIONS), list(OFFERED_DEVICES))


def test_messages_fit_the_api_servers_limit():
    for manifest in MANIFESTS:
        for _, schema in schemas(openapi(manifest), "root"):
            for rule in schema.get("x-kubernetes-validations", ()):
                assert len(rule["message"]) <= 2048
                assert "\n" not in rule["message"]


def test_defaults_of_the_schema_are_those_of_the_model():
    pool = NeuronNodePoolSpec.model_validate({"instanceType": "trn2.48xlarge"})
    properties = spec_of("NeuronNodePool")["properties"]
    assert pool.resources == properties["resources"]["default"]


def test_the_scale_of_a_pool_is_its_count():
    (manifest,) = (found for found in MANIFESTS if found["spec"]["names"]["kind"] == "NeuronNodePool")
    (version,) = manifest["spec"]["versions"]
    paths = {"specReplicasPath": ".spec.count", "statusReplicasPath": ".status.nodes"}
    assert version["subresources"] == {"status": {}, "scale": paths}
