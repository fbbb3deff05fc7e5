"""How Prometheus gets at the metrics, and who else gets at the pods."""

import pytest

POD_MONITOR = "monitoring.coreos.com/v1/PodMonitor"


def annotations(manifests, name):
    return dict(manifests.pods())[name]["metadata"].get("annotations") or {}


@pytest.mark.parametrize("pod", ["neuron-sim-agent", "neuron-sim-operator"])
def test_pods_say_where_their_metrics_are(default, render, pod):
    assert annotations(default, pod)["prometheus.io/port"] == "8000"
    assert "prometheus.io/scrape" not in annotations(render({"metrics": {"scrapeAnnotations": False}}), pod)


def test_a_pod_monitor_is_made_on_request(default, render):
    assert not default.all("PodMonitor")
    wish = {"enabled": True, "interval": "5s", "labels": {"release": "prometheus"}}
    monitor = render({"metrics": {"podMonitor": wish}}, apis=[POD_MONITOR]).get("PodMonitor", "neuron-sim")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert (endpoint["port"], endpoint["interval"]) == ("metrics", "5s")


def test_a_pod_monitor_without_its_operator_is_refused_with_the_way_out(render):
    with pytest.raises(render.Refused, match="install the Prometheus operator first, or leave the value off"):
        render({"metrics": {"podMonitor": {"enabled": True}}})


def test_the_network_is_closed_but_for_metrics_the_webhook_dns_and_the_api_server(default, render):
    policy = default.get("NetworkPolicy", "neuron-sim")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert ports(policy["ingress"]) == {8000, 9443}
    without = render({"gangs": {"addGate": False}}).get("NetworkPolicy", "neuron-sim")["spec"]
    assert ports(without["ingress"]) == {8000}
    assert ports(policy["egress"]) == {53, 443, 6443, 8443, 16443}


def test_it_covers_every_pod_of_the_release(default):
    selector = default.get("NetworkPolicy", "neuron-sim")["spec"]["podSelector"]["matchLabels"]
    assert all(pod["metadata"]["labels"].items() >= selector.items() for _, pod in default.pods())


def test_the_network_policy_can_be_fitted_or_left_out(render):
    fitted = render({"networkPolicy": {"apiServerPorts": [7443]}}).get("NetworkPolicy", "neuron-sim")["spec"]
    assert ports(fitted["egress"]) == {53, 7443}
    assert not render({"networkPolicy": {"enabled": False}}).all("NetworkPolicy")


def ports(rules):
    return {port["port"] for rule in rules for port in rule["ports"]}
