"""JSON without the json package agrees with it, and with Go's encoder where the two differ."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from neuron_runtime import json_text

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=20,
)


@given(VALUES)
@settings(deadline=None)
def test_what_is_written_reads_back(value: Any) -> None:
    text = json_text.render(value)
    assert json.loads(text) == value
    assert json_text.parse(text) == value


def test_layout_is_that_of_go_with_four_spaces() -> None:
    value = {"a": [1, {"b": None}], "c": [], "d": {}, "e": True}
    assert json_text.render(value) == json.dumps(value, indent=4)


def test_go_escapes_what_html_would_read() -> None:
    assert json_text.render("a<b> & \u2028") == '"a\\u003cb\\u003e \\u0026 \\u2028"'


@pytest.mark.parametrize("text", ["", "{", '{"a": 1,}', "[1] 2", "nul"])
def test_what_is_not_json_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(ValueError, match=r"line 1 column \d"):
        json_text.parse(text)
