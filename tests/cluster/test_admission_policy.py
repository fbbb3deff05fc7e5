"""One node's token writes that node's objects, and nothing else.

The writes are tried with tokens of the agent's own ServiceAccount, bound to a node as those of its pods are. They
are dry runs, which pass through admission like any other write, so that no agent has to undo one.
"""

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable

import pytest
from harness import DRIVER, EFA_DRIVER, SYSTEM, Cluster, Failed, Object, pod, until

SLICES = "/apis/resource.k8s.io/v1/resourceslices"
NODES = "/apis/neuron-sim.dev/v1alpha1/neuronnodes"

Call = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def call(cluster: Cluster) -> Call:
    """Ask the API server with a node's agent token; returns the status and what it said."""
    server = cluster.kubectl("config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}").strip()
    context = ssl._create_unverified_context()

    def ask(node: str | None, method: str, path: str, body: Object | None = None) -> tuple[int, str]:
        bound = [f"--bound-object-name={node}", "--bound-object-kind=Node"] if node else []
        token = cluster.kubectl("create", "token", "-n", SYSTEM, "neuron-sim-agent", *bound).strip()
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        request = urllib.request.Request(
            f"{server}{path}?dryRun=All",
            method=method,
            data=json.dumps(body).encode() if body is not None else None,
            headers={"Authorization": f"Bearer {token}", "Content-Type": kind},
        )
        try:
            with urllib.request.urlopen(request, context=context) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())["message"]

    # a policy that was just made, or an API server that just began, enforces it some seconds later
    anybodys = a_slice(cluster.workers()[0])
    until(lambda: ask(None, "POST", SLICES, anybodys)[0] == 403, what="the policies in force")
    return ask


@pytest.fixture
def mine(cluster: Cluster) -> str:
    return cluster.workers()[0]


@pytest.fixture
def theirs(cluster: Cluster) -> str:
    return cluster.workers()[1]


def a_slice(node: str, **changes: object) -> Object:
    spec = {
        "driver": DRIVER,
        "nodeName": node,
        "pool": {"name": node, "generation": 1, "resourceSliceCount": 1},
        "devices": [],
        **changes,
    }
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceSlice",
        "metadata": {"generateName": "written-by-a-test-", "labels": {"neuron-sim.dev/simulated": "true"}},
        "spec": spec,
    }


def published(cluster: Cluster, node: str) -> Object:
    return next(s for s in cluster.slices() if s["spec"]["nodeName"] == node)


def test_own_slices_may_be_written(cluster: Cluster, call: Call, mine: str) -> None:
    assert call(mine, "POST", SLICES, a_slice(mine))[0] == 201
    assert call(mine, "POST", SLICES, a_slice(mine, driver=EFA_DRIVER))[0] == 201
    own = published(cluster, mine)
    path = f"{SLICES}/{own['metadata']['name']}"
    assert call(mine, "PUT", path, own)[0] == 200
    assert call(mine, "DELETE", path)[0] == 200


def test_slices_of_another_node_are_refused(cluster: Cluster, call: Call, mine: str, theirs: str) -> None:
    other = published(cluster, theirs)
    path = f"{SLICES}/{other['metadata']['name']}"
    for method, where, body in (("POST", SLICES, a_slice(theirs)), ("PUT", path, other), ("DELETE", path, None)):
        status, message = call(mine, method, where, body)
        assert status == 403
        assert "ValidatingAdmissionPolicy" in message, message


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"driver": "gpu.example.com"}, id="another driver"),
        pytest.param({"nodeName": None, "allNodes": True}, id="all nodes"),
        pytest.param({"pool": {"name": "elsewhere", "generation": 1, "resourceSliceCount": 1}}, id="another pool"),
    ],
)
def test_slices_beyond_the_own_node_are_refused(call: Call, mine: str, changes: Object) -> None:
    status, message = call(mine, "POST", SLICES, a_slice(mine, **changes))
    assert status == 403
    assert "ValidatingAdmissionPolicy" in message


def test_slice_that_does_not_say_that_it_is_simulated_is_refused(call: Call, mine: str) -> None:
    body = a_slice(mine)
    del body["metadata"]["labels"]
    assert call(mine, "POST", SLICES, body)[0] == 403


def test_token_of_no_node_is_refused(call: Call, mine: str) -> None:
    assert call(None, "POST", SLICES, a_slice(mine))[0] == 403


@pytest.mark.parametrize(
    ("account", "marks", "own", "refused"),
    [
        pytest.param(
            "operator",
            {},
            {"driver": "ultraserver.neuron-sim.dev"},
            {"driver": DRIVER},
            id="the operator, those of UltraServers",
        ),
        pytest.param(
            "virtual-agent",
            {"neuron-sim.dev/virtual": "true"},
            {"driver": DRIVER},
            {"driver": "gpu.example.com"},
            id="the agent of virtual nodes, its drivers'",
        ),
    ],
)
def test_the_others_write_slices_of_their_own(
    cluster: Cluster, call: Call, mine: str, account: str, marks: Object, own: Object, refused: Object
) -> None:
    def create(changes: Object, labels: Object) -> None:
        body = a_slice(mine, **changes)
        body["metadata"]["labels"] |= labels
        who = f"--as=system:serviceaccount:{SYSTEM}:neuron-sim-{account}"
        cluster.kubectl("create", "--dry-run=server", "-f", "-", who, input=json.dumps(body))

    create(own, marks)
    for changes, labels in ((refused, marks), (own, marks | {"neuron-sim.dev/simulated": "false"})):
        with pytest.raises(Failed, match="ValidatingAdmissionPolicy 'neuron-sim-resourceslices'"):
            create(changes, labels)


def test_only_the_own_neuronnodes_status_may_be_written(call: Call, mine: str, theirs: str) -> None:
    status = {"status": {"devices": 16}}
    assert call(mine, "PATCH", f"{NODES}/{mine}/status", status)[0] == 200
    code, message = call(mine, "PATCH", f"{NODES}/{theirs}/status", status)
    assert code == 403
    assert "ValidatingAdmissionPolicy" in message
    assert call(mine, "PATCH", f"{NODES}/{mine}", {"spec": {"instanceType": "trn1.32xlarge"}})[0] == 403


@pytest.mark.parametrize("path", ["/api/v1/nodes/{}", "/api/v1/nodes/{}/status"])
def test_agent_may_not_write_its_node(call: Call, mine: str, path: str) -> None:
    assert call(mine, "PATCH", path.format(mine), {"metadata": {"labels": {"a": "b"}}})[0] == 403


def test_of_pods_only_what_the_device_plugin_has_to_say(
    cluster: Cluster, call: Call, namespace: str, mine: str, theirs: str
) -> None:
    cluster.apply([pod("here", node=mine), pod("there", node=theirs)], namespace)
    cluster.wait_ready(namespace)

    def annotate(name: str, key: str) -> int:
        path = f"/api/v1/namespaces/{namespace}/pods/{name}"
        return call(mine, "PATCH", path, {"metadata": {"annotations": {key: "true"}}})[0]

    assert annotate("here", "NEURON_ALLOCATED") == 200
    assert annotate("here", "somebody.else/key") == 403
    assert annotate("there", "NEURON_ALLOCATED") == 403


def test_events_are_told_in_the_own_nodes_name_only(call: Call, namespace: str, mine: str, theirs: str) -> None:
    def told_by(node: str) -> int:
        event = {
            "metadata": {"generateName": "told-by-a-test-", "namespace": namespace},
            "eventTime": "2026-01-01T00:00:00.000000Z",
            "type": "Warning",
            "reason": "NeuronDeviceUnhealthy",
            "action": "Report",
            "note": "a test",
            "regarding": {"apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": "p", "uid": "u"},
            "reportingController": "neuron-sim.dev/agent",
            "reportingInstance": node,
        }
        return call(mine, "POST", f"/apis/events.k8s.io/v1/namespaces/{namespace}/events", event)[0]

    assert told_by(mine) == 201
    assert told_by(theirs) == 403
