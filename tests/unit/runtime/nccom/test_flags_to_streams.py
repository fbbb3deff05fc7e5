"""The command line becomes what is run, and what is wrong with it is told."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from neuron_runtime.nccom import arguments, files, streams
from neuron_runtime.nccom.streams import Stream


def planned(*words: str) -> tuple[Stream, ...]:
    return streams.planned(arguments.parse(words))


@pytest.mark.parametrize(
    ("words", "sizes"),
    [
        ("", (32 << 20,)),
        ("-b 8 -e 16 -i 4", (8, 12, 16)),
        ("-b 8 -e 32 -f 2", (8, 16, 32)),
        ("--minbytes 1kb --maxbytes 1mb --stepfactor 8", (1024, 8192, 65536, 524288)),
        ("-b 64M", (64 << 20,)),
        ("-b 1k -e 1K", (1024,)),
        ("-b 10 -e 110", tuple(range(10, 111, 10))),
    ],
)
def test_sizes(words: str, sizes: tuple[int, ...]) -> None:
    (stream,) = planned("-r", "2", *words.split(), "allr")
    assert stream.sizes == sizes


def test_the_documented_way_to_write_check() -> None:
    assert arguments.parse(["-r", "32", "--check", "allg"]).check == "random"
    assert arguments.parse(["-r", "32", "allg", "-c"]).check == "random"
    assert arguments.parse(["-r", "32", "-c", "all_ones", "allg"]).check == "all_ones"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("allr", "the following arguments are required: -r/--nworkers"),
        ("-r 2", "the following arguments are required: op"),
        ("-r 2 allreduce", "argument op: invalid choice: 'allreduce'"),
        ("-r 0 allr", "argument -r/--nworkers: '0' is not a number from 1"),
        ("-r 2 -d fp64 allr", "argument -d/--datatype: invalid choice: 'fp64'"),
        ("-r 2 -c some allr", "argument -c/--check: invalid choice: 'some'"),
        ("-r 2 -b 3x allr", "argument -b/--minbytes: '3x' is not a size"),
        ("-r 2 -b 0 allr", "argument -b/--minbytes: '0' is not a size"),
        ("-r 2 -t p101 allr", "argument -t/--stats: 'p101' is not a statistic"),
        ("-r 2 -f 1 allr", "argument -f/--stepfactor: '1' is not a factor"),
        ("-r 2 --input-shape [1,2] allr", "argument --input-shape: '[1,2]' is not a shape"),
        ("-r 2 --nothing allr", "unrecognized arguments: --nothing"),
    ],
)
def test_wrong_flags_are_told_as_argparse_does(words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        arguments.parse(words.split())
    assert left.value.code == 2
    assert f"nccom-test: error: {message}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("-r 3 -N 2 allr", "3 workers cannot be divided equally across 2 nodes"),
        ("-r 8 -b 12 -e 12 allg", "use sizes that are multiples of 8"),
        ("-r 8 -b 33 -e 33 -d fp32 allr", "use sizes that are multiples of 4"),
        ("-r 2 -b 16 -e 8 allr", "--maxbytes 8 is less than --minbytes 16"),
        ("-r 3 sendrecv", "give an even number of ranks"),
        ("-r 8 --data-parallel-dimension 3 allr", "let --data-parallel-dimension divide --nworkers"),
        ("-r 2 --input-shape [1,1][2,2] allr", "add --sb2sb"),
        ("-r 2 -b 1 -e 1g -i 1 allr", "give a larger --stepbytes"),
    ],
)
def test_flags_that_do_not_go_together(words: str, message: str) -> None:
    with pytest.raises(streams.PlanError, match=message):
        planned(*words.split())


def write(folder: Path, document: object) -> str:
    path = folder / "file.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return str(path)


def test_groups_pairs_counts_and_streams_of_files(tmp_path: Path) -> None:
    groups = write(tmp_path, {"replica_groups": [[[0, 2], [1, 3]]]})
    assert planned("-r", "4", "--custom-replica-groups", groups, "allr")[0].groups == ((0, 2), (1, 3))
    pairs = write(tmp_path, {"src_target_pairs": [[[0, 1], [1, 0], [2, 2]]]})
    assert planned("-r", "8", "--custom-src-target-pairs", pairs, "permute")[0].pairs == ((0, 1), (1, 0), (2, 2))
    counts = {"send_counts": [512, 1024], "send_displs": [0, 512], "recv_counts": [256, 768], "recv_displs": [0, 256]}
    path = write(tmp_path, {"alltoallv_metadata": [counts]})
    (stream,) = planned("-r", "2", "-d", "fp32", "-b", "1MB", "-e", "1MB", "--alltoallv-metadata", path, "alltoallv")
    assert stream.counts is not None
    assert [entry.recv_displs for entry in stream.counts] == [[0, 256]] * 2
    both = [
        {"operation": "allr", "datatype": "bf16", "minbytes": "1kb", "maxbytes": "4kb", "stepfactor": 2},
        {"operation": "all_gather", "minbytes": 64, "maxbytes": 64, "custom_replica_groups": [[0, 1], [2, 3]]},
    ]
    first, second = planned("-r", "4", "--streams-json", write(tmp_path, {"streams": both}))
    assert (first.sizes, first.datatype) == ((1024, 2048, 4096), "bf16")
    assert (second.groups, second.operation.name) == (((0, 1), (2, 3)), "all_gather")


@pytest.mark.parametrize(
    ("flag", "operation", "document", "message"),
    [
        ("--custom-replica-groups", "allr", "{", "is no JSON"),
        ("--custom-replica-groups", "allr", [], "write a JSON object"),
        ("--custom-replica-groups", "allr", {}, "missing or no list"),
        ("--custom-replica-groups", "allr", {"replica_groups": [[[0, 1], [1, 2]]]}, "name each rank once"),
        ("--custom-replica-groups", "allr", {"replica_groups": [[[0, 9]]]}, "there is no rank 9 among 4"),
        ("--custom-replica-groups", "allr", {"replica_groups": [[[0, 1], [2]]]}, "differ in size"),
        ("--custom-replica-groups", "allr", {"replica_groups": [[[True]]]}, "whole numbers from 0"),
        ("--custom-src-target-pairs", "permute", {"src_target_pairs": [[[0, 1]]]}, "only circular patterns"),
        (
            "--custom-src-target-pairs",
            "permute",
            {"src_target_pairs": [[[0, 1], [0, 2]]]},
            "send once and receive once",
        ),
        ("--custom-src-target-pairs", "permute", {"src_target_pairs": [[[0, 1, 2]]]}, "write \\[source, target\\]"),
        ("--alltoallv-metadata", "alltoallv", {"metadata": [{}]}, "an entry of metadata needs"),
        ("--streams-json", "", {"streams": []}, "give 1 to 4 streams"),
        ("--streams-json", "", {"streams": [{"operation": "x"}]}, "operation 'x' of a stream"),
        ("--streams-json", "", {"streams": [{"operation": "allr", "iters": 3}]}, "a stream has no iters"),
    ],
)
def test_files_that_are_wrong(tmp_path: Path, flag: str, operation: str, document: Any, message: str) -> None:
    words = ["-r", "4", flag, write(tmp_path, document), *operation.split()]
    with pytest.raises(files.FileError, match=message):
        planned(*words)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)
NAMES = ("replica_groups", "src_target_pairs", "metadata", "streams")


@settings(max_examples=60)
@given(value=json_values, name=st.sampled_from(NAMES))
def test_any_json_is_either_used_or_refused_in_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, value: object, name: str
) -> None:
    path = write(tmp_path_factory.getbasetemp(), {name: value})
    reading = {
        "replica_groups": lambda: files.replica_groups(path, ranks=4),
        "src_target_pairs": lambda: files.source_target_pairs(path, ranks=4),
        "metadata": lambda: files.variable_sizes(path, ranks=2),
        "streams": lambda: planned("-r", "4", "--streams-json", path),
    }[name]
    with contextlib.suppress(files.FileError):
        reading()
