"""Faults of one node: its processes, its disk, itself. Each on the real cluster.

After every one of them the same must be true: pods that ran still run or come back, pods that wait get their
devices, no device is given twice, and (by the namespace fixture) nothing is left over on any node.
"""

import pytest
from harness import PLUGIN_DIR, Cluster, claim, condition, pod, until
from serving import assert_serves, devices_given, wait_published


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
        cluster.delete("pod", "-n", namespace, "--wait=false", *names)
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
    cluster.delete("pod", "-n", namespace, "before", "--timeout=60s")
    cluster.on_node(node, "sh", "-c", f"rm -f {PLUGIN_DIR}/checkpoint.jsonl.*")


def test_full_disk_under_the_cdi_folder(cluster: Cluster, namespace: str, node: str) -> None:
    """Prepare fails with a sentence in the pod's Event, leaves nothing, and succeeds when there is room."""
    inside = ("nsenter", "-t", cluster.process(cluster.agent(node)), "-m", "--")
    cluster.on_node(node, *inside, "mount", "-t", "tmpfs", "-o", "size=4k", "none", "/var/run/cdi")
    try:
        cluster.on_node(node, *inside, "sh", "-c", "head -c 4096 /dev/zero > /var/run/cdi/full")
        cluster.apply(pod("waits", chips=1, node=node), namespace)

        assert "/var/run/cdi" in cluster.event(namespace, "waits", "No space left on device")
        # the kubelet tries again meanwhile, and each try has a record and a view until it fails
        until(lambda: not cluster.checkpoint(node), what="no record left of a prepare that failed")
        until(lambda: not cluster.views(node), what="no view left of it")
    finally:
        # such a try may have a file open: then the file system is busy
        umount = (*inside, "umount", "/var/run/cdi")
        until(lambda: cluster.on_node(node, *umount, check=False) == "", what="the full disk is away")
    cluster.wait_ready_after_fault(namespace, "waits")


def test_claim_deleted_while_its_pod_starts(cluster: Cluster, namespace: str, node: str) -> None:
    """The claim goes with its pod, whatever the pod had come to, and then all chips can be given again."""
    cluster.apply([claim("mine", count=16), pod("p", claim="mine", node=node)], namespace)
    until(
        lambda: cluster.get("resourceclaim", "-n", namespace, "mine").get("status", {}).get("allocation"),
        what="the claim allocated",
    )
    cluster.delete("resourceclaim", "-n", namespace, "mine", "--wait=false")
    cluster.delete("pod", "-n", namespace, "p", "--timeout=120s")
    until(lambda: not cluster.items("resourceclaims", "-n", namespace), what="the claim gone")
    cluster.apply(pod("all", chips=16, node=node), namespace)
    cluster.wait_ready(namespace, "all")
    assert len(cluster.neuron_ls(namespace, "all")) == 16
