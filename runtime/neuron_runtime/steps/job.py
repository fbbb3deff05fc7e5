"""A job that works in time only: it owns its cores, knows from the cost model what a turn takes, and says so.

A turn is a step of training or a batch of requests. The processes of a job find one another as those of nccom-test do,
one in each pod. Every interval each of them looks at its hardware and they agree: on what is broken, which ends all of
them; on the speed of the slowest core, for which all wait; and on how far they are, which the root's clock says. Then
each reports to the agent what its cores did. Whoever waits for another one does so for a bounded time.
"""

from __future__ import annotations

import os
import time
from argparse import Namespace
from dataclasses import dataclass

from neuron_device_model.collectives.errors import UnsupportedCollective
from neuron_device_model.steps.errors import WrongStep

from neuron_runtime import activity, load_plan, nrt, views
from neuron_runtime.nccom import claims, costs, files, group, meeting, peers, streams
from neuron_runtime.observed import PERCENTILES
from neuron_runtime.steps.workloads import layout_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from neuron_device_model.collectives.layouts import Layout
    from neuron_device_model.view import View

    from neuron_runtime.nccom.claims import Place
    from neuron_runtime.nccom.group import Meeting, Member, Root
    from neuron_runtime.steps.arguments import Flags
    from neuron_runtime.steps.workloads import Turn

SAID_AGAIN_S = 10.0
"""While nothing changes, a line so often."""
_GREATEST_STATUS = 255
_MODEL_CODE = 128 << 20
_FIRST_MODEL = 20001
_MOST_MODELS = 128


class Ended(Exception):
    """The job cannot go on: what is written, and the exit status."""

    def __init__(self, words: str, status: int) -> None:
        super().__init__(words)
        self.status = status


def run(flags: Flags, *, environment: Mapping[str, str], run_root: str = views.RUN_ROOT) -> int:
    """Work until all turns are done; the exit status."""
    try:
        given = views.given(run_root)
        words = Namespace(nnodes=flags.nnodes, hosts=flags.hosts, hosts_file=flags.hosts_file)
        where = meeting.meeting(words, environment) if flags.nnodes > 1 else None
        with nrt.open_given(nrt.given_cores(given), count=flags.cores, environment=environment) as cores:
            place = claims.place(given, cores.ids, environment)
            members = _join(where, flags, given[0][1], place) if where else None
            with activity.Reporter(cores, tag=flags.tag) as reporter:
                job = Job(flags, cores, costs.Board(members.places if members else (place,)), members, reporter)
                return job.run(core_memory=_core_memory(given[0][1]))
    except nrt.ViewError as error:
        ended = Ended(nrt.NrtError(nrt.NRT_FAILURE, "NRT:nrt_init", str(error)).log_line(), nrt.NRT_FAILURE)
    except nrt.NrtError as error:
        ended = Ended(error.log_line(), min(error.status, _GREATEST_STATUS))
    except claims.ClaimError as error:
        ended = Ended(nrt.NrtError(nrt.NRT_INVALID, "NRT:nrt_init", str(error)).log_line(), nrt.NRT_INVALID)
    except (streams.PlanError, files.FileError) as error:
        ended = Ended(f"{flags.work.name}: {error}", nrt.NRT_INVALID)
    except activity.ReportError as error:
        ended = Ended(f"{flags.work.name}: the node agent refused the report: {error}", nrt.NRT_INVALID)
    except Ended as error:
        ended = error
    except BrokenPipeError:
        return nrt.NRT_FAILURE
    _say(2, str(ended))
    return ended.status


@dataclass(frozen=True)
class _Now:
    """What all processes have agreed on."""

    speed: float
    done: float
    """Turns."""


class Job:
    """One process of a job, with its cores."""

    def __init__(
        self,
        flags: Flags,
        cores: nrt.Cores,
        board: costs.Board,
        members: Root | Member | None,
        reporter: activity.Reporter,
    ) -> None:
        self._flags = flags
        self._work = flags.work
        self._cores = cores
        self._board = board
        self._members = members
        self._reporter = reporter
        self._damage = load_plan.Damage()
        self._prints = members is None or not members.number
        self._said: tuple[float, float] | None = None

    def run(self, *, core_memory: int) -> int:
        """Turn by turn; raises Ended, and ReportError."""
        try:
            self._turns(core_memory)
            if self._members:
                self._members.finish()
            return 0
        except peers.GroupError as error:
            if self._members:
                self._members.give_up(str(error))
            raise self._missing(str(error)) from None
        except (WrongStep, UnsupportedCollective) as error:
            # the same in all processes: each of them has the whole board
            raise Ended(f"{self._work.name}: {error}", nrt.NRT_INVALID) from None
        finally:
            if self._members:
                self._members.close()

    def _turns(self, core_memory: int) -> None:
        layout = layout_of(self._work, self._board)
        turn = self._work.turn(self._board, layout, speed=1.0)
        wanted = self._work.memory(layout) + _MODEL_CODE
        self._require_memory(wanted, core_memory)
        self._introduce(layout)
        begin = last = time.monotonic()
        before = _Now(1.0, 0.0)
        while True:
            t = time.monotonic()
            done = before.done + (t - last) / turn.seconds
            if self._flags.turns is not None:
                done = min(done, self._flags.turns)
            last = t
            now = self._agree(t - begin, done)
            self._require_memory(wanted + int(self._damage.leaked * core_memory), core_memory)
            if now.speed != before.speed:
                turn = self._work.turn(self._board, layout, speed=now.speed)
            before = now
            ends = self._flags.turns is not None and now.done >= self._flags.turns
            self._report(turn, now, wanted=wanted, core_memory=core_memory)
            self._tell(turn, now, t, always=ends)
            if ends:
                return
            rest = self._flags.interval
            if self._flags.turns is not None:
                rest = min(rest, (self._flags.turns - now.done) * turn.seconds)
            time.sleep(max(rest, 0.001))

    def _agree(self, t: float, done: float) -> _Now:
        """Look at the hardware, and hear of that of the others."""
        self._damage.look(t, [fault for _, fault in nrt.faults_of(self._cores.paths.values())])
        failed: nrt.NrtError | None = None
        try:
            self._cores.check()
        except nrt.NrtError as error:
            failed = error
        slower = self._damage.slower
        if self._members:
            said = self._members.agree(f"{os.uname().nodename}: {failed.words}" if failed else "")
            if said and failed is None:
                raise self._missing(said)
        if failed is not None:
            raise failed
        if self._members:
            done = float(self._members.agree(repr(done) if not self._members.number else ""))
            slower = self._most(slower)
        return _Now((100 - slower) / 100, done)

    def _most(self, own: float) -> float:
        """The largest of what all processes have: whoever has more than what was heard says so, until nobody does."""
        assert self._members is not None
        most = 0.0
        while said := self._members.agree(repr(own) if own > most else ""):
            most = float(said)
        return most

    def _introduce(self, layout: Layout) -> None:
        if not self._prints:
            return
        nodes = self._board.fabric.nodes
        sets = {node.ultraserver for node in nodes if node.ultraserver}
        joined = f", UltraServer {', '.join(sorted(sets))}" if sets else ""
        dimensions = ", ".join(f"{name} {size}" for name, size in zip(_NAMES, layout.extents, strict=True))
        _say(1, f"{layout.size} ranks on {len(nodes)} × {self._board.fabric.instance_type}{joined}: {dimensions}")

    def _tell(self, turn: Turn, now: _Now, t: float, *, always: bool) -> None:
        """A line when something changed, at the end, and now and then."""
        if not self._prints or now.done < 1:
            return
        if always or self._said is None or self._said[1] != now.speed or t - self._said[0] >= SAID_AGAIN_S:
            self._said = (t, now.speed)
            slow = f"  at {now.speed:.0%} of the cores' speed" if now.speed < 1 else ""
            _say(1, f"{self._work.counts} {int(now.done)}  {turn.words}{slow}")

    def _report(self, turn: Turn, now: _Now, *, wanted: int, core_memory: int) -> None:
        memory = {"model_code": _MODEL_CODE, "tensors": wanted - _MODEL_CODE}
        if self._damage.leaked:
            memory["runtime_memory"] = int(self._damage.leaked * core_memory)
        core = {
            "utilization": round(100 * turn.busy, 2),
            "flops": int(turn.flops / turn.seconds),
            "memory": memory,
        }
        latency = dict.fromkeys(PERCENTILES, round(turn.latency_s, 9))
        models = [
            {
                "name": self._work.name,
                "uuid": f"{_FIRST_MODEL + number:032x}",
                "model_id": _FIRST_MODEL + number,
                "core": core_id,
                "running": True,
                "device": {"model_code": _MODEL_CODE},
            }
            for number, core_id in enumerate(self._cores.ids[:_MOST_MODELS])
        ]
        self._reporter.report(
            dict.fromkeys(self._cores.ids, core),
            models=models,
            executions={"completed": int(now.done * turn.executions)},
            latency={"total": latency, "device": latency},
        )

    def _require_memory(self, wanted: int, core_memory: int) -> None:
        if wanted > core_memory:
            name = f"nc{self._cores.ids[0]}"
            words = f"Failed to allocate {wanted} bytes on {name}: it has {core_memory} bytes"
            error = nrt.NrtError(nrt.NRT_RESOURCE, "TDRV:dmem_alloc", words)
            advice = f"{self._work.name}: take fewer layers or sequences, or more ranks in tp or pp"
            raise Ended(f"{error.log_line()}\n{error}\n{advice}", nrt.NRT_RESOURCE)

    def _missing(self, reason: str) -> Ended:
        """What the others see of a process that is gone or broken, in the runtime's words."""
        first = self._board.places[self._members.number if self._members else 0].cores[0]
        words = f"missing collectives status on Neuron Device {first.chip} NC {first.core}, model 0 - {reason}"
        place = "TDRV:exec_consume_infer_status_notifications"
        return Ended(nrt.NrtError(nrt.NRT_FAILURE, place, words).log_line(), nrt.NRT_FAILURE)


_NAMES = ("tensor", "data", "pipeline")


def _join(where: Meeting, flags: Flags, view: View, place: Place) -> Root | Member:
    """Find the other processes. Raises Ended."""
    same = (flags.work, flags.turns, flags.interval)
    hello = meeting.hello(same, view, place, host=os.uname().nodename, processes=flags.nnodes)
    try:
        return group.form(where, hello, seed=0)
    except peers.GroupError as error:
        words = (
            f"failed to create global communicator, global_device_count={flags.nnodes}, "
            f"ROOT_COMM_ID={where.root_id}: {error}"
        )
        refusal = nrt.NrtError(nrt.NRT_FAILURE, "NRT:nrt_load_collectives", words)
        raise Ended(refusal.log_line(), nrt.NRT_FAILURE) from None


def _core_memory(view: View) -> int:
    device = view["devices"][0]
    return device["memory_bytes"] // device["core_count"]


def _say(descriptor: int, text: str) -> None:
    data = f"{text}\n".encode(errors="surrogateescape")
    while data:
        data = data[os.write(descriptor, data) :]
