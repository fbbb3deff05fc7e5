"""Starts ``nccom-test`` on other hosts with ``mpirun`` over ssh, as the real tool does where hosts are named.

Who launches needs no device: the launcher of an MPIJob has none. The ranks run the same command, find that MPI started
them, and meet at the root as always; what the root prints comes back through mpirun. A host that cannot be reached, a
pod that is killed or one that hangs ends the launcher, too: mpirun ends all ranks when one fails or is lost, and where
mpirun itself then waits for a host that does not answer, it is ended here.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time

from neuron_runtime.nccom import meeting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Mapping, Sequence
    from typing import NoReturn

TOOL = "/opt/aws/neuron/bin/nccom-test"
RANK = "OMPI_COMM_WORLD_RANK"
"""OpenMPI's variable in the processes that it starts."""
END_SECONDS = 15.0
"""mpirun's time to end when a rank has failed."""
_PLACES = ("/opt/amazon/openmpi/bin", "/usr/local/bin", "/usr/bin")
_OWN_PLACE = "NEURON_RT_ULTRASERVER_"
_PASSED_ON = ("NEURON_", "FI_", "CCOM_", "NCCL_")
_SSH = (
    *("-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ConnectionAttempts=3"),
    *("-o", "ServerAliveInterval=10"),
)
_MPI = {
    # the operator's file names all workers; the hosts of the command line count
    "orte_default_hostfile": "none",
    "orte_keep_fqdn_hostnames": "1",
    # a node that is gone is seen after half a minute, and not after five
    "oob_tcp_keepalive_time": "10",
    "oob_tcp_keepalive_intvl": "5",
    "oob_tcp_keepalive_probes": "3",
}


class LaunchError(Exception):
    """Nothing can be started; the message says what to change."""


def hosts(flags: Namespace, environment: Mapping[str, str], *, has_devices: bool) -> Sequence[str]:
    """The hosts on which to start the ranks; none where this process is to be one of them.

    Without mpirun a container with devices is one, and the hosts tell its place. Raises FileError and LaunchError.
    """
    if flags.nnodes == 1 or RANK in environment:
        return ()
    named = meeting.hosts(flags, environment)
    if named and mpirun(environment) is None:
        if not has_devices:
            raise LaunchError(
                "mpirun is not found, so nothing can be started on the hosts: "
                "use an image with OpenMPI and ssh, or run nccom-test in each pod"
            )
        return ()
    return named


def mpirun(environment: Mapping[str, str]) -> str | None:
    """Its path, if there is one."""
    folders = (*filter(None, environment.get("PATH", "").split(":")), *_PLACES)
    paths = (f"{folder}/mpirun" for folder in folders)
    return next((path for path in paths if os.access(path, os.X_OK)), None)


def command(
    program: str,
    flags: Namespace,
    words: Sequence[str],
    named: Sequence[str],
    environment: Mapping[str, str],
) -> list[str]:
    """One process on each host, with the same flags and the same settings of the runtime."""
    ssh = (environment.get("OMPI_MCA_plm_rsh_args", ""), *_SSH)
    settings = {**_MPI, "plm_rsh_args": " ".join(filter(None, ssh))}
    # a place in an UltraServer is each host's own
    passed = sorted(name for name in environment if name.startswith(_PASSED_ON) and not name.startswith(_OWN_PLACE))
    logs = ("--output-filename", flags.mpi_log_dir) if flags.mpi_log_dir else ()
    report = ("--report-to-json-file", "/dev/stdout") if flags.report_to_json_file else ()
    return [
        *(program, "-np", str(len(named)), "--host", ",".join(named), "--map-by", "ppr:1:node", "--bind-to", "none"),
        *(word for name, value in settings.items() for word in ("--mca", name, value)),
        *(word for name in passed for word in ("-x", name)),
        *logs,
        # names of files on this host mean nothing there
        *(TOOL, *words, "--hosts", *named, *report),
    ]


class Output:
    """What the root prints, line by line: which rows have come, and the report, which is for this host."""

    def __init__(self, say: Callable[[str], object]) -> None:
        self._say = say
        self.headers = 0
        self.rows = 0
        self.failed = 0
        self.broken = False
        """The last row is one that failed."""
        self.ended = False
        self.report = ""
        self._in_report = False

    def line(self, text: str) -> None:
        """A line of the root's output."""
        if self._in_report or text == "{":
            self._in_report = text != "}"
            self.report += f"{text}\n"
            return
        first = text.split()[:1]
        if first == ["size(B)"]:
            self.headers += 1
        elif first and first[0].isdigit() and text.startswith(" "):
            self.rows += 1
            self.broken = "Failure running neuron-bench" in text
            self.failed += self.broken
        # of several streams each has an average
        self.ended = text.endswith("errors found - test failed")
        self._say(text)


def run(words: Sequence[str], environment: Mapping[str, str], output: Output) -> int:
    """Run a command to its end, its stderr passed on; the exit status. Ends it when it does not end after a failure."""
    previous = signal.signal(signal.SIGTERM, _leave)
    # a session of its own: what mpirun starts ends with it
    process = subprocess.Popen(
        words,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout
    assert process.stderr
    try:
        _follow(process, process.stdout.fileno(), process.stderr.fileno(), output)
        status = process.poll()
        return 1 if status is None or status < 0 else status
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            if process.poll() is None:
                os.killpg(process.pid, number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(5)
        process.stdout.close()
        process.stderr.close()
        signal.signal(signal.SIGTERM, previous)


def _follow(process: subprocess.Popen[bytes], out: int, err: int, output: Output) -> None:
    """Until it has ended and all has been read, or too long after a failure."""
    rests = {out: b"", err: b""}
    deadline = None
    while deadline is None or time.monotonic() < deadline:
        readable = select.select(list(rests), [], [], 0.1)[0]
        if not readable and process.poll() is not None:
            # what it has started may hold the pipes open
            return
        for ready in readable:
            data = os.read(ready, 1 << 16)
            *lines, rest = (rests[ready] + data).split(b"\n")
            if not data:
                del rests[ready]
                lines = [rest] if rest else []
                deadline = deadline or time.monotonic() + END_SECONDS
            else:
                rests[ready] = rest
            for line in lines:
                if ready == out:
                    output.line(line.rstrip(b"\r").decode(errors="replace"))
                else:
                    os.write(2, line + b"\n")
                if deadline is None and (output.ended or (ready == err and b" ERROR " in line)):
                    deadline = time.monotonic() + END_SECONDS


def _leave(number: int, frame: object) -> NoReturn:
    sys.exit(128 + number)


def of_the_container(environment: Mapping[str, str], path: str = "/proc/1/environ") -> dict[str, str]:
    """The environment of a rank that ssh started: sshd gives it none of what the claims put into the container's."""
    found = dict(environment)
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            words = file.read().decode(errors="surrogateescape").split("\0")
    except OSError:
        return found
    for word in words:
        name, equals, value = word.partition("=")
        if equals and name.startswith("NEURON_"):
            found.setdefault(name, value)
    return found
