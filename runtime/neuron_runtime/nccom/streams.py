"""From the command line to what is run: streams of one operation each, their sizes, groups, pairs. Pure but for files.

A stream is what the tool makes a table of. Without ``--streams-json`` there is one.
"""

from __future__ import annotations

from argparse import ArgumentTypeError
from dataclasses import dataclass

from neuron_device_model.collectives import operations
from neuron_device_model.collectives.operations import Operation, operation

from neuron_runtime.nccom import arguments, elements, files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Mapping
    from typing import Any

    from neuron_runtime.nccom.files import Counts, Groups, Pairs

_SPLIT = (operations.ALL_GATHER, operations.REDUCE_SCATTER, operations.ALL_TO_ALL)
"""Whose size has to be divided by the ranks."""
_STREAM_KEYS = {
    *("operation", "datatype", "stepfactor", "stepbytes", "minbytes", "maxbytes"),
    *("custom_replica_groups", "custom_src_target_pairs", "ops_per_iter"),
}
_VARIABLE = (operations.ALL_TO_ALL_V, operations.ALL_GATHER_V)


class PlanError(Exception):
    """The flags do not go together; the message says what to change."""


@dataclass(frozen=True)
class Stream:
    """One operation over some sizes."""

    operation: Operation
    datatype: str
    sizes: tuple[int, ...]
    groups: Groups
    pairs: Pairs | None
    """Of send/recv and permute, by ranks."""
    counts: tuple[Counts, ...] | None
    parts: tuple[int, ...] = (1,)
    """In which ratio each operation is split."""

    @property
    def group_size(self) -> int:
        """Ranks of a group."""
        return len(self.groups[0])

    def count(self, size: int) -> int:
        """Elements of a size."""
        return size // elements.width(self.datatype)

    def input_bytes(self, size: int) -> int:
        """What a rank brings; of V-operations, the most that one does."""
        if self.operation in (operations.ALL_GATHER, operations.ALL_GATHER_V):
            return size // self.group_size
        return size

    def output_bytes(self, size: int) -> int:
        """What a rank has afterwards."""
        return size // self.group_size if self.operation is operations.REDUCE_SCATTER else size


def planned(flags: Namespace) -> tuple[Stream, ...]:
    """What these flags ask for. Raises PlanError and FileError."""
    if flags.nworkers % flags.nnodes:
        raise PlanError(f"{flags.nworkers} workers cannot be divided equally across {flags.nnodes} nodes")
    if (flags.input_shape or flags.output_shape) and not flags.sb2sb:
        raise PlanError("--input-shape and --output-shape are of buffers on SBUF: add --sb2sb")
    if not flags.streams_json:
        return (_stream(flags, operation(flags.operation)),)
    entries = files.streams(flags.streams_json)
    named = [operation(_named(entry, flags.streams_json)) for entry in entries]
    return tuple(_stream(_of_stream(flags, entry), what) for entry, what in zip(entries, named, strict=True))


def _named(entry: Mapping[str, Any], path: str) -> str:
    name = entry.get("operation")
    if name not in arguments.OPERATIONS:
        raise files.FileError(f"{path}: operation {name!r} of a stream is none of {', '.join(arguments.OPERATIONS)}")
    return str(name)


def _of_stream(flags: Namespace, entry: Mapping[str, Any]) -> Namespace:
    """The flags with what a stream says instead."""
    path = flags.streams_json
    if not set(entry) <= _STREAM_KEYS:
        unknown = ", ".join(sorted(set(entry) - _STREAM_KEYS))
        raise files.FileError(f"{path}: a stream has no {unknown}: use {', '.join(sorted(_STREAM_KEYS))}")
    words = {**vars(flags)}
    if not {"minbytes", "maxbytes"} <= set(entry):
        raise files.FileError(f"{path}: a stream needs minbytes and maxbytes")
    try:
        for name in ("minbytes", "maxbytes", "stepbytes"):
            words[name] = arguments.size(str(entry[name])) if name in entry else None
    except ArgumentTypeError as error:
        raise files.FileError(f"{path}: {error}") from None
    factor = entry.get("stepfactor")
    if factor is not None and (not isinstance(factor, int) or factor < 2):
        raise files.FileError(f"{path}: stepfactor {factor!r} is not a number from 2")
    words["stepfactor"] = factor
    words["datatype"] = entry.get("datatype", flags.datatype)
    if words["datatype"] not in arguments.DATA_TYPES:
        names = ", ".join(arguments.DATA_TYPES)
        raise files.FileError(f"{path}: datatype {words['datatype']!r} of a stream is none of {names}")
    for name in ("custom_replica_groups", "custom_src_target_pairs"):
        words[name] = entry.get(name, words[name])
    return type(flags)(**words)


def _stream(flags: Namespace, what: Operation) -> Stream:
    name = "fp8" if flags.datatype == "fp8e4" else flags.datatype
    ranks: int = flags.nworkers
    groups = _groups(flags, ranks)
    pairs = _pairs(flags, what, groups, ranks)
    parts: tuple[int, ...] = flags.coalesced_cc_size_ratio or (1,)
    counts = None
    if flags.variable_size_op_metadata:
        if what not in _VARIABLE:
            raise PlanError(f"{what.name} has no variable sizes: leave --variable-size-op-metadata out")
        counts = files.variable_sizes(flags.variable_size_op_metadata, ranks=len(groups[0]))
    unit = elements.width(name) * sum(parts)
    if what in _SPLIT or (what in _VARIABLE and counts is None):
        unit *= len(groups[0])
    stream = Stream(what, name, tuple(_sizes(flags, unit)), groups, pairs, counts, parts)
    for size in stream.sizes:
        if size % unit:
            raise PlanError(
                f"{size} bytes of {name} cannot be divided for {what.name} among {len(groups[0])} ranks: "
                f"use sizes that are multiples of {unit}"
            )
        _counts_fit(stream, size)
    return stream


def _counts_fit(stream: Stream, size: int) -> None:
    for entry in stream.counts or ():
        ends = [
            *map(sum, zip(entry.send_counts, entry.send_displs, strict=True)),
            *map(sum, zip(entry.recv_counts, entry.recv_displs, strict=True)),
        ]
        if max(ends) > stream.count(size):
            raise PlanError(
                f"the metadata reaches to element {max(ends)}, and {size} bytes have {stream.count(size)}: "
                "use a larger --minbytes"
            )


def _groups(flags: Namespace, ranks: int) -> Groups:
    wanted = flags.custom_replica_groups
    parallel = flags.data_parallel_dimension
    if wanted and parallel:
        raise PlanError("--data-parallel-dimension and --custom-replica-groups both make groups: give one of them")
    if isinstance(wanted, str):
        return files.replica_groups(wanted, ranks=ranks)
    if wanted:
        # a stream has them in its own file, with or without the outer list
        inner = wanted[0] if wanted and isinstance(wanted[0], list) and isinstance(wanted[0][0], list) else wanted
        return files.groups_of(inner, ranks=ranks, where=flags.streams_json)
    if not parallel:
        return (tuple(range(ranks)),)
    if ranks % parallel:
        raise PlanError(f"{ranks} ranks are no groups of {parallel}: let --data-parallel-dimension divide --nworkers")
    stride = ranks // parallel
    return tuple(tuple(range(first, ranks, stride)) for first in range(stride))


def _pairs(flags: Namespace, what: Operation, groups: Groups, ranks: int) -> Pairs | None:
    if flags.custom_src_target_pairs:
        if what is not operations.PERMUTE:
            raise PlanError(f"source-target pairs are of permute: leave --custom-src-target-pairs out of {what.name}")
        return files.source_target_pairs(flags.custom_src_target_pairs, ranks=ranks)
    if what is operations.SEND_RECV:
        if len(groups[0]) % 2:
            raise PlanError("sendrecv needs pairs: give an even number of ranks")
        return tuple(pair for group in groups for pair in zip(group[::2], group[1::2], strict=True))
    if what is operations.PERMUTE:
        around = [pair for group in groups for pair in zip(group, (*group[1:], group[0]), strict=True)]
        ends = {group[-1] for group in groups} if flags.permute_chain and len(groups[0]) > 1 else set()
        return tuple(pair for pair in around if pair[0] not in ends)
    return None


def _sizes(flags: Namespace, unit: int) -> list[int]:
    first = flags.minbytes
    last = flags.maxbytes or max(first, arguments.DEFAULT_BYTES)
    if last < first:
        raise PlanError(f"--maxbytes {last} is less than --minbytes {first}")
    if flags.stepfactor and flags.stepbytes:
        raise PlanError("--stepfactor and --stepbytes are two ways to go on: give one of them")
    if flags.stepfactor:
        sizes = [first]
        while sizes[-1] * flags.stepfactor <= last:
            sizes.append(sizes[-1] * flags.stepfactor)
        return sizes
    # a tenth of a range need not be a number of elements
    step = flags.stepbytes or (last - first) // 10 // unit * unit or unit
    if (last - first) // step > 100_000:
        raise PlanError("more than 100000 sizes: give a larger --stepbytes")
    return list(range(first, last + 1, step))
