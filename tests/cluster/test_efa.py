"""EFA cards: AWS's claims for chips and cards bind, with cards that are next to the chips, and outlive the agent."""

import pytest
from harness import DRIVER, EFA_DRIVER, REPOSITORY, Cluster, Object, pod, until

EXAMPLES = REPOSITORY / "manifests/examples/efa"
EFA_CLASS = "efa.networking.k8s.aws"
GROUP = "resource.aws.com/devicegroup{}_id"


def request(name: str, device_class: str, count: int) -> Object:
    return {"name": name, "exactly": {"deviceClassName": device_class, "count": count}}


def together(name: str, *, chips: int, cards: int, group: int) -> Object:
    """A template for chips and cards that share a device group."""
    requests = [request("neurons", DRIVER, chips), request("efa", EFA_CLASS, cards)]
    match = {"requests": ["neurons", "efa"], "matchAttribute": GROUP.format(group)}
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": {"name": name},
        "spec": {"spec": {"devices": {"requests": requests, "constraints": [match]}}},
    }


def results(cluster: Cluster, namespace: str, pod_name: str) -> list[Object]:
    """What the claims of a pod were given."""
    return [
        result
        for claim in cluster.items("resourceclaims", "-n", namespace)
        if pod_name in [user["name"] for user in claim.get("status", {}).get("reservedFor", [])]
        for result in claim["status"]["allocation"]["devices"]["results"]
    ]


def offered(cluster: Cluster) -> dict[tuple[str, str, str], Object]:
    """The attributes of every device, by driver, pool and name."""
    return {
        (one["spec"]["driver"], one["spec"]["pool"]["name"], device["name"]): device["attributes"]
        for one in cluster.items("resourceslices")
        for device in one["spec"].get("devices", [])
    }


def groups_of(cluster: Cluster, namespace: str, pod_name: str, size: int) -> dict[str, set[str]]:
    """The device groups that a pod's devices are in, by driver."""
    devices, found = offered(cluster), dict[str, set[str]]()
    for result in results(cluster, namespace, pod_name):
        attributes = devices[result["driver"], result["pool"], result["device"]]
        found.setdefault(result["driver"], set()).add(attributes[GROUP.format(size)]["string"])
    return found


def verbs(cluster: Cluster, namespace: str, pod_name: str) -> list[str]:
    """The cards' devices in a container, which are char devices that swallow what is written."""
    cluster.execute(namespace, pod_name, "sh", "-c", "for d in /dev/infiniband/*; do test -c $d && echo x > $d; done")
    seen = cluster.execute(namespace, pod_name, "ls", "/dev/infiniband").split()
    assert "rdma_cm" in seen
    return sorted(name for name in seen if name.startswith("uverbs"))


@pytest.fixture(autouse=True)
def cards(cluster: Cluster) -> None:
    """Every worker offers its 16 cards."""

    def count() -> int:
        return sum(driver == EFA_DRIVER for driver, _, _ in offered(cluster))

    until(lambda: count() == 16 * len(cluster.workers()), what="16 cards on each worker", details=count)


def test_a_chip_comes_with_the_card_beside_it(cluster: Cluster, namespace: str) -> None:
    for name in ("chip-with-its-card", "row-with-its-cards"):
        cluster.apply((EXAMPLES / f"{name}.yaml").read_text(), namespace)
    cluster.wait_ready(namespace)
    for name, size in (("chip-with-its-card", 1), ("row-with-its-cards", 4)):
        groups = groups_of(cluster, namespace, name, size)
        assert groups[DRIVER] == groups[EFA_DRIVER]
        assert len(groups[DRIVER]) == 1
        assert len(verbs(cluster, namespace, name)) == size
        assert len(cluster.neuron_ls(namespace, name)) == size


def test_all_cards_of_a_node_by_a_second_claim(cluster: Cluster, namespace: str) -> None:
    cluster.apply((EXAMPLES / "all-cards.yaml").read_text(), namespace)
    cluster.wait_ready(namespace)
    assert len(verbs(cluster, namespace, "all-cards")) == 16
    assert len(cluster.neuron_ls(namespace, "all-cards")) == 16


def test_chips_that_share_no_card_stay_pending(cluster: Cluster, namespace: str) -> None:
    """AWS's own negative test: four chips and two cards under one card's address."""
    cluster.apply([together("impossible", chips=4, cards=2, group=1), pod("never", template="impossible")], namespace)

    def refusal() -> str:
        conditions = cluster.get("pod", "-n", namespace, "never").get("status", {}).get("conditions", [])
        return next((c.get("message", "") for c in conditions if c.get("reason") == "Unschedulable"), "")

    until(lambda: "cannot allocate all claims" in refusal(), what="the scheduler's refusal", details=refusal)
    # A pod behind it in the queue is served: the scheduler has done with this one.
    cluster.apply([together("possible", chips=2, cards=2, group=4), pod("after", template="possible")], namespace)
    cluster.wait_ready(namespace, "after")
    assert cluster.get("pod", "-n", namespace, "never")["status"]["phase"] == "Pending"
    owners = {"never": False, "after": True}
    for claim in cluster.items("resourceclaims", "-n", namespace):
        (owner,) = claim["metadata"]["ownerReferences"]
        assert ("allocation" in claim.get("status", {})) == owners.pop(owner["name"])
    assert not owners, "each has a claim"


def test_a_pod_outlives_the_agent_and_ends_with_the_next(cluster: Cluster, namespace: str, node: str) -> None:
    cluster.apply([together("pair", chips=1, cards=1, group=1), pod("stays", template="pair", node=node)], namespace)
    cluster.wait_ready(namespace, "stays")
    before = verbs(cluster, namespace, "stays")
    (file,) = [name for name in cluster.cdi_files(node) if name.startswith(EFA_DRIVER)]
    cluster.crash_agent(node)
    assert verbs(cluster, namespace, "stays") == before
    assert file in cluster.cdi_files(node)
    cluster.delete("pod", "-n", namespace, "stays", "--timeout=120s")
    until(lambda: file not in cluster.cdi_files(node), what="its file gone", details=lambda: cluster.cdi_files(node))

    # Slices that the kubelet took away while the agent was gone come back.
    cluster.apply(pod("next", template="pair", node=node), namespace)
    cluster.wait_ready(namespace, "next")
    assert len(verbs(cluster, namespace, "next")) == 1
