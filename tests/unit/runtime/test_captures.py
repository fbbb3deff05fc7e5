"""What the tool prints equals what real machines and AWS's documentation print, to the space."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from neuron_runtime import processes

GOLDEN = Path(__file__).parent / "golden"
MULTIPROCESSING = ("/opt/conda/bin/python", "-c", "from multiprocessing.spawn import spawn_main; spawn_main()")


def golden(name: str) -> str:
    return (GOLDEN / name).read_text()


@pytest.mark.parametrize("name", ["trn1.2xlarge", "trn2n.48xlarge", "inf2.24xlarge"])
@pytest.mark.parametrize("flag", [(), ("--wide",), ("-a",)])
def test_idle_machine(container: Any, saved_view: Any, name: str, flag: tuple[str, ...]) -> None:
    container.add_view(saved_view(name))
    result = container.neuron_ls(*flag)
    assert result.stdout == golden(f"{name}.txt")
    assert (result.stderr, result.code) == ("", 0)


@pytest.mark.parametrize(("flag", "ending"), [((), "txt"), (("-j",), "json"), (("--json-output",), "json")])
def test_two_runtimes_in_a_container(container: Any, saved_view: Any, flag: tuple[str, ...], ending: str) -> None:
    container.add_view(saved_view("one-of-trn2.48xlarge"))
    container.add_process(1966681, devices=[0])
    container.add_process(1966680, devices=[0])
    container.add_process(1, "sleep", "infinity")
    assert container.neuron_ls(*flag).stdout == golden(f"one-of-trn2.48xlarge-two-runtimes.{ending}")


@pytest.mark.parametrize(("flag", "ending"), [((), "txt"), (("-j",), "json")])
def test_two_owners_of_cores_in_a_container(
    container: Any, saved_view: Any, flag: tuple[str, ...], ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    container.add_view(saved_view("one-of-trn2.48xlarge"))
    monkeypatch.setattr(processes, "core_owners", lambda _: {1966681: {0}, 1966680: {0}})
    assert container.neuron_ls(*flag).stdout == golden(f"one-of-trn2.48xlarge-two-runtimes.{ending}")


def test_json_of_older_tools_does_not_name_the_instance(container: Any, saved_view: Any) -> None:
    container.add_view(saved_view("trn1.2xlarge-tools-2.28"))
    assert container.neuron_ls("-j").stdout == golden("trn1.2xlarge-tools-2.28.json")


def test_runtime_with_a_long_command(container: Any, saved_view: Any) -> None:
    container.add_view(saved_view("trn1.2xlarge-sdk-2.25"))
    container.add_process(37021, *MULTIPROCESSING, devices=[0])
    assert container.neuron_ls().stdout == golden("trn1.2xlarge-runtime.txt")


def test_runtime_whose_command_is_unknown(container: Any, saved_view: Any) -> None:
    container.add_view(saved_view("inf2.xlarge"))
    container.add_process(4290, devices=[0])
    assert container.neuron_ls().stdout == golden("inf2.xlarge-runtime-without-command.txt")


@pytest.mark.parametrize(("flag", "name"), [((), ""), (("-w",), "-wide")])
def test_several_runtimes_on_several_devices(container: Any, saved_view: Any, flag: tuple[str, ...], name: str) -> None:
    container.add_view(saved_view("inf1.6xlarge"))
    arguments = ("infer", "--input-data-directory", "~/my_input_data", "--inference-count", "5000000")
    container.add_process(23518, "neuron-app01", *arguments, devices=[0])
    container.add_process(23531, "neuron-app02", *arguments, devices=[0])
    container.add_process(23595, "neuron-app01", *arguments, devices=[1])
    container.add_process(23608, "neuron-app02", *arguments, devices=[2])
    assert container.neuron_ls(*flag).stdout == golden(f"inf1.6xlarge-processes{name}.txt")


def test_topology_stands_below_the_table(container: Any, saved_view: Any) -> None:
    container.add_view(saved_view("trn2n.48xlarge"))
    expected = golden("trn2n.48xlarge.txt") + "\n\n" + golden("trn2n.48xlarge-topology.txt")
    assert container.neuron_ls("--topology").stdout == expected
