"""UltraServers as devices: a class outside of AWS's, and an operator that is held to their slices."""

import pytest
from neuron_operator import names
from neuron_operator.ultraservers.loop import MOST_DEVICES

DRIVER = names.ULTRASERVER_DRIVER_NAME


def classes(manifests):
    return {
        found["metadata"]["name"]: found["spec"]["selectors"][0]["cel"]["expression"]
        for found in manifests.all("DeviceClass")
    }


def test_the_class_selects_ultraservers_and_no_other_class_does(default):
    found = classes(default)
    assert found.pop(DRIVER).split(" && ") == [
        f'device.driver == "{DRIVER}"',
        f'device.attributes["{DRIVER}"].?gangBarrier.orValue(false) == false',
    ]
    assert all("device.driver == " in expression and DRIVER not in expression for expression in found.values())


@pytest.mark.parametrize(("value", "argument"), [(5, 5), (0, 0), (None, 0)])
def test_how_many_there_may_be_is_a_value(render, value, argument):
    manifests = render({"ultraServerDevices": value})
    assert f"--ultraserver-devices={argument}" in manifests.container("neuron-sim-operator")["args"]
    assert (DRIVER in classes(manifests)) == bool(argument)


def test_the_chart_and_the_operator_agree_on_the_default(default):
    assert f"--ultraserver-devices={MOST_DEVICES}" in default.container("neuron-sim-operator")["args"]


def test_the_operator_writes_no_other_slices(default):
    policy = default.get("ValidatingAdmissionPolicy", "neuron-sim-resourceslices")["spec"]
    (rule,) = policy["matchConstraints"]["resourceRules"]
    assert rule["operations"] == ["CREATE", "UPDATE", "DELETE"]
    judged = [found["expression"] for found in policy["validations"] if "!= 'operator'" in found["expression"]]
    assert f"s.spec.driver == '{DRIVER}'" in judged[0]
    assert policy["failurePolicy"] == "Fail"
    assert default.get("ValidatingAdmissionPolicyBinding", "neuron-sim-resourceslices")["spec"] == {
        "policyName": "neuron-sim-resourceslices",
        "validationActions": ["Deny"],
    }
