"""The JSON files of ``nccom-test``: replica groups, source-target pairs, streams, counts. Checked word by word.

Formats: AWS docs (tools/neuron-sys-tools/nccom-test.rst). A file that is wrong is told in a sentence with its path.
"""

from __future__ import annotations

from dataclasses import dataclass

from neuron_runtime import json_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    Groups = tuple[tuple[int, ...], ...]
    Pairs = tuple[tuple[int, int], ...]

STREAMS_MOST = 4
"""nec.h: streams of a NEFF."""
_MOST_BYTES = 16 << 20
_COUNTS = ("send_counts", "send_displs", "recv_counts", "recv_displs")


class FileError(Exception):
    """A file cannot be used; the message is one sentence with its path."""


def replica_groups(path: str, *, ranks: int) -> Groups:
    """The groups of ``{"replica_groups": [[[0, 1], [2, 3]]]}``."""
    return groups_of(_only(path, "replica_groups"), ranks=ranks, where=path)


def groups_of(value: object, *, ranks: int, where: str) -> Groups:
    """Groups of different ranks below `ranks`, all of one size."""
    found = tuple(tuple(_numbers(group, where, "a replica group")) for group in _list(value, where, "replica groups"))
    members = [rank for group in found for rank in group]
    if not members or not all(found):
        raise FileError(f"{where}: a replica group is empty: name its ranks")
    if len(set(members)) < len(members):
        raise FileError(f"{where}: a rank is in two replica groups: name each rank once")
    if max(members) >= ranks:
        raise FileError(f"{where}: there is no rank {max(members)} among {ranks}: name ranks from 0 to {ranks - 1}")
    if len({len(group) for group in found}) > 1:
        raise FileError(f"{where}: replica groups differ in size: give each the same number of ranks")
    return found


def source_target_pairs(path: str, *, ranks: int) -> Pairs:
    """The pairs of ``{"src_target_pairs": [[[0, 1], [1, 0]]]}``; each rank sends and receives once at most."""
    pairs = []
    for pair in _list(_only(path, "src_target_pairs"), path, "pairs"):
        numbers = _numbers(pair, path, "a pair")
        if len(numbers) != 2:
            raise FileError(f"{path}: a pair has {len(numbers)} ranks: write [source, target]")
        pairs.append((numbers[0], numbers[1]))
    if not pairs:
        raise FileError(f"{path}: there is no pair: name at least one")
    sources, targets = {source for source, _ in pairs}, {target for _, target in pairs}
    if len(sources) < len(pairs) or len(targets) < len(pairs):
        raise FileError(f"{path}: a rank is source or target of two pairs: let each send once and receive once")
    if sources != targets:
        raise FileError(
            f"{path}: only circular patterns can be permuted: let the ranks that send be those that receive"
        )
    if max(sources) >= ranks:
        raise FileError(f"{path}: there is no rank {max(sources)} among {ranks}: name ranks from 0 to {ranks - 1}")
    return tuple(pairs)


@dataclass(frozen=True)
class Counts:
    """Of one rank, in elements: what it sends to and receives from each other one, and where that lies."""

    send_counts: Sequence[int]
    send_displs: Sequence[int]
    recv_counts: Sequence[int]
    recv_displs: Sequence[int]


def variable_sizes(path: str, *, ranks: int) -> tuple[Counts, ...]:
    """An entry for each rank of the group, from one for all or one for each."""
    document = _document(path)
    found = document.get("metadata", document.get("alltoallv_metadata"))
    entries = _list(found, path, 'the list "metadata"')
    if len(entries) not in (1, ranks):
        raise FileError(f"{path}: {len(entries)} entries for a group of {ranks} ranks: give one, or one for each rank")
    checked = []
    for entry in entries:
        if not isinstance(entry, dict) or set(entry) != set(_COUNTS):
            raise FileError(f"{path}: an entry of metadata needs {', '.join(_COUNTS)}")
        for name in _COUNTS:
            if len(_numbers(entry[name], path, name)) != ranks:
                raise FileError(f"{path}: {name} needs a number for each of the {ranks} ranks of the group")
        checked.append(Counts(**entry))
    return tuple(checked if len(checked) == ranks else checked * ranks)


def streams(path: str) -> list[dict[str, Any]]:
    """The streams as they are written."""
    found = _list(_document(path).get("streams"), path, 'the list "streams"')
    if not 0 < len(found) <= STREAMS_MOST or not all(isinstance(stream, dict) for stream in found):
        raise FileError(f"{path}: give 1 to {STREAMS_MOST} streams, each an object")
    return found


def hosts(path: str) -> list[str]:
    """The hosts of a file, one in each line; MPI's ``slots=`` and comments are passed over."""
    lines = [line.partition("#")[0].split() for line in _text(path).splitlines()]
    return [words[0] for words in lines if words]


def _only(path: str, key: str) -> object:
    found = _list(_document(path).get(key), path, f'the list "{key}"')
    if len(found) != 1:
        raise FileError(f'{path}: "{key}" has {len(found)} entries: give one')
    return found[0]


def _document(path: str) -> dict[str, Any]:
    try:
        found = json_text.parse(_text(path))
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path} is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise FileError(f"{path}: write a JSON object")
    return found


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123
            text = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        raise FileError(f"{path} cannot be read: {error}") from None
    if len(text) > _MOST_BYTES:
        raise FileError(f"{path} is longer than {_MOST_BYTES >> 20} MiB: give the right file")
    return text


def _list(value: object, where: str, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise FileError(f"{where}: {what} is missing or no list")
    return value


def _numbers(value: object, where: str, what: str) -> list[int]:
    found = _list(value, where, what)
    if not all(isinstance(number, int) and not isinstance(number, bool) and number >= 0 for number in found):
        raise FileError(f"{where}: {what} has something else than whole numbers from 0")
    return found
