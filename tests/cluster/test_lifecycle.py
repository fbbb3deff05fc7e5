"""The chart's life on a cluster: helm test, upgrade, and an uninstall that leaves nothing behind."""

import json
from collections.abc import Iterator

import pytest
from harness import DRIVER, EFA_DRIVER, PLUGIN_DIR, RELEASE, REPOSITORY, SYSTEM, Cluster, Failed, Object, pod, until

CLUSTER_KINDS = (
    "deviceclasses",
    "clusterroles",
    "clusterrolebindings",
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
    "priorityclasses",
)
NAMESPACED_KINDS = (
    "all",
    "serviceaccounts",
    "configmaps",
    "secrets",
    "roles",
    "rolebindings",
    "leases",
    "networkpolicies",
)


@pytest.fixture(scope="module", autouse=True)
def installed(cluster: Cluster) -> Iterator[None]:
    """The chart as it was, when all of this is over: each `helm upgrade --wait` is a third of a minute."""
    yield
    cluster.install()


def remaining(cluster: Cluster) -> set[str]:
    """What the namespace still holds, less what every namespace has."""
    names = cluster.kubectl("get", ",".join(NAMESPACED_KINDS), "-n", SYSTEM, "-o", "name").split()
    return set(names) - {"serviceaccount/default", "configmap/kube-root-ca.crt"}


def test_helm_test_proves_the_installation(cluster: Cluster) -> None:
    cluster.helm("test", RELEASE, "-n", SYSTEM, "--timeout", "2m")


def test_upgrade_keeps_what_runs(cluster: Cluster, namespace: str) -> None:
    """An upgrade that changes the pods and a CRD: running pods keep their chips, pools and nodes stay."""
    cluster.apply(pod("stays", chips=3), namespace)
    cluster.wait_ready(namespace)
    before = cluster.neuron_ls(namespace, "stays")
    nodes = {n["metadata"]["uid"] for n in cluster.items("neuronnodes")}
    crd = ("crd", "neuronnodes.neuron-sim.dev")
    columns = cluster.get(*crd)["spec"]["versions"][0]["additionalPrinterColumns"]
    older = [{"op": "remove", "path": "/spec/versions/0/additionalPrinterColumns/0"}]
    cluster.kubectl("patch", *crd, "--type=json", "-p", json.dumps(older))
    cluster.helm(
        "upgrade",
        RELEASE,
        str(REPOSITORY / "charts/neuron-sim"),
        "-n",
        SYSTEM,
        "--reuse-values",
        "--set",
        "agent.resources.requests.cpu=20m,gangs.webhook=true",
        "--wait",
        "--timeout",
        "3m",
    )
    assert cluster.neuron_ls(namespace, "stays") == before
    upgraded = cluster.get(*crd)["spec"]["versions"][0]["additionalPrinterColumns"]
    assert upgraded == columns, "Helm alone upgrades no CRD"
    assert {n["metadata"]["uid"] for n in cluster.items("neuronnodes")} == nodes
    cluster.wait_nodes()
    webhook_adds_the_gate_and_holds_up_nobody_else(cluster, namespace)


def webhook_adds_the_gate_and_holds_up_nobody_else(cluster: Cluster, namespace: str) -> None:
    """What clusters have that serve no MutatingAdmissionPolicy, while it answers and when nobody does."""
    assert not cluster.items("mutatingadmissionpolicies")
    of_a_gang = pod("ring-0", chips=16)
    of_a_gang["metadata"]["labels"] = {"neuron-sim.dev/gang": "ring", "neuron-sim.dev/gang-size": "4"}

    def gates(manifest: Object) -> Object:
        arguments = ("create", "--dry-run=server", "-n", namespace, "-f", "-", "-o", "json")
        return json.loads(cluster.kubectl(*arguments, input=json.dumps(manifest)))["spec"].get("schedulingGates", [])

    assert gates(of_a_gang) == [{"name": "neuron-sim.dev/gang"}]
    operator = ("deployment/neuron-sim-operator", "-n", SYSTEM)
    cluster.kubectl("scale", *operator, "--replicas=0")

    def refused() -> bool:
        try:
            gates(of_a_gang)
        except Failed as failed:
            return 'failed calling webhook "gate.gangs.neuron-sim.dev"' in str(failed)
        return False

    until(refused, what="nobody who answers")
    assert gates(pod("anybody", chips=1)) == []
    cluster.kubectl("scale", *operator, "--replicas=2")


@pytest.mark.timeout(900)
def test_uninstall_refuses_while_chips_are_in_use_then_leaves_nothing(cluster: Cluster, namespace: str) -> None:
    cluster.apply(pod("in-use", chips=1), namespace)
    cluster.wait_ready(namespace)
    with pytest.raises(Failed, match=f"{namespace}/in-use"):
        cluster.helm("uninstall", RELEASE, "-n", SYSTEM, "--timeout", "2m")
    assert len(cluster.neuron_ls(namespace, "in-use")) == 1
    cluster.delete("pod", "-n", namespace, "in-use", "--timeout=60s")

    def kinds() -> list[str]:
        return cluster.kubectl("api-resources", "--verbs=list", "-o", "name").split()

    def objects() -> list[str]:
        names = cluster.kubectl("get", ",".join(CLUSTER_KINDS), "-o", "name").split()
        return [name for name in names if "neuron" in name]

    cluster.helm("uninstall", RELEASE, "-n", SYSTEM, "--wait", "--timeout", "3m")
    until(lambda: not cluster.slices(), what="no slice left")
    # the API server takes a moment to forget a kind, and Helm to delete what its hooks ran with
    until(lambda: not any("neuron-sim.dev" in kind for kind in kinds()), what="no kind of ours left", details=kinds)
    until(lambda: not objects(), what="no object of ours left", details=objects)
    until(lambda: not remaining(cluster), what="an empty namespace", details=lambda: remaining(cluster))
    for node in cluster.workers():
        labels = cluster.get("node", node)["metadata"]["labels"]
        assert not [key for key in labels if "neuron" in key or "instance-type" in key or "k8s.aws" in key]
        conditions = [found["type"] for found in cluster.get("node", node)["status"]["conditions"]]
        assert not {"NeuronHealth", "AcceleratedHardwareReady"} & set(conditions)
        assert not cluster.cdi_files(node)
        places = (PLUGIN_DIR, f"/var/lib/neuron-sim/{DRIVER}", f"/run/neuron-sim/{DRIVER}")
        kubelet = "/var/lib/kubelet/plugins"
        sockets = f"{kubelet}_registry/{DRIVER}* {kubelet}_registry/{EFA_DRIVER}* {kubelet}/{EFA_DRIVER}"
        assert not cluster.on_node(node, "sh", "-c", f"ls -dA {' '.join(places)} {sockets} 2>/dev/null || true")
