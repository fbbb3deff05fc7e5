"""Whoever must run beside a real Neuron driver gives another name."""

import pytest

OTHER = "sim.example.com"


@pytest.fixture(scope="module")
def renamed(render):
    return render({"driverName": OTHER, "extendedResourceName": ""}, kubernetes="1.34.0")


def test_the_default_is_awss_own(default):
    assert default.get("DeviceClass", "neuron.aws.com")
    assert "--driver-name=neuron.aws.com" in default.container("neuron-sim-agent")["args"]


def test_another_name_leaves_nothing_of_the_default(renamed):
    assert "neuron.aws.com" not in renamed.text
    assert "aws.amazon.com/neuron:" not in renamed.text


@pytest.mark.parametrize("pod", ["neuron-sim-agent", "neuron-sim-operator", "neuron-sim-uninstall"])
def test_programs_are_told(renamed, pod):
    assert f"--driver-name={OTHER}" in renamed.container(pod)["args"]


def test_classes_select_it(renamed):
    for name in (OTHER, "neuron-device.neuron-sim.dev"):
        (selector,) = renamed.get("DeviceClass", name)["spec"]["selectors"]
        assert f'device.driver == "{OTHER}"' in selector["cel"]["expression"]
        assert f'device.attributes["{OTHER}"]' in selector["cel"]["expression"]


def test_the_policy_knows_it(renamed):
    policy = renamed.get("ValidatingAdmissionPolicy", "neuron-sim-agent-resourceslices")
    assert [v for v in policy["spec"]["validations"] if f"s.spec.driver == '{OTHER}'" in v["expression"]]


def test_the_test_claims_from_its_class(renamed):
    template = renamed.get("ResourceClaimTemplate", "neuron-sim-test")
    (wish,) = template["spec"]["spec"]["devices"]["requests"]
    assert wish["exactly"] == {"deviceClassName": OTHER, "count": 1}
