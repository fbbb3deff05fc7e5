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

    from neuron_runtime.nccom import checking
    from neuron_runtime.nccom.checking import Check
    from neuron_runtime.nccom.costs import Board, Row
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
    if not given:
        return _say(2, NO_DRIVER, status=1)
    # these load the model, which a wrong flag need not wait for
    from neuron_runtime.nccom import claims, costs, files, streams

    try:
        wanted = streams.planned(flags)
    except (streams.PlanError, files.FileError) as error:
        arguments.fail(str(error))
    runner = Runner(flags, wanted)
    try:
        with nrt.open_given(
            nrt.given_cores(given), count=flags.nworkers // flags.nnodes, environment=environment
        ) as cores:
            board = costs.Board((claims.place(given, cores.ids, environment),))
            return runner.run(board, environment)
    except nrt.NrtError as error:
        return runner.fail(error.log_line())
    except claims.ClaimError as error:
        return runner.fail(nrt.NrtError(nrt.NRT_INVALID, "NRT:nrt_init", str(error)).log_line())


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

    def run(self, board: Board, environment: Mapping[str, str]) -> int:
        """Size by size; the exit status."""
        from neuron_runtime.nccom import checking, corruption, costs

        seed = self._seed()
        try:
            wire = corruption.wire(board, environment.get(corruption.VARIABLE, ""))
        except corruption.CorruptionError as error:
            return self.fail(str(error))
        current, check = -1, None
        for number, size, row in costs.rows(board, self._streams):
            if number != current:
                self._end(current)
                current, check = number, None
                _say(1, self._tables[number].header())
            if isinstance(row, costs.Refused):
                self._failed(number, size, [str(row), _CANNOT_SCHEDULE])
                continue
            if self._flags.check:
                random = self._flags.check == "random"
                check = check or checking.Check(
                    self._streams[number], board.processes, seed=seed if random else None, wire=wire
                )
                if not self._checked(check, number, size):
                    continue
            self._rows[number].append(row)
            _say(1, self._tables[number].row(row))
        self._end(current)
        return self._report()

    def fail(self, line: str) -> int:
        """Nothing can be run, for one reason; the exit status."""
        for number, stream in enumerate(self._streams):
            _say(1, self._tables[number].header())
            for size in stream.sizes:
                self._failed(number, size, [line])
            self._end(number)
        return self._report()

    def _seed(self) -> int:
        seed: int = time.time_ns() if self._flags.seed is None else self._flags.seed
        if self._flags.check and self._flags.debug:
            _say(2, f"seed of the random data: {seed}")
        return abs(seed)

    def _checked(self, check: Check, number: int, size: int) -> bool:
        from neuron_runtime.nccom import checking

        try:
            check.run(size)
        except checking.Mismatch as mismatch:
            self._failed(number, size, [str(mismatch)], mismatch=mismatch)
            return False
        return True

    def _failed(self, number: int, size: int, lines: list[str], *, mismatch: checking.Mismatch | None = None) -> None:
        from neuron_runtime.nccom import logs

        log = logs.write(lines, folder=self._flags.benchmark_log_directory or logs.FOLDER)
        _say(1, self._tables[number].failure(size, log))
        if mismatch is not None:
            lines = [*lines, *(f"written: {path}" for path in logs.write_tensors(log, mismatch))]
        if not self._errors or self._flags.debug:
            # the real tool leaves the reason in the log; whoever reads a pod's log should not have to look for it
            _say(2, "\n".join(lines))
        self._errors += 1

    def _end(self, number: int) -> None:
        from neuron_runtime.nccom import report

        if number >= 0 and self._rows[number]:
            _say(1, report.average(self._rows[number]))

    def _report(self) -> int:
        from neuron_runtime.nccom import report

        if self._flags.report_to_json_file:
            import json

            document = report.document(
                self._rows,
                self._stats,
                sizes_of_ranks=self._flags.show_input_output_size,
                algorithm=self._flags.show_algorithm,
            )
            try:
                with open(self._flags.report_to_json_file, "w", encoding="utf-8") as file:  # noqa: PTH123
                    json.dump(document, file, indent=4)
                    file.write("\n")
            except OSError as error:
                return _say(2, f"nccom-test: the report cannot be written: {error}", status=1)
        return _say(1, report.errors(self._errors), status=1) if self._errors else 0


def _say(descriptor: int, text: str, *, status: int = 0) -> int:
    data = f"{text}\n".encode(errors="surrogateescape")
    while data:
        data = data[os.write(descriptor, data) :]
    return status
