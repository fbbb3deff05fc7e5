"""CEL selectors: what is read is right, and what is not read is not guessed."""

import pytest
from neuron_operator.explaining.cel_reading import selector

ATTRIBUTES = {
    "neuron.aws.com/resourceType": "neuron_device",
    "neuron.aws.com/deviceId": 7,
    "neuron.aws.com/instanceType": "trn2.48xlarge",
    "neuron-sim.dev/simulated": True,
}
OURS = "device.attributes['neuron.aws.com']"


def holds(expression: str) -> bool | None:
    return selector(expression).holds("neuron.aws.com", ATTRIBUTES.get)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ('device.driver == "neuron.aws.com"', True),
        ('device.driver == "gpu.example.com"', False),
        (f'{OURS}.resourceType == "neuron_device"', True),
        (f"{OURS}.?resourceType.orValue('') in ['neuron_device', 'neuron_node']", True),
        (f"{OURS}.?absent.orValue('none') == 'none'", True),
        (f"{OURS}.absent == 'none'", False),
        (f"{OURS}.deviceId < 8", True),
        (f"{OURS}.deviceId >= 8", False),
        (f"{OURS}.deviceId % 2 == 1", True),
        (f"{OURS}.deviceId == '7'", False),
        (f"{OURS}.instanceType.startsWith('trn2')", True),
        ("device.attributes['neuron-sim.dev'].simulated == true", True),
        (f"device.driver == 'neuron.aws.com' &&\n  ({OURS}.deviceId in [1, 7])", True),
        (f"device.driver == 'neuron.aws.com' && {OURS}.deviceId == 1", False),
        ("device.driver == 'a && b'", False),
    ],
)
def test_conjunctions_of_comparisons_are_read(expression: str, expected: bool) -> None:
    assert holds(expression) is expected
    assert selector(expression).read


@pytest.mark.parametrize(
    "expression",
    [
        f"{OURS}.instanceType.matches('^trn2')",
        f"{OURS}.deviceId == 1 || {OURS}.deviceId == 7",
        f"{OURS}.deviceId == 7 ? true : false",
        "device.capacity['neuron-sim.dev'].memory.compareTo(quantity('24Gi')) >= 0",
        f"!({OURS}.deviceId == 7)",
        f"'resourceType' in {OURS}",
        f"{OURS}.deviceId + 1 == 8",
        "",
    ],
)
def test_anything_else_is_not_known(expression: str) -> None:
    assert holds(expression) is None
    assert not selector(expression).read


def test_one_part_that_is_false_decides_whatever_the_rest_means() -> None:
    assert holds(f"device.driver == 'other' && {OURS}.instanceType.matches('x')") is False
    assert holds(f"device.driver == 'neuron.aws.com' && {OURS}.instanceType.matches('x')") is None
