"""``neuron-sim explain``: asks the cluster for what ``neuron_operator.explaining`` needs, and prints its answer."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any

from neuron_operator.explaining.explanation import Explanation, explain_claim, explain_pod, grouped
from neuron_operator.gangs.names import GATE, LABEL_GANG
from rich.console import Console
from rich.text import Text

from neuron_cli import reading
from neuron_cli.cluster import Cluster, ClusterError, Refused
from neuron_cli.explain_gang import explain_gang
from neuron_cli.explain_workload import Kind, explain_workload
from neuron_cli.facts import RESOURCE_API
from neuron_cli.what_if import PATHS

KINDS = {
    "pod": "pod", "pods": "pod", "po": "pod",
    "claim": "claim", "claims": "claim", "resourceclaim": "claim", "resourceclaims": "claim",
    "gang": "gang", "gangs": "gang", "neurongang": "gang", "neurongangs": "gang",
    "deployment": "Deployment", "deployments": "Deployment", "deploy": "Deployment",
    "replicaset": "ReplicaSet", "replicasets": "ReplicaSet", "rs": "ReplicaSet",
    "statefulset": "StatefulSet", "statefulsets": "StatefulSet", "sts": "StatefulSet",
    "job": "Job", "jobs": "Job",
    "jobset": "JobSet", "jobsets": "JobSet",
    "leaderworkerset": "LeaderWorkerSet", "leaderworkersets": "LeaderWorkerSet", "lws": "LeaderWorkerSet",
}  # fmt: skip
LABELS = {"JobSet": "jobset.sigs.k8s.io/jobset-name", "LeaderWorkerSet": "leaderworkerset.sigs.k8s.io/name"}
# Groups of nodes, and names of nodes in a group, that are printed unless all are asked for.
GROUPS, NAMES = 8, 4

MARKS = {"waiting": ("✗", "red"), "fits": ("✓", "green"), "placed": ("✓", "green"), "over": ("-", "dim")}


def target(written: str) -> tuple[str, str]:
    """Kind and name, of `pod/train` or just `train`."""
    kind, slash, name = written.partition("/")
    if not slash:
        return "pod", written
    if kind.lower() not in KINDS or not name:
        raise ClusterError(
            f"{written!r} is nothing to explain: write pod/NAME, claim/NAME, gang/NAME or a workload such as job/NAME"
        )
    return KINDS[kind.lower()], name


def explain(cluster: Cluster, written: str, *, namespace: str | None) -> Explanation:
    """Ask the cluster, and judge."""
    kind, name = target(written)
    space = namespace or cluster.namespace
    if kind == "gang":
        return explain_gang(cluster, space, name)
    if kind in PATHS:
        return explain_workload(cluster, Kind(PATHS[kind], LABELS.get(kind, "")), kind, space, name)
    paths = {
        "pod": f"/api/v1/namespaces/{space}/pods/{name}",
        "claim": f"{RESOURCE_API}/namespaces/{space}/resourceclaims/{name}",
    }
    try:
        item = cluster.get(paths[kind])
    except Refused as refused:
        if refused.status == 404:
            raise ClusterError(f"there is no {kind} {name} in namespace {space}: name another one with -n") from None
        raise
    gang = _waits_for_gang(item) if kind == "pod" else ""
    if gang:
        found = explain_gang(cluster, space, gang)
        text = f"The pod waits for its gang {gang} to be placed as a whole. {found.summary}"
        return replace(found, subject=f"pod {space}/{name}", state="waiting", summary=text)
    facts = reading.facts(cluster, space, pods=kind == "pod", about=item["metadata"].get("uid", ""))
    if kind == "claim":
        return explain_claim(item, facts)
    found, group = explain_pod(item, facts), reading.pod_group(cluster, space, item)
    if not group or found.state in ("placed", "over"):
        return found
    return replace(
        found, state="waiting", summary=f"{group}. By itself: {found.summary}", problems=(group, *found.problems)
    )


def _waits_for_gang(pod: Mapping[str, Any]) -> str:
    """The gang for which a pod is kept from the scheduler; empty if there is none."""
    gated = any(gate["name"] == GATE for gate in (pod.get("spec") or {}).get("schedulingGates") or ())
    return str((pod["metadata"].get("labels") or {}).get(LABEL_GANG) or "") if gated else ""


def only(found: Explanation, node: str | None) -> Explanation:
    """The same with one node's verdict."""
    if node is None:
        return found
    verdicts = tuple(verdict for verdict in found.nodes if verdict.node == node)
    if found.nodes and not verdicts:
        raise ClusterError(f"there is no node {node}: `kubectl get nodes` lists them")
    return replace(found, nodes=verdicts)


def show(found: Explanation, *, output: str, everything: bool) -> None:
    """Print it."""
    if output == "json":
        print(json.dumps(asdict(found), indent=2))
        return
    console = Console()
    mark, colour = MARKS[found.state]
    console.print(Text.assemble((mark, colour), " ", (found.subject, "bold")), soft_wrap=True)
    console.print(Text(found.summary), soft_wrap=True)
    for title, lines in _sections(found, everything=everything):
        if lines:
            console.print(Text(f"\n{title}", style="bold"))
            for line in lines:
                console.print(Text(f"  {line}"), soft_wrap=True)


def _sections(found: Explanation, *, everything: bool) -> Iterator[tuple[str, list[str]]]:
    yield "Asks for", list(found.asks)
    if found.state != "waiting" or found.nodes:
        yield "Nodes", list(_nodes(found, everything=everything))
    yield "What would help", [f"→ {remedy}" for remedy in found.remedies]
    yield (
        "CEL selectors that were not evaluated: compare them with `kubectl get resourceslices -o yaml`",
        list(found.not_read),
    )
    yield "Kubernetes says", list(found.said)


def _nodes(found: Explanation, *, everything: bool) -> Iterator[str]:
    if fitting := [verdict.node for verdict in found.nodes if verdict.fits]:
        yield f"✓ {_listed(fitting, everything=everything)}"
    if everything:
        for verdict in found.nodes:
            if not verdict.fits:
                yield f"✗ {verdict.node}: {'; '.join(verdict.lacks)}"
        return
    groups = grouped(found.nodes)
    for lacks, nodes in groups[:GROUPS]:
        yield f"✗ {_listed(nodes, everything=False)}: {'; '.join(lacks)}"
    if groups[GROUPS:]:
        rest = sum(len(nodes) for _, nodes in groups[GROUPS:])
        yield f"… and {rest} nodes for {len(groups) - GROUPS} other causes: --all, or --node NODE"


def _listed(nodes: list[str], *, everything: bool) -> str:
    if everything or len(nodes) <= NAMES:
        return ", ".join(nodes)
    return f"{len(nodes)} nodes ({', '.join(nodes[:2])}, …)"
