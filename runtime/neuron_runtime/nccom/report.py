"""What the tool prints and writes: a table whose rows come one by one, and the JSON report. Text only.

Layout and digits are those of the examples in AWS's documentation: columns right-aligned, four spaces before each;
times rounded to two digits, bandwidths always with two, percentiles whole.
"""

from __future__ import annotations

from itertools import pairwise

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from neuron_runtime.nccom.costs import Row

_GAP = "    "
# What the documented run with --stats shows beside its average, as shares of it. Its mean is 1
_QUANTILES = ((0, 0.92), (25, 0.97), (50, 0.985), (75, 1.016), (90, 1.075), (99, 1.16), (100, 1.2))


class Table:
    """The table of one stream."""

    def __init__(
        self,
        sizes: Sequence[int],
        counts: Sequence[int],
        datatype: str,
        stats: Sequence[str],
        *,
        sizes_of_ranks: bool,
        algorithm: bool,
    ) -> None:
        self._stats = stats
        self._sizes_of_ranks = sizes_of_ranks
        self._algorithm = algorithm
        names = [
            "size(B)",
            "count(elems)",
            *(("total_input_size(B)", "total_output_size(B)") if sizes_of_ranks else ()),
            "type",
            *(f"time:{stat}(us)" for stat in stats),
            "algbw(GB/s)",
            "busbw(GB/s)",
            *(("algorithm",) if algorithm else ()),
        ]
        widest = {"size(B)": str(max(sizes)), "count(elems)": str(max(counts)), "type": datatype}
        self._names = names
        self._widths = [max(len(name), len(widest.get(name, ""))) for name in names]

    def header(self) -> str:
        """The names of the columns."""
        return self._line(self._names)

    def row(self, row: Row) -> str:
        """A size that was run."""
        return self._line(
            [
                str(row.size),
                str(row.count),
                *((str(row.input_bytes), str(row.output_bytes)) if self._sizes_of_ranks else ()),
                row.datatype,
                *(str(time_us(row, stat)) for stat in self._stats),
                f"{row.algbw:.2f}",
                f"{row.busbw:.2f}",
                *((row.algorithm,) if self._algorithm else ()),
            ]
        )

    def failure(self, size: int, log_file: str) -> str:
        """A size that could not be run."""
        return f"{_GAP}{size:>{self._widths[0]}}{_GAP}Failure running neuron-bench - log file {log_file}"

    def _line(self, cells: Iterable[str]) -> str:
        return "".join(f"{_GAP}{cell:>{width}}" for cell, width in zip(cells, self._widths, strict=True))


def time_us(row: Row, stat: str) -> float | int:
    """A statistic of the durations, in microseconds."""
    if stat == "avg":
        return round(row.seconds * 1e6, 2)
    return int(row.seconds * 1e6 * _quantile(int(stat[1:])))


def _quantile(percent: int) -> float:
    for (before, low), (after, high) in pairwise(_QUANTILES):
        if percent <= after:
            return low + (high - low) * (percent - before) / (after - before)
    raise ValueError(f"p{percent} is no percentile")


def average(rows: Sequence[Row]) -> str:
    """The last line of a table."""
    return f"Avg bus bandwidth:\t{sum(row.busbw for row in rows) / len(rows):.4f}GB/s"


def errors(count: int) -> str:
    """The last line where something failed."""
    return f"{count} errors found - test failed"


def document(
    streams: Sequence[Sequence[Row]], stats: Sequence[str], *, sizes_of_ranks: bool, algorithm: bool
) -> dict[str, object]:
    """The report as JSON has it: bandwidths unrounded. One list of results, or one for each stream."""
    results = [[_entry(row, stats, sizes_of_ranks, algorithm) for row in rows] for rows in streams]
    return {"results": results[0] if len(results) == 1 else results}


def _entry(row: Row, stats: Sequence[str], sizes_of_ranks: bool, algorithm: bool) -> dict[str, object]:
    entry: dict[str, object] = {"size(B)": row.size, "count(elems)": row.count}
    if sizes_of_ranks:
        entry |= {"total_input_size(B)": row.input_bytes, "total_output_size(B)": row.output_bytes}
    entry |= {"type": row.datatype, "algbw(GB/s)": row.algbw, "busbw(GB/s)": row.busbw}
    entry |= {f"time:{stat}(us)": time_us(row, stat) for stat in stats}
    return entry | ({"algorithm": row.algorithm} if algorithm else {})
