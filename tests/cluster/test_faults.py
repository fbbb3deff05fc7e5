"""Faults of nodes, processes, disks and the API server, each on the real cluster.

After every one of them the same must be true: pods that ran still run or come back, pods that wait get their
devices, no device is given twice, and (by the namespace fixture) nothing is left over on any node.
"""

import collections
import json

import pytest
from harness import PLUGIN_DIR, SYSTEM, Cluster, claim, claim_template, condition, pod, until


def devices_given(cluster: Cluster, namespace: str) -> collections.Counter[tuple[str, str]]:
    return collections.Counter(
        (result["pool"], result["device"])
        for one in cluster.items("resourceclaims", "-n", namespace)
        for result in one.get("status", {}).get("allocation", {}).get("devices", {}).get("results", [])
    )


def assert_serves(cluster: Cluster, namespace: str, node: str, name: str = "after") -> None:
    """A new pod on the node still gets a chip and sees it."""
    cluster.apply(pod(name, chips=1, node=node), namespace)
    cluster.wait_ready(namespace, name)
    assert len(cluster.neuron_ls(namespace, name)) == 1
    assert set(devices_given(cluster, namespace).values()) == {1}


def wait_published(cluster: Cluster, node: str) -> None:
    until(
        lambda: [s for s in cluster.slices() if s["spec"]["nodeName"] == node],
        what=f"slices of {node} published",
    )


def test_kubelet_restart(cluster: Cluster, namespace: str, node: str) -> None:
    """The kubelet deletes every slice of its node when it starts: they come back, and running pods go on."""
    cluster.apply(pod("before", chips=2, node=node), namespace)
    cluster.wait_ready(namespace)
    before = {s["metadata"]["uid"] for s in cluster.slices() if s["spec"]["nodeName"] == node}

    cluster.restart_kubelet(node)

    def republished() -> bool:
        now = {s["metadata"]["uid"] for s in cluster.slices() if s["spec"]["nodeName"] == node}
        return bool(now) and now.isdisjoint(before)

    until(republished, what="slices published anew")
    listing = ("exec", "-n", namespace, "before", "--", "neuron-ls", "--json-output")
    # a kubelet that has just started does not know its pods yet
    until(lambda: cluster.kubectl(*listing, check=False).startswith("["), what="the kubelet knows the pod again")
    assert len(cluster.neuron_ls(namespace, "before")) == 2
    assert_serves(cluster, namespace, node)


@pytest.mark.timeout(600)
def test_agent_killed_while_pods_start_and_stop(cluster: Cluster, namespace: str, node: str) -> None:
    """SIGKILL in the middle of several prepares, and of several unprepares, more than once."""
    for wave in range(2):
        names = [f"w{wave}-{i}" for i in range(5)]
        cluster.apply([pod(name, chips=1, node=node) for name in names], namespace)
        cluster.crash_agent(node)
        cluster.wait_ready_after_fault(namespace, *names)
        assert set(devices_given(cluster, namespace).values()) == {1}
        cluster.kubectl("delete", "pod", "-n", namespace, "--wait=false", *names)
        cluster.crash_agent(node)
        gone = [f"pod/{name}" for name in names]
        cluster.kubectl("wait", "-n", namespace, "--for=delete", "--timeout=200s", *gone, timeout=240)
    wait_published(cluster, node)


@pytest.mark.timeout(600)
def test_node_reboot(cluster: Cluster, namespace: str, node: str) -> None:
    """A reboot takes /run with it: the pod that was there runs again with the same chips."""
    cluster.apply(pod("before", chips=4, node=node), namespace)
    cluster.wait_ready(namespace)
    boot = cluster.neuron_ls(namespace, "before")

    cluster.run(["docker", "restart", node])

    def noticed() -> bool:
        (found,) = cluster.items("pods", "-n", namespace)
        return found["status"]["containerStatuses"][0]["restartCount"] >= 1 or condition(found, "Ready") == "False"

    until(noticed, what="the pod's end is noticed", timeout=120)
    cluster.wait_ready_after_fault(namespace, "before")
    (again,) = cluster.items("pods", "-n", namespace)
    assert again["status"]["containerStatuses"][0]["restartCount"] >= 1
    assert cluster.neuron_ls(namespace, "before") == boot
    wait_published(cluster, node)
    assert_serves(cluster, namespace, node)


@pytest.mark.alone
@pytest.mark.timeout(600)
def test_api_server_away_for_30_seconds(cluster: Cluster, namespace: str, node: str) -> None:
    cluster.apply(pod("before", chips=1, node=node), namespace)
    cluster.wait_ready(namespace)
    restarts = restart_count(cluster)
    control_plane = f"{cluster.workers()[0].removesuffix('-worker')}-control-plane"
    manifest = "/etc/kubernetes/manifests/kube-apiserver.yaml"
    cluster.on_node(control_plane, "mv", manifest, "/kube-apiserver.yaml")
    cluster.restart_kubelet(control_plane)  # it looks at the folder at once
    try:
        until(lambda: "ok" not in cluster.kubectl("get", "--raw", "/livez", check=False), what="API server away")
        # an outage of 30 s is the fault itself: the clock of the machine, not a wait for a condition
        cluster.run(["sleep", "30"])
    finally:
        cluster.on_node(control_plane, "mv", "/kube-apiserver.yaml", manifest)
        cluster.restart_kubelet(control_plane)
    until(
        lambda: cluster.kubectl("get", "--raw", "/livez", check=False).strip() == "ok",
        what="API server back",
        timeout=180,
    )
    assert_serves(cluster, namespace, node)
    cluster.wait_nodes()
    assert restart_count(cluster) == restarts, "agents live through an outage"


def restart_count(cluster: Cluster) -> int:
    pods = cluster.items("pods", "-n", SYSTEM, "-l", "app.kubernetes.io/component=agent")
    return sum(status["restartCount"] for p in pods for status in p["status"]["containerStatuses"])


@pytest.mark.parametrize(
    ("damage", "trace"),
    [
        pytest.param("printf 'not a journal\\n' >", "corrupt", id="corrupt"),
        pytest.param(": >", "corrupt", id="empty"),
        pytest.param("""sed -i -E '1s/"version": ?[0-9]+/"version":999/'""", "newer", id="newer"),
    ],
)
def test_damaged_checkpoint(cluster: Cluster, namespace: str, node: str, damage: str, trace: str) -> None:
    """A checkpoint that cannot be read is put aside, and what is in use is found again."""
    cluster.apply(pod("before", chips=1, node=node), namespace)
    cluster.wait_ready(namespace)
    (uid,) = cluster.checkpoint(node)

    cluster.on_node(node, "sh", "-c", f"{damage} {PLUGIN_DIR}/checkpoint.jsonl")
    cluster.crash_agent(node)
    until(lambda: uid in cluster.checkpoint(node), what="the claim in use in the checkpoint again", timeout=120)

    assert trace in cluster.on_node(node, "ls", PLUGIN_DIR)
    assert_serves(cluster, namespace, node)
    cluster.kubectl("delete", "pod", "-n", namespace, "before", "--timeout=60s")
    cluster.on_node(node, "sh", "-c", f"rm -f {PLUGIN_DIR}/checkpoint.jsonl.*")


def test_full_disk_under_the_cdi_folder(cluster: Cluster, namespace: str, node: str) -> None:
    """Prepare fails with a sentence in the pod's Event, leaves nothing, and succeeds when there is room."""
    inside = ("nsenter", "-t", agent_process(cluster, node), "-m", "--")
    cluster.on_node(node, *inside, "mount", "-t", "tmpfs", "-o", "size=4k", "none", "/var/run/cdi")
    try:
        cluster.on_node(node, *inside, "sh", "-c", "head -c 4096 /dev/zero > /var/run/cdi/full")
        cluster.apply(pod("waits", chips=1, node=node), namespace)

        def told() -> str:
            events = cluster.items("events", "-n", namespace)
            return next((e["message"] for e in events if "No space left on device" in e["message"]), "")

        message = until(told, what="an Event that names the full disk")
        assert "/var/run/cdi" in message
        assert not cluster.checkpoint(node)
        assert not cluster.views(node)
    finally:
        cluster.on_node(node, *inside, "umount", "/var/run/cdi")
    cluster.wait_ready_after_fault(namespace, "waits")


def agent_process(cluster: Cluster, node: str) -> str:
    uid = cluster.agent(node)["metadata"]["uid"]
    container = cluster.on_node(node, "crictl", "ps", "-q", "--label", f"io.kubernetes.pod.uid={uid}").split()[0]
    return str(json.loads(cluster.on_node(node, "crictl", "inspect", container))["info"]["pid"])


def test_claim_deleted_while_its_pod_starts(cluster: Cluster, namespace: str, node: str) -> None:
    """The claim goes with its pod, whatever the pod had come to, and then all chips can be given again."""
    cluster.apply([claim("mine", count=16), pod("p", claim="mine", node=node)], namespace)
    until(
        lambda: cluster.get("resourceclaim", "-n", namespace, "mine").get("status", {}).get("allocation"),
        what="the claim allocated",
    )
    cluster.kubectl("delete", "resourceclaim", "-n", namespace, "mine", "--wait=false")
    cluster.kubectl("delete", "pod", "-n", namespace, "p", "--timeout=120s")
    until(lambda: not cluster.items("resourceclaims", "-n", namespace), what="the claim gone")
    cluster.apply(pod("all", chips=16, node=node), namespace)
    cluster.wait_ready(namespace, "all")
    assert len(cluster.neuron_ls(namespace, "all")) == 16


def test_same_claim_allocated_anew_on_another_node(cluster: Cluster, namespace: str) -> None:
    """A claim that outlives its pod is given elsewhere at once: the first node lets go of it."""
    first, second = cluster.workers()
    cluster.apply([claim("mine", count=16), pod("p1", claim="mine", node=first)], namespace)
    cluster.wait_ready(namespace, "p1")
    cluster.kubectl("delete", "pod", "-n", namespace, "p1", "--timeout=60s")
    cluster.apply(pod("p2", claim="mine", node=second), namespace)
    cluster.wait_ready(namespace, "p2")
    until(lambda: not cluster.checkpoint(first), what="the first node's checkpoint empty")
    cluster.apply(pod("p3", chips=16, node=first), namespace)
    cluster.wait_ready(namespace, "p3")
    assert set(devices_given(cluster, namespace).values()) == {1}


@pytest.mark.alone
@pytest.mark.timeout(600)
def test_rolling_update_under_load(cluster: Cluster, namespace: str, node: str) -> None:
    """Two agents overlap on a node while pods start and stop: every pod starts, none is stuck."""
    cluster.apply([claim_template("one"), pod("stays", template="one", node=node)], namespace)
    cluster.wait_ready(namespace)
    cluster.kubectl("rollout", "restart", "-n", SYSTEM, "daemonset/neuron-sim-agent")
    for wave in range(4):
        names = [f"r{wave}-{i}" for i in range(3)]
        cluster.apply([pod(name, template="one", node=node) for name in names], namespace)
        cluster.wait_ready(namespace, *names)
        assert set(devices_given(cluster, namespace).values()) == {1}
        cluster.kubectl("delete", "pod", "-n", namespace, "--timeout=100s", *names)
    cluster.kubectl("rollout", "status", "-n", SYSTEM, "daemonset/neuron-sim-agent", "--timeout=180s", timeout=200)
    wait_published(cluster, node)
    assert len(cluster.neuron_ls(namespace, "stays")) == 1


@pytest.mark.timeout(600)
def test_operator_killed_while_a_pool_is_expanded(cluster: Cluster) -> None:
    """All operators die right after the wish for another kind of node; the fleet becomes true all the same."""
    pool = cluster.get("neuronnodepool", "default")
    patch = {"spec": {"instanceType": "trn1.32xlarge"}}
    try:
        cluster.kubectl(
            "patch",
            "neuronnodepool",
            "default",
            "--type=merge",
            "-p",
            json.dumps({"spec": {**dict.fromkeys(pool["spec"]), **patch["spec"]}}),
        )
        cluster.kubectl(
            "delete",
            "pod",
            "-n",
            SYSTEM,
            "-l",
            "app.kubernetes.io/component=operator",
            "--grace-period=0",
            "--force",
        )
        until(
            lambda: {n["spec"]["instanceType"] for n in cluster.items("neuronnodes")} == {"trn1.32xlarge"},
            what="every NeuronNode a trn1.32xlarge",
            timeout=120,
        )
        labels = [
            n["metadata"]["labels"].get("node.kubernetes.io/instance-type")
            for n in cluster.items("nodes")
            if n["metadata"]["name"] in cluster.workers()
        ]
        assert labels == ["trn1.32xlarge"] * 2
    finally:
        cluster.kubectl("patch", "neuronnodepool", "default", "--type=merge", "-p", json.dumps({"spec": pool["spec"]}))
        until(
            lambda: {n["spec"]["instanceType"] for n in cluster.items("neuronnodes")} == {pool["spec"]["instanceType"]},
            what="the pool as it was",
            timeout=120,
        )
        cluster.wait_nodes()
