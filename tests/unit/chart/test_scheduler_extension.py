"""AWS's scheduler extension and my-scheduler: off by default, and what they are made of when on."""

import pytest
import yaml

EXTENSION, SCHEDULER = "k8s-neuron-scheduler", "my-scheduler"
COMPONENTS = {"scheduler-extension", "my-scheduler"}


@pytest.fixture(scope="module")
def both(render):
    return render({"scheduler": {"enabled": True}}, namespace="somewhere", kubernetes="v1.36.3")


def config(manifests):
    return yaml.safe_load(manifests.get("ConfigMap", "my-scheduler-config")["data"]["my-scheduler-config.yaml"])


def of_ours(manifests):
    return [
        found for found in manifests.objects if found["metadata"]["labels"]["app.kubernetes.io/component"] in COMPONENTS
    ]


def test_nothing_of_it_is_there_unless_asked_for(default):
    assert not of_ours(default)


def test_names_are_awss(both):
    assert both.get("Service", EXTENSION)["spec"]["ports"][0]["port"] == 12345
    assert both.container(EXTENSION)["name"] == "neuron-scheduler-exp"
    assert both.container(SCHEDULER)["name"] == "kube-second-scheduler"
    assert both.get("Deployment", EXTENSION)["spec"]["strategy"] == {"type": "Recreate"}
    assert both.get("Deployment", EXTENSION)["spec"]["replicas"] == 1


def test_the_configuration_is_awss(both):
    found = config(both)
    assert [profile["schedulerName"] for profile in found["profiles"]] == [SCHEDULER]
    (extender,) = found["extenders"]
    resources = [resource["name"].removeprefix("aws.amazon.com/") for resource in extender.pop("managedResources")]
    assert resources == ["neuron", "neuroncore", "neurondevice"]
    assert extender == {
        "urlPrefix": "http://k8s-neuron-scheduler.somewhere.svc:12345",
        "filterVerb": "filter",
        "bindVerb": "bind",
        "enableHTTPS": False,
        "nodeCacheCapable": True,
        "ignorable": False,
    }


def test_the_service_finds_the_extension_and_only_it(both):
    selector = both.get("Service", EXTENSION)["spec"]["selector"]
    selected = [name for name, pod in both.pods() if pod["metadata"]["labels"].items() >= selector.items()]
    assert selected == [EXTENSION]


def test_its_lease_is_not_that_of_the_clusters_own_scheduler(both):
    election = config(both)["leaderElection"]
    assert (election["leaderElect"], election["resourceName"]) == (True, SCHEDULER)
    assert both.get("Lease", election["resourceName"])["metadata"]["namespace"] == election["resourceNamespace"]
    assert "spec" not in both.get("Lease", SCHEDULER)
    (rule,) = both.get("Role", SCHEDULER)["rules"]
    assert rule["resourceNames"] == [SCHEDULER]


@pytest.mark.parametrize(
    ("cluster", "tag"),
    [
        ("v1.36.3", "v1.36.3"),
        ("v1.34.4-eks-1a2b3c4", "v1.34.4"),
        ("v1.35.2+k3s1", "v1.35.2"),
        ("v1.36.1-gke.1014001", "v1.36.1"),
    ],
)
def test_the_scheduler_is_of_the_clusters_version(render, cluster, tag):
    manifests = render({"scheduler": {"enabled": True}}, kubernetes=cluster)
    assert manifests.container(SCHEDULER)["image"] == f"registry.k8s.io/kube-scheduler:{tag}"
    assert manifests.container(SCHEDULER)["imagePullPolicy"] == "IfNotPresent"


def test_the_schedulers_image_can_be_replaced(render):
    image = {"repository": "mirror.example.com/kube-scheduler", "tag": "7", "pullPolicy": "Always"}
    values = {
        "scheduler": {"enabled": True, "customScheduler": {"image": image}},
        "image": {"pullSecrets": [{"name": "k"}]},
    }
    manifests = render(values)
    container = manifests.container(SCHEDULER)
    assert (container["image"], container["imagePullPolicy"]) == ("mirror.example.com/kube-scheduler:7", "Always")
    assert manifests.pod(SCHEDULER)["imagePullSecrets"] == [{"name": "k"}]


def test_the_extension_alone_serves_a_scheduler_of_ones_own(render):
    manifests = render({"scheduler": {"enabled": True, "customScheduler": {"enabled": False}}})
    assert {found["metadata"]["name"] for found in of_ours(manifests)} == {EXTENSION}


@pytest.mark.parametrize("name", [EXTENSION, SCHEDULER])
def test_both_meet_the_restricted_pod_security_level(both, name):
    spec, container = both.pod(name), both.container(name)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    assert {tuple(volume) for volume in spec.get("volumes", [])} <= {("name", "configMap")}


@pytest.mark.parametrize("name", [EXTENSION, SCHEDULER])
def test_both_prefer_the_control_plane_and_need_it_not(both, name):
    spec = both.pod(name)
    (term,) = spec["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert term["preference"]["matchExpressions"][0]["key"] == "node-role.kubernetes.io/control-plane"
    assert {"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"} in spec["tolerations"]
    assert spec["nodeSelector"] == {"kubernetes.io/os": "linux"}


def test_the_extension_may_bind_pods_and_not_change_them(both):
    writes = {
        (resource, verb)
        for rule in both.get("ClusterRole", EXTENSION)["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        if verb not in ("get", "list", "watch")
    }
    assert writes == {("pods/binding", "create"), ("nodes/status", "patch")}


def test_the_scheduler_has_the_rights_of_kubernetes_own(both):
    bound = {
        binding["roleRef"]["name"]
        for binding in both.all("ClusterRoleBinding") + both.all("RoleBinding")
        if binding["subjects"][0]["name"] == SCHEDULER
    }
    reader = "extension-apiserver-authentication-reader"
    assert bound == {"system:kube-scheduler", "system:volume-scheduler", reader, SCHEDULER}
    # a Role of this name is in kube-system only
    assert both.get("RoleBinding", f"my-scheduler-{reader}")["metadata"]["namespace"] == "kube-system"


def test_all_but_that_is_in_the_namespace_of_the_release(both):
    spaces = {
        found["metadata"]["namespace"]
        for found in of_ours(both)
        if "namespace" in found["metadata"] and found["kind"] != "RoleBinding"
    }
    assert spaces == {"somewhere"}
    subjects = [
        subject["namespace"]
        for kind in ("ClusterRoleBinding", "RoleBinding")
        for found in both.all(kind)
        for subject in found["subjects"]
    ]
    assert set(subjects) == {"somewhere"}


def test_policies_let_the_scheduler_through_to_the_extension(both):
    incoming, outgoing = both.get("NetworkPolicy", EXTENSION)["spec"], both.get("NetworkPolicy", SCHEDULER)["spec"]
    pods = {name: pod["metadata"]["labels"] for name, pod in both.pods()}
    (into,) = incoming["ingress"]
    assert into["ports"] == [{"protocol": "TCP", "port": 12345}]
    (out,) = outgoing["egress"]
    assert out["ports"] == into["ports"]
    assert pods[EXTENSION].items() >= out["to"][0]["podSelector"]["matchLabels"].items()
    assert pods[EXTENSION].items() >= incoming["podSelector"]["matchLabels"].items()
    assert pods[SCHEDULER].items() >= outgoing["podSelector"]["matchLabels"].items()


def test_policies_and_monitor_follow_their_values(render):
    values = {"scheduler": {"enabled": True}, "networkPolicy": {"enabled": False}}
    assert not render(values).all("NetworkPolicy")
    values["metrics"] = {"podMonitor": {"enabled": True, "labels": {"release": "prometheus"}}}
    monitor = render(values, apis=["monitoring.coreos.com/v1/PodMonitor"]).get("PodMonitor", EXTENSION)
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"]["podMetricsEndpoints"][0]["port"] == "http"


def test_a_changed_configuration_restarts_the_scheduler(render, both):
    def mark(manifests):
        return dict(manifests.pods())[SCHEDULER]["metadata"]["annotations"]["neuron-sim.dev/config"]

    elsewhere = render({"scheduler": {"enabled": True}}, namespace="elsewhere", kubernetes="v1.36.3")
    assert mark(elsewhere) != mark(both)


@pytest.mark.parametrize(
    "values",
    [
        {"nodeSelector": None, "tolerations": None, "resources": None, "customScheduler": None},
        {"customScheduler": {"enabled": None, "image": None, "resources": None}},
        {"customScheduler": {"image": {"repository": None, "tag": None, "pullPolicy": None}}},
    ],
)
def test_a_removed_value_still_renders_both(render, values):
    manifests = render({"scheduler": {"enabled": True, **values}})
    assert "null" not in manifests.text
    assert manifests.container(SCHEDULER)["image"].startswith("registry.k8s.io/kube-scheduler:v1.")
