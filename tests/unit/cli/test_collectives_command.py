"""``neuron-sim collectives``: the model's answers for people and programs."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from neuron_cli.main import app
from neuron_device_model.collectives.fabric import single_node
from neuron_device_model.collectives.model import estimate
from typer.testing import CliRunner

TRN2 = ("--instance-type", "trn2.48xlarge")


def run(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["collectives", *words])
    return result.exit_code, result.stdout, result.stderr


def test_json_has_the_models_answer_with_its_stages() -> None:
    code, out, _ = run(*TRN2, "--ranks", "64", "--op", "allr", "--dtype", "bf16", "--size", "1MiB,32MiB", "--json")
    fabric = single_node("trn2.48xlarge")
    expected = [estimate(fabric, fabric.cores(), "all_reduce", size, "bf16") for size in (1 << 20, 32 << 20)]
    found = json.loads(out)
    assert code == 0
    assert [(row["time_us"], row["busbw"], row["algorithm"]) for row in found] == [
        (answer.time_us, answer.busbw, answer.algorithm) for answer in expected
    ]
    for row in found:
        assert sum(stage["time_us"] for stage in row["stages"]) + row["launch_us"] == pytest.approx(row["time_us"])
        assert row["busiest_links"]


def test_a_size_shows_its_stages_and_several_a_plot() -> None:
    _, one, _ = run(*TRN2, "--ranks", "64", "--size", "1MiB")
    assert "WAITING_US" in one.replace(" ", "_")
    assert "→" in one
    _, several, _ = run(*TRN2, "--ranks", "64")
    assert "a mesh, b rdh, c kangaring" in several
    assert "busbw, GB/s" in several


def test_nodes_and_ultraservers_differ() -> None:
    def time_us(*words: str) -> float:
        _, out, _ = run("--instance-type", "trn2u.48xlarge", "--ranks", "128", "--size", "64MiB", "--json", *words)
        return float(json.loads(out)[0]["time_us"])

    assert time_us("--nodes", "2", "--ultraserver") < time_us("--nodes", "2")


def test_the_plot_is_an_image_with_a_point_for_each_size(tmp_path: Path) -> None:
    path = tmp_path / "plot.svg"
    code, _, _ = run(*TRN2, "--ranks", "16", "--size", "1KiB", "--size", "1MiB", "--size", "1GiB", "--svg", str(path))
    titles = [element.text for element in ET.parse(path).iter("{http://www.w3.org/2000/svg}title")]
    assert code == 0
    assert len(titles) == 6


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--instance-type", "trn9", "--ranks", "2"), "unknown instance type 'trn9'"),
        (("--instance-type", "inf1.xlarge", "--ranks", "2"), "has no collectives"),
        ((*TRN2, "--ranks", "63"), "it has groups of"),
        ((*TRN2, "--ranks", "128"), "has 64 cores at logical NeuronCore configuration 2"),
        ((*TRN2, "--ranks", "3", "--nodes", "2"), "cannot be divided equally"),
        ((*TRN2, "--ranks", "2", "--size", "1 MB"), "is not a size"),
        ((*TRN2, "--ranks", "2", "--size", "3", "--dtype", "fp32"), "use a multiple of 4"),
        ((*TRN2, "--ranks", "2", "--op", "scan"), "unknown operation 'scan'"),
        ((*TRN2, "--ranks", "2", "--dtype", "fp64"), "unknown data type 'fp64'"),
        ((*TRN2, "--ranks", "2", "--lnc", "3"), "is no logical NeuronCore configuration"),
        (("--instance-type", "trn1.32xlarge", "--ranks", "2", "--lnc", "2"), "has no logical NeuronCores"),
        ((*TRN2, "--ranks", "2", "--ultraserver"), "is not a member of an UltraServer"),
    ],
)
def test_what_does_not_exist_is_said_in_one_line(words: tuple[str, ...], message: str) -> None:
    code, out, err = run(*words)
    assert (code, out) == (1, "")
    assert message in err
    assert err.startswith("neuron-sim: ")
    assert err.count("\n") == 1
