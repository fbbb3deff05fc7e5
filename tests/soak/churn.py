"""Pods with claims come and go on a real cluster while agents, kubelets and operators are killed at random.

    make soak-cluster [SOAK="--pods 500 --seed 7"]

What must hold, and is looked at all the time: no core is in two allocations, and none is prepared for two claims on a
node. What must hold in the end: every pod ran, none is stuck, and nothing of any claim is left on a node. The seed is
printed; it decides what the pods ask for, and what is killed when (not how long the cluster takes, so two runs with
one seed are alike and not equal).
"""

import argparse
import collections
import json
import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "cluster"))

from harness import DRIVER, SYSTEM, Cluster, Object, claim_spec
from neuron_device_model.catalog import instance_type
from neuron_device_model.partitions import part

PATIENCE = 300.0
"""Seconds until a pod that is not Ready is stuck. A kubelet looks again at a failed preparation after 60 to 90 s."""

CORE_CLASS = "neuroncore.neuron-sim.dev"


@dataclass
class Churn:
    """One run. `started` has the pods that are not Ready yet, with the time they were made."""

    cluster: Cluster
    namespace: str
    choice: random.Random
    workers: list[str]
    started: dict[str, float] = field(default_factory=dict)
    made: int = 0
    ran: int = 0
    killed: collections.Counter[str] = field(default_factory=collections.Counter)

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
            objects += [_template(name, spec), _pod(name)]
            self.started[name] = time.monotonic()
        if objects:
            self.cluster.apply(objects, self.namespace)

    def settle(self) -> None:
        """Delete what became Ready; raise when a pod takes too long."""
        found = {p["metadata"]["name"]: p for p in self.cluster.items("pods", "-n", self.namespace)}
        ready = [name for name in self.started if name in found and _ready(found[name])]
        for name in ready:
            del self.started[name]
        self.ran += len(ready)
        if ready:
            self.cluster.kubectl("delete", "pod", "-n", self.namespace, "--wait=false", *ready)
            self.cluster.kubectl("delete", "resourceclaimtemplate", "-n", self.namespace, *ready)
        now = time.monotonic()
        # A pod that no node has room for waits for others, and is not stuck.
        stuck = [
            name
            for name, since in self.started.items()
            if now - since > PATIENCE and found.get(name, {}).get("spec", {}).get("nodeName")
        ]
        assert not stuck, f"stuck: {', '.join(stuck)}\n{self.cluster.describe()}"

    def kill_something(self) -> None:
        """SIGKILL an agent, restart a kubelet, or remove the operators."""
        what = self.choice.choices(("agent", "kubelet", "operator"), weights=(6, 2, 2))[0]
        self.killed[what] += 1
        node = self.choice.choice(self.workers)
        if what == "agent":
            self.cluster.crash_agent(node)
        elif what == "kubelet":
            self.cluster.restart_kubelet(node)
        else:
            operators = ("-l", "app.kubernetes.io/component=operator")
            self.cluster.kubectl("delete", "pod", "-n", SYSTEM, *operators, "--grace-period=0", "--force")

    def check(self) -> None:
        """Nothing is given twice: by the scheduler's books, and by what the nodes prepared."""
        claims = {c["metadata"]["uid"]: c for c in self.cluster.items("resourceclaims", "-A")}
        kinds = {n["metadata"]["name"]: n["spec"] for n in self.cluster.items("neuronnodes")}
        allocated = collections.Counter(
            core for one in claims.values() for node, name in _devices(one) for core in _cores(kinds, node, name)
        )
        double = [core for core, times in allocated.items() if times > 1]
        assert not double, f"allocated twice: {double}"
        for node in self.workers:
            # What a claim that is gone left is not two claims' at once: unprepare may be on its way.
            held = [uid for uid in self.cluster.checkpoint(node) if uid in claims]
            prepared = collections.Counter(
                core for uid in held for where, name in _devices(claims[uid]) for core in _cores(kinds, where, name)
            )
            double = [core for core, times in prepared.items() if times > 1]
            assert not double, f"prepared twice on {node}: {double}"


def _template(name: str, spec: Object) -> Object:
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": {"name": name},
        "spec": {"spec": spec},
    }


def _pod(name: str) -> Object:
    container = {
        "name": "c",
        "image": "busybox",
        "command": ["sh", "-c", "neuron-ls -j > /dev/null && sleep inf"],
        "resources": {"claims": [{"name": "neurons"}]},
    }
    claims = [{"name": "neurons", "resourceClaimTemplateName": name}]
    spec = {"terminationGracePeriodSeconds": 0, "containers": [container], "resourceClaims": claims}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def _ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _devices(claim: Object) -> list[tuple[str, str]]:
    allocation = claim.get("status", {}).get("allocation") or {}
    results = allocation.get("devices", {}).get("results", [])
    return [(r["pool"], r["device"]) for r in results if r["driver"] == DRIVER and not r.get("adminAccess")]


def _cores(kinds: dict[str, Any], node: str, device: str) -> list[tuple[str, int]]:
    spec = kinds[node]
    found = part(device, instance_type(spec["instanceType"]), logical_neuron_core=spec["logicalNeuronCore"])
    return [(node, core) for core in found.physical_cores]


def run(churn: Churn, *, pods: int, at_once: int, kill_every: int) -> None:
    """Until `pods` pods ran."""
    next_kill = kill_every
    while churn.ran < pods:
        churn.make(min(at_once - len(churn.started), pods - churn.made))
        churn.settle()
        churn.check()
        if churn.ran >= next_kill:
            churn.kill_something()
            next_kill += kill_every
            print(json.dumps({"ran": churn.ran, "of": pods, "killed": dict(churn.killed)}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pods", type=int, default=500)
    parser.add_argument("--at-once", type=int, default=12, help="pods that are not Ready yet")
    parser.add_argument("--kill-every", type=int, default=15, help="pods between two kills")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    cluster = Cluster()
    started = time.monotonic()
    with cluster.namespace() as namespace:  # nothing may be left over when it is gone
        churn = Churn(cluster, namespace, random.Random(options.seed), cluster.workers())
        run(churn, pods=options.pods, at_once=options.at_once, kill_every=options.kill_every)
    cluster.wait_nodes(len(churn.workers))
    print(
        f"{churn.ran} pods ran in {time.monotonic() - started:.0f} s with {dict(churn.killed)} killed (seed "
        f"{options.seed}): nothing given twice, nothing left over, no pod stuck"
    )


if __name__ == "__main__":
    main()
