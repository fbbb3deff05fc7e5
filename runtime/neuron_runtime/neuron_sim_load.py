"""``neuron-sim-load``: owns NeuronCores and reports activity on them, so that dashboards have something to show.

AWS has no such tool: there, a model has to run. This one opens its cores as the runtime does and speaks to the agent as
any program can (`activity`), once per interval, until it is told to end.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from neuron_runtime import activity, chips, load_plan, nrt, views

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from neuron_runtime.load_plan import Plan

# of a process; the runtime's own go up to 1206, and are in the log's line
_GREATEST_STATUS = 255
_FULL = "Failed to allocate {} bytes on {}: {} of its {} bytes are used"


def main() -> None:
    """Run on this process's arguments."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
    os._exit(run(sys.argv[1:]))


def run(arguments: Sequence[str], *, run_root: str = nrt.RUN_ROOT) -> int:
    """Report until the plan ends; the exit status."""
    try:
        plan = load_plan.parse_arguments(arguments)
    except load_plan.UsageError as error:
        return _failed(f"neuron-sim-load: {error}", nrt.NRT_INVALID)
    if plan.help:
        os.write(1, load_plan.USAGE.encode())
        return 0
    try:
        given = views.given(run_root)
        cores = nrt.open_given(nrt.given_cores(given), count=plan.cores, environment=os.environ)
    except nrt.ViewError as error:
        return _failed(nrt.NrtError(nrt.NRT_FAILURE, "NRT:nrt_init", str(error)).log_line(), nrt.NRT_FAILURE)
    except nrt.NrtError as error:
        return _failed(error.log_line(), error.status)
    view = views.merge([view for _, view in given])
    assert view is not None, "there are cores"
    device = view["devices"][0]
    with cores, activity.Reporter(cores, tag=plan.tag) as reporter:
        try:
            return _report(
                plan,
                cores,
                reporter,
                core_memory=device["memory_bytes"] // device["core_count"],
                core_flops=chips.flops_of_a_core(view),
            )
        except activity.ReportError as error:
            return _failed(f"neuron-sim-load: the node agent refused the report: {error}", nrt.NRT_INVALID)


def _report(plan: Plan, cores: nrt.Cores, reporter: activity.Reporter, *, core_memory: int, core_flops: float) -> int:
    begin = time.monotonic()
    complained = False
    damage = load_plan.Damage()
    said = ""
    while True:
        t = time.monotonic() - begin
        damage.look(t, [fault for _, fault in nrt.faults_of(cores.paths.values())])
        failed = _check(cores)
        if failed is not None and said != failed.words:
            os.write(2, f"{failed.log_line()}\n{failed}\n".encode())
        said = failed.words if failed is not None else ""
        memory = plan.core_memory(t)
        memory["runtime_memory"] += int(damage.leaked * core_memory)
        used = sum(memory.values())
        if used > core_memory:
            words = _FULL.format(used - core_memory, f"nc{cores.ids[0]}", core_memory, core_memory)
            # a full core is the end of a program, as with the real runtime
            os.write(2, f"NRT Error NRT_RESOURCE({nrt.NRT_RESOURCE}): {words}\n".encode())
            return nrt.NRT_RESOURCE
        level = 0.0 if damage.failing else plan.utilization(t)
        flops = int(level / 100 * core_flops * (100 - damage.slower) / 100)
        core = {"utilization": round(level, 2), "flops": flops, "memory": memory}
        process = plan.process(t, cores=cores.ids, damage=damage)
        heard = reporter.report(dict.fromkeys(cores.ids, core), **process)
        if failed is not None and plan.exit_on_error:
            return min(failed.status, _GREATEST_STATUS)
        if not heard and not complained:
            os.write(2, b"neuron-sim-load: nobody listens yet, the agent of this node is away; going on\n")
        complained = not heard
        if plan.duration is not None and t >= plan.duration:
            return 0
        rest = plan.interval if plan.duration is None else min(plan.interval, plan.duration - t)
        time.sleep(max(rest, 0))


def _check(cores: nrt.Cores) -> nrt.NrtError | None:
    try:
        cores.check()
    except nrt.NrtError as failed:
        return failed
    return None


def _failed(line: str, status: int) -> int:
    os.write(2, f"{line}\n".encode(errors="surrogateescape"))
    return status
