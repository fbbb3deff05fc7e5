"""What the DeviceClasses admit, and which resource of plain pods each serves."""

import pytest
from neuron_operator import names, roads

OURS = (names.DEVICE_CLASS, names.CORE_CLASS, names.PHYSICAL_CORE_CLASS)


def spec(manifests, name):
    return manifests.get("DeviceClass", name)["spec"]


def expression(manifests, name):
    (selector,) = spec(manifests, name)["selectors"]
    return selector["cel"]["expression"]


def test_awss_class_admits_chips_and_nodes(default):
    assert expression(default, "neuron.aws.com").endswith('in ["neuron_device", "neuron_node"]')


def test_our_class_admits_chips_only_and_serves_plain_pods(default):
    assert expression(default, "neuron-device.neuron-sim.dev").endswith('== "neuron_device"')
    assert spec(default, "neuron-device.neuron-sim.dev")["extendedResourceName"] == "aws.amazon.com/neuron"


@pytest.mark.parametrize(
    ("name", "partition"), [(names.CORE_CLASS, "logical"), (names.PHYSICAL_CORE_CLASS, "physical")]
)
def test_cores_are_of_one_kind_each(default, name, partition):
    assert '?resourceType.orValue("") == "neuron_core" &&' in expression(default, name)
    assert expression(default, name).endswith(
        f'device.attributes["neuron-sim.dev"].?partition.orValue("") == "{partition}"'
    )


def test_logical_cores_serve_plain_pods_and_physical_ones_do_not(default):
    assert spec(default, names.CORE_CLASS)["extendedResourceName"] == "aws.amazon.com/neuroncore"
    assert "extendedResourceName" not in spec(default, names.PHYSICAL_CORE_CLASS)


def test_awss_class_does_not_serve_plain_pods(default):
    # one chip asked for could become a whole node
    assert "extendedResourceName" not in spec(default, "neuron.aws.com")


def test_a_device_without_the_attribute_is_no_error(default):
    for name in ("neuron.aws.com", *OURS):
        assert '.?resourceType.orValue("")' in expression(default, name)


@pytest.mark.parametrize("wished", ["aws.amazon.com/neuron", "sim.example.com/neuron"])
def test_the_operator_sees_what_was_wished_where_the_api_server_drops_it(render, wished):
    found = render({"extendedResourceName": wished}).get("DeviceClass", names.DEVICE_CLASS)
    assert roads.plain_pods(found) == roads.PlainPods(wished, kept=True)
    del found["spec"]["extendedResourceName"]
    assert roads.plain_pods(found) == roads.PlainPods(wished, kept=False)
    cores = spec(render({"extendedResourceName": wished}), names.CORE_CLASS)
    assert cores["extendedResourceName"] == roads.PlainPods(wished, kept=True).core_resource


def test_plain_pods_can_be_left_to_somebody_else(render):
    without = render({"extendedResourceName": ""})
    for name in OURS:
        assert "extendedResourceName" not in spec(without, name)
    assert not roads.plain_pods(without.get("DeviceClass", names.DEVICE_CLASS)).resource
