"""The command line, read as the real tool's flags library reads it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from neuron_runtime import neuron_ls

LOGFMT = re.compile(
    r'time="\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ" level=fatal msg="Failed to load MLA system information" '
    r'error="failed to discover Neuron devices"\n'
)


@pytest.mark.parametrize(
    ("arguments", "flags"),
    [
        ([], set()),
        (["-w"], {"w"}),
        (["--wide", "--topology"], {"w", "t"}),
        (["-wat"], {"w", "a", "t"}),
        (["-j", "-j"], {"j"}),
        (["word", "-j", "-"], {"j"}),
        (["-a", "--", "-x"], {"a"}),
    ],
)
def test_flags(arguments: list[str], flags: set[str]) -> None:
    assert neuron_ls.parse_flags(arguments) == flags


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-x"], "unknown flag `x'"),
        (["-wx"], "unknown flag `x'"),
        (["--watch"], "unknown flag `watch'"),
        (["--topo"], "unknown flag `topo'"),
        (["-x", "--help"], "unknown flag `x'"),
        (["--wide=yes"], "bool flag `-w, --wide' cannot have an argument"),
    ],
)
def test_wrong_command_line_is_told_on_stdout(container: Any, arguments: list[str], message: str) -> None:
    result = container.neuron_ls(*arguments)
    assert (result.stdout, result.stderr, result.code) == (f"{message}\n", "", 1)


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_needs_no_device(container: Any, flag: str) -> None:
    result = container.neuron_ls(flag)
    assert result.stdout.startswith("Usage:\n  neuron-ls [OPTIONS]\n")
    assert result.code == 0


@pytest.mark.parametrize("flag", [(), ("-j",), ("-t",)])
def test_no_device_is_one_line_on_stderr(container: Any, flag: tuple[str, ...]) -> None:
    result = container.neuron_ls(*flag)
    assert (result.stdout, result.code) == ("", 1)
    assert LOGFMT.fullmatch(result.stderr)


def test_no_device_on_a_terminal_is_in_colour(container: Any) -> None:
    result = container.neuron_ls(stderr_is_terminal=True)
    assert result.stderr == (
        "\x1b[31mFATA\x1b[0m[0000] Failed to load MLA system information         "
        '\x1b[31merror\x1b[0m="failed to discover Neuron devices"\n'
    )
