"""What doctor concludes. Pure: facts in, findings out.

A finding FAILED when something that this version of neuron-sim does cannot work; WARNING when it works, but
less than the reader may expect; UNKNOWN when the cluster would not say. Whatever is not OK says what to do.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from neuron_operator import foreign, pending, roads
from neuron_operator.names import (
    AWS_DRIVER_NAME,
    CORE_CLASS,
    DEVICE_CLASS,
    DEVICES_PER_CLAIM,
    EXTENDED_RESOURCE,
    PHYSICAL_CORE_CLASS,
)
from neuron_operator.nodes import node_facts

from neuron_cli.facts import SIMULATED, Facts, Object, Unanswered
from neuron_cli.fleet import condition, said, why_not

OLDEST, REFERENCE = (1, 34), (1, 36)
INSTALL = "helm install neuron-sim charts/neuron-sim"
CRDS = ("neuronnodepools", "neuronnodes", "neuronfaults")
AGENT, OPERATOR = "neuron-sim-agent", "neuron-sim-operator"
LISTED = 5
# Conditions of a pool that tell of something that works less well than wished, and the status that tells it.
CAVEATS = (
    ("Overlapping", "True"),
    ("LabelsComplete", "False"),
    ("ResourcesSettled", "False"),
    ("PlainPods", "False"),
    ("PartitionsAffordable", "False"),
)
# Gates of fields that only a status has, since when each is on by default, and what is missing without it.
STATUS_GATES = (
    (
        "device health",
        "ResourceHealthStatus",
        (1, 36),
        "pods do not show the health of their devices (allocatedResourcesStatus); an Event tells them of a fault",
    ),
    (
        "claim status",
        "DRAResourceClaimDeviceStatus",
        (1, 33),
        "resourceclaims show no conditions of their devices (status.devices)",
    ),
)


class Verdict(StrEnum):
    """How a check went."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    check: str
    verdict: Verdict
    message: str
    fix: str = ""


def diagnose(facts: Facts) -> list[Finding]:
    """Every finding, in the order in which one would fix things."""
    checks: tuple[Callable[[Facts], Iterable[Finding]], ...] = (
        api_server,
        resource_api,
        extended_resources,
        device_features,
        status_features,
        kubelets,
        container_runtimes,
        real_neuron,
        definitions,
        device_classes,
        operator,
        agents,
        pools,
        neuron_nodes,
        device_plugins,
        faults,
        waiting_pods,
    )
    return [finding for check in checks for finding in check(facts)]


def api_server(facts: Facts) -> Iterator[Finding]:
    """Is its version one that was tried."""
    found = release(facts.version)
    if found is None or found < OLDEST:
        yield Finding(
            "API server",
            Verdict.FAILED,
            f"{facts.version or 'version not told'}: too old, resource.k8s.io/v1 came with Kubernetes 1.34",
            "upgrade the cluster, best to 1.36",
        )
    elif found > REFERENCE:
        yield Finding(
            "API server",
            Verdict.WARNING,
            f"{facts.version}: newer than 1.36, the newest that was tried",
            "nothing to do; should something not work, try it on 1.36",
        )
    elif found < REFERENCE:
        yield Finding(
            "API server",
            Verdict.WARNING,
            f"{facts.version}: works, but some features are off by default before 1.36",
            "see the lines below, and docs/kubernetes-versions.md",
        )
    else:
        yield Finding("API server", Verdict.OK, facts.version)


def resource_api(facts: Facts) -> Iterator[Finding]:
    """Is resource.k8s.io/v1 served at all."""
    check = "resource.k8s.io/v1"
    if isinstance(facts.resource_api, Unanswered):
        yield unknown(check, facts.resource_api)
        return
    served = [found["version"] for found in facts.resource_api.get("versions", [])]
    if "v1" in served:
        yield Finding(check, Verdict.OK, "served")
    else:
        yield Finding(
            check,
            Verdict.FAILED,
            f"not served (served: {', '.join(served) or 'no version'})",
            "use Kubernetes 1.34 or newer, without --runtime-config=resource.k8s.io/v1=false",
        )


def extended_resources(facts: Facts) -> Iterator[Finding]:
    """Can a plain pod ask for aws.amazon.com/neuron."""
    check = "extended resources"
    if isinstance(facts.class_echo, Unanswered):
        yield unknown(check, facts.class_echo)
    elif "extendedResourceName" in facts.class_echo.get("spec", {}):
        yield Finding(check, Verdict.OK, f"plain pods can ask for {EXTENDED_RESOURCE}")
    else:
        yield Finding(
            check,
            Verdict.WARNING,
            f"the API server drops extendedResourceName: pools with resources: Auto serve {EXTENDED_RESOURCE} by "
            "device plugins; with resources: DRA such pods stay Pending, and pods with resource claims work",
            "nothing, or use Kubernetes 1.36, or set the feature gate DRAExtendedResource=true on API server, "
            "controller manager, scheduler and kubelets",
        )


def device_features(facts: Facts) -> Iterator[Finding]:
    """Are the fields of a slice kept that are behind gates, and what is missing without."""
    for echo in (facts.devices_echo, facts.counters_echo):
        if isinstance(echo, Unanswered):
            yield unknown("device features", echo)
            return
    assert not isinstance(facts.devices_echo, Unanswered)
    assert not isinstance(facts.counters_echo, Unanswered)
    device = next(iter(facts.devices_echo.get("spec", {}).get("devices") or [{}]))
    counters = facts.counters_echo.get("spec", {})
    for check, what, gate, kept, effect in (
        (
            "partitions",
            "sharedCounters",
            "DRAPartitionableDevices",
            "sharedCounters" in counters,
            "NeuronCores and whole nodes are not offered beside chips; on the device-plugin road cores are",
        ),
        (
            "device taints",
            "taints",
            "DRADeviceTaints",
            "taints" in device,
            "a NeuronFault makes devices unhealthy, but new pods still get them and none is evicted",
        ),
        (
            "binding conditions",
            "bindingConditions",
            "DRADeviceBindingConditions",
            "bindingConditions" in device,
            "nothing of this version is missing, gangs of a later one will be",
        ),
    ):
        if kept:
            yield Finding(check, Verdict.OK, f"{what} are kept")
        else:
            yield Finding(
                check,
                Verdict.WARNING,
                f"the API server drops {what} ({gate}): {effect}",
                f"use Kubernetes 1.36, or set the feature gate {gate}=true on API server, controller manager, "
                "scheduler and kubelets",
            )


def status_features(facts: Facts) -> Iterator[Finding]:
    """Are the fields of statuses served that are behind gates."""
    for check, gate, since, effect in STATUS_GATES:
        gates = {} if isinstance(facts.gates, Unanswered) else facts.gates
        on = gates.get(gate, (release(facts.version) or since) >= since)
        source = "" if gate in gates else " by default, and the API server does not tell more"
        if on:
            yield Finding(check, Verdict.OK, f"{gate} is on{source}")
        else:
            yield Finding(
                check,
                Verdict.WARNING,
                f"{gate} is off{source}: {effect}",
                f"use Kubernetes 1.36, or set the feature gate {gate}=true on API server and kubelets",
            )


def kubelets(facts: Facts) -> Iterator[Finding]:
    """Do the nodes' kubelets speak resource.k8s.io/v1."""
    if isinstance(facts.nodes, Unanswered):
        yield unknown("kubelets", facts.nodes)
        return
    old = [node for node in facts.nodes if (release(info(node, "kubeletVersion")) or (0, 0)) < OLDEST]
    if not facts.nodes:
        yield Finding("kubelets", Verdict.FAILED, "the cluster has no node", "add one")
    elif old:
        yield Finding(
            "kubelets",
            Verdict.FAILED,
            f"older than 1.34: {names(old)}",
            "upgrade these nodes, or keep them out of every pool by its nodeSelector",
        )
    else:
        yield Finding("kubelets", Verdict.OK, count(len(facts.nodes), "node"))


def container_runtimes(facts: Facts) -> Iterator[Finding]:
    """Will the nodes' runtimes read CDI files: containerd does by default from 2.0 on."""
    check = "container runtimes"
    if isinstance(facts.nodes, Unanswered):
        yield unknown(check, facts.nodes)
        return
    old = [node for node in facts.nodes if old_containerd(info(node, "containerRuntimeVersion"))]
    if old:
        yield Finding(
            check,
            Verdict.WARNING,
            f"containerd older than 2.0, where CDI is off by default: {names(old)}",
            "set enable_cdi = true in the CRI section of their containerd configuration, restart containerd",
        )
    elif facts.nodes:
        found = sorted({info(node, "containerRuntimeVersion") for node in facts.nodes})
        yield Finding(check, Verdict.OK, ", ".join(found))


def real_neuron(facts: Facts) -> Iterator[Finding]:
    """Is there anything of AWS's own stack, which ours would stand in the way of."""
    check = "real Neuron"
    driver = driver_name(facts)
    found: list[foreign.Finding] = []
    for answered, signs in (
        (facts.nodes, lambda nodes: [sign for node in nodes if (sign := foreign.on_node(node_facts(node)))]),
        (facts.daemon_sets, foreign.in_daemon_sets),
        (facts.unmarked_slices, lambda slices: foreign.in_slices(slices, driver_name=driver)),
    ):
        if isinstance(answered, Unanswered):
            yield unknown(check, answered)
        else:
            found += signs(answered)
    if not found:
        yield Finding(check, Verdict.OK, "no sign of it")
    elif driver == AWS_DRIVER_NAME:
        for sign in found[:LISTED]:
            yield Finding(check, Verdict.FAILED, sign.what, sign.remedy)
        if len(found) > LISTED:
            yield Finding(check, Verdict.FAILED, f"{len(found) - LISTED} more signs", "see to these first")
    else:
        yield Finding(check, Verdict.OK, f"left alone by driver {driver}: {count(len(found), 'sign')} of it")


def definitions(facts: Facts) -> Iterator[Finding]:
    """Are the CRDs there."""
    if isinstance(facts.our_api, Unanswered):
        yield unknown("CRDs", facts.our_api)
        return
    served = {found["name"] for found in facts.our_api.get("resources", [])}
    if missing := [name for name in CRDS if name not in served]:
        yield Finding("CRDs", Verdict.FAILED, f"not installed: {', '.join(missing)}", INSTALL)
    else:
        yield Finding("CRDs", Verdict.OK, ", ".join(CRDS))


def device_classes(facts: Facts) -> Iterator[Finding]:
    """Are the chart's DeviceClasses there, and AWS's one not somebody else's."""
    check = "device classes"
    if isinstance(facts.device_classes, Unanswered):
        yield unknown(check, facts.device_classes)
        return
    wanted = (driver_name(facts), DEVICE_CLASS, CORE_CLASS, PHYSICAL_CORE_CLASS)
    there = {found["metadata"]["name"]: is_ours(found) for found in facts.device_classes}
    if not_ours := [name for name in wanted if not there.get(name, True)]:
        yield Finding(
            check,
            Verdict.FAILED,
            f"not made by neuron-sim: {', '.join(not_ours)}",
            f"if nothing uses it: kubectl delete deviceclass {' '.join(not_ours)}, then install the chart",
        )
    elif missing := [name for name in wanted if name not in there]:
        yield Finding(check, Verdict.FAILED, f"not installed: {', '.join(missing)}", INSTALL)
    else:
        yield Finding(check, Verdict.OK, ", ".join(wanted))


def operator(facts: Facts) -> Iterator[Finding]:
    """Is the operator running."""
    if isinstance(facts.deployments, Unanswered):
        yield unknown("operator", facts.deployments)
        return
    found = named(facts.deployments, OPERATOR)
    if found is None:
        yield Finding("operator", Verdict.FAILED, "not installed", INSTALL)
        return
    ready, wanted = found.get("status", {}).get("readyReplicas", 0), found["spec"].get("replicas", 1)
    namespace = found["metadata"]["namespace"]
    yield Finding(
        "operator",
        Verdict.OK if ready >= wanted else Verdict.WARNING if ready else Verdict.FAILED,
        f"{ready} of {wanted} ready in namespace {namespace}",
        "" if ready >= wanted else describe(namespace, "operator"),
    )


def agents(facts: Facts) -> Iterator[Finding]:
    """Is an agent ready on every node that should have one."""
    if isinstance(facts.daemon_sets, Unanswered):
        yield unknown("agents", facts.daemon_sets)
        return
    found = agent_set(facts.daemon_sets)
    if found is None:
        yield Finding("agents", Verdict.FAILED, "not installed", INSTALL)
        return
    status, namespace = found.get("status", {}), found["metadata"]["namespace"]
    ready, wanted = status.get("numberReady", 0), status.get("desiredNumberScheduled", 0)
    complete = ready >= wanted > 0
    yield Finding(
        "agents",
        Verdict.OK if complete else Verdict.FAILED,
        f"{ready} of {wanted} ready in namespace {namespace}",
        "" if complete else describe(namespace, "agent"),
    )


def pools(facts: Facts) -> Iterator[Finding]:
    """Is every pool accepted, and does it have nodes."""
    if isinstance(facts.pools, Unanswered):
        yield unknown("pools", facts.pools)
        return
    if not facts.pools:
        yield Finding("pools", Verdict.WARNING, "there is none", "apply one, as in manifests/examples/pools")
    for pool in facts.pools:
        check = f"pool {pool['metadata']['name']}"
        conditions = [condition(pool, kind) for kind in ("Accepted", "Ready")]
        not_true = [found for found in conditions if found.get("status") != "True"]
        describe_pool = f"kubectl describe neuronnodepool {pool['metadata']['name']}"
        for caveat, status in CAVEATS:
            if (found := condition(pool, caveat)).get("status") == status:
                yield Finding(check, Verdict.WARNING, said(found), describe_pool)
        if not_true:
            # A pool that waits for nodes to be labelled is no fault.
            waits = not_true[0].get("reason") == "NoNodes"
            verdict = Verdict.WARNING if waits else Verdict.FAILED
            yield Finding(check, verdict, why_not(not_true[0]), describe_pool)
        else:
            nodes = pool["status"].get("nodes", 0)
            yield Finding(check, Verdict.OK, f"{count(nodes, 'node')} of {pool['spec']['instanceType']}")


def neuron_nodes(facts: Facts) -> Iterator[Finding]:
    """Does every simulated node serve its devices, and is the one still there that said so."""
    check = "simulated nodes"
    if isinstance(facts.neuron_nodes, Unanswered):
        yield unknown(check, facts.neuron_nodes)
        return
    forsaken = []
    if not isinstance(facts.agent_pods, Unanswered):
        served = {
            pod["spec"].get("nodeName") for pod in facts.agent_pods if condition(pod, "Ready").get("status") == "True"
        }
        ready = [node for node in facts.neuron_nodes if condition(node, "Ready").get("status") == "True"]
        forsaken = [node for node in ready if node["metadata"]["name"] not in served]
    if forsaken:
        yield Finding(
            "agents gone",
            Verdict.FAILED,
            f"no agent is ready on {names(forsaken)}: that the NeuronNode says Ready is its last word",
            "kubectl get pods --all-namespaces -o wide -l app.kubernetes.io/component=agent",
        )
    bad = [node for node in facts.neuron_nodes if condition(node, "Ready").get("status") != "True"]
    for node in bad[:LISTED]:
        name = node["metadata"]["name"]
        yield Finding(
            f"node {name}",
            Verdict.FAILED,
            why_not(condition(node, "Ready")),
            f"kubectl describe neuronnode {name}; docs/troubleshooting.md",
        )
    if len(bad) > LISTED:
        more = f"{len(bad) - LISTED} more are not ready"
        yield Finding(check, Verdict.FAILED, more, "neuron-sim nodes shows all of them")
    if facts.neuron_nodes and not bad and not forsaken:
        yield Finding(check, Verdict.OK, f"{count(len(facts.neuron_nodes), 'node')} ready")


def device_plugins(facts: Facts) -> Iterator[Finding]:
    """Do the kubelets know of the devices, where a device plugin serves them."""
    if isinstance(facts.neuron_nodes, Unanswered) or isinstance(facts.nodes, Unanswered):
        return  # said above
    served = {
        node["metadata"]["name"] for node in facts.neuron_nodes if node["spec"].get("resources") == "DevicePlugin"
    }
    there = [node for node in facts.nodes if node["metadata"]["name"] in served]
    without = [node for node in there if amount(node, EXTENDED_RESOURCE) == 0]
    if without:
        yield Finding(
            "device plugins",
            Verdict.FAILED,
            f"no {EXTENDED_RESOURCE} is allocatable on {names(without)}",
            "wait half a minute after a pool was changed; then see the agent's log, and whether kubeletDir is right",
        )
    elif there:
        yield Finding("device plugins", Verdict.OK, f"{count(len(there), 'node')} with {EXTENDED_RESOURCE}")


BY_SCHEDULE = ("Scheduled", "Ended")
"""Why a NeuronFault is not active that is right as it is."""


def faults(facts: Facts) -> Iterator[Finding]:
    """Does every NeuronFault hit something."""
    if isinstance(facts.faults, Unanswered):
        yield unknown("faults", facts.faults)
        return
    for fault in facts.faults:
        active = condition(fault, "Active")
        if active.get("status") == "False" and active.get("reason") not in BY_SCHEDULE:
            name = fault["metadata"]["name"]
            yield Finding(f"fault {name}", Verdict.WARNING, said(active), f"correct it, or delete neuronfault {name}")
    if broken := [fault for fault in facts.faults if condition(fault, "Active").get("status") == "True"]:
        yield Finding("faults", Verdict.OK, f"{count(len(broken), 'active fault')}, as you wished")


def waiting_pods(facts: Facts) -> Iterator[Finding]:
    """Does a pod ask for what no claim can hold."""
    check = "pods that wait"
    if isinstance(facts.waiting_pods, Unanswered):
        yield unknown(check, facts.waiting_pods)
        return
    if isinstance(facts.neuron_nodes, Unanswered) or isinstance(facts.device_classes, Unanswered):
        return  # said above
    device_class = named(facts.device_classes, DEVICE_CLASS)
    plain_pods = roads.plain_pods(device_class) if device_class else None
    resources = pending.served_resources(facts.neuron_nodes, plain_pods)
    found = [each for pod in facts.waiting_pods if (each := pending.oversized(pod, resources=resources))]
    if found:
        shown = ", ".join(f"{each.namespace}/{each.name}" for each in found[:LISTED])
        more = f" and {len(found) - LISTED} more" if found[LISTED:] else ""
        yield Finding(
            check,
            Verdict.WARNING,
            f"ask for more than the {DEVICES_PER_CLAIM} devices that a claim can hold and wait for ever: {shown}{more}",
            f"ask for whole chips ({EXTENDED_RESOURCE}), or set resources: DevicePlugin in the pool",
        )


def amount(node: Object, resource: str) -> int:
    """How many of an extended resource pods can be given on a node."""
    return int(node.get("status", {}).get("allocatable", {}).get(resource, 0))


def release(version: str) -> tuple[int, int] | None:
    """Major and minor of `v1.36.3+k3s1`."""
    found = re.match(r"v?(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else None


def old_containerd(runtime: str) -> bool:
    """Whether this is a containerd that ignores CDI unless configured."""
    name, _, version = runtime.partition("://")
    return name == "containerd" and (release(version) or (0, 0)) < (2, 0)


def is_ours(thing: Object) -> bool:
    """Whether we made it."""
    return bool(thing["metadata"].get("labels", {}).get(SIMULATED) == "true")


def agent_set(daemon_sets: Iterable[Object]) -> Object | None:
    """The DaemonSet of our agents."""
    return named((found for found in daemon_sets if is_ours(found)), AGENT)


def driver_name(facts: Facts) -> str:
    """The driver name that the chart was installed with, AWS's own unless it says otherwise."""
    agent = None if isinstance(facts.daemon_sets, Unanswered) else agent_set(facts.daemon_sets)
    for container in agent["spec"]["template"]["spec"]["containers"] if agent else ():
        for argument in container.get("args") or ():
            if argument.startswith("--driver-name="):
                return str(argument.partition("=")[2])
    return AWS_DRIVER_NAME


def named(things: Iterable[Object], name: str) -> Object | None:
    """The first thing of that name."""
    return next((thing for thing in things if thing["metadata"]["name"] == name), None)


def names(things: list[Object]) -> str:
    """The names, or the first of them."""
    listed = ", ".join(thing["metadata"]["name"] for thing in things[:LISTED])
    return f"{listed} and {len(things) - LISTED} more" if len(things) > LISTED else listed


def info(node: Object, key: str) -> str:
    """A field of the node's self-description."""
    return str(node.get("status", {}).get("nodeInfo", {}).get(key, ""))


def count(number: int, noun: str) -> str:
    """`1 node`, `2 nodes`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def unknown(check: str, unanswered: Unanswered) -> Finding:
    """The cluster would not say."""
    return Finding(check, Verdict.UNKNOWN, unanswered.reason, "ask as a user who may, such as cluster-admin")


def describe(namespace: str, component: str) -> str:
    """The command that shows why pods of ours are not ready."""
    return f"kubectl -n {namespace} describe pods -l app.kubernetes.io/component={component}"
