"""EFA cards: AWS's class selects what the agents publish, and each part can be left to somebody else."""

import pytest
from neuron_operator import names

CLASS = "efa.networking.k8s.aws"


def classes(manifests):
    return {found["metadata"]["name"] for found in manifests.all("DeviceClass")}


def test_awss_class_selects_the_agents_cards(default):
    (selector,) = default.get("DeviceClass", CLASS)["spec"]["selectors"]
    assert selector["cel"]["expression"] == f'device.driver == "{names.EFA_DRIVER_NAME}"'
    assert "--no-efa" not in default.container("neuron-sim-agent")["args"]


def test_the_class_can_be_somebody_elses(render):
    manifests = render({"efa": {"deviceClass": False}})
    assert CLASS not in classes(manifests)
    assert "--no-efa" not in manifests.container("neuron-sim-agent")["args"]


def test_it_can_be_switched_off(render):
    manifests = render({"efa": {"enabled": False}})
    assert CLASS not in classes(manifests)
    assert "--no-efa" in manifests.container("neuron-sim-agent")["args"]


@pytest.mark.parametrize("enabled", [True, False])
def test_an_agent_may_always_take_its_cards_back(render, enabled):
    policy = render({"efa": {"enabled": enabled}}).get("ValidatingAdmissionPolicy", "neuron-sim-resourceslices")
    expressions = [variable["expression"] for variable in policy["spec"]["variables"]]
    assert [found for found in expressions if f"s.spec.driver == '{names.EFA_DRIVER_NAME}'" in found]


def test_of_a_claim_only_the_state_of_its_cards_may_be_told(default):
    policy = default.get("ValidatingAdmissionPolicy", "neuron-sim-agent-resourceclaims")
    held = [found["expression"] for found in policy["spec"]["validations"] if names.EFA_DRIVER_NAME in str(found)]
    assert all("variables.node" in expression for expression in held)
    named = [
        rule for rule in default.get("ClusterRole", "neuron-sim-agent")["rules"] if names.EFA_DRIVER_NAME in str(rule)
    ]
    assert [rule["resources"] for rule in named] == [["resourceclaims/driver"]]
