"""Pods with claims come and go on a real cluster while agents, kubelets and operators are killed at random.

    make soak-cluster [SOAK="--pods 500 --seed 7"]

What must hold, and is looked at in every round:

- no core is in two allocations (the scheduler's books);
- no core was ever prepared for two claims of a node (every state of the agents' journals, those in between included);
- no core is seen by two containers that run, and each sees what its claim was given, no more and no less;
- no container failed, and none was restarted.

In the end: every pod ran, none is stuck in its beginning or its end, no claim is left, and no file of any is left on a
node. All of it has a limit in time, so a run ends: with status 0 when everything held, 1 when something did not, 130
when it was interrupted, which cleans up as well.

The seed is printed; it decides what the pods ask for, and what is killed when (not how long the cluster takes, so two
runs with one seed are alike and not equal).
"""

import argparse
import collections
import json
import random
import re
import signal
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "cluster"))

from harness import DRIVER, PLUGIN_DIR, SYSTEM, Cluster, Object, claim_spec, claim_template, pod, until
from neuron_device_model.catalog import instance_type
from neuron_device_model.cores import visible_cores
from neuron_device_model.partitions import part

PATIENCE = 300.0
"""Seconds until a pod that does not run, or does not end, is stuck, and until a cluster in which no pod begins or ends
stands still. A kubelet looks again at a failed preparation after 60 to 90 s."""
REPORT_EVERY = 10.0

CORE_CLASS = "neuroncore.neuron-sim.dev"
LABEL = "churn"
# The tools come from the claim, and the view is what they print of.
PROGRAM = "neuron-ls -j > /dev/null && cat /run/neuron-sim/*/*/view.json && echo && exec sleep inf"
SEEN = re.compile(r"^\[pod/([^/]+)/c\] (\{.*\})$", re.MULTILINE)
UID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

Core: TypeAlias = tuple[str, int]
"""A node, and a physical core of it."""


@dataclass
class Churn:
    """One run. A pod is in `started` until its container has said what it sees, then in `running`, then in `ending`."""

    cluster: Cluster
    namespace: str
    choice: random.Random
    workers: list[str]
    started: dict[str, float] = field(default_factory=dict)
    """With the time at which they were made."""
    running: dict[str, frozenset[Core]] = field(default_factory=dict)
    """With what they see."""
    ending: dict[str, float] = field(default_factory=dict)
    """With the time at which they were deleted."""
    seen: dict[str, frozenset[Core]] = field(default_factory=dict)
    """What every pod saw that is still there."""
    made: int = 0
    moved: float = field(default_factory=time.monotonic)
    """When a pod last came one step further."""
    killed: collections.Counter[str] = field(default_factory=collections.Counter)

    @property
    def ran(self) -> int:
        """How many pods have come to run."""
        return self.made - len(self.started)

    def make(self, count: int) -> None:
        """New pods, each with a claim of its own: chips, a row of chips, or cores."""
        objects: list[Object] = []
        for _ in range(count):
            name = f"p{self.made:04}"
            self.made += 1
            kind = self.choice.choices(("chips", "row", "cores"), weights=(5, 1, 4))[0]
            if kind == "chips":
                spec = claim_spec(self.choice.choice((1, 1, 2, 4)))
                spec["devices"]["requests"][0]["exactly"]["selectors"] = [
                    {"cel": {"expression": f"device.attributes['{DRIVER}'].resourceType == 'neuron_device'"}}
                ]
            elif kind == "row":
                spec = claim_spec(4)
                spec["devices"]["constraints"] = [{"matchAttribute": "resource.aws.com/devicegroup4_id"}]
            else:
                spec = claim_spec(self.choice.randint(1, 6), deviceClassName=CORE_CLASS)
            # Without a grace period the API server forgets a pod at once: its devices are given anew while it still has
            # them, and the agent has to see to it that nobody gets them twice.
            objects += [_template(name, spec), _pod(name, grace=self.choice.choice((0, 1)))]
            self.started[name] = time.monotonic()
        if objects:
            self.cluster.apply(objects, self.namespace)

    def look(self) -> None:
        """Who runs and who is gone, who sees what; raise when that cannot be."""
        found = {p["metadata"]["name"]: p for p in self.cluster.items("pods", "-n", self.namespace)}
        self._forget_ended(found)
        self._listen(found)
        for name in [name for name in self.started if name in self.seen]:
            del self.started[name]
            self.running[name] = self.seen[name]
            self.moved = time.monotonic()
        held = collections.Counter(
            core for name, one in found.items() if name in self.seen and _runs(one) for core in self.seen[name]
        )
        assert not twice(held), f"two running containers see {twice(held)}"
        for name, one in found.items():
            status = one.get("status", {})
            restarts = [c["restartCount"] for c in status.get("containerStatuses", []) if c["restartCount"]]
            # A container that is told to end may end in any way.
            if "deletionTimestamp" not in one["metadata"]:
                assert status.get("phase") != "Failed", (
                    f"{name} failed: {status.get('reason')}, {status.get('message')}"
                )
                assert not restarts, f"{name} was restarted: {json.dumps(status['containerStatuses'])}"
        lost = [name for name in self.running if name not in found]
        assert not lost, f"pods vanished that nobody deleted: {lost}"
        self._find_stuck(found)

    def end(self, keep: int) -> None:
        """Delete some of those that run, until `keep` are left."""
        names = self.choice.sample(sorted(self.running), max(0, len(self.running) - keep))
        if not names:
            return
        self.cluster.kubectl("delete", "pod", "-n", self.namespace, "--wait=false", *names)
        self.cluster.kubectl("delete", "resourceclaimtemplate", "-n", self.namespace, *names)
        for name in names:
            del self.running[name]
            self.ending[name] = time.monotonic()

    def kill_something(self) -> None:
        """SIGKILL an agent, a kubelet or the operators."""
        what = self.choice.choices(("agent", "kubelet", "operator"), weights=(6, 2, 2))[0]
        self.killed[what] += 1
        node = self.choice.choice(self.workers)
        if what == "agent":
            self.cluster.crash_agent(node)
        elif what == "kubelet":
            self.cluster.on_node(node, "systemctl", "kill", "--signal=KILL", "kubelet", check=False)
            self.cluster.restart_kubelet(node)  # now, and not when systemd has waited long enough
        else:
            operators = ("-l", "app.kubernetes.io/component=operator")
            self.cluster.kubectl("delete", "pod", "-n", SYSTEM, *operators, "--grace-period=0", "--force")

    def check(self) -> None:
        """Nothing is given twice, by the scheduler's books and by what the nodes prepared; pods see what they got."""
        claims = self.cluster.items("resourceclaims", "-A")
        kinds = {n["metadata"]["name"]: n["spec"] for n in self.cluster.items("neuronnodes")}
        cores = {c["metadata"]["uid"]: [x for d in _devices(c) for x in _cores(kinds, *d)] for c in claims}
        allocated = collections.Counter(core for one in cores.values() for core in one)
        assert not twice(allocated), f"allocated twice: {twice(allocated)}"
        given = {
            owner["name"]: frozenset(cores[claim["metadata"]["uid"]])
            for claim in claims
            if claim["metadata"]["namespace"] == self.namespace
            for owner in claim["metadata"].get("ownerReferences", [])
        }
        for name, seen in self.running.items():
            assert name in given, f"{name} runs, and its claim is gone"
            assert seen == given[name], f"{name} sees {sorted(seen)} and was given {sorted(given[name])}"
        for node in self.workers:
            journal = self.cluster.on_node(node, "sh", "-c", f"cat {PLUGIN_DIR}/checkpoint.jsonl 2>/dev/null || true")
            for first, second, core in prepared_twice(journal):
                raise AssertionError(f"core {core} of {node} was prepared for claims {first} and {second} at once")

    def report(self, seconds: float) -> None:
        """One line on how far it is."""
        line = {
            "seconds": round(seconds),
            "made": self.made,
            "starting": len(self.started),
            "running": len(self.running),
            "ending": len(self.ending),
            "killed": dict(self.killed),
        }
        print(json.dumps(line), flush=True)

    def _listen(self, found: dict[str, Object]) -> None:
        """Take down what containers say that they see. A kubelet that is just killed says nothing: next time."""
        if not self.started:
            return
        said = self.cluster.kubectl(
            "logs", "-n", self.namespace, "-l", f"app={LABEL}", "--prefix", "--ignore-errors", check=False
        )
        for name, view in SEEN.findall(said):
            # the pods were read before: one that has been given its node since is for the next time
            if name in self.started and (node := found.get(name, {}).get("spec", {}).get("nodeName")):
                self.seen[name] = frozenset(sees(json.loads(view), node))

    def _forget_ended(self, found: dict[str, Object]) -> None:
        for name in [name for name in self.ending if name not in found]:
            del self.ending[name], self.seen[name]
            self.moved = time.monotonic()

    def _find_stuck(self, found: dict[str, Object]) -> None:
        now = time.monotonic()
        # A pod that no node has room for waits for others, and is not stuck by itself.
        placed = [name for name in self.started if found.get(name, {}).get("spec", {}).get("nodeName")]
        late = [name for name in placed if now - self.started[name] > PATIENCE]
        assert not late, f"stuck in their beginning for {PATIENCE:.0f} s: {', '.join(late)}"
        late = [name for name, since in self.ending.items() if now - since > PATIENCE]
        assert not late, f"stuck in their end for {PATIENCE:.0f} s: {', '.join(late)}"
        assert now - self.moved < PATIENCE, (
            f"no pod began or ended in {PATIENCE:.0f} s; starting: {', '.join(self.started) or 'none'}; "
            f"running: {len(self.running)}; ending: {', '.join(self.ending) or 'none'}"
        )


def twice(counted: "collections.Counter[Core]") -> list[Core]:
    """What is there more than once."""
    return [core for core, times in counted.items() if times > 1]


def sees(view: Any, node: str) -> Iterator[Core]:
    """The physical cores of the host that a container sees by its view. A core keeps its place in the chip."""
    chip = instance_type(view["instance_type"]).chip
    lnc = view["logical_neuroncore_config"] or 1
    visible = visible_cores(chip, lnc)
    for device in view["devices"]:
        for number in device["core_ids"]:
            first = device["host_index"] * chip.physical_cores + number % visible * lnc
            yield from ((node, core) for core in range(first, first + lnc))


def prepared_twice(journal: str) -> Iterator[tuple[str, str, str]]:
    """Two claims that an agent's journal had at the same time, and a core of both; each state of the journal counts.

    Read here from the lines, and not by the agent's own code, which is what is in question.
    """
    held: dict[str, set[str]] = {}
    for line in journal.splitlines(keepends=True)[1:]:
        if not line.endswith("\n"):
            return  # being written
        record = json.loads(line.partition(" ")[2])
        held.pop(record["uid"], None)
        if record["op"] != "put":
            continue
        cores = {
            f"{chip}/{bit}"
            for device in record["devices"]
            if not device["adminAccess"]
            for chip, mask in device["cores"]
            for bit in range(64)
            if mask >> bit & 1  # -1 is the whole chip, and has every bit
        }
        for other, others in held.items():
            if common := cores & others:
                yield other, record["uid"], min(common)
        held[record["uid"]] = cores


def _template(name: str, spec: Object) -> Object:
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": {"name": name},
        "spec": {"spec": spec},
    }


def _pod(name: str, *, grace: int) -> Object:
    made = pod(name, template=name)
    made["metadata"]["labels"] = {"app": LABEL}
    made["spec"]["terminationGracePeriodSeconds"] = grace
    made["spec"]["containers"][0]["command"] = ["sh", "-c", PROGRAM]
    return made


def _runs(one: Object) -> bool:
    return any("running" in c.get("state", {}) for c in one.get("status", {}).get("containerStatuses", []))


def _devices(claim: Object) -> list[tuple[str, str]]:
    allocation = claim.get("status", {}).get("allocation") or {}
    results = allocation.get("devices", {}).get("results", [])
    return [(r["pool"], r["device"]) for r in results if r["driver"] == DRIVER and not r.get("adminAccess")]


def _cores(kinds: dict[str, Any], node: str, device: str) -> Iterator[Core]:
    spec = kinds[node]
    found = part(device, instance_type(spec["instanceType"]), logical_neuron_core=spec["logicalNeuronCore"])
    yield from ((node, core) for core in found.physical_cores)


def files(cluster: Cluster, nodes: Iterable[str]) -> "collections.Counter[str]":
    """The regular files in the folders that the agent writes into. Uids are left out of the names."""
    folders = f"{PLUGIN_DIR} /var/lib/kubelet/plugins_registry /var/run/cdi/ /run/neuron-sim"
    found: collections.Counter[str] = collections.Counter()
    for node in nodes:
        # a file that goes meanwhile is a complaint of find
        listed = cluster.on_node(node, "sh", "-c", f"find {folders} -type f 2>/dev/null || true")
        found.update(f"{node}:{UID.sub('UID', path)}" for path in listed.splitlines())
    return found


def run(churn: Churn, *, pods: int, at_once: int, keep: int, kill_every: int, seconds: float) -> None:
    """Until `pods` pods ran and are gone."""
    begin = reported = time.monotonic()
    next_kill = kill_every
    while churn.made < pods or churn.started or churn.running or churn.ending:
        churn.make(min(at_once - len(churn.started), pods - churn.made))
        churn.look()
        churn.check()
        churn.end(keep if churn.ran < pods else 0)
        if churn.ran >= next_kill:
            churn.kill_something()
            next_kill += kill_every
        now = time.monotonic()
        if now - reported > REPORT_EVERY:
            churn.report(now - begin)
            reported = now
        assert now - begin < seconds, f"{churn.ran} of {pods} pods ran within {seconds / 60:.0f} min: see --minutes"


def soak(cluster: Cluster, options: argparse.Namespace) -> Churn:
    """The whole of it, each phase with its limit."""
    workers = cluster.workers()
    cluster.wait_nodes(len(workers))
    if in_use := [node for node in workers if cluster.checkpoint(node)]:
        raise AssertionError(f"claims are prepared on {', '.join(in_use)}: delete their pods first")
    print("one pod on each node, before anything is killed", flush=True)
    with cluster.namespace() as namespace:  # nothing may be left over when it is gone
        pods = [pod(f"first-{node}", template="one", node=node) for node in workers]
        cluster.apply([claim_template("one"), *pods], namespace)
        cluster.wait_ready(namespace)
    before = files(cluster, workers)
    with cluster.namespace() as namespace:
        churn = Churn(cluster, namespace, random.Random(options.seed), workers)
        with described(cluster):
            run(
                churn,
                pods=options.pods,
                at_once=options.at_once,
                keep=options.keep,
                kill_every=options.kill_every,
                seconds=options.minutes * 60,
            )
            print("all pods ran and are gone; now nothing may be left", flush=True)
            cluster.wait_nodes(len(workers))
            nothing_left(cluster, namespace, before)
    return churn


def nothing_left(cluster: Cluster, namespace: str, before: "collections.Counter[str]") -> None:
    """Wait until the claims are gone, and what they brought to the nodes.

    A kubelet that was killed while a pod ended finds out within a minute or two that nobody needs its claim.
    """

    def claims() -> list[str]:
        return [claim["metadata"]["name"] for claim in cluster.items("resourceclaims", "-n", namespace)]

    def added() -> "collections.Counter[str]":
        return files(cluster, cluster.workers()) - before

    until(lambda: not claims(), what="no claim left", timeout=PATIENCE, details=claims)
    until(
        lambda: not cluster.leftovers(),
        what="nothing left over on the nodes",
        timeout=PATIENCE,
        details=cluster.leftovers,
    )
    until(lambda: not added(), what="no file that was not there before", timeout=PATIENCE, details=added)


@contextmanager
def described(cluster: Cluster) -> Iterator[None]:
    """Say what the cluster looks like when something is wrong, while it still looks like that."""
    try:
        yield
    except Exception as error:
        print(f"\n{error}\n\n{cluster.describe()}", file=sys.stderr, flush=True)
        raise


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pods", type=int, default=500)
    parser.add_argument("--at-once", type=int, default=12, help="pods that do not run yet")
    parser.add_argument("--keep", type=int, default=6, help="pods that run until others take their turn")
    parser.add_argument("--kill-every", type=int, default=15, help="pods between two kills")
    parser.add_argument("--minutes", type=float, default=90, help="after which it is over, and has failed")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupted)
    started = time.monotonic()
    try:
        churn = soak(Cluster(), options)
    except KeyboardInterrupt:
        print(f"interrupted, and cleaned up (seed {options.seed})", file=sys.stderr)
        return 130
    except Exception:
        traceback.print_exc()
        print(f"FAILED (seed {options.seed})", file=sys.stderr)
        return 1
    print(
        f"{churn.ran} pods ran in {time.monotonic() - started:.0f} s with {dict(churn.killed)} killed (seed "
        f"{options.seed}): nothing given twice, nothing left over, no pod stuck"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
