"""What the two DeviceClasses admit."""


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


def test_awss_class_does_not_serve_plain_pods(default):
    # one chip asked for could become a whole node
    assert "extendedResourceName" not in spec(default, "neuron.aws.com")


def test_a_device_without_the_attribute_is_no_error(default):
    for name in ("neuron.aws.com", "neuron-device.neuron-sim.dev"):
        assert '.?resourceType.orValue("")' in expression(default, name)


def test_plain_pods_can_be_left_to_somebody_else(render):
    without = render({"extendedResourceName": ""})
    assert "extendedResourceName" not in spec(without, "neuron-device.neuron-sim.dev")
