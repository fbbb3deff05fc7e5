"""Tables and reports look like those in AWS's documentation."""

from __future__ import annotations

from collections.abc import Sequence

from neuron_runtime.nccom import report
from neuron_runtime.nccom.costs import Row


def row(size: int, time_us: float, *, name: str = "fp32", factor: float = 31 / 32, algorithm: str = "mesh") -> Row:
    lane = {"fp32": 4, "uint8": 1}[name]
    return Row(size, size // lane, name, time_us / 1e6, factor, algorithm, size // 32, size)


def table(rows: Sequence[Row], *stats: str, sizes_of_ranks: bool = False, algorithm: bool = False) -> str:
    shown = report.Table(
        [one.size for one in rows],
        [one.count for one in rows],
        rows[0].datatype,
        stats or ("avg",),
        sizes_of_ranks=sizes_of_ranks,
        algorithm=algorithm,
    )
    return "\n".join([shown.header(), *map(shown.row, rows)])


def test_the_documented_table_with_sizes_of_ranks() -> None:
    """tools/neuron-sys-tools/nccom-test.rst, --show-input-output-size; the first line is not indented there."""
    rows = [row(1024, 6.16), row(8192, 6.48), row(65536, 8.17), row(524288, 23.16)]
    assert table(rows, sizes_of_ranks=True) == (
        "    size(B)    count(elems)    total_input_size(B)    total_output_size(B)    type    time:avg(us)"
        "    algbw(GB/s)    busbw(GB/s)\n"
        "       1024             256                     32                    1024    fp32            6.16"
        "           0.17           0.16\n"
        "       8192            2048                    256                    8192    fp32            6.48"
        "           1.26           1.22\n"
        "      65536           16384                   2048                   65536    fp32            8.17"
        "           8.02           7.77\n"
        "     524288          131072                  16384                  524288    fp32           23.16"
        "          22.64          21.93"
    )


def test_the_documented_table_of_pairs() -> None:
    assert table([row(33554432, 894.24, name="uint8", factor=1)]) == (
        "     size(B)    count(elems)     type    time:avg(us)    algbw(GB/s)    busbw(GB/s)\n"
        "    33554432        33554432    uint8          894.24          37.52          37.52"
    )


def test_statistics_stand_in_the_order_that_was_asked_for() -> None:
    header, line = table([row(1024, 10.0)], "avg", "p25", "p99").splitlines()
    assert header.split()[3:6] == ["time:avg(us)", "time:p25(us)", "time:p99(us)"]
    assert line.split()[3:6] == ["10.0", "9", "11"]


def test_the_average_has_four_digits_after_a_tab() -> None:
    assert report.average([row(33554432, 894.24, name="uint8", factor=1)]) == "Avg bus bandwidth:\t37.5228GB/s"


def test_percentiles_rise() -> None:
    times = [report.time_us(row(1024, 1000.0), f"p{percent}") for percent in range(101)]
    assert times == sorted(times)


def test_a_failed_size_stands_where_its_row_would() -> None:
    shown = report.Table([33554432], [33554432], "uint8", ["avg"], sizes_of_ranks=False, algorithm=False)
    assert shown.failure(33554432, "/tmp/nccom_test_log_7pqpdfjf.log") == (
        "    33554432    Failure running neuron-bench - log file /tmp/nccom_test_log_7pqpdfjf.log"
    )


def test_the_report_has_the_documented_keys_in_their_order() -> None:
    document = report.document([[row(1024, 6.19)]], ["avg"], sizes_of_ranks=False, algorithm=False)
    (entry,) = document["results"]  # type: ignore[attr-defined]
    assert list(entry) == ["size(B)", "count(elems)", "type", "algbw(GB/s)", "busbw(GB/s)", "time:avg(us)"]
    assert (entry["time:avg(us)"], round(entry["algbw(GB/s)"], 3)) == (6.19, 0.165)
