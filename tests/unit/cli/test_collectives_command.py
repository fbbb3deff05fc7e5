"""``neuron-sim collectives``: the model's answers for people and programs."""

import json
import subprocess
import sys
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
    assert "time, µs" in several
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
    assert len([title for title in titles if title and "GB/s" in title]) == 6


def test_where_algorithms_change_is_told_to_the_element() -> None:
    _, out, _ = run(*TRN2, "--ranks", "64")
    fabric = single_node("trn2.48xlarge")
    asked = [
        estimate(fabric, fabric.cores(), "all_reduce", size, "bf16").algorithm for size in (56 << 20, (56 << 20) + 2)
    ]
    assert asked == ["rdh", "kangaring"]
    assert "mesh from 1KiB, rdh from 1048578B, kangaring from 58720258B" in out


def test_one_size_is_drawn_on_the_board(tmp_path: Path) -> None:
    path = tmp_path / "links.svg"
    code, _, _ = run("--instance-type", "trn2.48xlarge", "--ranks", "64", "--size", "64MiB", "--svg", str(path))
    shapes = ET.parse(path).getroot()
    titles = [str(element.text) for element in shapes.iter("{http://www.w3.org/2000/svg}title")]
    assert code == 0
    assert len(titles) == 32, "each link of the 4 × 4 torus, once"
    assert any(title.startswith("chip 0 → chip 1: ") for title in titles)


def test_the_terminal_shows_the_busiest_links_on_the_board() -> None:
    _, row, _ = run(*TRN2, "--ranks", "16", "--size", "64MiB")
    assert "━[ 0]━━━[ 1]━━━[ 2]━━━[ 3]━\n   [ 4]   [ 5]   [ 6]   [ 7]\n" in row
    _, ring, _ = run("--instance-type", "inf2.48xlarge", "--ranks", "24", "--size", "64MiB")
    ends = f"     ┃{' ' * 34}┃"
    assert f"[ 4]━━━[ 5]\n{ends}\n   [11]━━━[10]" in ring
    _, cards, _ = run("--instance-type", "trn1.32xlarge", "--nodes", "8", "--ranks", "256", "--size", "64MiB")
    assert cards.count("network cards: ━0  ━1  ") == 4
    assert "… and 4 more nodes" in cards
    _, switch, _ = run("--instance-type", "trn3.48xlarge", "--ranks", "64", "--size", "64MiB")
    assert "switch of server 0: ━0  ━1  " in switch
    _, servers, _ = run(
        *("--instance-type", "trn2u.48xlarge", "--nodes", "2", "--ultraserver", "--ranks", "128", "--size", "64MiB")
    )
    assert "node-0 [0] ╌╌╌ [0] node-1  " in servers
    assert "more links between nodes" in servers


def test_the_images_of_the_docs_are_those_of_the_model(tmp_path: Path) -> None:
    repository = Path(__file__).parents[3]
    script = str(repository / "hack/plot-collectives")
    subprocess.run([sys.executable, script, str(tmp_path)], check=True, timeout=60)
    drawn = {path.name: path.read_text() for path in tmp_path.iterdir()}
    kept = {name: (repository / "docs/images" / name).read_text() for name in drawn}
    assert drawn == kept, "run hack/plot-collectives: the model or the plots have changed"


@pytest.mark.parametrize(
    "words",
    [
        ("inf2.48xlarge", "--ranks", "24"),
        ("trn1.32xlarge", "--ranks", "64", "--nodes", "2"),
        ("trn2u.48xlarge", "--ranks", "256", "--nodes", "4", "--ultraserver"),
        ("trn3.48xlarge", "--ranks", "64"),
        ("trn3.48xlarge", "--ranks", "128", "--nodes", "2", "--ultraserver"),
        ("inf2.xlarge", "--ranks", "2"),
    ],
)
def test_every_kind_of_link_has_its_place(tmp_path: Path, words: tuple[str, ...]) -> None:
    path = tmp_path / "links.svg"
    code, _, err = run("--instance-type", *words, "--size", "64MiB", "--svg", str(path))
    assert (code, err) == (0, "")
    assert ET.parse(path).getroot().tag.endswith("svg")


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


def test_a_layout_shows_its_groups_and_what_they_share() -> None:
    code, out, _ = run("--instance-type", "trn1.32xlarge", "--layout", "tp=8,dp=4", "--size", "16MiB", "--json")
    found = json.loads(out)
    assert code == 0
    assert [len(group) for group in found["groups"]["data"]] == [4] * 8
    tensor, data = found["exchanges"]
    assert (tensor["dimension"], tensor["shared_links"]) == ("tensor", [])
    assert {link["groups"] for link in data["shared_links"]} == {2}
    _, table, _ = run("--instance-type", "trn1.32xlarge", "--layout", "tp=8,dp=4")
    assert "0-7  8-15  16-23  24-31" in table
    assert "0,8,16,24" in table


def test_a_layout_with_a_model_is_a_step() -> None:
    words = (*TRN2, "--layout", "tp=4,dp=4,pp=4", "--model", "layers=32,hidden=4096,sequence=2048,batch=64")
    _, out, _ = run(*words, "--json")
    found = json.loads(out)
    assert [one["dimension"] for one in found["exchanges"]] == ["tensor", "pipeline", "data"]
    assert found["step"]["step_ms"] == pytest.approx(
        sum(found["step"][f"{name}_ms"] for name in ("compute", "bubble", "tensor", "pipeline", "data"))
        - found["step"]["hidden_ms"],
        abs=0.01,
    )
    _, table, _ = run(*words)
    assert "STEP MS" in table


def test_groups_that_the_platform_does_not_take_are_told() -> None:
    words = ("--instance-type", "inf2.48xlarge", "--layout", "tp=8,dp=3")
    code, out, _ = run(*words, "--json")
    found = json.loads(out)
    assert code == 0
    assert [one["dimension"] for one in found["exchanges"]] == ["tensor"]
    assert "groups of 3 ranks on one inf2.48xlarge" in found["refused"]["data"]
    _, table, _ = run(*words)
    assert "data: groups of 3 ranks" in table


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*TRN2,), "say which cores"),
        ((*TRN2, "--ranks", "8", "--layout", "tp=8"), "say which cores"),
        ((*TRN2, "--ranks", "8", "--model", "layers=1"), "--model goes with --layout"),
        ((*TRN2, "--layout", "tp=8;dp=8"), "write it like tp=8,dp=4"),
        ((*TRN2, "--layout", "tp=8", "--model", "layers=1"), "lacks hidden, sequence, batch"),
        ((*TRN2, "--layout", "tp=8,dp=16"), "has 64 cores"),
    ],
)
def test_a_layout_that_cannot_be_is_told_in_one_line(words: tuple[str, ...], message: str) -> None:
    code, out, err = run(*words)
    assert (code, out) == (1, "")
    assert message in err
    assert err.count("\n") == 1
