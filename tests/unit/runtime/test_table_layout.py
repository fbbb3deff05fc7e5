"""The layout of text tables, whatever is in them."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from neuron_runtime import table

CELL = st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="|+"), max_size=12)


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[table.Column], list[int]]:
    group_sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    cells = st.lists(CELL, min_size=sum(group_sizes), max_size=sum(group_sizes))
    first = table.Column("NEURON", "DEVICE", [str(row) for row in range(sum(group_sizes))])
    more = draw(st.lists(st.builds(table.Column, CELL, CELL, cells), max_size=4))
    return [first, *more], group_sizes


@given(tables())
@settings(deadline=None)
def test_all_lines_are_of_one_width(drawn: tuple[list[table.Column], list[int]]) -> None:
    columns, group_sizes = drawn
    lines = table.render(columns, group_sizes=group_sizes).splitlines()
    assert len({len(line) for line in lines}) == 1
    posts = [i for i, glyph in enumerate(lines[0]) if glyph == "+"]
    for line in lines:
        assert [i for i, glyph in enumerate(line) if glyph in "|+"] == posts


@given(tables())
@settings(deadline=None)
def test_cells_come_back_in_their_places(drawn: tuple[list[table.Column], list[int]]) -> None:
    columns, group_sizes = drawn
    lines = table.render(columns, group_sizes=group_sizes).splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line[0] == "|"][2:]
    shown = [column for column in columns if any(column.cells)]
    assert [list(column.cells) for column in shown] == [list(cells) for cells in zip(*rows, strict=True)]


@given(tables())
@settings(deadline=None)
def test_borders_part_the_groups_where_any_has_several_lines(
    drawn: tuple[list[table.Column], list[int]],
) -> None:
    columns, group_sizes = drawn
    lines = table.render(columns, group_sizes=group_sizes).splitlines()
    borders = sum(line[0] == "+" for line in lines)
    assert borders == (2 + len(group_sizes) if max(group_sizes) > 1 else 3)


@given(tables())
@settings(deadline=None)
def test_headers_are_centred_and_lean_left(drawn: tuple[list[table.Column], list[int]]) -> None:
    columns, group_sizes = drawn
    for line in table.render(columns, group_sizes=group_sizes).splitlines()[1:3]:
        for cell in line.strip("|").split("|"):
            if cell.strip():
                left = len(cell) - len(cell.lstrip())
                right = len(cell) - len(cell.rstrip())
                assert right - left in (0, 1)
