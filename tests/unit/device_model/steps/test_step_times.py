"""What a step takes: the sums of its parts, and what changes it."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from neuron_device_model.catalog.chips import chips
from neuron_device_model.collectives.errors import UnsupportedCollective
from neuron_device_model.collectives.fabric import Core, Fabric, Node, single_node
from neuron_device_model.collectives.layouts import Layout
from neuron_device_model.steps.errors import WrongStep
from neuron_device_model.steps.serving import serving
from neuron_device_model.steps.text import parse_layout, parse_transformer, shown_layout
from neuron_device_model.steps.training import Step, memory, step
from neuron_device_model.steps.transformer import Transformer

SMALL = Transformer(layers=8, hidden=1024, sequence=512, batch=64)
LARGE = Transformer(layers=32, hidden=4096, sequence=2048, batch=64)


def on_trn2(layout: Layout, model: Transformer = LARGE, **more: float) -> Step:
    fabric = single_node("trn2.48xlarge")
    return step(fabric, fabric.cores(), layout, model, **more)  # type: ignore[arg-type]


def over_nodes(layout: Layout, *sets: str | None) -> Step:
    """One trn2u.48xlarge for each of these UltraServers; their seats are free from 1 on."""
    nodes = tuple(Node(f"n{number}", name, 1 + sets[:number].count(name)) for number, name in enumerate(sets))
    fabric = Fabric("trn2u.48xlarge", 2, nodes)
    ranks = [core for number in range(len(nodes)) for core in fabric.cores(number)]
    return step(fabric, ranks, layout, LARGE)


def test_computing_is_that_of_the_published_figures() -> None:
    alone = on_trn2(Layout(tensor=8, data=8))
    tokens = LARGE.batch * LARGE.sequence
    flops = 6 * LARGE.parameters * tokens + 12 * LARGE.layers * LARGE.hidden * LARGE.sequence * tokens
    assert alone.compute_s == pytest.approx(flops / (16 * 667e12))
    assert on_trn2(Layout(tensor=8, data=8), efficiency=0.4).compute_s == pytest.approx(alone.compute_s / 0.4)
    assert on_trn2(Layout(tensor=8, data=8), speed=0.5).compute_s == pytest.approx(2 * alone.compute_s)


def test_parts_add_up_and_the_bubble_shrinks_with_micro_batches() -> None:
    found = on_trn2(Layout(4, 4, 4))
    assert found.seconds == pytest.approx(
        found.compute_s + found.bubble_s + found.tensor_s + found.pipeline_s + found.data_s - found.hidden_s
    )
    assert found.bubble_s == pytest.approx((found.compute_s + found.tensor_s) * 3 / 4)
    assert on_trn2(Layout(4, 4, 4), micro_batches=16).bubble_s < found.bubble_s / 3
    assert on_trn2(Layout(8, 8)).bubble_s == 0


def test_overlap_hides_gradients_under_the_backward_pass_only() -> None:
    shown, hidden = (on_trn2(Layout(8, 8), SMALL, overlap=overlap) for overlap in (False, True))
    assert (shown.hidden_s, shown.data_s) == (0, hidden.data_s)
    assert hidden.hidden_s == min(hidden.data_s, 2 / 3 * hidden.compute_s) > 0
    assert shown.seconds - hidden.seconds == pytest.approx(hidden.hidden_s)


def test_the_farther_apart_its_nodes_are_the_longer_a_step_is() -> None:
    for layout in (Layout(16, 8), Layout(16, 4, 2)):
        together, apart = over_nodes(layout, "a", "a"), over_nodes(layout, "a", "b")
        assert together.data_s + together.pipeline_s < apart.data_s + apart.pipeline_s
        alone = over_nodes(layout, None, None)
        assert (alone.data_s, alone.pipeline_s) == (apart.data_s, apart.pipeline_s)
    assert over_nodes(Layout(16, 4, 2), "a", "a").seconds < over_nodes(Layout(16, 4, 2), "a", "b").seconds


def test_two_ultraservers_are_alike_wherever_their_nodes_sit() -> None:
    def data_s(*seats: int) -> float:
        nodes = tuple(Node(f"n{number}", "ab"[number // 2], seat) for number, seat in enumerate(seats))
        fabric = Fabric("trn2u.48xlarge", 2, nodes)
        ranks = [core for number in range(4) for core in fabric.cores(number)]
        return step(fabric, ranks, Layout(64, 4), LARGE).data_s

    assert data_s(0, 1, 2, 3) == data_s(0, 1, 0, 1)


@given(
    st.sampled_from([Layout(4, 16), Layout(8, 8), Layout(4, 4, 4), Layout(64), Layout(1, 64)]),
    st.booleans(),
    st.floats(0.1, 1.0),
    st.floats(0.1, 1.0),
)
@settings(max_examples=40, deadline=None)
def test_a_step_is_never_shorter_than_its_computing_nor_longer_than_without_overlap(
    layout: Layout, overlap: bool, efficiency: float, speed: float
) -> None:
    found = on_trn2(layout, SMALL, overlap=overlap, efficiency=efficiency, speed=speed)
    assert (
        found.compute_s
        <= found.seconds
        <= on_trn2(layout, SMALL, overlap=False, efficiency=efficiency, speed=speed).seconds
    )
    assert found.compute_s >= on_trn2(layout, SMALL).compute_s


def test_memory_is_divided_by_tensor_and_pipeline_and_not_by_data() -> None:
    model = replace(LARGE, sequence=1, batch=64)
    assert memory(Layout(4, 16), model) == pytest.approx(model.parameters * 16 / 4, rel=0.01)
    assert memory(Layout(4, 4, 4), model) == pytest.approx(model.parameters * 16 / 16, rel=0.01)


def test_a_token_reads_all_weights_and_a_prompt_computes() -> None:
    fabric = single_node("inf2.48xlarge")
    model = Transformer(32, 4096, 512, 24)
    found = serving(fabric, fabric.cores(), Layout(8, 3), model, tokens=128)
    chip = chips()["inferentia2"]
    kept = 2 * model.layers * model.hidden * (512 + 64) * 8 * 2
    per_core = (model.parameters * 2 + kept) / 8
    assert found.token.compute_s == pytest.approx(per_core / (chip.memory_bandwidth_bytes_per_s / 2))
    assert found.prefill.compute_s > per_core / (chip.memory_bandwidth_bytes_per_s / 2)
    assert found.tokens_per_s == pytest.approx(24 * 128 / (found.prefill.seconds + 128 * found.token.seconds))


def test_replicas_say_nothing_to_one_another_so_inf1_serves_without_collectives() -> None:
    fabric = single_node("inf1.6xlarge")
    cores = fabric.cores()
    found = serving(fabric, cores, Layout(1, 16), Transformer(12, 768, 128, 32), tokens=16)
    assert found.token.tensor_s == found.token.pipeline_s == 0
    with pytest.raises(UnsupportedCollective, match="has no collectives"):
        serving(fabric, cores, Layout(2, 8), Transformer(12, 768, 128, 32), tokens=16)


def test_a_core_number_that_the_runtime_sees_decides_what_it_takes() -> None:
    fabric = single_node("trn2.48xlarge")
    ranks = [Core(0, chip, core) for chip in (0, 1) for core in range(4)]
    assert step(fabric, ranks, Layout(8), SMALL).seconds
    with pytest.raises(UnsupportedCollective, match="starts at a multiple of 8"):
        step(fabric, ranks, Layout(8), SMALL, numbers=range(4, 12))


@pytest.mark.parametrize(
    ("layout", "model", "message"),
    [
        (Layout(4, 4, 4), replace(SMALL, layers=6), "6 layers cannot be divided equally among 4 pipeline stages"),
        (Layout(8, 8), replace(SMALL, batch=12), "a batch of 12 cannot be divided equally among 8"),
        (Layout(8, 8), replace(SMALL, dtype="int8"), "no speed of Trainium2 in int8 is published: use bf16, fp16, "),
    ],
)
def test_what_does_not_go_is_told(layout: Layout, model: Transformer, message: str) -> None:
    with pytest.raises(WrongStep, match=message):
        on_trn2(layout, model)


@pytest.mark.parametrize("text", ["tp=8,dp=4,pp=1", "tp=1,dp=64,pp=2"])
def test_layouts_are_read_as_they_are_written(text: str) -> None:
    assert shown_layout(parse_layout(text)) == text


def test_a_model_is_read_and_what_is_left_out_of_a_layout_is_one() -> None:
    assert parse_layout("tp=8") == Layout(8, 1, 1)
    assert parse_transformer("layers=2, hidden=64,dtype=fp8,sequence=8,batch=4") == Transformer(2, 64, 8, 4, "fp8")


@pytest.mark.parametrize("text", ["", "tp", "tp=", "tp=0", "tp=-1", "tp=8,tp=8", "ep=8", "tp=9999999999", "tp=²"])
def test_a_layout_that_is_not_understood_is_told(text: str) -> None:
    with pytest.raises(WrongStep, match="write it like tp=8,dp=4"):
        parse_layout(text)


@pytest.mark.parametrize(
    "text", ["layers=2", "layers=2,hidden=x,sequence=8,batch=1", "layers=2,hidden=64,sequence=8,batch=4,dtype=fp64"]
)
def test_a_model_that_is_not_understood_is_told(text: str) -> None:
    with pytest.raises(WrongStep):
        parse_transformer(text)
