"""A parallel layout on the first cores of some nodes: its groups, what their collectives cost, which links they share.

Pure. Without a model each dimension does one operation of each size; with one, what a step of its training does.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from neuron_device_model.catalog import UnknownInstanceType
from neuron_device_model.collectives.errors import UnsupportedCollective
from neuron_device_model.collectives.fabric import Core, Fabric
from neuron_device_model.collectives.layouts import (
    DIMENSIONS,
    PIPELINE,
    Exchange,
    ExchangeCost,
    Layout,
    check_layout,
    step_costs,
)
from neuron_device_model.steps.errors import WrongStep
from neuron_device_model.steps.text import parse_layout, parse_transformer, shown_layout
from neuron_device_model.steps.training import Step, step

from neuron_cli.collectives.sweep import WrongSweep, board, busiest, shown_link, shown_size

DEFAULT_SIZE = 16 << 20
_GROUPS_SHOWN = 4


@dataclass(frozen=True)
class Answer:
    """What a layout costs."""

    layout: Layout
    chips: tuple[tuple[int, int], ...]
    """Of each rank: its node and chip."""
    costs: tuple[ExchangeCost, ...]
    refused: dict[str, str]
    """Dimensions whose groups the runtime does not take, and why."""
    step: Step | None = None


def answer(
    type_name: str,
    layout_text: str,
    *,
    nodes: int,
    lnc: int | None,
    ultraserver: bool,
    what: str,
    dtype: str,
    sizes: Sequence[int],
    model_text: str | None,
) -> Answer:
    """What a layout costs. Raises WrongSweep."""
    try:
        layout = parse_layout(layout_text)
        fabric, ranks = board(type_name, ranks=layout.size, nodes=nodes, lnc=lnc, ultraserver=ultraserver)
        chips = tuple((core.node, core.chip) for core in ranks)
        if model_text is not None:
            done = step(fabric, ranks, layout, parse_transformer(model_text))
            return Answer(layout, chips, tuple(cost for cost in done.exchanges if cost.estimates), {}, done)
        refused = dict(_refused(fabric, ranks, layout))
        wanted = [
            Exchange(dimension, "sendrecv" if dimension == PIPELINE else what, size, dtype)
            for dimension, extent in zip(DIMENSIONS, layout.extents, strict=True)
            for size in sizes
            if extent > 1 and dimension not in refused
        ]
        return Answer(layout, chips, step_costs(fabric, ranks, layout, wanted), refused)
    except (UnknownInstanceType, UnsupportedCollective, WrongStep) as wrong:
        raise WrongSweep(str(wrong)) from None


def _refused(fabric: Fabric, ranks: Sequence[Core], layout: Layout) -> Iterator[tuple[str, str]]:
    for dimension in DIMENSIONS:
        try:
            check_layout(fabric, ranks, layout, [dimension])
        except UnsupportedCollective as error:
            yield dimension, str(error)


def groups(found: Answer) -> list[dict[str, object]]:
    """A row for each dimension: its groups, and where they are."""
    rows: list[dict[str, object]] = []
    for dimension, extent in zip(DIMENSIONS, found.layout.extents, strict=True):
        if extent == 1:
            continue
        made = found.layout.groups(dimension)
        first = dict.fromkeys(found.chips[rank] for rank in made[0])
        several = len({node for node, _ in found.chips}) > 1
        rows.append(
            {
                "dimension": dimension,
                "groups": len(made),
                "of": extent,
                "ranks": "  ".join(map(_ranks, made[:_GROUPS_SHOWN])) + ("  …" if len(made) > _GROUPS_SHOWN else ""),
                "chips_of_the_first": " ".join(f"{node}:{chip}" if several else str(chip) for node, chip in first),
            }
        )
    return rows


def exchanges(found: Answer) -> list[dict[str, object]]:
    """A row for each operation."""
    rows: list[dict[str, object]] = []
    for cost in found.costs:
        slowest = max(cost.estimates, key=lambda one: one.seconds)
        shared = cost.shared()
        rows.append(
            {
                "dimension": cost.exchange.dimension,
                "operation": slowest.operation.name,
                "size": shown_size(cost.exchange.size),
                "times": cost.exchange.times,
                "each_us": round(slowest.time_us, 2),
                "total_ms": round(cost.seconds * 1e3, 3),
                "algorithm": slowest.algorithm,
                "shared_links": len(shared),
                "groups_on_one": max(shared.values(), default=1),
            }
        )
    return rows


def step_row(done: Step) -> dict[str, object]:
    """A step in milliseconds."""
    return {
        "step_ms": round(done.seconds * 1e3, 3),
        **{
            f"{name}_ms": round(getattr(done, f"{name}_s") * 1e3, 3)
            for name in ("compute", "bubble", "tensor", "pipeline", "data", "hidden")
        },
    }


def document(found: Answer) -> dict[str, Any]:
    """All of it, for programs."""
    return {
        "layout": shown_layout(found.layout),
        "groups": {dimension: found.layout.groups(dimension) for dimension in DIMENSIONS},
        "chips": found.chips,
        "refused": found.refused,
        "exchanges": [
            {
                "dimension": cost.exchange.dimension,
                "operation": slowest.operation.name,
                "size": cost.exchange.size,
                "times": cost.exchange.times,
                "time_us": slowest.time_us,
                "total_us": cost.seconds * 1e6,
                "algorithm": slowest.algorithm,
                "busbw": slowest.busbw,
                "shared_links": [
                    {"link": shown_link(link), "kind": link.kind, "groups": count}
                    for link, count in sorted(cost.shared().items(), key=lambda one: (-one[1], one[0]))
                ],
                "busiest_links": [
                    {"link": shown_link(link), "kind": link.kind, "bytes": moved}
                    for link, moved in busiest(cost.estimates)
                ],
            }
            for cost in found.costs
            for slowest in [max(cost.estimates, key=lambda one: one.seconds)]
        ],
        "step": None if found.step is None else step_row(found.step),
    }


def _ranks(group: Sequence[int]) -> str:
    """As `0-7`, or `0,8,…,24`."""
    if group[-1] - group[0] == len(group) - 1:
        return f"{group[0]}-{group[-1]}"
    return ",".join(map(str, group)) if len(group) <= 4 else f"{group[0]},{group[1]},…,{group[-1]}"
