"""The command lines of ``neuron-sim-train`` and ``neuron-sim-serve``."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from neuron_device_model.steps.errors import WrongStep
from neuron_device_model.steps.text import parse_layout

from neuron_runtime import load_plan
from neuron_runtime.steps.workloads import Serving, Sizes, Training

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from neuron_device_model.collectives.layouts import Layout

_EPILOG = (
    "Several pods are one job: each runs the same command with --nnodes, and NEURON_RT_ROOT_COMM_ID is "
    "<address of the first pod>:<free port>, as with nccom-test."
)
_MOST = 1 << 31


@dataclass(frozen=True)
class Flags:
    """What both have."""

    work: Training | Serving
    cores: int | None
    nnodes: int
    hosts: Sequence[str]
    hosts_file: str
    turns: int | None
    interval: float
    tag: str


def parse_train(words: Sequence[str]) -> Flags:
    """Leaves with SystemExit where the command line is wrong."""
    parser = _parser("neuron-sim-train", "Train a transformer in time only: steps as long as chips and links need.")
    _add_model(parser, sequence="--sequence", tokens=2048)
    parser.add_argument("--micro-batches", type=_count, help="of a replica and step; default the pipeline's stages")
    parser.add_argument("--overlap", choices=("on", "off"), default="on", help="gradients travel while cores compute")
    _add_job(parser, "--steps")
    flags = parser.parse_args(words)
    return _flags(
        flags, Training(_sizes(flags), flags.layout, flags.micro_batches, flags.overlap == "on", flags.efficiency)
    )


def parse_serve(words: Sequence[str]) -> Flags:
    """Leaves with SystemExit where the command line is wrong."""
    parser = _parser("neuron-sim-serve", "Serve a transformer in time only: tokens as fast as chips and links let.")
    _add_model(parser, sequence="--prompt", tokens=512)
    parser.add_argument("--tokens", type=_count, default=128, help="of an answer; default 128")
    _add_job(parser, "--batches")
    flags = parser.parse_args(words)
    return _flags(flags, Serving(_sizes(flags), flags.layout, flags.tokens, flags.efficiency))


def _parser(name: str, description: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        name,
        description=description,
        epilog=_EPILOG,
        allow_abbrev=False,
        # a width of its own: to ask the terminal takes modules that the containers have not
        formatter_class=lambda prog: argparse.HelpFormatter(prog, width=80),
    )


def _add_model(parser: argparse.ArgumentParser, *, sequence: str, tokens: int) -> None:
    parser.add_argument("--layers", type=_count, default=32, help="default 32")
    parser.add_argument("--hidden", type=_count, default=4096, help="width of a layer; default 4096")
    parser.add_argument(sequence, dest="sequence", type=_count, default=tokens, help=f"tokens; default {tokens}")
    parser.add_argument("--batch", type=_count, help="sequences at once, of all replicas; default: as few as can be")
    parser.add_argument("--dtype", default="bf16", help="of weights and activations; default bf16")
    parser.add_argument(
        "--layout", type=_layout, metavar="tp=N,dp=N,pp=N", help="default: each process is a tensor group and a replica"
    )
    parser.add_argument(
        "--efficiency", type=_percent, default=1.0, help="percent of the published FLOPS that are reached; default 100"
    )


def _add_job(parser: argparse.ArgumentParser, turns: str) -> None:
    parser.add_argument("--cores", type=_count, help="of this process; default all that it was given")
    parser.add_argument("-N", "--nnodes", type=_count, default=1, help="processes of the job, one in each pod")
    parser.add_argument("--hosts", nargs="+", default=(), help="their hosts in the order of ranks")
    parser.add_argument("--hosts-file", default="", help="the same, a line each")
    parser.add_argument(turns, dest="turns", type=_count, help="end after so many; default never")
    parser.add_argument(
        "--interval", type=_interval, default=1.0, help="between two reports and looks at the hardware; default 1s"
    )
    parser.add_argument("--tag", default="", help="instead of NEURON_PROCESS_TAG")


def _sizes(flags: argparse.Namespace) -> Sizes:
    return Sizes(flags.layers, flags.hidden, flags.sequence, flags.batch, flags.dtype)


def _flags(flags: argparse.Namespace, work: Training | Serving) -> Flags:
    return Flags(work, flags.cores, flags.nnodes, flags.hosts, flags.hosts_file, flags.turns, flags.interval, flags.tag)


def _wrong(text: str) -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(text)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or not 0 < int(text[:12]) < _MOST:
        raise _wrong(f"{text!r}: give a whole number from 1")
    return int(text)


def _percent(text: str) -> float:
    if not (text.isascii() and text.isdigit()) or not 0 < int(text[:4]) <= 100:
        raise _wrong(f"{text!r}: give percent, from 1 to 100")
    return int(text) / 100


def _layout(text: str) -> Layout:
    try:
        return parse_layout(text)
    except WrongStep as error:
        raise _wrong(str(error)) from None


def _interval(text: str) -> float:
    try:
        found = load_plan.seconds(text)
    except ValueError as error:
        raise _wrong(f"{text!r}: {error}") from None
    if not 0.1 <= found <= 10:
        raise _wrong(f"{text!r}: give 100ms to 10s")
    return found
