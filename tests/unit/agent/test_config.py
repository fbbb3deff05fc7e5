"""Opaque configuration: what is understood, what is refused and in which words, and that nothing gets in between."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from neuron_dra_driver.allocations.config import (
    NeuronConfig,
    RequestConfig,
    SimulationConfig,
    UltraServerConfig,
    configurations,
    decode,
    for_request,
)
from neuron_dra_driver.errors import ClaimError

AWS = "neuron.aws.com/v1"
OURS = "neuron-sim.dev/v1alpha1"


def neuron(**fields: Any) -> dict[str, Any]:
    return {"apiVersion": AWS, "kind": "NeuronConfig", **fields}


def ultraserver(**fields: Any) -> dict[str, Any]:
    return {"apiVersion": AWS, "kind": "UltraServerConfig", **fields}


def simulation(environment: Any) -> dict[str, Any]:
    return {"apiVersion": OURS, "kind": "SimulationConfig", "environment": environment}


@pytest.mark.parametrize("value", [1, 2])
def test_neuron_config(value: int) -> None:
    assert decode(neuron(logicalNeuronCore=value), where="here") == NeuronConfig(value)


@pytest.mark.parametrize("value", [1, 2, 4])
def test_ultraserver_config(value: int) -> None:
    assert decode(ultraserver(ultraserverMode=value), where="here") == UltraServerConfig(value)


def test_simulation_config() -> None:
    environment = {"NEURON_RT_LOG_LEVEL": "INFO", "NEURON_CC_FLAGS": ""} | {f"NEURON_{n}": "x" * 256 for n in range(14)}
    assert decode(simulation(environment), where="here") == SimulationConfig(environment)
    assert decode(simulation({}), where="here") == SimulationConfig({})


REFUSED: list[tuple[Any, str]] = [
    (
        neuron(logicalNeuronCoreCount=1),
        "here (NeuronConfig): strict decoding error: unknown field \"logicalNeuronCoreCount\": NeuronConfig has the "
        "field logicalNeuronCore besides apiVersion and kind; write logicalNeuronCore: 1 or logicalNeuronCore: 2",
    ),
    (neuron(spec={}, a=1, b=2, c=3), 'strict decoding error: unknown field "spec", unknown field "a", unknown field'),
    (neuron(LogicalNeuronCore=1), 'unknown field "LogicalNeuronCore"'),
    (neuron(metadata={"name": "x"}, logicalNeuronCore=1), 'unknown field "metadata"'),
    (neuron(), "here (NeuronConfig) has no logicalNeuronCore: write logicalNeuronCore: 1 or logicalNeuronCore: 2"),
    (neuron(logicalNeuronCore=3), "logicalNeuronCore is 3 and must be the number 1 or 2: write logicalNeuronCore: 1"),
    (neuron(logicalNeuronCore=True), "logicalNeuronCore is true and must be the number 1 or 2"),
    (neuron(logicalNeuronCore=2.0), "logicalNeuronCore is 2.0 and must be the number 1 or 2"),
    (neuron(logicalNeuronCore="2"), 'logicalNeuronCore is "2" and must be the number 1 or 2'),
    (neuron(logicalNeuronCore=None), "logicalNeuronCore is null and must be"),
    (neuron(logicalNeuronCore=[1]), "logicalNeuronCore is a list and must be"),
    (neuron(logicalNeuronCore=10**4000), "logicalNeuronCore is a huge number and must be"),
    (ultraserver(ultraserverMode=3), "ultraserverMode is 3 and must be the number 1, 2 or 4"),
    ({"apiVersion": AWS, "kind": "NeuronConfg"}, 'here has kind "NeuronConfg", which is not known: write NeuronConfig'),
    ({"apiVersion": AWS}, "here has no kind: write NeuronConfig or UltraServerConfig (neuron.aws.com/v1) or Simu"),
    ({"apiVersion": AWS, "kind": ["NeuronConfig"]}, "here has kind a list, which is not known"),
    ({"kind": "NeuronConfig", "logicalNeuronCore": 1}, "here (NeuronConfig) has no apiVersion: write apiVersion: neu"),
    (
        {"apiVersion": "neuron.aws.com/v1alphav1", "kind": "NeuronConfig", "logicalNeuronCore": 1},
        'here (NeuronConfig) has apiVersion "neuron.aws.com/v1alphav1": write apiVersion: neuron.aws.com/v1',
    ),
    ({"apiVersion": AWS, "kind": "SimulationConfig"}, "write apiVersion: neuron-sim.dev/v1alpha1"),
    (None, "here.opaque.parameters is null: write an object with apiVersion and kind"),
    ([neuron(logicalNeuronCore=1)], "here.opaque.parameters is a list: write an object"),
    (simulation(None), "environment is null and must be an object of strings"),
    (simulation({f"NEURON_{n}": "" for n in range(17)}), "environment has 17 variables: 16 are allowed"),
    (simulation({"LD_PRELOAD": "x"}), 'environment sets "LD_PRELOAD": only variables that begin with NEURON_'),
    (simulation({"NEURON_A=B": "x"}), 'environment sets "NEURON_A=B": only variables'),
    (simulation({"NEURON_" + "X" * 200: "x"}), "environment sets \"NEURON_XXX"),
    (
        simulation({"NEURON_LOGICAL_NC_CONFIG": "1"}),
        "environment sets NEURON_LOGICAL_NC_CONFIG, which the driver sets itself: remove it, and write a NeuronConfig",
    ),
    (simulation({"NEURON_RT_VISIBLE_CORES": "0"}), "which the driver sets itself: remove it, and ask for the cores"),
    (simulation({"NEURON_RT_ULTRASERVER_MODE": "0"}), "remove it, and write an UltraServerConfig"),
    (simulation({"NEURON_RT_ULTRASERVER_NODE_ID": "0"}), "remove it, and write an UltraServerConfig"),
    (simulation({"NEURON_SIM_SIMULATED": "false"}), "which the driver sets itself"),
    (simulation({"NEURON_X": 1}), "environment.NEURON_X is 1 and must be a string of at most 256 printable characters"),
    (simulation({"NEURON_X": "x" * 257}), "environment.NEURON_X is \"xxx"),
    (simulation({"NEURON_X": "a\x00b"}), "must be a string of at most 256 printable characters"),
    (simulation({"NEURON_X": "\ud800"}), "must be a string of at most 256 printable characters"),
]  # fmt: skip


@pytest.mark.parametrize(("parameters", "words"), REFUSED)
def test_what_is_refused_and_in_which_words(parameters: Any, words: str) -> None:
    with pytest.raises(ClaimError) as error:
        decode(parameters, where="here")
    assert words in str(error.value)
    assert len(str(error.value)) < 600, "it has to fit an Event"
    str(error.value).encode()


def test_what_is_deep_is_never_looked_into() -> None:
    deep: Any = 0
    for _ in range(100_000):
        deep = [deep]
    for parameters in (deep, neuron(logicalNeuronCore=deep), simulation(deep), simulation({"NEURON_X": deep})):
        with pytest.raises(ClaimError, match="a list"):
            decode(parameters, where="here")


# --- from the claim


def of(claim: dict[str, Any], request: str) -> RequestConfig:
    return for_request(request, configurations(claim, driver="neuron.aws.com"))


def test_without_configuration(make: Any) -> None:
    assert of(make.claim(), "neurons") == RequestConfig()


def test_a_claim_comes_after_its_class_and_the_last_of_a_kind_holds(make: Any) -> None:
    first, second = simulation({"NEURON_A": "1"}), simulation({"NEURON_B": "2"})
    config = [
        make.opaque(first),
        make.opaque(second),
        make.lnc(1),
        make.opaque(ultraserver(ultraserverMode=4), source="FromClass"),
        make.lnc(2, source="FromClass"),
    ]
    assert of(make.claim(config=config), "neurons") == RequestConfig(
        neuron=NeuronConfig(1), ultraserver=UltraServerConfig(4), simulation=SimulationConfig({"NEURON_B": "2"})
    )


def test_requests_are_named_as_a_whole_or_by_the_alternative(make: Any) -> None:
    config = [make.lnc(1, requests=["main"]), make.lnc(2, requests=["main/sub", "other"])]
    claim = make.claim(devices={"main/sub": [0], "more": [1]}, config=config)
    assert of(claim, "main/sub").neuron == NeuronConfig(2)
    assert of(claim, "main/another").neuron == NeuronConfig(1)
    assert of(claim, "other").neuron == NeuronConfig(2)
    assert of(claim, "more").neuron is None


def test_other_drivers_configuration_is_theirs(make: Any) -> None:
    claim = make.claim(config=[make.opaque({"kind": "whatever"}, driver="dra.net")])
    assert of(claim, "neurons") == RequestConfig()


def test_what_is_wrong_is_refused_even_if_something_else_holds(make: Any) -> None:
    with pytest.raises(ClaimError, match=r"spec.config of its DeviceClass some.class \(NeuronConfig\): logicalNeuronC"):
        of(make.claim(config=[make.lnc(3, source="FromClass"), make.lnc(1)]), "neurons")


def test_the_place_is_that_of_the_claims_own_list(make: Any) -> None:
    """The scheduler leaves out what was not chosen and repeats what several requests share."""
    claim = make.claim(devices={"main/sub": [0], "more": [1]})
    shared = make.lnc(1, requests=["main", "more"])
    dropped = make.lnc(1, requests=["main/another"])
    foreign = make.opaque({}, driver="dra.net")
    bad = make.lnc(3, requests=["main/sub"])
    claim["spec"]["devices"]["config"] = [shared, dropped, foreign, bad]
    claim["status"]["allocation"]["devices"]["config"] = [make.lnc(1, source="FromClass"), shared, shared, foreign, bad]
    with pytest.raises(ClaimError, match=r"^spec.devices.config\[3\] \(NeuronConfig\): logicalNeuronCore is 3"):
        of(claim, "main/sub")


def test_a_place_that_cannot_be_told_is_not_guessed(make: Any) -> None:
    claim = make.claim(config=[make.lnc(3)])
    claim["spec"]["devices"]["config"] = []
    with pytest.raises(ClaimError, match=r"^spec.devices.config \(NeuronConfig\)"):
        of(claim, "neurons")


# --- anything at all

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
anything = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)
names = st.sampled_from(
    ["apiVersion", "kind", "logicalNeuronCore", "ultraserverMode", "environment", "NEURON_X", "NEURON_SIM_X", "spec"]
)
values = (
    st.sampled_from([AWS, OURS, "NeuronConfig", "UltraServerConfig", "SimulationConfig", 1, 2, 4])
    | st.dictionaries(names | st.text(), st.text() | anything, max_size=3)
    | anything
)
valid = st.sampled_from(
    [neuron(logicalNeuronCore=2), ultraserver(ultraserverMode=4), simulation({"NEURON_X": "y"}), simulation({})]
)
near_misses = st.builds(
    lambda base, changes, without: {k: v for k, v in (base | changes).items() if k != without},
    valid, st.dictionaries(names | st.text(), values, max_size=2), names,
)  # fmt: skip


@given(valid | near_misses | anything)
@example(neuron(logicalNeuronCore=2))
def test_whatever_comes_it_is_taken_as_a_whole_or_refused(parameters: Any) -> None:
    try:
        config = decode(json.loads(json.dumps(parameters)), where="here")
    except ClaimError as error:
        assert str(error).encode().startswith(b"here")  # noqa: PT017 - either is right
        return
    match config:
        case NeuronConfig(logical_neuron_core=value):
            assert parameters == neuron(logicalNeuronCore=value)
            assert value in (1, 2)
        case UltraServerConfig(ultraserver_mode=value):
            assert parameters == ultraserver(ultraserverMode=value)
            assert value in (1, 2, 4)
        case SimulationConfig(environment=environment):
            assert parameters == simulation(environment)
            assert all(name.startswith("NEURON_") for name in environment)
            assert all(isinstance(text, str) for text in environment.values())
