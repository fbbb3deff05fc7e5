"""Why a pod waits, in sentences: each cause once, on plain objects as the API server has them."""

from typing import Any

import pytest
from fleet_objects import (
    DRIVER,
    chips,
    claim,
    classes,
    fault,
    held,
    neuron_node,
    node,
    pod,
    request,
    slices,
    template,
)
from neuron_operator.explaining.demand import Known
from neuron_operator.explaining.explanation import Explanation, Facts, explain_claim, explain_pod
from neuron_operator.explaining.supply import supplies

Object = dict[str, Any]


def facts(*neuron_nodes: Object, claims=(), templates=(), nodes=None, **more) -> Facts:
    published = [page for each in neuron_nodes if each["spec"]["resources"] == "DRA" for page in slices(each)]
    return Facts(
        nodes=nodes if nodes is not None else [node(each["metadata"]["name"]) for each in neuron_nodes],
        neuron_nodes=list(neuron_nodes),
        supplies=supplies(published, list(claims)),
        known=Known(
            classes={each["metadata"]["name"]: each for each in more.pop("classes", classes())},
            claims={("team", each["metadata"]["name"]): each for each in claims},
            templates={("team", each["metadata"]["name"]): each for each in templates},
        ),
        **more,
    )


def waits(*requests: Object, on=None, claims=(), constraints=None, **more) -> Explanation:
    """Of a pod with one claim."""
    wanted = claim("wanted", *requests, constraints=constraints)
    neuron_nodes = on or [neuron_node("worker")]
    return explain_pod(pod("train", claims=["wanted"]), facts(*neuron_nodes, claims=[wanted, *claims], **more))


def lacks(found: Explanation, name: str = "worker") -> str:
    return "; ".join(next(verdict.lacks for verdict in found.nodes if verdict.node == name))


def test_a_pod_that_fits_is_told_where() -> None:
    found = waits(request(count=16))
    assert found.state == "fits"
    assert found.summary == "1 of 1 nodes could take the pod now (worker)"


def test_too_few_are_free_says_who_has_them_and_what_would_help() -> None:
    others = [held("a", "worker", *chips(0, 1, 2), pod="big"), held("b", "worker", *chips(3), pod="small")]
    found = waits(request(count=13), claims=others)
    assert lacks(found) == (
        "12 of 16 chips are free, 13 are asked for: 3 held by pod team/big, 1 held by pod team/small"
    )
    assert found.remedies == ("Node worker would do if pod team/small ended",)


def test_chips_that_are_cut_into_cores_are_told_with_their_holders() -> None:
    found = waits(request(count=16), claims=[held("c", "worker", "neuron-core-0", "neuron-core-5", pod="infer")])
    assert "14 of 16 chips are free" in lacks(found)
    assert "2 cut or covered by what pod team/infer holds" in lacks(found)
    assert found.remedies == ("Node worker would do if pod team/infer ended",)


def test_more_than_a_node_has_is_no_matter_of_waiting() -> None:
    found = waits(request(count=17))
    assert lacks(found) == "has 16 chips, and 17 are asked for"
    assert found.remedies == (
        "No node has that even when it is empty: ask for less or for something else, or change a NeuronNodePool",
    )


def test_a_fault_is_named_as_what_to_delete() -> None:
    broken = neuron_node("worker", faults=[fault("burnt", chip=3)])
    found = waits(request(count=16), on=[broken])
    assert "1 broken or closed (neuron-sim.dev/unhealthy=DeviceLost:NoSchedule)" in lacks(found)
    assert found.remedies == ("Node worker would do if NeuronFault burnt was deleted",)
    tolerant = request(count=16)
    tolerant["exactly"]["tolerations"] = [{"key": "neuron-sim.dev/unhealthy", "operator": "Exists"}]
    assert waits(tolerant, on=[broken]).state == "fits"


def test_all_devices_need_all_of_them() -> None:
    found = waits(request(count="All"), claims=[held("a", "worker", *chips(7), pod="one")])
    assert lacks(found) == "15 of 16 chips are free, all 16 are asked for: 1 held by pod team/one"
    assert waits(request(count="All")).state == "fits"


@pytest.mark.parametrize(
    ("attribute", "best"), [("neuron.aws.com/topology4_id", 3), ("resource.aws.com/devicegroup4_id", 3)]
)
def test_chips_that_do_not_go_together(attribute: str, best: int) -> None:
    rows = [held(f"r{row}", "worker", *chips(4 * row), pod=f"p{row}") for row in range(4)]
    same = [{"requests": ["neurons"], "matchAttribute": attribute}]
    found = waits(request(count=4), constraints=same, claims=rows)
    assert lacks(found) == (
        f"12 chips are free, but at most {best} of them have the same {attribute}, and 4 are asked for"
    )
    assert found.remedies[0].count("ended") == 1
    assert waits(request(count=3), constraints=same, claims=rows).state == "fits"
    assert waits(request(count=4), constraints=same, claims=rows[1:]).state == "fits"


def test_cores_of_one_chip_are_found_among_many() -> None:
    same = [{"matchAttribute": "neuron.aws.com/deviceId"}]
    cores = request(count=4, kind="neuroncore.neuron-sim.dev")
    assert waits(cores, constraints=same).state == "fits"
    taken = [held(f"c{chip}", "worker", f"neuron-core-{4 * chip}", pod=f"p{chip}") for chip in range(16)]
    assert "at most 3 of them have the same neuron.aws.com/deviceId" in lacks(
        waits(cores, constraints=same, claims=taken)
    )


def test_different_values_are_asked_for() -> None:
    different = [{"distinctAttribute": "neuron.aws.com/topology4_id"}]
    assert waits(request(count=4), constraints=different).state == "fits"
    assert "at most 4 of them have different values" in lacks(waits(request(count=5), constraints=different))


def test_the_first_alternative_that_fits_is_enough() -> None:
    either = {
        "name": "neurons",
        "firstAvailable": [
            {"name": "trn3", "deviceClassName": DRIVER, "count": 1, "selectors": [
                {"cel": {"expression": f"device.attributes['{DRIVER}'].instanceType.startsWith('trn3')"}}]},
            {"name": "trn2", "deviceClassName": DRIVER, "count": 2, "selectors": [
                {"cel": {"expression": f"device.attributes['{DRIVER}'].instanceType.startsWith('trn2')"}}]},
        ],
    }  # fmt: skip
    assert waits(either).state == "fits"
    full = held("all", "worker", *chips(*range(15)), pod="big")
    assert "1 of 16 chips is free, 2 are asked for" in lacks(waits(either, claims=[full]))


def test_a_class_that_does_not_exist_is_the_problem_and_no_node() -> None:
    found = waits(request(kind="neuron.aws.co"))
    assert found.state == "waiting"
    assert "asks for DeviceClass neuron.aws.co, which does not exist: there are neuron-device.neuron-sim.dev" in (
        found.summary
    )


def test_a_claim_holds_32_devices() -> None:
    found = waits(request(count=40, kind="neuroncore.neuron-sim.dev"))
    assert "asks for 40 devices, and a claim holds 32 at most" in found.summary


def test_a_selector_that_is_not_evaluated_is_shown_and_nothing_is_claimed() -> None:
    difficult = f"device.attributes['{DRIVER}'].deviceId in [1, 2].map(x, x * 2)"
    found = waits(request(cel=difficult))
    assert found.not_read == (difficult,)
    assert found.state == "fits"
    assert "if the selectors that were not evaluated choose their devices" in found.summary


def test_a_selector_that_chooses_nothing_is_a_lack() -> None:
    found = waits(request(cel=f"device.attributes['{DRIVER}'].instanceType == 'trn3.48xlarge'"))
    assert lacks(found) == (
        "has no device that DeviceClass neuron.aws.com and the selectors choose (instanceType == 'trn3.48xlarge' is"
        " wanted, and it is trn2.48xlarge): it is a trn2.48xlarge of NeuronNodePool default"
    )
    assert "is wanted, and it is trn2.48xlarge" in found.summary


def test_cores_where_the_pool_offers_none() -> None:
    found = waits(request(kind="neuroncore.neuron-sim.dev"), on=[neuron_node("worker", partitions="none")])
    assert "NeuronNodePool default has partitions none, and cores need logical or physical" in found.summary


def test_claims_find_nothing_on_the_other_road() -> None:
    found = waits(request(), on=[neuron_node("worker", resources="DevicePlugin")])
    assert lacks(found) == (
        "has no devices for claims (it serves device plugins; set resources to DRA in NeuronNodePool default for"
        " claims)"
    )


def test_an_agent_that_does_not_publish_is_the_cause() -> None:
    found = explain_pod(
        pod("train", claims=["wanted"]),
        Facts(
            nodes=[node("worker"), node("other")],
            neuron_nodes=[neuron_node("worker", ready="network is unreachable")],
            supplies={},
            known=Known(
                {each["metadata"]["name"]: each for each in classes()},
                {("team", "wanted"): claim("wanted", request())},
                {},
            ),
        ),
    )
    assert "its agent says Publishing: network is unreachable" in lacks(found)
    assert "it is in no NeuronNodePool" in lacks(found, "other")


def test_node_rules_come_with_the_devices_that_would_be_there() -> None:
    tainted = node("worker", taints=[{"key": "team", "value": "a", "effect": "NoSchedule"}])
    found = waits(request(), nodes=[tainted])
    assert lacks(found) == "has the taint team=a:NoSchedule, which the pod does not tolerate"
    assert found.remedies == (
        "Node worker has what is asked for, but has the taint team=a:NoSchedule, which the pod does not tolerate",
    )
    reserved = node("worker", taints=[{"key": "neuron-sim.dev/reserved", "value": "g-1", "effect": "NoSchedule"}])
    assert lacks(waits(request(), nodes=[reserved])) == "is reserved for gang g-1"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"nodeSelector": {"zone": "b"}}, "label zone is a, not b as in the pod's nodeSelector"),
        ({"nodeSelector": {"disk": "fast"}}, "has no label disk=fast as in the pod's nodeSelector"),
        (
            {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["a"]}]}]}}}},
            "is not selected by the pod's required node affinity",
        ),
    ],
)  # fmt: skip
def test_labels_that_do_not_match(spec: Object, said: str) -> None:
    wanted = claim("wanted", request())
    found = explain_pod(
        pod("train", claims=["wanted"], **spec),
        facts(neuron_node("worker"), claims=[wanted], nodes=[node("worker", labels={"zone": "a"})]),
    )
    assert lacks(found) == said


def test_plain_resources_are_served_by_dra_where_a_class_says_so() -> None:
    assert explain_pod(pod("p", neuron=16), facts(neuron_node("worker"))).state == "fits"
    found = explain_pod(pod("p", neuron=16), facts(neuron_node("worker"), classes=classes(plain=False)))
    assert lacks(found) == "has no aws.amazon.com/neuron, and no DeviceClass serves it"


def test_plain_resources_that_no_claim_can_hold_are_told_as_the_event_tells_them() -> None:
    found = explain_pod(pod("p", neuroncore=64), facts(neuron_node("worker")))
    assert found.summary.startswith("The pod asks for 64 aws.amazon.com/neuroncore, and DRA serves that by one claim")


def test_device_plugins_count() -> None:
    served = neuron_node("worker", resources="DevicePlugin")
    other = pod("other", neuron=10, nodeName="worker")
    found = explain_pod(pod("p", neuron=8), facts(served, nodes=[node("worker", neuron="16")], bound=[other]))
    assert lacks(found) == "6 of 16 aws.amazon.com/neuron are free, 8 are asked for: taken are 10 by pod team/other"
    assert explain_pod(pod("p", neuron=6), facts(served, nodes=[node("worker", neuron="16")], bound=[other])).state == (
        "fits"
    )
    # more than a claim holds is nothing special on this road
    cores = facts(served, nodes=[node("worker", neuroncore="64")])
    assert explain_pod(pod("p", neuroncore=64), cores).state == "fits"


def test_a_missing_claim_and_a_missing_template() -> None:
    found = explain_pod(pod("p", claims=["gone"], templates=["typo"]), facts(neuron_node("worker")))
    assert (
        "ResourceClaim gone does not exist in namespace team, and the scheduler waits for it in silence"
        in found.summary
    )
    assert "ResourceClaimTemplate typo does not exist in namespace team" in found.summary


def test_a_quota_that_keeps_the_claim_from_being_made() -> None:
    resource = f"{DRIVER}.deviceclass.resource.k8s.io/devices"
    quota = {"metadata": {"name": "few"}, "status": {"hard": {resource: "20"}, "used": {resource: "16"}}}
    made = template("t", request(count=8))
    found = explain_pod(pod("p", templates=["t"]), facts(neuron_node("worker"), templates=[made], quotas=[quota]))
    assert f"ResourceQuota few allows 20 of {resource}, 16 are used and the pod's claims need 8" in found.summary


def test_a_claim_that_others_share_ties_the_pod_to_its_node() -> None:
    shared = held("wanted", "worker", *chips(1), pod="first")
    found = explain_pod(
        pod("second", claims=["wanted"]), facts(neuron_node("worker"), neuron_node("other"), claims=[shared])
    )
    assert [verdict.node for verdict in found.nodes if verdict.fits] == ["worker"]
    assert lacks(found, "other") == "claim wanted has its devices elsewhere: worker/neuron-device-1"


def test_gates_are_told_and_gangs_lead_to_their_own_explanation() -> None:
    member = pod("m", claims=["wanted"], schedulingGates=[{"name": "neuron-sim.dev/gang"}])
    member["metadata"]["labels"] = {"neuron-sim.dev/gang": "ring"}
    world = facts(neuron_node("worker"), claims=[claim("wanted", request())])
    assert "neuron-sim explain gang/ring -n team" in explain_pod(member, world).summary
    foreign = pod("m", schedulingGates=[{"name": "example.com/wait"}])
    assert "held by scheduling gates, and whoever set them has to take them away: example.com/wait" in (
        explain_pod(foreign, world).summary
    )


def test_a_pod_that_runs_says_what_it_has() -> None:
    found = explain_pod(
        pod("p", claims=["mine"], nodeName="worker"),
        facts(neuron_node("worker"), claims=[held("mine", "worker", *chips(4, 5), pod="p")]),
    )
    assert found.state == "placed"
    assert found.summary == "The pod is on node worker; claim mine has neuron-device-4, neuron-device-5 of worker"


def test_a_pod_that_runs_says_what_its_extended_resources_became() -> None:
    running = pod("p", neuron=4, nodeName="worker")
    running["status"]["extendedResourceClaimStatus"] = {"resourceClaimName": "made"}
    found = explain_pod(
        running, facts(neuron_node("worker"), claims=[held("made", "worker", *chips(8, 9, 10, 12), pod="p")])
    )
    assert found.summary.endswith("claim made has neuron-device-8 to neuron-device-10, neuron-device-12 of worker")


def test_nodes_that_lack_the_same_are_one_group_and_the_nearest_way_out_comes_first() -> None:
    neuron_nodes = [neuron_node(f"n{number}") for number in range(5)]
    full = [held(f"h{number}", f"n{number}", *chips(*range(16)), pod=f"p{number}") for number in range(4)]
    nearly = held("h4", "n4", *chips(0), pod="p4")
    found = waits(request(count=16), on=neuron_nodes, claims=[*full, nearly])
    assert found.summary == (
        "None of 5 nodes can take the pod: 4 nodes: 0 of 16 chips are free, 16 are asked for; n4: 15 of 16 chips are"
        " free, 16 are asked for. Node n4 would do if pod team/p4 ended"
    )


def test_the_schedulers_own_words_are_there() -> None:
    waiting = pod("p", neuron=1)
    waiting["status"]["conditions"] = [
        {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available: 1 Insufficient cpu."}
    ]
    events = [{"type": "Warning", "reason": "FailedMount", "message": "no such secret"}]
    found = explain_pod(waiting, facts(neuron_node("worker"), events=events))
    assert found.said == ("scheduler: 0/1 nodes are available: 1 Insufficient cpu.", "FailedMount: no such secret")


def test_a_claim_by_itself() -> None:
    alone = claim("alone", request(count=2))
    assert "a claim gets its devices when a pod that names it is scheduled" in (
        explain_claim(alone, facts(neuron_node("worker"), claims=[alone])).summary
    )
    mine = held("mine", "worker", *chips(4), pod="p")
    assert explain_claim(mine, facts(neuron_node("worker"), claims=[mine])).summary == (
        "The claim has neuron-device-4 of worker; pods that use it: p"
    )


def test_a_claim_for_an_ultraserver_is_judged_on_the_nodes_that_can_reach_it() -> None:
    driver = "ultraserver.neuron-sim.dev"

    def ultraserver(name: str, **more: Any) -> Object:
        term = {"matchExpressions": [{"key": "neuron-sim.dev/ultraserver-id", "operator": "In", "values": [name]}]}
        return {
            "metadata": {"name": name},
            "spec": {
                "driver": driver,
                "nodeSelector": {"nodeSelectorTerms": [term]},
                "pool": {"name": name, "generation": 1, "resourceSliceCount": 1},
                "devices": [{"name": "ultraserver", "attributes": {}, **more}],
            },
        }

    nodes = [node(f"{us}-{number}", labels={"neuron-sim.dev/ultraserver-id": us}) for us in "ab" for number in (0, 1)]
    broken = {"key": "neuron-sim.dev/unhealthy", "value": "Degraded", "effect": "NoSchedule"}
    published = [ultraserver("a"), ultraserver("b", taints=[broken])]
    device_class = {
        "metadata": {"name": driver},
        "spec": {"selectors": [{"cel": {"expression": f'device.driver == "{driver}"'}}]},
    }

    def explained(*others: Object) -> Explanation:
        wanted = claim("domain", request(kind=driver))
        found = Facts(
            nodes=nodes,
            neuron_nodes=[neuron_node(each["metadata"]["name"]) for each in nodes],
            supplies=supplies(published, [wanted, *others], nodes=nodes),
            known=Known(classes={driver: device_class}, claims={("team", "domain"): wanted}, templates={}),
        )
        return explain_pod(pod("train", claims=["domain"]), found)

    assert explained().summary == "2 of 4 nodes could take the pod now (a-0, a-1)"
    taken = held("theirs", "a", "ultraserver", pod="other")
    taken["status"]["allocation"]["devices"]["results"][0]["driver"] = driver
    found = explained(taken)
    assert "0 of 1 UltraServers are free, 1 is asked for: 1 held by pod team/other" in lacks(found, "a-0")
    assert "1 broken or closed (neuron-sim.dev/unhealthy=Degraded:NoSchedule)" in lacks(found, "b-1")


def bound_by(name: str, condition: str, *, devices=()) -> Object:
    """A claim of pod `train` that has a device with a binding condition."""
    found = held(name, "worker", *chips(0), pod="train")
    found["status"]["allocation"]["devices"]["results"][0]["bindingConditions"] = [condition]
    found["status"]["devices"] = list(devices)
    return found


def test_a_pod_at_the_barrier_of_its_gang_says_that_it_has_its_devices() -> None:
    waiting = bound_by("own", "neuron-sim.dev/gang-complete")
    labelled = pod("train", claims=["own"])
    labelled["metadata"]["labels"] = {"neuron-sim.dev/gang": "ring"}
    found = explain_pod(labelled, facts(neuron_node("worker"), claims=[waiting]))
    assert found.state == "waiting"
    assert "waits at the barrier of its gang ring" in found.summary


def test_conditions_of_other_drivers_for_which_the_scheduler_waits_are_named() -> None:
    train, known = pod("train", claims=["own"]), neuron_node("worker")
    waiting = bound_by("own", "example.com/attached")
    found = explain_pod(train, facts(known, claims=[waiting]))
    assert found.summary.endswith("before it binds the pod: example.com/attached in claim own")
    met = [{"type": "example.com/attached", "status": "True"}]
    device = {"driver": DRIVER, "pool": "worker", "device": "neuron-device-0", "conditions": met}
    done = explain_pod(train, facts(known, claims=[bound_by("own", "example.com/attached", devices=[device])]))
    assert "waits for conditions" not in done.summary
