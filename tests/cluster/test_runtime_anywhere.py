"""The mounted tools need nothing of the image that they run in."""

import json

from harness import Cluster, Object, pod


def hardened(name: str, node: str) -> Object:
    """A pod as restricted Pod Security wants it, and with a read-only root besides."""
    made = pod(name, chips=1, node=node)
    made["spec"]["securityContext"] = {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    made["spec"]["containers"][0]["securityContext"] = {
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    return made


def test_non_root_on_a_read_only_root(cluster: Cluster, namespace: str, node: str) -> None:
    cluster.apply(hardened("hardened", node), namespace)
    cluster.wait_ready(namespace)
    assert [d["neuron_device"] for d in cluster.neuron_ls(namespace, "hardened")] == [0]


def test_image_with_no_libc_and_no_shell(cluster: Cluster, namespace: str, node: str) -> None:
    """The pause image holds one static binary, and a PATH without folders: the tool runs there as anywhere."""
    made = pod("bare", chips=2, node=node)
    container = made["spec"]["containers"][0]
    container["image"] = cluster.pause_image()
    del container["command"]
    cluster.apply(made, namespace)
    cluster.wait_ready(namespace)
    listing = cluster.execute(namespace, "bare", "/usr/local/bin/neuron-ls", "--json-output")
    assert len(json.loads(listing)) == 2


def test_process_that_holds_a_device_is_shown(cluster: Cluster, namespace: str, node: str) -> None:
    """A process that is no Neuron runtime shows with -a only, as with the real tool."""
    made = pod("busy", chips=1, node=node)
    made["spec"]["containers"][0]["command"] = ["sh", "-c", "exec sleep 100000 < /dev/neuron0"]
    cluster.apply(made, namespace)
    cluster.wait_ready(namespace)
    assert cluster.neuron_ls(namespace, "busy")[0]["neuron_processes"] == []
    (device,) = json.loads(cluster.execute(namespace, "busy", "neuron-ls", "-a", "-j"))
    assert {"pid": 1, "command": "sleep 100000", "neuron_runtime_version": "NA"} in device["neuron_processes"]
