"""``nccom-test``: what collectives take on the cores of this container, and whether they add up.

Flags, tables, report and errors are those of AWS's tool (docs: tools/neuron-sys-tools/nccom-test.rst). Times come from
the cost model (`neuron_device_model.collectives`) with the devices that the claims really gave; data is sent and added
for real where ``--check`` asks for it. One run: own the cores as the runtime does, size by size, leave.
"""

from __future__ import annotations

import os
import sys
import time

from neuron_runtime import nrt, views

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Mapping, Sequence

    from neuron_runtime.nccom.checking import Check, Mismatch, Wire
    from neuron_runtime.nccom.costs import Board, Row
    from neuron_runtime.nccom.group import Meeting, Member, Root
    from neuron_runtime.nccom.launch import Output
    from neuron_runtime.nccom.membership import Hello
    from neuron_runtime.nccom.streams import Stream

NO_DRIVER = (
    "Neuron DKMS Driver is not running! Read the troubleshooting guide at: https://awsdocs-neuron.readthedocs-hosted.com"
    "/en/latest/neuron-runtime/nrt-troubleshoot.html#neuron-driver-installation-fails"
)
NO_SLURM = (
    "slurm mode needs a Slurm cluster, and there is none here: use --hosts, or a job whose pods all run nccom-test"
)
_CANNOT_SCHEDULE = "Failed to schedule neff execution. status=2 message=Invalid"


def main() -> None:
    """Run on this process's arguments."""
    try:
        status = run(sys.argv[1:], environment=os.environ)
    except BrokenPipeError:
        status = 1
    except KeyboardInterrupt:
        status = 130
    # nothing is left to be cleaned up, and the interpreter takes longer to shut down than a row to calculate
    os._exit(status)


def run(words: Sequence[str], *, environment: Mapping[str, str], run_root: str = views.RUN_ROOT) -> int:
    """One run; the exit status. Leaves with SystemExit where the command line is wrong."""
    from neuron_runtime.nccom import arguments

    flags = arguments.parse(words)
    if flags.slurm_mode:
        arguments.fail(NO_SLURM)
    try:
        given = views.given(run_root)
    except nrt.ViewError as error:
        return _say(2, f"{nrt.NrtError(nrt.NRT_FAILURE, 'NRT:nrt_init', str(error)).log_line()}", status=1)
    if flags.nnodes > 1:
        from neuron_runtime.nccom import launch
        from neuron_runtime.nccom.files import FileError

        try:
            hosts = launch.hosts(flags, environment, has_devices=bool(given))
        except (launch.LaunchError, FileError) as error:
            arguments.fail(str(error))
        if hosts:
            return _launch(flags, words, hosts, environment)
        if launch.RANK in environment:
            environment = launch.of_the_container(environment)
    if not given:
        return _say(2, NO_DRIVER, status=1)
    # these load the model, which a wrong flag need not wait for
    from neuron_runtime.nccom import claims, costs, files, meeting, streams

    try:
        wanted = streams.planned(flags)
        where = meeting.meeting(flags, environment) if flags.nnodes > 1 else None
    except (streams.PlanError, files.FileError) as error:
        arguments.fail(str(error))
    runner = Runner(flags, wanted)
    try:
        count = flags.nworkers // flags.nnodes
        with nrt.open_given(nrt.given_cores(given), count=count, environment=environment) as cores:
            place = claims.place(given, cores.ids, environment)
            if where is None:
                return runner.run(costs.Board((place,)), environment, cores)
            hello = meeting.hello(
                (wanted, flags.nworkers, flags.nnodes, flags.check),
                given[0][1],
                place,
                host=os.uname().nodename,
                processes=flags.nnodes,
                seed=None if flags.seed is None else abs(flags.seed),
            )
            return _in_group(runner, where, hello, environment, cores)
    except nrt.NrtError as error:
        return runner.fail(error.log_line())
    except claims.ClaimError as error:
        return runner.fail(nrt.NrtError(nrt.NRT_INVALID, "NRT:nrt_init", str(error)).log_line())


def _in_group(runner: Runner, where: Meeting, hello: Hello, environment: Mapping[str, str], cores: nrt.Cores) -> int:
    from neuron_runtime.nccom import costs, group, peers

    try:
        members = group.form(where, hello, seed=runner.seed)
    except peers.GroupError as error:
        words = (
            f"failed to create global communicator, global_device_count={hello.processes}, "
            f"ROOT_COMM_ID={where.root_id}: {error}"
        )
        return runner.fail(nrt.NrtError(nrt.NRT_FAILURE, "NRT:nrt_load_collectives", words).log_line())
    try:
        status = runner.run(costs.Board(members.places), environment, cores, members)
        members.finish()
        return status
    except peers.GroupError as error:
        members.give_up(str(error))
        first = hello.place.cores[0]
        words = f"missing collectives status on Neuron Device {first.chip} NC {first.core}, model 0 - {error}"
        place = "TDRV:exec_consume_infer_status_notifications"
        return runner.fail(nrt.NrtError(nrt.NRT_FAILURE, place, words).log_line(), only_current=True)


def _launch(flags: Namespace, words: Sequence[str], hosts: Sequence[str], environment: Mapping[str, str]) -> int:
    """Have the ranks started on these hosts; the table is the root's, and what it cannot say any more is added."""
    from neuron_runtime.nccom import arguments, files, group, launch, meeting, peers, streams

    try:
        wanted = streams.planned(flags)
        where = meeting.meeting(flags, environment)
    except (streams.PlanError, files.FileError) as error:
        arguments.fail(str(error))
    runner = Runner(flags, wanted)
    program = launch.mpirun(environment)
    assert program is not None
    try:
        group.resolved((where.host, *hosts), seconds=where.join_seconds)
    except peers.GroupError as error:
        return runner.fail(nrt.NrtError(nrt.NRT_FAILURE, "NRT:nrt_load_collectives", str(error)).log_line())
    output = launch.Output(lambda line: _say(1, line))
    status = launch.run(launch.command(program, flags, words, hosts, environment), environment, output)
    if output.report and not _written(flags.report_to_json_file, output.report):
        return 1
    if status in (0, 2) or output.ended:
        return status
    words = f"mpirun has ended with status {status}: a rank failed, or a host cannot be reached"
    return runner.break_off(output, nrt.NrtError(nrt.NRT_FAILURE, "NRT:nrt_load_collectives", words).log_line())


class Runner:
    """Prints the tables of some streams, and remembers the rows for the report."""

    def __init__(self, flags: Namespace, streams: Sequence[Stream]) -> None:
        from neuron_runtime.nccom import report

        self._flags = flags
        self._streams = streams
        self._stats = list(dict.fromkeys(flags.stats))
        self._tables = [
            report.Table(
                stream.sizes,
                [stream.count(size) for size in stream.sizes],
                stream.datatype,
                self._stats,
                sizes_of_ranks=flags.show_input_output_size,
                algorithm=flags.show_algorithm,
            )
            for stream in streams
        ]
        self._rows: list[list[Row]] = [[] for _ in streams]
        self._errors = 0
        self._checks: dict[int, Check] = {}
        self._begun: tuple[int, int] | None = None
        self._prints = True
        self.seed: int = abs(time.time_ns() if flags.seed is None else flags.seed)

    def run(
        self, board: Board, environment: Mapping[str, str], cores: nrt.Cores, group: Root | Member | None = None
    ) -> int:
        """Size by size; the exit status. Of a group, the root prints; all do the same. Raises GroupError."""
        from neuron_runtime.nccom import corruption, costs

        self._prints = group is None or not group.number
        seed = group.seed if group else self.seed
        if self._flags.check and self._flags.debug:
            _say(2, f"seed of the random data: {seed}")
        try:
            wire = corruption.wire(board, environment.get(corruption.VARIABLE, ""))
        except corruption.CorruptionError as error:
            return self.fail(str(error))
        for number, size, row in costs.rows(board, self._streams):
            self._begin(number, size)
            if isinstance(row, costs.Refused):
                self._failed(number, size, [str(row), _CANNOT_SCHEDULE])
                continue
            mismatch = None
            if self._flags.check:
                seeded = seed if self._flags.check == "random" else None
                mismatch = self._mismatch(board, number, size, seed=seeded, wire=wire, group=group)
            problem = str(mismatch or _broken(cores))
            if group is not None:
                problem = group.agree(problem)
            if problem:
                self._failed(number, size, [problem], mismatch=mismatch)
            else:
                self._rows[number].append(row)
                self._print(self._tables[number].row(row))
        self._end()
        return self._report()

    def fail(self, line: str, *, only_current: bool = False) -> int:
        """What has not been run yet cannot be, for one reason; the exit status."""
        begun = self._begun
        for number, stream in enumerate(self._streams):
            for size in stream.sizes:
                if (number, size) == begun or not (begun or only_current):
                    self._begin(number, size)
                    self._failed(number, size, [line])
        self._end()
        return self._report()

    def break_off(self, output: Output, line: str) -> int:
        """The root cannot say any more that the next row failed; the exit status."""
        if not output.headers:
            return self.fail(line)
        rows = [(number, size) for number, stream in enumerate(self._streams) for size in stream.sizes]
        if output.rows < len(rows) and not output.broken:
            number, size = rows[output.rows]
            self._begun = (number, size) if output.headers > number else None
            self._begin(number, size)
            self._failed(number, size, [line])
        self._errors += output.failed
        return self._report()

    def _begin(self, number: int, size: int) -> None:
        if self._begun is None or self._begun[0] != number:
            self._end()
            self._print(self._tables[number].header())
        self._begun = (number, size)

    def _mismatch(
        self,
        board: Board,
        number: int,
        size: int,
        *,
        seed: int | None,
        wire: Wire | None,
        group: Root | Member | None,
    ) -> Mismatch | None:
        from neuron_runtime.nccom import checking

        if number not in self._checks:
            self._checks = {
                number: checking.Check(self._streams[number], board.processes, seed=seed, wire=wire, group=group)
            }
        try:
            self._checks[number].run(size)
        except checking.Mismatch as mismatch:
            return mismatch
        return None

    def _failed(self, number: int, size: int, lines: list[str], *, mismatch: Mismatch | None = None) -> None:
        from neuron_runtime.nccom import logs

        log = logs.write(lines, folder=self._flags.benchmark_log_directory or logs.FOLDER)
        self._print(self._tables[number].failure(size, log))
        if mismatch is not None:
            lines = [*lines, *(f"written: {path}" for path in logs.write_tensors(log, mismatch))]
        if not self._errors or self._flags.debug:
            # the real tool leaves the reason in the log; whoever reads a pod's log should not have to look for it
            _say(2, "\n".join(lines))
        self._errors += 1

    def _end(self) -> None:
        from neuron_runtime.nccom import report

        if self._begun and self._rows[self._begun[0]]:
            self._print(report.average(self._rows[self._begun[0]]))

    def _report(self) -> int:
        from neuron_runtime.nccom import report

        if self._flags.report_to_json_file and self._prints:
            import json

            document = report.document(
                self._rows,
                self._stats,
                sizes_of_ranks=self._flags.show_input_output_size,
                algorithm=self._flags.show_algorithm,
            )
            if not _written(self._flags.report_to_json_file, json.dumps(document, indent=4) + "\n"):
                return 1
        if self._errors:
            self._print(report.errors(self._errors))
        return 1 if self._errors else 0

    def _print(self, line: str) -> None:
        if self._prints:
            _say(1, line)


def _broken(cores: nrt.Cores) -> str:
    """What an execution on these cores says where hardware is broken."""
    try:
        cores.check()
    except nrt.NrtError as error:
        return error.log_line()
    return ""


def _written(path: str, report: str) -> bool:
    try:
        with open(path, "w", encoding="utf-8") as file:  # noqa: PTH123
            file.write(report)
    except OSError as error:
        _say(2, f"nccom-test: the report cannot be written: {error}")
        return False
    return True


def _say(descriptor: int, text: str, *, status: int = 0) -> int:
    data = f"{text}\n".encode(errors="surrogateescape")
    while data:
        data = data[os.write(descriptor, data) :]
    return status
