"""Nodes of UltraServers for workloads: what AWS's objects promise, on a fleet whose nodes come, break and go."""

import asyncio
import copy
from datetime import UTC, datetime

import pytest
from neuron_operator import kube, names, survey
from neuron_operator.fleet import Fleet
from neuron_operator.kube import ApiError, Conflict, NotFound
from neuron_operator.ledger import Ledger
from neuron_operator.ultraservers import loop
from neuron_operator.ultraservers.loop import UltraServers
from ultraserver_site import SYSTEM, TYPE, Site, api_with

ERRORS = [Conflict(409, "Conflict", "x"), ApiError(429, "TooManyRequests", "x"), ApiError(500, "Error", "x")]


@pytest.fixture
async def site(cluster, node, pool, fault):
    site = Site(cluster, node=node, pool=pool, fault=fault)
    await site.settle()
    return site


class TestUltraServers:
    async def test_each_ultraserver_of_the_fleet_is_an_object(self, site):
        first, second = site.tables()
        assert first["metadata"]["name"] == first["spec"]["ultraserverId"]
        assert [each["nodeID"] for each in first["spec"]["nodes"]] == [0, 1, 2, 3]
        assert first["status"]["state"] == second["status"]["state"] == "Ready"
        assert first["status"]["availableConfigurations"] == {"oneNode": 4, "twoNodes": 2, "fourNodes": 1}
        assert first["status"]["topology"]["mode"] == "1_2_4"
        assert {link["state"] for link in first["status"]["topology"]["links"]} == {"Up"}

    async def test_a_broken_node_takes_its_links_and_configurations_along(self, site):
        site.break_node("n1")
        await site.settle()
        (table,) = [t for t in site.tables() if "n1" in str(t["spec"]["nodes"])]
        assert table["status"]["state"] == "Degraded"
        assert table["status"]["availableConfigurations"] == {"oneNode": 3, "twoNodes": 1, "fourNodes": 0}
        down = [link["nodeIDs"] for link in table["status"]["topology"]["links"] if link["state"] == "Down"]
        assert down == [[0, 1], [1, 2]]
        assert "fault-n1" in table["status"]["conditions"][0]["message"]
        assert "Degraded" in site.events()

    async def test_what_is_deleted_by_hand_is_made_again_and_what_is_gone_goes(self, site):
        name = site.tables()[0]["metadata"]["name"]
        site.cluster.drop(kube.ULTRASERVERS, f"{SYSTEM}/{name}")
        await site.settle()
        assert len(site.tables()) == 2
        for number in range(4):
            site.drop_node(f"n{number}")
        await site.settle()
        assert len(site.tables()) == 1

    async def test_an_object_of_somebody_else_is_left_alone(self, site):
        site.cluster.put(kube.ULTRASERVERS, {"metadata": {"name": "theirs", "namespace": "x"}, "spec": {}})
        await site.settle()
        assert len(site.tables()) == 3


class TestAllocation:
    async def test_a_workload_gets_whole_sets_of_neighbours(self, site):
        site.workload(size=2, count=3)
        await site.settle()
        status = site.status()
        assert status["state"] == "Allocated"
        assert status["workloadId"] == "train"
        assert status["totalNodesAllocated"] == 6
        assert len(status["sets"]) == 3
        assert {tuple(sorted(each["nodes"])) for each in status["sets"]} <= {
            ("n0", "n1"),
            ("n2", "n3"),
            ("n4", "n5"),
            ("n6", "n7"),
        }
        assert status["allocatedUltraServers"] == list(dict.fromkeys(each["ultraServer"] for each in status["sets"]))
        assert site.tags() == dict.fromkeys(site.nodes(), "train")

    async def test_ultraservers_say_who_has_what(self, site):
        site.workload(size=4)
        await site.settle()
        (table,) = [t for t in site.tables() if t["status"]["allocations"]]
        (allocation,) = table["status"]["allocations"]
        assert allocation == {"workloadRef": "team/train", "workloadId": "train", "nodes": site.nodes()}
        assert table["status"]["availableConfigurations"] == {"oneNode": 0, "twoNodes": 0, "fourNodes": 0}

    async def test_all_sets_or_none(self, site):
        site.workload(size=4, count=3)
        await site.settle()
        assert site.status()["state"] == "Pending"
        assert site.reason() == "NoCapacity"
        assert site.message()
        assert site.tags() == {}
        assert "sets" not in site.status()

    async def test_who_waits_does_not_keep_smaller_ones_waiting(self, site):
        site.workload("large", size=4, count=3)
        site.workload("small", size=1)
        await site.settle()
        assert site.status("small")["state"] == "Allocated"

    async def test_capacity_that_comes_is_used(self, site, node):
        site.workload(size=4, count=3)
        await site.settle()
        for number in range(8, 12):
            site.cluster.put(kube.NODES, node(f"n{number}"))
        await site.settle()
        assert site.status()["state"] == "Allocated"
        assert len(site.nodes()) == 12

    async def test_not_allocated_before_every_agent_has_the_id(self, site):
        site.workload()
        for _ in range(3):
            await site.look()
        waiting = site.nodes()[0]
        item = copy.deepcopy(site.cluster.of(kube.NEURON_NODES)[waiting])
        item["metadata"]["generation"] = 2
        site.cluster.put(kube.NEURON_NODES, item)
        await site.look()
        assert site.status()["state"] == "Allocating"
        assert waiting in site.message()
        item["status"]["observedGeneration"] = 2
        site.cluster.put(kube.NEURON_NODES, item)
        await site.look()
        assert site.status()["state"] == "Allocated"

    @pytest.mark.parametrize("why", ["claim", "prepared", "cordon", "reserved"])
    async def test_nodes_that_others_use_are_not_given_away(self, site, why):
        for number in (0, 4):
            name = f"n{number}"
            match why:
                case "claim":
                    site.claim(name)
                case "prepared":
                    item = copy.deepcopy(site.cluster.of(kube.NEURON_NODES)[name])
                    item["status"]["preparedClaims"] = 1
                    site.cluster.put(kube.NEURON_NODES, item)
                case "cordon":
                    item = copy.deepcopy(site.cluster.of(kube.NODES)[name])
                    item["spec"]["unschedulable"] = True
                    site.cluster.put(kube.NODES, item)
                case "reserved":
                    item = copy.deepcopy(site.cluster.of(kube.NODES)[name])
                    item["spec"]["taints"] = [{"key": names.TAINT_RESERVED, "value": "g", "effect": "NoSchedule"}]
                    site.cluster.put(kube.NODES, item)
        site.workload("whole", size=4)
        site.workload("pair", size=2)
        await site.look()
        await site.look()
        assert site.reason("whole") == "NoCapacity"
        assert site.nodes("pair") in (["n2", "n3"], ["n6", "n7"])

    async def test_namesakes_have_ids_of_their_own(self, site):
        site.workload(size=2, namespace="a")
        site.workload(size=2, namespace="b")
        await site.settle()
        ids = {site.status(namespace=namespace)["workloadId"] for namespace in ("a", "b")}
        assert len(ids) == 2
        assert "train" in ids

    @pytest.mark.parametrize(
        ("spec", "says"),
        [
            ({"instanceType": "trn2.48xlarge"}, "no member of an UltraServer; choose one of trn2u.48xlarge"),
            ({"instanceType": "trn9.huge"}, "trn9.huge"),
            ({"topologySize": 3}, "topologySize"),
            ({"serverCount": 0}, "serverCount"),
        ],
    )
    async def test_a_wrong_spec_fails_in_a_sentence(self, site, spec, says):
        site.workload(**spec) if not spec.keys() & {"topologySize", "serverCount"} else site.workload(
            size=spec.get("topologySize", 1), count=spec.get("serverCount", 1)
        )
        await site.settle()
        assert site.status()["state"] == "Failed"
        assert says in site.message()


class TestTemplate:
    async def test_a_claim_takes_one_node_of_the_workload(self, site):
        site.workload(size=2, config={"logicalNeuronCore": 1})
        await site.settle()
        template = site.template()
        assert template["metadata"]["ownerReferences"][0]["kind"] == "NeuronUltraServerWorkload"
        devices = template["spec"]["spec"]["devices"]
        (request,) = devices["requests"]
        assert request["exactly"]["count"] == 1
        assert request["exactly"]["deviceClassName"] == "neuron.aws.com"
        (selector,) = request["exactly"]["selectors"]
        assert '?workloadId.orValue("") == "train"' in selector["cel"]["expression"]
        assert "neuron_node" in selector["cel"]["expression"]
        assert [each["opaque"]["parameters"] for each in devices["config"]] == [
            {"apiVersion": "neuron.aws.com/v1", "kind": "UltraServerConfig", "ultraserverMode": 2},
            {"apiVersion": "neuron.aws.com/v1", "kind": "NeuronConfig", "logicalNeuronCore": 1},
        ]
        assert template["spec"]["metadata"]["annotations"] == {names.ANNOTATION_WORKLOAD_ID: "train"}

    async def test_where_nodes_offer_chips_only_a_claim_takes_all_of_them(self, cluster, node, pool, fault):
        site = Site(cluster, node=node, pool=pool, fault=fault, nodes=2)
        cluster.put(kube.POOLS, pool(instanceType=TYPE, resources="DRA", devices="chips"))
        site.workload()
        await site.settle()
        devices = site.template()["spec"]["spec"]["devices"]
        assert devices["requests"][0]["exactly"]["allocationMode"] == "All"
        assert "config" not in devices

    async def test_it_has_the_name_that_was_asked_for(self, site):
        site.workload(template="mine")
        await site.settle()
        assert site.template("mine")
        assert not site.template("train")

    async def test_one_that_is_there_already_is_not_touched(self, site):
        theirs = {"metadata": {"name": "train", "namespace": "team"}, "spec": {}}
        site.cluster.put(kube.CLAIM_TEMPLATES, theirs)
        site.workload()
        await site.settle()
        assert site.reason() == "TemplateNameTaken"
        assert site.template()["spec"] == {}
        site.cluster.drop(kube.CLAIM_TEMPLATES, "team/train")
        await site.settle()
        assert site.status()["state"] == "Allocated"

    async def test_one_that_was_deleted_is_made_again(self, site):
        site.workload()
        await site.settle()
        site.cluster.drop(kube.CLAIM_TEMPLATES, "team/train")
        await site.settle()
        assert site.template()
        assert site.status()["state"] == "Allocated"


class TestFailures:
    async def test_no_op_reports_and_changes_nothing(self, site):
        site.workload(size=2, count=2)
        await site.settle()
        before = site.nodes()
        site.pods()
        site.break_node(before[0], effect="NoExecute")
        await site.settle()
        assert site.status()["state"] == "PartiallyAllocated"
        assert site.status()["totalNodesAllocated"] == 3
        assert f"fault-{before[0]}" in site.message()
        assert site.nodes() == before
        assert len(site.claimed()) == 4
        assert "NodesLost" in site.events()
        site.cluster.drop(kube.FAULTS, f"fault-{before[0]}")
        await site.settle()
        assert site.status()["state"] == "Allocated"

    async def test_no_op_with_nothing_left_has_failed(self, site):
        site.workload(size=1)
        await site.settle()
        site.drop_node(site.nodes()[0])
        await site.settle()
        assert site.status()["state"] == "Failed"

    async def test_a_fault_that_is_only_shown_is_no_failure(self, site):
        site.workload(size=1, strategy="RestartAll")
        await site.settle()
        before = site.status()
        site.break_node(site.nodes()[0], effect="None")
        await site.settle()
        assert site.status() == before

    async def test_a_node_that_misses_a_few_reports_is_no_failure(self, site):
        site.workload(size=1, strategy="RestartAll")
        await site.settle()
        before = site.nodes()
        site.not_ready(before[0], "2026-11-21T11:59:50Z")
        await site.settle()
        assert site.nodes() == before
        await site.settle(datetime(2026, 11, 21, 12, 0, 30, tzinfo=UTC))
        assert site.nodes() != before

    async def test_migrate_affected_moves_the_set_that_is_hit(self, site):
        site.workload(size=2, count=2, strategy="MigrateAffected")
        await site.settle()
        site.pods()
        kept, hit = (tuple(each["nodes"]) for each in site.status()["sets"])
        site.drop_node(hit[0])
        await site.settle()
        site.collect()
        await site.settle()
        assert site.status()["state"] == "Allocated"
        assert set(kept) < set(site.nodes())
        assert not set(hit) & set(site.nodes())
        assert site.claimed() == set(kept)
        assert {"Migrated", "UltraServerReleased"} <= set(site.events())
        assert site.tags() == dict.fromkeys(site.nodes(), "train")

    async def test_migrate_affected_waits_for_another_set(self, site, node):
        site.workload(size=4, count=2, strategy="MigrateAffected")
        await site.settle()
        site.pods()
        site.break_node("n0")
        await site.settle()
        assert site.status()["state"] == "PartiallyAllocated"
        assert "waits for other nodes" in site.message()
        assert len(site.claimed()) == 8, "nobody is sent away for nothing"
        for number in range(8, 12):
            site.cluster.put(kube.NODES, node(f"n{number}"))
        await site.settle()
        assert "n0" not in site.nodes()
        assert "n8" in site.nodes()

    async def test_restart_all_gives_everything_back_and_begins_anew(self, site):
        site.workload(size=2, count=2, strategy="RestartAll")
        await site.settle()
        before = site.nodes()
        site.pods()
        site.break_node(before[0])
        await site.settle()
        assert not site.cluster.of(kube.PODS), "every pod has to go"
        site.collect()
        await site.settle()
        assert site.status()["state"] == "Allocated"
        assert before[0] not in site.nodes()
        assert "Restarting" in site.events()

    async def test_a_node_with_pods_that_still_end_is_given_to_nobody(self, site):
        site.workload(size=4, count=2, strategy="RestartAll")
        await site.settle()
        site.pods()
        site.break_node("n0")
        await site.settle()
        site.workload("next", size=1)
        await site.settle()
        assert site.nodes("next") == []
        site.collect()
        await site.settle()
        assert len(site.nodes("next")) == 1


class TestDeletion:
    async def test_it_releases_everything(self, site):
        site.workload(size=4)
        await site.settle()
        site.pods()
        await site.delete()
        await site.look()
        await site.look()
        assert site.template() is None
        assert not site.cluster.of(kube.PODS)
        assert site.status()["state"] == "Deallocating"
        assert site.tags() == {}, "no new pod is sent there"
        site.workload("next", size=4, count=2)
        await site.settle()
        assert site.reason("next") == "NoCapacity", "pods still end there"
        site.collect()
        await site.settle()
        assert list(site.cluster.of(kube.ULTRASERVER_WORKLOADS)) == ["team/next"]
        assert site.status("next")["state"] == "Allocated"

    async def test_pods_that_were_made_meanwhile_without_a_claim_are_let_be(self, site):
        site.workload(size=1)
        await site.settle()
        site.pods()
        site.cluster.put(kube.PODS, {"metadata": {"name": "waits", "namespace": "team"}})
        await site.delete()
        await site.look()
        site.collect()
        await site.settle()
        assert list(site.cluster.of(kube.PODS)) == ["team/waits"]

    async def test_a_dead_node_does_not_hold_it_back(self, site):
        site.workload(size=1)
        await site.settle()
        site.pods()
        site.drop_node(site.nodes()[0])
        await site.delete()
        await site.settle()
        assert not site.cluster.of(kube.ULTRASERVER_WORKLOADS)

    @pytest.mark.parametrize("error", ERRORS)
    async def test_it_stays_while_a_pod_on_a_dead_node_was_not_asked_to_go(self, site, error):
        site.workload(size=1)
        await site.settle()
        site.pods()
        site.drop_node(site.nodes()[0])
        await site.delete()
        await site.look()  # the template goes

        async def refuse(*arguments, **more):
            raise error

        class Api:
            def __getattr__(self, verb):
                return refuse if verb == "delete" else getattr(site.cluster, verb)

        await site.look(api=Api())
        assert site.cluster.of(kube.PODS)
        assert site.cluster.of(kube.ULTRASERVER_WORKLOADS)
        await site.settle()
        assert not site.cluster.of(kube.PODS)
        assert not site.cluster.of(kube.ULTRASERVER_WORKLOADS)

    async def test_before_it_was_allocated_it_just_goes(self, site):
        site.workload(size=4, count=9)
        await site.settle()
        await site.delete()
        await site.settle()
        assert not site.cluster.of(kube.ULTRASERVER_WORKLOADS)

    async def test_a_foreign_template_of_its_name_stays(self, site):
        site.cluster.put(kube.CLAIM_TEMPLATES, {"metadata": {"name": "train", "namespace": "team"}, "spec": {}})
        site.workload()
        await site.settle()
        await site.delete()
        await site.settle()
        assert not site.cluster.of(kube.ULTRASERVER_WORKLOADS)
        assert site.template()

    async def test_finalizers_of_others_stay(self, site):
        site.workload()
        await site.settle()
        item = copy.deepcopy(site.cluster.of(kube.ULTRASERVER_WORKLOADS)["team/train"])
        item["metadata"]["finalizers"].append("example.com/theirs")
        site.cluster.put(kube.ULTRASERVER_WORKLOADS, item)
        await site.delete()
        await site.settle()
        left = site.cluster.of(kube.ULTRASERVER_WORKLOADS)["team/train"]
        assert left["metadata"]["finalizers"] == ["example.com/theirs"]
        assert site.tags() == {}


class TestFaults:
    @pytest.mark.parametrize("error", ERRORS)
    async def test_writes_that_fail_are_made_up_for(self, site, error):
        site.workload(size=2, count=2)
        fails = iter([True, False] * 20)

        def fail():
            if next(fails, False):
                raise error

        for _ in range(8):
            await site.look(api=api_with(site.cluster, fail))
            site.agents()
        await site.settle()
        assert site.status()["state"] == "Allocated"
        assert site.tags() == dict.fromkeys(site.nodes(), "train")

    async def test_a_status_without_its_event_is_not_written(self, site):
        site.workload()
        await site.look()
        site.cluster.faults = [ApiError(500, "Error", "events")]
        await site.look()
        assert "sets" not in site.status()
        await site.settle()
        assert site.status()["state"] == "Allocated"

    async def test_one_that_was_deleted_during_the_decision_gets_nothing(self, site):
        site.workload()
        await site.look()
        deleted = []

        class Api:
            def __getattr__(self, verb):
                return getattr(site.cluster, verb)

            async def merge_status(self, *arguments, **more):
                if not deleted:
                    deleted.append(1)
                    await site.delete()
                return await site.cluster.merge_status(*arguments, **more)

        await site.look(api=Api())
        assert "sets" not in site.status()
        await site.settle()
        assert not site.cluster.of(kube.ULTRASERVER_WORKLOADS)
        assert site.tags() == {}

    async def test_lists_that_fail_change_nothing(self, site):
        site.workload()
        await site.settle()
        written = len(site.cluster.writes)

        class Api:
            def __getattr__(self, verb):
                return getattr(site.cluster, verb)

            async def list(self, resource, **more):
                if resource == kube.CLAIMS:
                    raise ApiError(500, "Error", "etcd")
                return await site.cluster.list(resource, **more)

        assert await site.look(api=Api()) is None
        assert len(site.cluster.writes) == written

    async def test_what_is_gone_when_it_is_written_is_no_failure(self, site):
        site.workload()
        await site.look()

        class Api:
            def __getattr__(self, verb):
                return getattr(site.cluster, verb)

            async def merge_status(self, *arguments, **more):
                raise NotFound(404, "NotFound", "gone")

        assert (await site.look(api=Api())).statuses


class TestLoop:
    @pytest.fixture
    async def running(self, site, monkeypatch):
        """The loop on a complete fleet state, without its pauses; and how often it said that it wrote."""
        for pause in ("_DEBOUNCE", "_DEBOUNCE_IF_CROWDED", "_REST_AT_MOST"):
            monkeypatch.setattr(loop, pause, 0.0)
        fleet = Fleet(driver_name=names.AWS_DRIVER_NAME)
        fleet.foreign = ()
        await survey.list_objects(fleet, site.cluster)
        wrote = []
        ledger = Ledger()
        ledger.report("gangs", {})
        ultraservers = UltraServers(
            api=site.cluster,
            fleet=fleet,
            driver_name=names.AWS_DRIVER_NAME,
            namespace=SYSTEM,
            wrote=lambda: wrote.append(1),
            ledger=ledger,
        )
        task = asyncio.create_task(ultraservers.run())
        try:
            yield fleet, ultraservers, wrote
        finally:
            task.cancel()

    async def test_one_wake_is_enough_for_a_workload_to_get_its_nodes(self, site, running, monkeypatch):
        fleet, ultraservers, wrote = running
        created, create = asyncio.Event(), site.cluster.create

        async def creating(resource, body):
            if resource == kube.CLAIM_TEMPLATES:
                created.set()
            return await create(resource, body)

        monkeypatch.setattr(site.cluster, "create", creating)
        site.workload()
        fleet.workloads.observe(site.cluster.of(kube.ULTRASERVER_WORKLOADS)["team/train"])
        ultraservers.wake()
        async with asyncio.timeout(10):
            await created.wait()
        assert site.status()["state"] == "Allocating"
        assert wrote, "the reconciler is to bring the id to the nodes"
