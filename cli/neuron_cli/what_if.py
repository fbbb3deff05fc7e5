"""``neuron-sim what-if``: where a manifest would land, without applying it.

Gangs go through the operator's own placement; for other pods the nodes are told that could take them now. Each
workload sees what those before it in the file took, gangs and other pods alike: what a gang's pods take of their nodes
is counted by devices, as for all pods, and devices are chips to the placement of the next gang. Nothing is written;
the API server is asked by dry runs whether it would accept the objects.
"""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from neuron_device_model.catalog import UnknownInstanceType
from neuron_device_model.collectives.errors import UnsupportedCollective
from neuron_device_model.collectives.model import Traffic
from neuron_device_model.steps.errors import WrongStep
from neuron_operator.conditions import listing
from neuron_operator.explaining.explanation import Explanation, Facts
from neuron_operator.explaining.landing import Landing, land
from neuron_operator.gangs.names import LABEL_GANG
from neuron_operator.gangs.pods import TOLERATION
from neuron_operator.placement import Placement, Refusal, place
from rich.console import Console
from rich.text import Text

from neuron_cli import gang_view, reading, step_times
from neuron_cli.cluster import Cluster, ClusterError, Refused
from neuron_cli.facts import RESOURCE_API
from neuron_cli.gang_view import Gangs

Object = dict[str, Any]

# What the API server is asked about, by kind.
PATHS = {
    "Pod": "/api/v1/namespaces/{}/pods",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "ReplicaSet": "/apis/apps/v1/namespaces/{}/replicasets",
    "StatefulSet": "/apis/apps/v1/namespaces/{}/statefulsets",
    "Job": "/apis/batch/v1/namespaces/{}/jobs",
    "JobSet": "/apis/jobset.x-k8s.io/v1alpha2/namespaces/{}/jobsets",
    "LeaderWorkerSet": "/apis/leaderworkerset.x-k8s.io/v1/namespaces/{}/leaderworkersets",
    "ResourceClaim": f"{RESOURCE_API}/namespaces/{{}}/resourceclaims",
    "ResourceClaimTemplate": f"{RESOURCE_API}/namespaces/{{}}/resourceclaimtemplates",
}
_SUFFIXES = (".yaml", ".yml", ".json")
# what kubectl's kustomize reads, and nothing to apply
_RECIPE = "kustomization"
_LOOKED_UP = ("DeviceClass", "ResourceClaim", "ResourceClaimTemplate")
_ABSENT, _EXISTS = 404, 409


@dataclass(frozen=True, slots=True)
class Workload:
    """Pods of a manifest that are alike."""

    name: str
    """As in `Job train`."""
    namespace: str
    pod: Object
    count: int

    @property
    def gang(self) -> str:
        """The gang that its pods are in; empty if they are in none."""
        return str((self.pod["metadata"].get("labels") or {}).get(LABEL_GANG) or "")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a file has."""

    workloads: tuple[Workload, ...]
    claims: tuple[Object, ...]
    templates: tuple[Object, ...]
    classes: tuple[Object, ...]
    objects: tuple[Object, ...]
    """Those that the API server is asked about."""
    ignored: tuple[str, ...]
    """Kinds that say nothing about where pods land."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Where a workload would land."""

    workload: str
    gang: str | None = None
    pods: int
    lands: int
    """How many of its pods would find a node now; of a gang all or none."""
    nodes: Mapping[str, int] = field(default_factory=dict)
    """A gang: its nodes and how many pods each gets. Else: nodes that could take some, and how many."""
    domain: str | None = None
    ring_us: float | None = None
    """Of a gang: microseconds of 1 MiB from pod to pod and back to the first, by the model of collectives."""
    step: step_times.StepTime | None = None
    """What a step of its training takes there, if it says its layout and its model."""
    summary: str
    why: Explanation | None = None


class BadManifest(ValueError):
    """The file is no manifest; the message says what is wrong."""


def read(source: str) -> list[Object]:
    """The objects of a file, of all manifests in a folder, or of standard input for `-`."""
    if source != "-" and Path(source).is_dir():
        files = sorted(path for path in Path(source).iterdir() if path.suffix in _SUFFIXES and path.stem != _RECIPE)
        if not files:
            raise BadManifest(f"the folder {source} has no {', '.join(_SUFFIXES)}")
        return [item for path in files for item in read(str(path))]
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
        documents = [each for each in yaml.safe_load_all(text) if each]
    except OSError as error:
        raise BadManifest(f"{source} cannot be read: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise BadManifest(f"{source} is no YAML: {' '.join(str(error).split())}") from None
    found = [item for each in documents for item in (each.get("items", [each]) if isinstance(each, dict) else [each])]
    if not all(isinstance(each, dict) and "kind" in each and "metadata" in each for each in found):
        raise BadManifest(f"{source} has something that is no Kubernetes object: each needs kind and metadata")
    if not found:
        raise BadManifest(f"{source} is empty")
    return found


def manifest(items: Sequence[Object], *, namespace: str) -> Manifest:
    """Sort the objects of a file; those without a namespace are of the given one."""
    placed = [{**item, "metadata": {"namespace": namespace, **item["metadata"]}} for item in items]
    workloads: list[Workload] = []
    ignored: list[str] = []
    for item in placed:
        found = list(pods_of(item))
        workloads += found
        if not found and item["kind"] not in _LOOKED_UP:
            ignored.append(item["kind"])
    return Manifest(
        workloads=tuple(workloads),
        claims=tuple(each for each in placed if each["kind"] == "ResourceClaim"),
        templates=tuple(each for each in placed if each["kind"] == "ResourceClaimTemplate"),
        classes=tuple(each for each in placed if each["kind"] == "DeviceClass"),
        objects=tuple(each for each in placed if each["kind"] in PATHS),
        ignored=tuple(dict.fromkeys(ignored)),
    )


def pods_of(item: Object) -> Iterator[Workload]:
    """The pods that an object makes."""
    kind, spec = item["kind"], item.get("spec") or {}
    name = f"{kind} {item['metadata'].get('name') or item['metadata'].get('generateName')}"
    match kind:
        case "Pod":
            yield _of(item, name, item, 1)
        case "Deployment" | "ReplicaSet" | "StatefulSet":
            yield _of(item, name, spec.get("template"), _number(spec.get("replicas"), 1))
        case "Job":
            yield _of(item, name, spec.get("template"), _parallel(spec))
        case "CronJob":
            job = (spec.get("jobTemplate") or {}).get("spec") or {}
            yield _of(item, name, job.get("template"), _parallel(job))
        case "JobSet":
            for group in spec.get("replicatedJobs") or ():
                job = (group.get("template") or {}).get("spec") or {}
                count = _number(group.get("replicas"), 1) * _parallel(job)
                yield _of(item, f"{name}, job {group.get('name')}", job.get("template"), count)
        case "LeaderWorkerSet":
            groups, made = _number(spec.get("replicas"), 1), spec.get("leaderWorkerTemplate") or {}
            workers = _number(made.get("size"), 1) - ("leaderTemplate" in made)
            if "leaderTemplate" in made:
                yield _of(item, f"{name}, leaders", made["leaderTemplate"], groups)
            yield _of(item, f"{name}, workers", made.get("workerTemplate"), groups * workers)


def _of(item: Object, name: str, template: Object | None, count: int) -> Workload:
    metadata, made = item["metadata"], template or {}
    pod = {
        "metadata": {
            "name": metadata.get("name") or metadata.get("generateName") or "pod",
            "namespace": metadata["namespace"],
            "labels": (made.get("metadata") or {}).get("labels") or {},
            "annotations": (made.get("metadata") or {}).get("annotations") or {},
        },
        "spec": _spec(made.get("spec") or {}),
        "status": {},
    }
    return Workload(name, metadata["namespace"], pod, count)


def _spec(written: Object) -> Object:
    """A pod's spec as the API server completes it, without gates: what counts is where it lands when they open."""
    spec = {key: value for key, value in written.items() if key != "schedulingGates"}
    for kind in ("containers", "initContainers"):
        if kind in spec:
            spec[kind] = [{**container, "resources": _resources(container)} for container in spec[kind] or ()]
    return spec


def _resources(container: Object) -> Object:
    """A limit without a request is a request, too."""
    resources = container.get("resources") or {}
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    return {**resources, "requests": {**limits, **requests}}


def _number(found: Any, otherwise: int) -> int:
    return found if isinstance(found, int) else otherwise


def _parallel(job: Object) -> int:
    parallelism = _number(job.get("parallelism"), 1)
    return min(parallelism, _number(job.get("completions"), parallelism))


@dataclass(frozen=True, slots=True)
class Told:
    """What the command line says of gangs, instead of their annotations."""

    layout: str | None = None
    model: str | None = None


NOTHING_TOLD = Told()

Step: TypeAlias = step_times.StepTime | str | None
"""What a step takes, the words why that cannot be told, or nothing where nobody asks."""


class Steps:
    """What steps of workloads take, each beside the jobs that run and those that come before it in the file."""

    def __init__(self, told: Told, running: Iterable[step_times.Job]) -> None:
        self._told = told
        self._jobs = list(running)

    def step(
        self,
        workload: Workload,
        find: Callable[[step_times.Training, Sequence[step_times.Job]], tuple[step_times.StepTime, Traffic]],
    ) -> Step:
        """What a step takes, or why that cannot be told; None where nobody asks."""
        try:
            wanted = step_times.training(workload.pod, layout=self._told.layout, model=self._told.model)
            if wanted is None:
                return None
            found, traffic = find(wanted, self._jobs)
        except (WrongStep, UnsupportedCollective, UnknownInstanceType) as error:
            return f". A step's time cannot be told: {error}"
        name = f"gang {workload.namespace}/{workload.gang}" if workload.gang else workload.name
        self._jobs.append(step_times.Job(name, traffic))
        return found


def answers(
    wanted: Manifest,
    facts: Facts,
    gangs: Gangs,
    told: Told = NOTHING_TOLD,
    running: Iterable[step_times.Job] = (),
) -> list[Answer]:
    """Where each workload would land, in the order of the file; `running` are the jobs of the cluster."""
    steps = Steps(told, running)
    found: list[Answer] = []
    placed: set[tuple[str, str]] = set()
    for workload in wanted.workloads:
        key = (workload.namespace, workload.gang)
        if workload.gang and key in placed:  # its pods may come from several objects
            continue
        placed.add(key)
        if workload.gang:
            answer, after = _gang(workload, wanted, facts, gangs, steps)
        else:
            answer, after = _pods(workload, facts, gangs, steps)
        found.append(answer)
        gangs = gang_view.with_taken(gangs, facts, after)
        facts = after
    return found


def _gang(workload: Workload, wanted: Manifest, facts: Facts, gangs: Gangs, steps: Steps) -> tuple[Answer, Facts]:
    made = [each for each in wanted.workloads if (each.namespace, each.gang) == (workload.namespace, workload.gang)]
    asked = gang_view.wish(gangs, gang_view.as_member(workload.pod, f"{workload.pod['metadata']['name']}-0"))
    name = ", ".join(each.name for each in made)
    count = sum(each.count for each in made)
    if isinstance(asked, str):
        return Answer(workload=name, gang=workload.gang, pods=count, lands=0, summary=asked), facts
    result = place(gangs.fleet, asked)
    if isinstance(result, Refusal):
        text = " ".join(result.reasons)
        return Answer(workload=name, gang=workload.gang, pods=asked.size, lands=0, summary=text), facts
    after, short = _settled(made, result, facts)
    nodes = dict(Counter(result.nodes))
    where = listing([f"{node} ({each})" if asked.size > len(nodes) else node for node, each in nodes.items()])
    if short:
        text = f"Its places would be on {where}, but the scheduler would not find devices there: {'; '.join(short)}"
        return Answer(workload=name, gang=workload.gang, pods=asked.size, lands=0, summary=text), facts
    text = f"All {asked.size} pods land together, on {where}"
    if asked.level not in ("node", "row"):
        text += f", in {asked.level} {result.domain}"
    if count < asked.size:
        text += f". The file makes {count} of them: the gang waits until all {asked.size} exist"
    elif count > asked.size:
        text += f". The file makes {count}: those beyond the gang's size get no place"
    step = steps.step(workload, lambda wanted, jobs: step_times.step_time(gangs.fleet, asked, result, wanted, jobs))
    answer = Answer(
        workload=name,
        gang=workload.gang,
        pods=asked.size,
        lands=asked.size,
        nodes=nodes,
        domain=result.domain,
        ring_us=result.cost / 1000,
        step=step if isinstance(step, step_times.StepTime) else None,
        summary=text + step if isinstance(step, str) else text,
    )
    return answer, after


def _settled(made: Sequence[Workload], placement: Placement, facts: Facts) -> tuple[Facts, list[str]]:
    """The cluster with a gang's pods on their nodes, and which nodes lack devices for them all the same."""
    pods = [index for index, workload in enumerate(made) for _ in range(workload.count)]
    pods += [0] * (len(placement.nodes) - len(pods))  # not in the file: like the first
    short = []
    for (node, index), count in Counter(zip(placement.nodes, pods, strict=False)).items():
        pod = made[index].pod
        let_go = {**pod, "spec": {**pod["spec"], "tolerations": [*(pod["spec"].get("tolerations") or ()), TOLERATION]}}
        here = [each for each in facts.nodes if each["metadata"]["name"] == node]
        landing, after = land(let_go, count, replace(facts, nodes=here))
        if landing.room < count:
            short.append(f"{node} takes {landing.room} of {count}: {landing.why.summary}")
        facts = replace(after, nodes=facts.nodes)
    return facts, short


def _pods(workload: Workload, facts: Facts, gangs: Gangs, steps: Steps) -> tuple[Answer, Facts]:
    landing, after = land(workload.pod, workload.count, facts)
    pods, some = ("The pod", "it") if workload.count == 1 else (f"All {workload.count} pods", "some of them")
    where = listing([f"{node} ({count})" if workload.count > 1 else node for node, count in landing.nodes.items()])
    if not landing.wanted:
        text = "It makes no pods"
    elif landing.room == landing.wanted:
        nodes = f"{len(landing.nodes)} of {len(facts.nodes)} nodes could take {some}"
        text = f"{pods} would find a node now; {nodes}: {where}"
    elif landing.room:
        text = f"{landing.room} of {workload.count} pods would find a node now: {where}. For the rest: no node is left"
    else:
        text = landing.why.summary
    if landing.room and landing.why.not_read:
        text += ". Selectors that were not evaluated could rule nodes out"
    step: Step = None
    if landing.room and landing.room == landing.wanted:
        step = steps.step(
            workload,
            lambda wanted, jobs: _step_of_pod(workload, landing, (facts, after), gangs, wanted, jobs),
        )
    return (
        Answer(
            workload=workload.name,
            pods=workload.count,
            lands=landing.room,
            nodes=landing.nodes,
            step=step if isinstance(step, step_times.StepTime) else None,
            summary=text + step if isinstance(step, str) else text,
            why=None if landing.room == landing.wanted else landing.why,
        ),
        after,
    )


def _step_of_pod(
    workload: Workload,
    landing: Landing,
    facts: tuple[Facts, Facts],
    gangs: Gangs,
    wanted: step_times.Training,
    jobs: Sequence[step_times.Job],
) -> tuple[step_times.StepTime, Traffic]:
    """On the first of the nodes, with the devices that a scheduler would give it there. Raises WrongStep."""
    if workload.count != 1:
        raise WrongStep(f"{workload.count} pods that are no gang may land anywhere: make them one")
    (node,) = landing.chosen
    before, after = (each.supplies[node].holders if node in each.supplies else () for each in facts)
    given = [device for holder in after[len(before) :] for device in holder.devices]
    devices = [device for driver, _, device in given if driver == gangs.state.driver_name]
    return step_times.step_of_pod(gangs.fleet, workload.name, node, devices, wanted, jobs)


def ask(
    cluster: Cluster, items: Sequence[Object], *, namespace: str | None, told: Told
) -> tuple[list[str], Manifest, list[Answer]]:
    """What the API server refuses, what the file has, and where it would land."""
    wanted = manifest(items, namespace=namespace or cluster.namespace)
    spaces = list(dict.fromkeys(workload.namespace for workload in wanted.workloads))
    if len(spaces) > 1:
        raise ClusterError(
            f"the file has workloads of several namespaces ({', '.join(spaces)}): ask for each by itself"
        )
    space = spaces[0] if spaces else cluster.namespace
    refused = list(_refused(cluster, wanted.objects))
    facts = reading.facts(cluster, space, pods=True)
    facts = replace(facts, known=_with(facts.known, wanted))
    gangs = reading.gangs(cluster, space)
    gang_view.know(gangs, claims=wanted.claims, templates=wanted.templates)
    running = _running(cluster, facts, gangs) if _asks_steps(wanted, told) else ()
    return refused, wanted, answers(wanted, facts, gangs, told, running)


def _asks_steps(wanted: Manifest, told: Told) -> bool:
    annotated = (each.pod["metadata"]["annotations"] for each in wanted.workloads)
    return bool(told.layout or told.model) or any(step_times.ANNOTATION_LAYOUT in found for found in annotated)


def _running(cluster: Cluster, facts: Facts, gangs: Gangs) -> Iterator[step_times.Job]:
    """The jobs of the cluster; none where the user may not list pods."""
    pods = facts.bound or reading.allowed(lambda: reading.bound_pods(cluster), [])
    return step_times.running(pods, facts.supplies, gangs.fleet, driver=gangs.state.driver_name)


def _with(known: Any, wanted: Manifest) -> Any:
    def by_name(items: Sequence[Object]) -> dict[tuple[str, str], Object]:
        return {(item["metadata"]["namespace"], item["metadata"]["name"]): item for item in items}

    return replace(
        known,
        claims={**by_name(wanted.claims), **known.claims},
        templates={**known.templates, **by_name(wanted.templates)},
        classes={**{item["metadata"]["name"]: item for item in wanted.classes}, **known.classes},
    )


def _refused(cluster: Cluster, objects: Sequence[Object]) -> Iterator[str]:
    for item in objects:
        path = PATHS[item["kind"]].format(item["metadata"]["namespace"])
        try:
            cluster.dry_run(path, item, fieldValidation="Strict")
        except Refused as refused:
            what = f"{item['kind']} {item['metadata'].get('name')}"
            if refused.status == _ABSENT and "not found" not in str(refused):  # else it is about the namespace
                yield f"{what}: this cluster has no such kind, install its CRD and its controller first"
            elif refused.status != _EXISTS:
                yield f"{what}: {refused}"


def document(refused: Sequence[str], wanted: Manifest, found: Sequence[Answer]) -> Object:
    """The form for programs."""
    return {
        "lands": lands(refused, found),
        "refused": list(refused),
        "ignored": list(wanted.ignored),
        "workloads": [asdict(each) for each in found],
    }


def lands(refused: Sequence[str], found: Sequence[Answer]) -> bool:
    """Whether all of it would run."""
    return not refused and all(each.lands >= each.pods for each in found)


def show(refused: Sequence[str], wanted: Manifest, found: Sequence[Answer], *, output: str) -> None:
    """Print it."""
    if output == "json":
        print(json.dumps(document(refused, wanted, found), indent=2))
        return
    console = Console()
    for sentence in refused:
        console.print(Text.assemble(("✗ ", "red"), "the API server refuses ", sentence), soft_wrap=True)
    for each in found:
        mark = ("✓ ", "green") if each.lands >= each.pods else ("✗ ", "red")
        of = f" (gang {each.gang})" if each.gang else ""
        console.print(Text.assemble(mark, (f"{each.workload}{of}", "bold")), soft_wrap=True)
        console.print(Text(f"  {each.summary}"), soft_wrap=True)
        if each.step:
            console.print(Text(f"  {each.step}"), soft_wrap=True)
        for remedy in each.why.remedies if each.why else ():
            if remedy in each.summary:
                continue
            console.print(Text(f"  → {remedy}"), soft_wrap=True)
    if not found:
        console.print("Nothing in it makes pods that are looked at.")
    if wanted.ignored:
        console.print(Text(f"Not looked at: {', '.join(wanted.ignored)}", style="dim"), soft_wrap=True)
