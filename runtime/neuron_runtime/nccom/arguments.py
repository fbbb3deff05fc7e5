"""The command line of ``nccom-test``: flags, short forms, defaults and errors as the real tool's argparse has them.

Source: AWS docs (tools/neuron-sys-tools/nccom-test.rst) and the argparse of tools 2.28 for the flags that those leave
out. Nothing is loaded here that a wrong command line would have to wait for.
"""

from __future__ import annotations

import argparse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

PROGRAM = "nccom-test"
OPERATIONS = (
    *("all_reduce", "allr", "all_gather", "allg", "all_gatherv", "allgv", "reduce_scatter", "redsct"),
    *("sendrecv", "alltoall", "alltoallv", "permute"),
)
DATA_TYPES = (
    *("uint8", "int8", "fp8", "fp8e4", "uint16", "int16", "fp16", "bf16"),
    *("uint32", "int32", "fp32"),
)
DEFAULT_BYTES = 32 << 20
RANDOM, ALL_ONES = "random", "all_ones"
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "kb": 1 << 10, "m": 1 << 20, "mb": 1 << 20, "g": 1 << 30, "gb": 1 << 30}
_MOST_BYTES = 1 << 40


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The flags; leaves with status 2 and argparse's message where they are wrong."""
    # streams name their operations themselves
    streams = any(word.partition("=")[0] == "--streams-json" for word in words)
    return _parser(operation=not streams).parse_args(_with_check_mode(words))


def fail(words: str) -> NoReturn:
    """Leave as argparse does."""
    _parser().error(words)


def size(text: str) -> int:
    """Bytes of ``8``, ``2kb``, ``1MB`` or ``32M``; raises ArgumentTypeError."""
    digits = text.rstrip("bBkKmMgG")
    unit = _UNITS.get(text[len(digits) :].lower())
    if unit is None or not digits.isascii() or not digits.isdigit() or len(digits) > 15:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size: write it like 1024, 64kb, 32M or 1GB")
    if not 0 < int(digits) * unit <= _MOST_BYTES:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size that can be run: give 1 byte to 1024 GB")
    return int(digits) * unit


def statistic(text: str) -> str:
    """``avg`` or a percentile; raises ArgumentTypeError."""
    number = text[1:]
    percentile = text[:1] == "p" and number.isascii() and number.isdigit() and len(number) < 4 and int(number) <= 100
    if text != "avg" and not percentile:
        raise argparse.ArgumentTypeError(f"{text!r} is not a statistic: give avg or a percentile like p50")
    return text


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 9 or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1")
    return int(text)


def _count_or_none(text: str) -> int:
    return 0 if text == "0" else _count(text)


def _factor(text: str) -> int:
    if text == "1" or not (text.isascii() and text.isdigit()) or len(text) > 9 or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a factor from 2")
    return int(text)


def _ratios(text: str) -> tuple[int, ...]:
    try:
        return tuple(_count(part.strip()) for part in text.strip("[]").split(","))
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of ratios: write it like [1,2,1]") from None


def _shape(text: str) -> tuple[tuple[int, int], tuple[int, int]]:
    parts = text.removeprefix("[").removesuffix("]").split("][")
    try:
        (step0, step1), (count0, count1) = ([_count(number.strip()) for number in part.split(",")] for part in parts)
    except (ValueError, argparse.ArgumentTypeError):
        words = f"{text!r} is not a shape: write it like [step0,step1][num_elem0,num_elem1]"
        raise argparse.ArgumentTypeError(words) from None
    return (step0, step1), (count0, count1)


def _with_check_mode(words: Sequence[str]) -> list[str]:
    """The documentation writes ``--check allg``, which argparse would take for a mode that does not exist."""
    found: list[str] = []
    for place, word in enumerate(words):
        found.append(word)
        if word in ("-c", "--check") and words[place + 1 : place + 2] and words[place + 1] in OPERATIONS:
            found.append(RANDOM)
    return found


def _parser(*, operation: bool = True) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Benchmark Collective Communication operations on Neuron devices.",
        # of the terminal's width, argparse asks a module that loads half of the standard library
        formatter_class=lambda prog: argparse.HelpFormatter(prog, width=80),
    )
    add = parser.add_argument
    if operation:
        add("operation", metavar="op", choices=OPERATIONS, help=f"one of {', '.join(OPERATIONS)}")
    else:
        parser.set_defaults(operation=None)
    add("-r", "--nworkers", type=_count, required=True, help="total number of workers (ranks)")
    add("-N", "--nnodes", type=_count, default=1, help="nodes to which the workers are divided equally (default: 1)")
    add("-b", "--minbytes", type=size, default=DEFAULT_BYTES, help="first size (default: 32M)")
    add("-e", "--maxbytes", type=size, help="last size (default: 32M, or --minbytes if that is more)")
    add("-i", "--stepbytes", type=size, help="bytes from one size to the next (default: a tenth of the range)")
    add("-f", "--stepfactor", type=_factor, help="factor from one size to the next")
    add("-n", "--iters", type=_count, default=20, help="operations that are measured (default: 20)")
    add("-w", "--warmup_iters", type=_count_or_none, default=5, help="operations before these (default: 5)")
    add("-I", "--neff_iters", type=_count, help="how often the NEFF is run and measured")
    add("-W", "--neff_warmup_iters", type=_count_or_none, help="how often the NEFF is run before")
    add("-d", "--datatype", choices=DATA_TYPES, default="uint8", help="type of the elements (default: uint8)")
    add("-c", "--check", nargs="?", const=RANDOM, choices=(RANDOM, ALL_ONES), help="check the results")
    add("--seed", type=int, help="seed of the random data")
    for name, words in _SWITCHES.items():
        add(*name.split(), action="store_true", help=words)
    add("--coalesced-cc-size-ratio", type=_ratios, metavar="RATIOS", help="split each operation, like [1,2,1]")
    add("--variable-size-op-metadata", "--alltoallv-metadata", metavar="FILE", help="counts of alltoallv, all_gatherv")
    add("-s", "--hosts", nargs="+", metavar="HOST", help="hosts to run on")
    add("--hosts-file", metavar="FILE", help="file with a host in each line (default: ~/hosts)")
    add("--mpi-log-dir", metavar="DIR", help="folder for the log of each node")
    add("-u", "--slurm-vcpus-per-node", type=_count, help="vCPUs of a node of the slurm allocation")
    add("--slurm-setup-script", metavar="PATH", help="script to run before, or default")
    add("--slurm-job-id", default="alloc", help="allocation to use (default: alloc)")
    add("--report-to-json-file", metavar="FILE", help="write configuration and results to FILE")
    add("-t", "--stats", nargs="+", type=statistic, default=["avg"], metavar="STAT", help="avg, or percentiles: p50")
    add("--input-shape", type=_shape, metavar="SHAPE", help="of the input in SBUF: [step0,step1][num_elem0,num_elem1]")
    add("--output-shape", type=_shape, metavar="SHAPE", help="of the output in SBUF, alike")
    add("--cc-dim", type=int, choices=(0, 1), default=1, help="dimension in which tensors are concatenated")
    add("--data-parallel-dimension", type=_count, help="size of the groups that work in parallel")
    add("--custom-replica-groups", "--custom-replica-group", metavar="FILE", help="groups of ranks, as JSON")
    add("--custom-src-target-pairs", metavar="FILE", help="pairs of permute, as JSON")
    add("--streams-json", metavar="FILE", help="streams that run at once, as JSON")
    add("--data-collector-port", type=_count, default=60006, help="port of the data collector (default: 60006)")
    add("--data-collector-host", help="host of the data collector (default: this one)")
    add("--log-level", default="ERROR", help="of the runtime's log")
    add("--benchmark-log-directory", metavar="DIR", help="folder for the logs of failures (default: /tmp)")
    return parser


_SWITCHES = {
    "--unique-buff": "a buffer of its own for each operation",
    "--shared-output-buff": "one output buffer for two cores of an HBM domain",
    "-S --slurm-mode": "run by srun",
    "--slurm-use-head-node-neuron-bench": "copy neuron-bench from the head node",
    "--non-interactive": "no progress indicator",
    "--show-algorithm": "show which algorithm was used",
    "--show-input-output-size": "show the input and output size of a rank",
    "--debug": "show the log as it is written",
    "--sb2sb": "buffers on SBUF instead of HBM",
    "--vcpu-pin-mode": "pin the thread of each rank to a vCPU",
    "--data-collector-use-ipv6": "IPv6 for the data collector",
    "--permute-chain": "permute from each rank to the next, the last one sends nothing",
    "--unique-tensor": "a tensor of its own for each operation",
}
