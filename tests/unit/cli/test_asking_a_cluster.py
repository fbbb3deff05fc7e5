"""The questions that doctor and nodes put to an API server, and what becomes of refusals."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from neuron_cli import facts
from neuron_cli.cluster import Cluster, ClusterError, Refused
from neuron_cli.facts import Unanswered

if TYPE_CHECKING:
    from conftest import FakeCluster


def test_list_is_read_to_its_end(fake: "FakeCluster", kubeconfig: Path) -> None:
    fake.answers["/api/v1/nodes"] = [{"metadata": {"name": str(number)}} for number in range(1234)]
    with Cluster(kubeconfig=kubeconfig, context=None) as cluster:
        assert len(cluster.items("/api/v1/nodes")) == 1234
    assert len(fake.asked) == 3


def test_dropped_fields_are_seen_in_a_dry_run(fake: "FakeCluster", kubeconfig: Path) -> None:
    fake.answers["/version"] = {"gitVersion": "v1.34.4"}
    fake.drops = ("extendedResourceName", "taints", "sharedCounters")
    with Cluster(kubeconfig=kubeconfig, context=None) as cluster:
        found = facts.gather(cluster)
    assert isinstance(found.class_echo, dict)
    assert found.class_echo["spec"].keys() == {"selectors"}
    assert isinstance(found.devices_echo, dict)
    assert "taints" not in found.devices_echo["spec"]["devices"][0]


def test_gates_are_read_off_the_api_servers_metrics(fake: "FakeCluster", kubeconfig: Path) -> None:
    fake.answers |= {
        "/version": {"gitVersion": "v1.36.3"},
        "/metrics": "# TYPE kubernetes_feature_enabled gauge\n"
        'kubernetes_feature_enabled{name="ResourceHealthStatus",stage="BETA"} 0\n'
        'kubernetes_feature_enabled{name="DRAResourceClaimDeviceStatus",stage="BETA"} 1\n'
        'apiserver_requests_total{verb="GET"} 7\n',
    }
    with Cluster(kubeconfig=kubeconfig, context=None) as cluster:
        found = facts.gather(cluster)
    assert found.gates == {"ResourceHealthStatus": False, "DRAResourceClaimDeviceStatus": True}


def test_bare_cluster_has_no_crds_and_no_pools(fake: "FakeCluster", kubeconfig: Path) -> None:
    fake.answers["/version"] = {"gitVersion": "v1.36.3"}
    with Cluster(kubeconfig=kubeconfig, context=None) as cluster:
        found = facts.gather(cluster)
    assert found.our_api == {}
    assert found.pools == found.neuron_nodes == found.faults == []


def test_forbidden_question_is_one_unanswered_fact(fake: "FakeCluster", kubeconfig: Path) -> None:
    fake.answers |= {"/version": {"gitVersion": "v1.36.3"}, "/apis/apps/v1/daemonsets": []}
    fake.refused.add("/api/v1/nodes")
    with Cluster(kubeconfig=kubeconfig, context=None) as cluster:
        found = facts.gather(cluster)
    assert found.nodes == Unanswered('not allowed: User "jane" cannot do that to /api/v1/nodes')
    assert found.daemon_sets == []


def test_refusal_carries_the_servers_sentence(fake: "FakeCluster", kubeconfig: Path) -> None:
    fake.refused.add("/version")
    with Cluster(kubeconfig=kubeconfig, context=None) as cluster, pytest.raises(Refused, match="not allowed: User"):
        cluster.get("/version")


def test_unreachable_server_is_named(kubeconfig_of_nobody: Path) -> None:
    with (
        Cluster(kubeconfig=kubeconfig_of_nobody, context=None) as cluster,
        pytest.raises(ClusterError, match=r"cannot reach the API server at http://127.0.0.1:1: "),
    ):
        cluster.get("/version")


@pytest.mark.parametrize("context", [None, "no-such-context"])
def test_kubeconfig_that_does_not_help_says_what_to_set(kubeconfig: Path, context: str | None) -> None:
    path = kubeconfig if context else kubeconfig.with_name("missing")
    with pytest.raises(ClusterError, match="--kubeconfig and --context"):
        Cluster(kubeconfig=path, context=context)
