"""What has to be true after every fault: devices are given, and none twice."""

import collections

from harness import Cluster, pod, until


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
