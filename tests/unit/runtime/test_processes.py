"""Who holds a device: found in /proc, whatever else is going on there."""

from __future__ import annotations

import json
from typing import Any

import pytest
from neuron_runtime import processes

TORUS = "trn2n.48xlarge"
NO_RUNTIME = "/usr/lib/libc.so.6"


def listed(container: Any, *flags: str) -> list[list[tuple[int, str, str]]]:
    return [
        [(p["pid"], p["command"], p["neuron_runtime_version"]) for p in device["neuron_processes"]]
        for device in json.loads(container.neuron_ls("-j", *flags).stdout)
    ]


def test_foreign_processes_only_with_show_all(container: Any, some_of: Any) -> None:
    container.add_view(some_of(TORUS, 4, 5))
    container.add_process(8, "vllm", "serve", devices=[0, 1])
    container.add_process(7, "sh", "-c", "exec 3</dev/neuron0", devices=[0], maps=NO_RUNTIME)
    runtime = (8, "vllm serve", "2.34.10")
    assert listed(container) == [[runtime], [runtime]]
    assert listed(container, "-a") == [[(7, "sh -c exec 3</dev/neuron0", "NA"), runtime], [runtime]]


def test_pids_are_ordered_as_numbers(container: Any, some_of: Any) -> None:
    container.add_view(some_of(TORUS, 4))
    for pid in (10, 9, 100):
        container.add_process(pid, "app", devices=[0])
    assert [pid for pid, _, _ in listed(container)[0]] == [9, 10, 100]


def test_a_device_opened_twice_is_one_process(container: Any, some_of: Any) -> None:
    container.add_view(some_of(TORUS, 4))
    container.add_process(9, "app", devices=[0, 0])
    assert len(listed(container)[0]) == 1


def test_what_cannot_be_read_is_left_out(container: Any, some_of: Any) -> None:
    container.add_view(some_of(TORUS, 4))
    (container.proc_root / "5").mkdir()  # ended, or another user's
    (container.proc_root / "self").symlink_to("5")
    half = container.add_process(6, "gone", devices=[0])
    (half / "cmdline").unlink()
    (half / "fd" / "9").write_text("no link")
    assert listed(container) == [[(6, "", "2.34.10")]]


def test_other_device_names_are_not_devices(container: Any, some_of: Any) -> None:
    container.add_view(some_of(TORUS, 4))
    folder = container.add_process(6, "app")
    (folder / "fd" / "3").symlink_to("/dev/neuron")
    (folder / "fd" / "4").symlink_to("/dev/neuron0 (deleted)")
    (folder / "fd" / "5").symlink_to("/dev/neuron_extra")
    assert listed(container, "-a") == [[]]


def test_json_shortens_commands_as_the_table_does(container: Any, some_of: Any) -> None:
    container.add_view(some_of(TORUS, 4))
    container.add_process(6, "neuron-bench", "exec", "--run-as-cc-neff", "--warmup", "none" * 20, devices=[0])
    assert listed(container)[0][0][1] == "neuron-bench exec --run-as-cc-neff --..."
    assert len(listed(container, "-w")[0][0][1]) == 80


def test_a_script_of_several_lines_stays_in_its_cell(container: Any, some_of: Any) -> None:
    container.add_view(some_of(TORUS, 4))
    container.add_process(6, "sh", "-c", "set -e\n\x1b[31msleep 9", devices=[0])
    assert "| sh -c set -e  [31msleep 9 |" in container.neuron_ls().stdout
    assert listed(container) == [[(6, "sh -c set -e\n\x1b[31msleep 9", "2.34.10")]]


@pytest.mark.parametrize(
    ("cmdline", "command"),
    [
        (b"", ""),
        (b"neuron-ls\0-a\0", "neuron-ls -a"),
        (b"/opt/aws/neuron/python/bin/python3\0-IS\0/usr/local/bin/neuron-ls\0-a\0", "neuron-ls -a"),
        (b"/opt/aws/neuron/python/bin/python3\0", "python3"),
        (b"/usr/bin/python3\0-IS\0/usr/local/bin/x\0", "/usr/bin/python3 -IS /usr/local/bin/x"),
        (b"sh\0-c\0\xff\0", "sh -c \N{REPLACEMENT CHARACTER}"),
    ],
)
def test_command_line(cmdline: bytes, command: str) -> None:
    assert processes.command_line(cmdline) == command


def test_show_all_holds_the_devices_that_exist(container: Any, some_of: Any) -> None:
    container.add_view(some_of(TORUS, 4, 5))
    (container.dev_root / "neuron0").write_text("")
    assert container.neuron_ls("-a").code == 0
