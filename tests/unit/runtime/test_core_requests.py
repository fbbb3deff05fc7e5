"""Which cores a process asks for and which it gets: the environment read, the runtime's rules applied."""

from __future__ import annotations

import re
import time
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from neuron_runtime import nrt

FOUR = [0, 1, 2, 3]
IDS = st.sets(st.integers(0, 140), min_size=1)


def ask(given: list[int], count: int | None = None, **environment: str) -> nrt.Request:
    variables = {f"NEURON_RT_{name}": value for name, value in environment.items()}
    return nrt.requested(variables, count=count, given=given)


def gets(given: list[int], free: set[int], count: int | None = None, **environment: str) -> list[int]:
    return list(nrt.chosen(ask(given, count, **environment), free=free))


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, [0, 1, 2, 3]),
        ({"VISIBLE_CORES": "", "NUM_CORES": " "}, [0, 1, 2, 3]),
        ({"NUM_CORES": "0"}, [0, 1, 2, 3]),
        ({"NUM_CORES": "1"}, [0]),
        ({"NUM_CORES": "3"}, [0, 1, 2]),
        ({"VISIBLE_CORES": "3"}, [3]),
        ({"VISIBLE_CORES": "0-2"}, [0, 1, 2]),
        ({"VISIBLE_CORES": "0,2-3"}, [0, 2, 3]),
        ({"VISIBLE_CORES": " 2 - 3, 1,1 "}, [1, 2, 3]),
        ({"VISIBLE_CORES": "2-3", "NUM_CORES": "1"}, [2, 3]),
        ({"VISIBLE_CORES": "2-3", "NUM_CORES": "many"}, [2, 3]),
    ],
)
def test_what_the_environment_means(environment: dict[str, str], expected: list[int]) -> None:
    assert gets(FOUR, {0, 1, 2, 3}, **environment) == expected


def test_an_explicit_count_picks_among_the_visible() -> None:
    assert gets(FOUR, {0, 1, 2, 3}, 1, VISIBLE_CORES="2-3", NUM_CORES="4") == [2]
    assert gets(FOUR, {0, 1, 2, 3}, 0, VISIBLE_CORES="2-3") == [2, 3]
    assert gets(FOUR, {0, 1, 2, 3}, 0, NUM_CORES="1") == [0, 1, 2, 3]


def test_a_number_of_cores_takes_the_first_free_neighbours() -> None:
    assert gets(list(range(8)), {1, 3, 4, 5, 7}, NUM_CORES="2") == [3, 4]


@pytest.mark.parametrize(
    ("free", "environment", "words"),
    [
        ({0, 2, 3}, {"VISIBLE_CORES": "1"}, "Requested:nc1-nc1 Available:0"),
        ({0, 2, 3}, {"VISIBLE_CORES": "0-3"}, "Requested:nc0-nc3 Available:2"),
        ({0, 2, 3}, {}, "Requested:4 Available:2"),
        ({0, 3}, {"NUM_CORES": "2"}, "Requested:2 Available:1"),
        (set(), {"NUM_CORES": "1"}, "Requested:1 Available:0"),
        ({0, 1, 2, 3}, {"NUM_CORES": "5"}, "Requested:5 Available:4"),
    ],
)
def test_cores_that_cannot_be_had_are_refused_in_the_runtimes_words(
    free: set[int], environment: dict[str, str], words: str
) -> None:
    with pytest.raises(nrt.NrtError) as refusal:
        gets(FOUR, free, **environment)
    assert refusal.value.words == f"NeuronCore(s) not available - {words}"
    assert refusal.value.place == "NRT:nrt_allocate_neuron_cores"
    assert refusal.value.status == nrt.NRT_FAILURE


def test_given_cores_that_are_no_neighbours() -> None:
    with pytest.raises(nrt.NrtError) as refusal:
        gets([0, 2, 5], {0, 2, 5}, NUM_CORES="2")
    assert (refusal.value.words, refusal.value.status) == ("Neuron cores are not contiguous", nrt.NRT_INVALID)
    assert gets([0, 2, 5], {0, 2, 5}) == [0, 2, 5]


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"VISIBLE_CORES": "4"}, "NEURON_RT_VISIBLE_CORES=4: name cores of this container, which has 0,2-3"),
        ({"VISIBLE_CORES": "0-3"}, "NEURON_RT_VISIBLE_CORES=0-3: name cores of this container, which has 0,2-3"),
        ({"VISIBLE_CORES": "0-999999"}, "name cores of this container, which has 0,2-3"),
        ({"VISIBLE_CORES": "3-2"}, "'3-2' is neither a core nor a range of cores: write it like 3, 0-2 or 0,2-3"),
        ({"VISIBLE_CORES": "0,,2"}, "'' is neither a core nor a range of cores"),
        ({"VISIBLE_CORES": "-1"}, "'-1' is neither a core nor a range of cores"),
        ({"VISIBLE_CORES": "nc0"}, "'nc0' is neither"),
        ({"VISIBLE_CORES": "²"}, "'²' is neither"),
        ({"VISIBLE_CORES": "9" * 5000}, "is neither"),
        ({"NUM_CORES": "two"}, "NEURON_RT_NUM_CORES=two: give a number of cores, 0 means all"),
        ({"NUM_CORES": "-1"}, "NEURON_RT_NUM_CORES=-1: give a number of cores"),
    ],
)
def test_what_makes_no_sense_is_told(environment: dict[str, str], words: str) -> None:
    with pytest.raises(nrt.NrtError, match=re.escape(words)) as refusal:
        ask([0, 2, 3], **environment)
    assert refusal.value.status == nrt.NRT_INVALID


def test_a_negative_count_is_told() -> None:
    with pytest.raises(nrt.NrtError, match="-1 cores: give how many, 0 means all"):
        ask(FOUR, -1)


@given(IDS)
@settings(deadline=None)
def test_a_core_list_reads_back(ids: set[int]) -> None:
    text = nrt.core_list(ids)
    assert {core for part in nrt.parse_core_list(text) for core in part} == ids
    assert ask(sorted(ids), VISIBLE_CORES=text).among == sorted(ids)


@given(st.text(alphabet="0123456789,- x", max_size=12))
@settings(deadline=None)
def test_any_text_is_cores_of_the_container_or_refused(text: str) -> None:
    try:
        request = ask([0, 1, 2, 5, 12], VISIBLE_CORES=text)
    except nrt.NrtError:
        return
    assert request.among
    assert set(request.among) <= {0, 1, 2, 5, 12}


@given(IDS, st.data())
@settings(deadline=None)
def test_a_number_of_cores_is_given_whenever_so_many_neighbours_are_free(ids: set[int], data: st.DataObject) -> None:
    free = data.draw(st.sets(st.sampled_from(sorted(ids))))
    count = data.draw(st.integers(1, 4))
    starts = [start for start in sorted(free) if set(range(start, start + count)) <= free]
    try:
        assert gets(sorted(ids), free, count) == list(range(starts[0], starts[0] + count) if starts else "refused")
    except nrt.NrtError:
        assert not starts


@pytest.mark.parametrize(
    ("pid", "given", "line"),
    [
        (
            28078,
            FOUR,
            "28078:28078 ERROR   NRT:nrt_allocate_neuron_cores               "
            "NeuronCore(s) not available - Requested:nc1-nc1 Available:0",
        ),
        (19, [], "   19:19    ERROR  TDRV:tdrv_get_dev_info                       No neuron device available"),
    ],
)
def test_the_log_line_is_the_runtimes(monkeypatch: pytest.MonkeyPatch, pid: int, given: list[int], line: str) -> None:
    """As in AWS's documentation: neuron-runtime/nrt-troubleshoot.rst and deploy/troubleshooting.rst."""
    monkeypatch.setattr(nrt, "time", SimpleNamespace(time=lambda: 1630106532.3239, localtime=time.gmtime))
    monkeypatch.setattr(nrt, "os", SimpleNamespace(getpid=lambda: pid))
    monkeypatch.setattr(nrt, "get_native_id", lambda: pid)
    with pytest.raises(nrt.NrtError) as refusal:
        gets(given, {0}, VISIBLE_CORES="1") if given else nrt.open_given([], count=None, environment={})
    assert refusal.value.log_line() == f"2021-Aug-27 23:22:12.0323 {line}"
