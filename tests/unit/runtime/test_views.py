"""The views of a container: where they are found, how several become one, what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from neuron_runtime import views

TORUS = "trn2n.48xlarge"


def merged(container: Any) -> Any:
    return views.merge([view for _, view in views.given(str(container.run_root))])


def numbers(view: Any) -> list[tuple[int, int, list[int]]]:
    return [(d["index"], d["host_index"], d["core_ids"]) for d in view["devices"]]


def test_no_folder_is_no_device(container: Any) -> None:
    assert views.given(str(container.run_root / "absent")) == []
    assert views.merge([]) is None


def test_a_view_without_devices_is_no_device(container: Any, some_of: Any) -> None:
    container.add_view(some_of(TORUS))
    assert merged(container) is None


def test_other_files_are_not_views(container: Any, some_of: Any) -> None:
    (container.run_root / "note").write_text("no folder")
    (container.run_root / "claim" / "socket-only").mkdir(parents=True)
    container.add_view(some_of(TORUS, 3), claim="other")
    assert numbers(merged(container)) == [(0, 3, [0, 1, 2, 3])]


def test_requests_that_number_on_keep_their_numbers(container: Any, some_of: Any) -> None:
    container.add_view(some_of(TORUS, 7, first_index=1), request="a-second")
    container.add_view(some_of(TORUS, 5), request="the-first")
    assert numbers(merged(container)) == [
        (0, 5, [0, 1, 2, 3]),
        (1, 7, [4, 5, 6, 7]),
    ]


def test_claims_with_the_same_numbers_are_numbered_anew(container: Any, some_of: Any) -> None:
    container.add_view(some_of(TORUS, 5, 6), claim="b")
    container.add_view(some_of(TORUS, 9), claim="a")
    view = merged(container)
    assert numbers(view) == [(0, 9, [0, 1, 2, 3]), (1, 5, [4, 5, 6, 7]), (2, 6, [8, 9, 10, 11])]
    assert view["devices"][1]["connected"] == [1, 4, 9, 6]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"devices": []}', '{"schema": 1} x', "\xff"])
def test_a_broken_view_says_what_to_do(container: Any, text: str) -> None:
    path = container.add_view(text)
    path.write_bytes(text.encode("latin-1"))
    result = container.neuron_ls()
    assert (result.stdout, result.code) == ("", 1)
    assert str(path) in result.stderr
    assert "start the pod anew" in result.stderr


def test_a_newer_view_says_what_to_do(container: Any, some_of: Any) -> None:
    container.add_view(some_of(TORUS, 0) | {"schema": 2})
    assert "schema 2, these tools read schema 1: start the pod anew" in container.neuron_ls().stderr


def test_the_view_is_not_changed_by_merging(some_of: Any) -> None:
    given = [some_of(TORUS, 5), some_of(TORUS, 9)]
    before = json.dumps(given)
    views.merge(given)
    assert json.dumps(given) == before
