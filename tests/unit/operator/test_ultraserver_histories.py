"""Whatever happens, and wherever the operator is killed: no node is promised twice, and nothing is left behind."""

import asyncio
import contextlib

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from neuron_operator import kube
from neuron_operator.kube import ApiError, Conflict
from ultraserver_site import Site, api_with

NODES = 6  # one UltraServer, and half of another
NAMES = st.sampled_from(["a", "b", "c"])
NUMBERS = st.integers(0, NODES - 1)
STRATEGIES = st.sampled_from(["NoOp", "RestartAll", "MigrateAffected"])
ERRORS = st.sampled_from([Conflict(409, "Conflict", ""), ApiError(429, "Slow", ""), ApiError(500, "Error", "")])


class Killed(BaseException):
    """The process is gone."""


def machine(new_cluster, node, pool, fault):
    class History(RuleBasedStateMachine):
        def __init__(self):
            super().__init__()
            self.cluster = new_cluster()
            self.site = Site(self.cluster, node=node, pool=pool, fault=fault, nodes=NODES)
            self.run(self.site.settle())

        def run(self, work):
            return asyncio.run(work)

        # --- people

        @initialize(size=st.sampled_from([1, 2, 4]), strategy=STRATEGIES, pods=st.booleans())
        def a_workload_has_nodes(self, size, strategy, pods):
            self.site.workload("a", size=size, strategy=strategy)
            self.run(self.site.settle())
            if pods:
                self.site.pods("a")

        @rule(name=NAMES, size=st.sampled_from([1, 2, 4]), count=st.integers(1, 2), strategy=STRATEGIES)
        def workload_comes(self, name, size, count, strategy):
            if f"team/{name}" not in self.cluster.of(kube.ULTRASERVER_WORKLOADS):
                self.site.workload(name, size=size, count=count, strategy=strategy)

        @rule(name=NAMES)
        def workload_is_deleted(self, name):
            if f"team/{name}" in self.cluster.of(kube.ULTRASERVER_WORKLOADS):
                self.run(self.site.delete(name))

        @rule(name=NAMES)
        def pods_come(self, name):
            if self.site.template(name) and f"team/{name}" in self.cluster.of(kube.ULTRASERVER_WORKLOADS):
                self.site.pods(name)

        @rule()
        def pods_end(self):
            self.site.collect()

        # --- hardware

        @rule(number=NUMBERS, effect=st.sampled_from(["None", "NoSchedule", "NoExecute"]))
        def node_breaks(self, number, effect):
            self.site.break_node(f"n{number}", effect=effect)

        @rule(number=NUMBERS)
        def node_heals(self, number):
            if f"fault-n{number}" in self.cluster.of(kube.FAULTS):
                self.cluster.drop(kube.FAULTS, f"fault-n{number}")

        @rule(number=NUMBERS)
        def node_goes(self, number):
            if f"n{number}" in self.cluster.of(kube.NEURON_NODES):
                self.site.drop_node(f"n{number}")

        @rule(number=NUMBERS)
        def node_comes(self, number):
            if f"n{number}" not in self.cluster.of(kube.NODES):
                self.cluster.put(kube.NODES, node(f"n{number}"))

        @rule()
        def agents_follow(self):
            self.site.agents()

        # --- the operator

        @rule()
        def operator_looks(self):
            self.run(self.site.look())

        @rule(writes=st.integers(0, 12))
        def operator_is_killed_after(self, writes):
            left = [writes]

            def fail():
                if not left[0]:
                    raise Killed
                left[0] -= 1

            with contextlib.suppress(Killed):
                self.run(self.site.look(api=api_with(self.cluster, fail)))

        @rule(failing=st.sets(st.integers(0, 12)), error=ERRORS)
        def api_server_refuses(self, failing, error):
            written = [0]

            def fail():
                written[0] += 1
                if written[0] - 1 in failing:
                    raise error

            self.run(self.site.look(api=api_with(self.cluster, fail)))

        def teardown(self):
            for _ in range(4):
                self.site.collect()
                self.run(self.site.settle())
            self.no_node_is_promised_twice()
            self.all_sets_or_none()
            self.check_the_end()

        # --- what holds at every moment

        @invariant()
        def no_node_is_promised_twice(self):
            nodes = [
                node
                for item in self.cluster.of(kube.ULTRASERVER_WORKLOADS).values()
                for each in (item.get("status") or {}).get("sets", [])
                for node in each["nodes"]
            ]
            assert len(nodes) == len(set(nodes))

        @invariant()
        def all_sets_or_none(self):
            for item in self.cluster.of(kube.ULTRASERVER_WORKLOADS).values():
                sets = (item.get("status") or {}).get("sets")
                assert sets is None or len(sets) == item["spec"]["serverCount"]
                for each in sets or ():
                    assert len(each["nodes"]) == item["spec"]["topologySize"]

        # --- and once it is quiet

        def check_the_end(self):
            workloads = self.cluster.of(kube.ULTRASERVER_WORKLOADS)
            assert not [item for item in workloads.values() if "deletionTimestamp" in item["metadata"]]
            ids = {item["status"].get("workloadId"): item for item in workloads.values()}
            for node, tag in self.site.tags().items():
                assert node in self.site.nodes(ids[tag]["metadata"]["name"])
            for name in self.cluster.of(kube.CLAIM_TEMPLATES):
                assert name in workloads
            for claim in self.cluster.of(kube.CLAIMS).values():
                owner = claim["metadata"]["annotations"]["neuron-sim.dev/workload-id"]
                assert claim["metadata"]["name"].removeprefix("claim-") in self.site.nodes(
                    ids[owner]["metadata"]["name"]
                )
            for item in workloads.values():
                self.check_workload(item)

        def check_workload(self, item):
            name, status = item["metadata"]["name"], item["status"]
            present = set(self.cluster.of(kube.NEURON_NODES))
            faults = self.cluster.of(kube.FAULTS).values()
            broken = {f["spec"]["target"]["nodeName"] for f in faults if f["spec"]["effect"] != "None"}
            nodes = set(self.site.nodes(name))
            if status["state"] == "Allocated":
                assert nodes
                assert nodes <= present - broken
                assert all(self.site.tags()[node] == status["workloadId"] for node in nodes)
                assert self.site.template(name)
            else:
                assert status["state"] in ("Pending", "PartiallyAllocated", "Failed")
                if self.site.nodes(name) and item["spec"]["allocationPolicy"]["failureStrategy"] == "RestartAll":
                    raise AssertionError("RestartAll keeps no broken node")

    return History


def test_any_history(new_cluster, node, pool, fault):

    run_state_machine_as_test(
        machine(new_cluster, node, pool, fault),
        settings=settings(max_examples=25, stateful_step_count=20, deadline=None),
    )
