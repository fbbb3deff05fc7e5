"""Values: a wrong one is refused with its path, a removed one never crashes a template."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

CHART = Path(__file__).parents[3] / "charts" / "neuron-sim"
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
REQUIRED = {"driverName", "pools.default.instanceType"}


def paths(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from paths(value, f"{prefix}{key}.")


def nested(path: str, value: Any) -> dict[str, Any]:
    head, _, rest = path.partition(".")
    return {head: nested(rest, value) if rest else value}


def sections(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, None]]]:
    """Each map of values, as it is when all that it need not have is removed."""
    yield prefix.removesuffix("."), dict.fromkeys(key for key in values if f"{prefix}{key}" not in REQUIRED)
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from sections(value, f"{prefix}{key}.")


@pytest.mark.parametrize(("path", "removed"), [pytest.param(*found, id=found[0]) for found in sections(VALUES)])
def test_removed_values_still_render(render, path, removed):
    manifests = render(nested(path, removed) if path else removed)
    assert "<no value>" not in manifests.text
    assert "null" not in manifests.text


@pytest.mark.parametrize("path", sorted(REQUIRED))
def test_a_required_value_is_asked_for(render, path):
    with pytest.raises(render.Refused, match=f"missing property '{path.rpartition('.')[2]}'"):
        render(nested(path, None))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"agnet": {}}, "additional properties 'agnet' not allowed"),
        ({"agent": {"resource": {}}}, "at '/agent': additional properties 'resource' not allowed"),
        ({"driverName": "Neuron AWS"}, "at '/driverName'"),
        ({"driverName": "neuron-device.neuron-sim.dev"}, "at '/driverName'"),
        ({"driverName": "neuroncore.neuron-sim.dev"}, "at '/driverName'"),
        ({"driverName": "efa.neuron-sim.dev"}, "at '/driverName'"),
        ({"driverName": "ultraserver.neuron-sim.dev"}, "at '/driverName'"),
        ({"ultraServerDevices": -1}, "at '/ultraServerDevices'"),
        ({"efa": {"enabled": "yes"}}, "at '/efa/enabled': got string"),
        ({"driverName": "a" * 64}, "at '/driverName': maxLength"),
        ({"extendedResourceName": "neuron"}, "at '/extendedResourceName'"),
        ({"kubeletDir": "var/lib/kubelet"}, "at '/kubeletDir'"),
        ({"kubeletDir": "/var/lib/kubelet/"}, "at '/kubeletDir'"),
        ({"image": {"tag": 1.0}}, "at '/image/tag': got number, want string"),
        ({"image": {"pullPolicy": "Sometimes"}}, "at '/image/pullPolicy'"),
        ({"operator": {"replicas": -1}}, "at '/operator/replicas'"),
        ({"operator": {"replicas": "2"}}, "at '/operator/replicas': got string"),
        ({"pools": {"p": {}}}, "at '/pools/p': missing property 'instanceType'"),
        ({"pools": {"p": {"instanceType": "trn2"}}}, "at '/pools/p/instanceType'"),
        ({"pools": {"default": {"resources": "dra"}}}, "at '/pools/default/resources'"),
        ({"pools": {"default": {"partitions": "all"}}}, "at '/pools/default/partitions'"),
        ({"pools": {"default": {"devices": "cores"}}}, "at '/pools/default/devices'"),
        ({"scheduler": {"enable": True}}, "at '/scheduler': additional properties 'enable' not allowed"),
        ({"pools": {"My_Pool": {"instanceType": "trn2.48xlarge"}}}, "My_Pool"),
        ({"pools": [{"instanceType": "trn2.48xlarge"}]}, "pools"),
        ({"networkPolicy": {"apiServerPorts": [70000]}}, "at '/networkPolicy/apiServerPorts/0'"),
        ({"metrics": {"podMonitor": {"interval": "often"}}}, "at '/metrics/podMonitor/interval'"),
        ({"metrics": {"prometheusRule": {"enabled": "yes"}}}, "at '/metrics/prometheusRule/enabled'"),
        ({"metrics": {"prometheusRule": {"docs": "docs"}}}, "at '/metrics/prometheusRule/docs'"),
        ({"metrics": {"dashboards": {"labels": {"grafana_dashboard": 1}}}}, "at '/metrics/dashboards/labels"),
        ({"agent": {"tolerations": [{"key": "a", "effect": "Never"}]}}, "at '/agent/tolerations/0/effect'"),
    ],
)
def test_a_wrong_value_is_refused_by_its_path(render, values, said):
    with pytest.raises(render.Refused, match="values don't meet the specifications of the schema") as refusal:
        render(values)
    assert said in str(refusal.value)


@pytest.mark.parametrize("path", [path for path in paths(VALUES) if not path.startswith("pools.")])
def test_every_value_is_in_the_schema(path):
    schema = SCHEMA
    for key in path.split("."):
        schema = follow(schema)
        if "properties" not in schema:
            return  # free-form, such as labels
        assert key in schema["properties"], path
        schema = schema["properties"][key]


def test_every_section_refuses_what_it_does_not_know():
    sections = [follow(found) for found in SCHEMA["properties"].values()]
    for section in sections:
        if "properties" in section:
            assert section["additionalProperties"] is False


def follow(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = schema.get("$ref")
    return SCHEMA["$defs"][reference.removeprefix("#/$defs/")] if reference else schema
