"""Where a manifest would land."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from fleet_objects import (
    DRIVER,
    chips,
    classes,
    gang_pod,
    held,
    neuron_node,
    node,
    pod,
    request,
    slices,
    template,
    ultraserver,
)
from neuron_cli import gang_view, reading, step_times, what_if
from neuron_operator.explaining.explanation import Facts
from neuron_operator.explaining.supply import supplies

Object = dict[str, Any]


def ask(items: list[Object], neuron_nodes: list[Object], claims: list[Object] = [], **more: Any):  # noqa: B006
    wanted = what_if.manifest(items, namespace="team")
    nodes = more.get("nodes") or [node(each["metadata"]["name"]) for each in neuron_nodes]
    published = [page for each in neuron_nodes if each["spec"]["resources"] == "DRA" for page in slices(each)]
    facts = Facts(
        nodes=nodes,
        neuron_nodes=neuron_nodes,
        supplies=supplies(published, claims),
        known=reading.known(classes(), [*claims, *wanted.claims], list(wanted.templates)),
    )
    gangs = gang_view.gangs(
        driver_name=DRIVER,
        members=[],
        records=[],
        nodes=nodes,
        neuron_nodes=neuron_nodes,
        claims=claims,
        templates=[],
        bound=[],
    )
    gang_view.know(gangs, claims=wanted.claims, templates=wanted.templates)
    running = step_times.running(more.get("running", ()), facts.supplies, gangs.fleet, driver=DRIVER)
    found = what_if.answers(wanted, facts, gangs, more.get("told", what_if.NOTHING_TOLD), running)
    assert json.dumps(what_if.document([], wanted, found)), "the form for programs can be written"
    return found


def controller(kind: str, made: Object, **spec: Any) -> Object:
    template = {"metadata": {key: made["metadata"].get(key) for key in ("labels", "annotations")}, "spec": made["spec"]}
    return {"kind": kind, "metadata": {"name": "train"}, "spec": {"template": template, **spec}}


def test_a_pod_is_told_the_nodes_that_could_take_it() -> None:
    full = held("f", "b", *chips(*range(16)), pod="big")
    (found,) = ask([pod("p", neuron=4)], [neuron_node("a"), neuron_node("b")], [full])
    assert (found.lands, dict(found.nodes)) == (1, {"a": 1})
    assert found.summary == "The pod would find a node now; 1 of 2 nodes could take it: a"


def test_replicas_fill_nodes_and_the_rest_is_told() -> None:
    deployment = controller("Deployment", pod("p", templates=["four"]), replicas=10)
    made = {**template("four", request(count=4)), "kind": "ResourceClaimTemplate"}
    (found,) = ask([made, deployment], [neuron_node("a"), neuron_node("b")])
    assert (found.pods, found.lands, dict(found.nodes)) == (10, 8, {"a": 4, "b": 4})
    assert found.summary.startswith("8 of 10 pods would find a node now: a (4), b (4)")


def test_what_comes_later_in_the_file_sees_what_came_before() -> None:
    first, second = ask([pod("one", neuron=12), pod("two", neuron=8)], [neuron_node("a")])
    assert (first.lands, second.lands) == (1, 0)


def test_a_pod_that_lands_nowhere_is_told_why() -> None:
    (found,) = ask([pod("p", neuron=17)], [neuron_node("a")])
    assert found.lands == 0
    assert "has 16 chips, and 17 are asked for" in found.summary


def test_pods_that_share_a_claim_share_a_node() -> None:
    shared = {"kind": "ResourceClaim", "metadata": {"name": "shared"}, "spec": {"devices": {"requests": [request()]}}}
    job = controller("Job", pod("p", claims=["shared"]), parallelism=3)
    (found,) = ask([shared, job], [neuron_node("a"), neuron_node("b")])
    assert (found.lands, dict(found.nodes)) == (3, {"a": 3})


def test_a_claim_that_two_pods_name_is_given_once() -> None:
    whole = {"kind": "ResourceClaim", "metadata": {"name": "whole"}, "spec": {
        "devices": {"requests": [request(count=16)]}}}  # fmt: skip
    two = [pod(name, claims=["whole"]) for name in ("one", "two")]
    first, second = ask([whole, *two], [neuron_node("a"), neuron_node("b")])
    assert (dict(first.nodes), dict(second.nodes)) == ({"a": 1, "b": 1}, {"a": 1})


def test_device_plugins_have_room_by_numbers() -> None:
    deployment = controller("Deployment", pod("p", neuron=6), replicas=5)
    nodes = [node("a", neuron="16")]
    (found,) = ask([deployment], [neuron_node("a", resources="DevicePlugin")], nodes=nodes)
    assert (found.lands, dict(found.nodes)) == (2, {"a": 2})


def test_a_gang_lands_as_a_whole_in_one_ultraserver() -> None:
    stateful = controller("StatefulSet", gang_pod("p", neuron=16), replicas=4)
    taken = held("c", "u0n1", *chips(3), pod="small")
    (found,) = ask([stateful], [*ultraserver(0), *ultraserver(1)], [taken])
    assert (found.gang, found.lands, found.domain) == ("ring", 4, "abcdefgh01234561")
    assert sorted(found.nodes) == ["u1n0", "u1n1", "u1n2", "u1n3"]
    assert found.ring_us is not None


def test_limits_alone_are_requests_as_the_api_server_makes_them() -> None:
    made = gang_pod("p", neuron=16)
    del made["spec"]["containers"][0]["resources"]["requests"]
    taken = held("c", "u0n1", *chips(3), pod="small")
    (found,) = ask([controller("Job", made, parallelism=4)], ultraserver(0), [taken])
    assert found.lands == 0


def test_two_gangs_do_not_get_the_same_ultraserver() -> None:
    both = [controller("Job", gang_pod("p", gang, neuron=16), parallelism=4) for gang in ("a", "b")]
    first, second = ask(both, ultraserver(0))
    assert (first.lands, second.lands) == (4, 0)
    assert second.summary


def test_a_pod_sees_the_gang_before_it() -> None:
    gang = controller("Job", gang_pod("p", neuron=16), parallelism=4)
    first, second = ask([gang, pod("small", neuron=1)], ultraserver(0))
    assert (first.lands, second.lands) == (4, 0)
    assert "0 of 16 chips are free, 1 is asked for" in second.summary


def test_a_gang_sees_the_pod_before_it() -> None:
    gang = controller("Job", gang_pod("p", neuron=16), parallelism=4)
    first, second = ask([pod("small", neuron=1), gang], ultraserver(0))
    assert (first.lands, second.lands) == (1, 0)
    assert "pod team/small (of the manifest)" in second.summary


def test_a_gang_sees_device_plugins_pods_before_it() -> None:
    nodes = [node(f"u0n{number}", neuron="16") for number in range(4)]
    gang = controller("Job", gang_pod("p", neuron=16), parallelism=4)
    first, second = ask([pod("small", neuron=1), gang], ultraserver(0, resources="DevicePlugin"), nodes=nodes)
    assert (first.lands, second.lands) == (1, 0)


def test_a_gang_whose_claims_want_other_devices_than_there_are_does_not_land() -> None:
    """Placement counts chips; which ones a claim's selectors choose is the scheduler's business."""
    picky = {**template("four", request(count=4, cel='device.attributes["neuron.aws.com"].deviceId < 3'))}
    gang = controller("Job", gang_pod("p", templates=["four"]), parallelism=4)
    (found,) = ask([{**picky, "kind": "ResourceClaimTemplate"}, gang], ultraserver(0))
    assert found.lands == 0
    assert "the scheduler would not find devices there: " in found.summary
    assert "takes 0 of" in found.summary


def test_a_gang_of_fewer_pods_than_its_size_says_so() -> None:
    (found,) = ask([controller("Job", gang_pod("p", neuron=16), parallelism=3)], ultraserver(0))
    assert "The file makes 3 of them: the gang waits until all 4 exist" in found.summary


@pytest.mark.parametrize(
    ("item", "counts"),
    [
        (controller("Job", pod("p"), parallelism=4, completions=2), [2]),
        (controller("StatefulSet", pod("p")), [1]),
        ({"kind": "JobSet", "metadata": {"name": "j"}, "spec": {"replicatedJobs": [
            {"name": "w", "replicas": 2, "template": {"spec": {"parallelism": 4, "template": {"spec": {}}}}}]}}, [8]),
        ({"kind": "LeaderWorkerSet", "metadata": {"name": "l"}, "spec": {"replicas": 2, "leaderWorkerTemplate": {
            "size": 4, "leaderTemplate": {"spec": {}}, "workerTemplate": {"spec": {}}}}}, [2, 6]),
    ],
)  # fmt: skip
def test_how_many_pods_a_controller_makes(item: Object, counts: list[int]) -> None:
    assert [each.count for each in what_if.manifest([item], namespace="team").workloads] == counts


def test_what_makes_no_pods_is_named(tmp_path: Path) -> None:
    file = tmp_path / "all.yaml"
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}}
    file.write_text(yaml.safe_dump_all([{"kind": "List", "metadata": {}, "items": [pod("p"), service]}]))
    found = what_if.manifest(what_if.read(str(file)), namespace="other")
    assert found.ignored == ("Service",)
    assert [(each.name, each.namespace) for each in found.workloads] == [("Pod p", "team")]


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "is empty"), ("a: [", "is no YAML"), ("just text", "no Kubernetes object"), ("a: 1", "no Kubernetes object")],
)
def test_a_file_that_is_no_manifest(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(what_if.BadManifest, match=said):
        what_if.read(str(file))


def test_a_folder_is_all_of_its_manifests(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(pod(name)))
    (tmp_path / "kustomization.yaml").write_text("resources: [a.yaml, b.yaml]")
    (tmp_path / "README.md").write_text("no manifest")
    assert [item["metadata"]["name"] for item in what_if.read(str(tmp_path))] == ["a", "b"]


def test_a_folder_without_manifests(tmp_path: Path) -> None:
    with pytest.raises(what_if.BadManifest, match=r"has no \.yaml"):
        what_if.read(str(tmp_path))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(what_if.BadManifest, match="cannot be read: No such file"):
        what_if.read(str(tmp_path / "gone.yaml"))


TOLD = what_if.Told("tp=16", "layers=8,hidden=1024,sequence=512,batch=8")
MODEL = "layers=32,hidden=4096,sequence=2048,batch=64"
TRAINING = {"neuron-sim.dev/layout": "tp=16,dp=4,pp=4", "neuron-sim.dev/model": MODEL}


def training(level: str = "", **annotations: str) -> Object:
    made = gang_pod("p", level=level, neuron=16)
    made["metadata"]["annotations"] |= annotations
    return controller("Job", made, parallelism=4)


def test_a_gang_that_says_its_layout_is_told_its_step_there_and_at_best() -> None:
    nodes = [*ultraserver(0), *ultraserver(1)]
    (alone,) = ask([training(**TRAINING)], nodes)
    assert alone.step is not None
    assert alone.step.seconds == alone.step.best_seconds
    assert "which is the least possible" in str(alone.step)


def test_a_gang_over_two_ultraservers_is_told_what_one_would_be_worth() -> None:
    nodes = [*ultraserver(0), *ultraserver(1)]
    used = [held(f"h-{each}", nodes[each]["metadata"]["name"], *chips(*range(16)), pod=f"b-{each}") for each in (0, 4)]
    (found,) = ask([training("network-1", **TRAINING)], nodes, used)
    assert found.step is not None
    assert found.step.seconds > found.step.best_seconds
    assert "at best, in ultraserver " in str(found.step)


def test_the_command_line_says_the_layout_instead() -> None:
    (found,) = ask([training()], ultraserver(0), told=what_if.Told("tp=32,dp=8", MODEL))
    assert found.step is not None
    assert found.step.pipeline == 0
    (nobody,) = ask([training()], ultraserver(0))
    assert nobody.step is None


@pytest.mark.parametrize(
    ("layout", "model", "why"),
    [
        ("tp=16", MODEL, "needs 16 ranks: there are 256"),
        ("tp=16,dp=16", None, "add the annotation neuron-sim.dev/model"),
        ("tp=16,dp=16", "layers=1", "lacks hidden, sequence, batch"),
    ],
)
def test_a_step_that_cannot_be_told_is_said_so(layout: str, model: str | None, why: str) -> None:
    (found,) = ask([training()], ultraserver(0), told=what_if.Told(layout, model))
    assert (found.lands, found.step) == (4, None)
    assert "A step's time cannot be told: " in found.summary
    assert why in found.summary


def test_a_pod_is_told_its_step_on_the_first_node_that_could_take_it() -> None:
    (whole,) = ask([pod("p", neuron=4)], [neuron_node("a")], told=TOLD)
    assert whole.step is not None
    assert whole.step.seconds == whole.step.best_seconds
    taken = held("f", "a", *chips(*(chip for chip in range(16) if chip not in (0, 2, 8, 10))), pod="big")
    (scattered,) = ask([pod("p", neuron=4)], [neuron_node("a")], [taken], told=TOLD)
    assert scattered.step is not None
    assert scattered.step.seconds > scattered.step.best_seconds == whole.step.seconds
    assert "at best, in node a" in str(scattered.step)


def says_what_it_is(made: Object) -> Object:
    made["metadata"]["annotations"] = {"neuron-sim.dev/layout": TOLD.layout, "neuron-sim.dev/model": TOLD.model}
    return made


@pytest.mark.parametrize(
    ("running", "name"),
    [
        ({"other": (1, 3, 9, 11)}, "pod team/other"),
        ({"other-1": (9, 11), "other-0": (1, 3)}, "gang team/ring"),
    ],
)
def test_jobs_on_the_same_links_slow_a_step_and_are_named(running: dict[str, tuple[int, ...]], name: str) -> None:
    """The chips of both lie in turn along rows of the torus: each one's messages pass the other's chips."""
    made = gang_pod if len(running) > 1 else pod
    jobs = [says_what_it_is(made(each)) for each in running]
    taken = [held(each, "a", *chips(*numbers), pod=each) for each, numbers in running.items()]
    taken.append(held("big", "a", *chips(4, 5, 6, 7, 12, 13, 14, 15), pod="big"))
    wanted = pod("p", neuron=4)
    strange = [says_what_it_is(pod("big")), says_what_it_is(pod("waits")), pod("says-nothing")]
    (alone,) = ask([wanted], [neuron_node("a")], taken, told=TOLD, running=strange)
    (beside,) = ask([wanted], [neuron_node("a")], taken, told=TOLD, running=[*strange, *jobs])
    assert alone.step is not None
    assert beside.step is not None
    assert alone.step.beside == ()
    assert beside.step.beside == (name,)
    assert beside.step.alone_seconds == alone.step.seconds < beside.step.seconds
    assert f"of it for links shared with {name}" in str(beside.step)


def test_pods_that_may_land_anywhere_are_told_no_step() -> None:
    (found,) = ask([controller("Deployment", pod("p", neuron=4), replicas=2)], [neuron_node("a")], told=TOLD)
    assert (found.lands, found.step) == (2, None)
    assert "2 pods that are no gang may land anywhere: make them one" in found.summary
    plugin = neuron_node("a", resources="DevicePlugin")
    (counted,) = ask([pod("p", neuron=4)], [plugin], nodes=[node("a", neuron="16")], told=TOLD)
    (none,) = ask([pod("p")], [], nodes=[node("b")], told=TOLD)
    assert all("the pod would get no chips by claims" in each.summary for each in (counted, none))
    (cores,) = ask([pod("p", neuroncore=4)], [neuron_node("a")], told=TOLD)
    assert "it is told for whole chips and nodes" in cores.summary
