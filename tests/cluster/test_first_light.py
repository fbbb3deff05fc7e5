"""The one thing that everything else is for: AWS's pod runs, and neuron-ls works inside it."""

from harness import REPOSITORY, Cluster, pod

FIRST_LIGHT = (REPOSITORY / "manifests/examples/first-light/pod.yaml").read_text()


def test_plain_pod_gets_one_chip_and_neuron_ls_shows_it(cluster: Cluster, namespace: str) -> None:
    cluster.apply(FIRST_LIGHT, namespace)
    cluster.wait_ready(namespace, "neuron-inference")

    (device,) = cluster.neuron_ls(namespace, "neuron-inference")
    given = cluster.items("resourceclaims", "-n", namespace)[0]["status"]["allocation"]["devices"]["results"][0]
    (offered,) = [d for d in cluster.devices(given["pool"]) if d["name"] == given["device"]]

    assert device["neuron_device"] == 0, "a container counts its devices from 0"
    assert device["nc_count"] == 4
    assert device["logical_neuroncore_config"] == 2
    assert device["memory_size"] == 103079215104
    assert offered["attributes"]["instanceType"] == {"string": "trn2.48xlarge"}

    table = cluster.execute(namespace, "neuron-inference", "neuron-ls")
    assert table.startswith("instance-type: trn2.48xlarge\ninstance-id: i-")
    assert f"| {device['bdf']} |" in table
    assert cluster.execute(namespace, "neuron-inference", "sh", "-c", "ls /dev | grep neuron").split() == ["neuron0"]
    assert cluster.execute(namespace, "neuron-inference", "sh", "-c", "echo $NEURON_LOGICAL_NC_CONFIG").strip() == "2"


def test_pod_without_claim_has_no_tools(cluster: Cluster, namespace: str) -> None:
    cluster.apply(pod("plain", chips=0), namespace)
    cluster.wait_ready(namespace, "plain")
    assert cluster.execute(namespace, "plain", "sh", "-c", "ls /dev | grep -c neuron || true").strip() == "0"
    assert cluster.execute(namespace, "plain", "sh", "-c", "which neuron-ls || echo none").strip() == "none"


def test_seventeenth_chip_of_a_node_is_not_given(cluster: Cluster, namespace: str) -> None:
    """Both nodes' 32 chips are given once each, and the pod that asks for one more waits."""
    pods = [pod(f"p{i}", chips=16) for i in range(2)]
    cluster.apply(pods, namespace)
    cluster.wait_ready(namespace)
    results = [
        (r["pool"], r["device"])
        for claim in cluster.items("resourceclaims", "-n", namespace)
        for r in claim["status"]["allocation"]["devices"]["results"]
    ]
    assert len(results) == len(set(results)) == 32

    cluster.apply(pod("late", chips=1), namespace)
    cluster.kubectl("wait", "-n", namespace, "pod/late", "--for=condition=PodScheduled=False", "--timeout=60s")
    cluster.delete("pod", "-n", namespace, "p0", "--timeout=60s")
    cluster.wait_ready(namespace, "late")
