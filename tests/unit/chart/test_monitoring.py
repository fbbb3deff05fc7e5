"""How Prometheus and Grafana get at metrics, rules and dashboards, and who else gets at the pods."""

import json

import pytest
from grafana_queries import DASHBOARDS, RULES
from yaml import safe_load

POD_MONITOR = "monitoring.coreos.com/v1/PodMonitor"
SERVICE_MONITOR = "monitoring.coreos.com/v1/ServiceMonitor"
RULE = "monitoring.coreos.com/v1/PrometheusRule"


def annotations(manifests, name):
    return dict(manifests.pods())[name]["metadata"].get("annotations") or {}


@pytest.mark.parametrize("pod", ["neuron-sim-agent", "neuron-sim-operator"])
def test_pods_say_where_their_metrics_are(default, render, pod):
    assert annotations(default, pod)["prometheus.io/port"] == "8000"
    assert "prometheus.io/scrape" not in annotations(render({"metrics": {"scrapeAnnotations": False}}), pod)


def test_without_the_prometheus_operator_there_is_nothing_of_it(default, render):
    everything = render({"scheduler": {"enabled": True}, "virtualNodes": {"enabled": True}})
    for manifests in (default, everything):
        assert not [found for found in manifests.objects if "monitoring.coreos.com" in found["apiVersion"]]
    assert not default.all("ConfigMap")


@pytest.mark.parametrize(("kind", "value"), [("PodMonitor", "podMonitor"), ("PrometheusRule", "prometheusRule")])
def test_each_is_made_where_its_kind_is_unless_it_is_not_wanted(render, kind, value):
    apis = [f"monitoring.coreos.com/v1/{kind}"]
    assert render(apis=apis).all(kind)
    assert not render({"metrics": {value: {"enabled": False}}}, apis=apis).all(kind)
    with pytest.raises(render.Refused, match="install the Prometheus operator first, or leave the value at auto"):
        render({"metrics": {value: {"enabled": True}}})


def test_the_pod_monitor_has_the_labels_that_alerts_and_dashboards_ask_for(render):
    wish = {"enabled": True, "interval": "5s", "labels": {"release": "prometheus"}}
    monitor = render({"metrics": {"podMonitor": wish}}, apis=[POD_MONITOR]).get("PodMonitor", "neuron-sim")
    assert monitor["spec"]["jobLabel"] == "app.kubernetes.io/name"
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert (endpoint["port"], endpoint["interval"], endpoint["honorLabels"]) == ("metrics", "5s", True)
    assert endpoint["relabelings"][0]["targetLabel"] == "node"


def test_virtual_nodes_are_scraped_on_as_many_pages_as_they_are_told(render):
    def monitored(pages):
        values = {"virtualNodes": {"enabled": True, "metricsPages": pages}}
        manifests = render(values, apis=[POD_MONITOR])
        assert f"--metrics-pages={pages}" in manifests.container("neuron-sim-virtual-agent")["args"]
        return manifests.get("PodMonitor", "neuron-sim-virtual")["spec"]

    (one,) = monitored(1)["podMetricsEndpoints"]
    assert (one["path"], one["honorLabels"]) == ("/metrics", True)
    several = monitored(3)["podMetricsEndpoints"]
    assert [one["path"] for one in several] == ["/metrics/1", "/metrics/2", "/metrics/3"]
    told_apart = [relabeling for one in several for relabeling in one["relabelings"] if "replacement" in relabeling]
    assert [relabeling["replacement"] for relabeling in told_apart] == ["1", "2", "3"]


def test_agents_are_scraped_by_their_service_or_by_the_pod_monitor_but_not_by_both(default, render):
    apis = [POD_MONITOR, SERVICE_MONITOR]

    def components(manifests):
        (expression,) = manifests.get("PodMonitor", "neuron-sim")["spec"]["selector"]["matchExpressions"]
        return expression["values"]

    assert not [found for found in default.all("Service") if found["metadata"]["name"] == "neuron-monitor-service"]
    assert not render(apis=apis).all("ServiceMonitor")
    with pytest.raises(render.Refused, match="install the Prometheus operator first"):
        render({"metrics": {"serviceMonitor": {"enabled": True}}})

    alone = render({"metrics": {"service": {"enabled": True}}}, apis=apis)
    service = alone.get("Service", "neuron-monitor-service")
    assert service["metadata"]["labels"]["k8s-app"] == "neuron-monitor-service"
    assert service["spec"]["internalTrafficPolicy"] == "Local"
    assert components(alone) == ["agent", "operator"]

    monitored = render({"metrics": {"serviceMonitor": {"enabled": True, "labels": {"release": "p"}}}}, apis=apis)
    selector = monitored.get("ServiceMonitor", "neuron-sim")["spec"]["selector"]["matchLabels"]
    service = monitored.get("Service", "neuron-monitor-service")
    assert service["metadata"]["labels"].items() >= selector.items()
    assert (
        dict(monitored.pods())["neuron-sim-agent"]["metadata"]["labels"].items() >= service["spec"]["selector"].items()
    )
    assert components(monitored) == ["operator"]


def test_rules_are_those_of_the_file_with_links_to_docs_of_your_choice(render):
    wish = {"labels": {"release": "prometheus"}, "docs": "https://wiki.example.com/neuron-sim/"}
    rule = render({"metrics": {"prometheusRule": wish}}, apis=[RULE]).get("PrometheusRule", "neuron-sim")
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    plain = render(apis=[RULE]).get("PrometheusRule", "neuron-sim")
    assert plain["spec"] == safe_load(RULES.read_text())
    links = {
        one["annotations"]["runbook_url"].partition("#")[0]
        for group in rule["spec"]["groups"]
        for one in group["rules"]
        if "alert" in one
    }
    assert links == {"https://wiki.example.com/neuron-sim/alerts.md"}


def test_each_dashboard_is_a_config_map_that_grafanas_sidecar_finds(render):
    wish = {
        "enabled": True,
        "labels": {"grafana_dashboard": None, "team": "ml"},
        "annotations": {"grafana_folder": "n"},
    }
    made = render({"metrics": {"dashboards": wish}}).all("ConfigMap")
    (content,) = [
        json.loads(text) for one in made for text in one["data"].values() if one["metadata"]["name"].endswith("fleet")
    ]
    assert content == DASHBOARDS["fleet"]
    assert {one["metadata"]["annotations"]["grafana_folder"] for one in made} == {"n"}
    assert {one["metadata"]["labels"]["team"] for one in made} == {"ml"}
    usual = render(apis=[RULE]).all("ConfigMap")
    assert len(usual) == len(made) == len(DASHBOARDS)
    assert {one["metadata"]["labels"]["grafana_dashboard"] for one in usual} == {"1"}


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
