"""Whoever must run beside a real Neuron driver gives another name."""

import re

import pytest

OTHER = "sim.example.com"


@pytest.fixture(scope="module")
def renamed(render):
    return render({"driverName": OTHER, "extendedResourceName": ""}, kubernetes="1.34.0")


def test_the_default_is_awss_own(default):
    assert default.get("DeviceClass", "neuron.aws.com")
    assert "--driver-name=neuron.aws.com" in default.container("neuron-sim-agent")["args"]


def test_another_name_leaves_nothing_of_the_default(renamed):
    # the API group of AWS's UltraServer operator, and hence its CRDs, are called like AWS's driver
    group = r"apiGroups: \[neuron\.aws\.com\]|apiGroups:\n +- neuron\.aws\.com|neuronultraserver\w*\.neuron\.aws\.com"
    assert "neuron.aws.com" not in re.sub(group, "", renamed.text)
    assert "aws.amazon.com/neuron:" not in renamed.text


@pytest.mark.parametrize("pod", ["neuron-sim-agent", "neuron-sim-operator", "neuron-sim-uninstall"])
def test_programs_are_told(renamed, pod):
    assert f"--driver-name={OTHER}" in renamed.container(pod)["args"]


def test_classes_select_it(renamed):
    classes = {found["metadata"]["name"] for found in renamed.all("DeviceClass")}
    for name in classes - {"efa.networking.k8s.aws", "ultraserver.neuron-sim.dev"}:
        (selector,) = renamed.get("DeviceClass", name)["spec"]["selectors"]
        assert f'device.driver == "{OTHER}"' in selector["cel"]["expression"]
        assert f'device.attributes["{OTHER}"]' in selector["cel"]["expression"]


@pytest.mark.parametrize(("policy", "part"), [("resourceslices", "variables"), ("agent-resourceclaims", "validations")])
def test_the_policies_know_it(renamed, policy, part):
    spec = renamed.get("ValidatingAdmissionPolicy", f"neuron-sim-{policy}")["spec"]
    assert [found for found in spec[part] if f".driver == '{OTHER}'" in found["expression"]]


def test_the_api_server_is_asked_for_it_when_a_claims_devices_are_reported(renamed):
    (rule,) = [
        rule
        for rule in renamed.get("ClusterRole", "neuron-sim-agent")["rules"]
        if "resourceclaims/driver" in rule["resources"]
    ]
    assert rule["resourceNames"] == [OTHER, "efa.neuron-sim.dev"]


def test_the_test_claims_from_its_class(renamed):
    template = renamed.get("ResourceClaimTemplate", "neuron-sim-test")
    (wish,) = template["spec"]["spec"]["devices"]["requests"]
    assert wish["exactly"] == {"deviceClassName": OTHER, "count": 1}
