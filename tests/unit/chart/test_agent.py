"""The agent's DaemonSet: everywhere, at the kubelet's folders, and never away during an update."""

import pytest

AGENT = "neuron-sim-agent"


@pytest.fixture
def spec(default):
    return default.pod(AGENT)


def options(manifests):
    return dict(argument.removeprefix("--").split("=", 1) for argument in manifests.container(AGENT)["args"])


def folders(manifests):
    return {volume["name"]: volume["hostPath"] for volume in manifests.pod(AGENT)["volumes"]}


def test_it_runs_on_every_node_that_has_a_kubelet(spec):
    assert spec["tolerations"] == [{"operator": "Exists"}]
    assert spec["nodeSelector"] == {"kubernetes.io/os": "linux"}
    required = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    (term,) = required["nodeSelectorTerms"]
    assert term["matchExpressions"] == [{"key": "type", "operator": "NotIn", "values": ["kwok"]}]
    assert spec["priorityClassName"] == "system-node-critical"


def test_the_next_one_serves_before_the_last_one_leaves(default):
    strategy = default.get("DaemonSet", AGENT)["spec"]["updateStrategy"]
    assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    # two pods of one node could not share a port of the host
    assert all("hostPort" not in port for port in default.container(AGENT)["ports"])


def test_folders_have_the_same_path_inside(default):
    mounts = {mount["name"]: mount["mountPath"] for mount in default.container(AGENT)["volumeMounts"]}
    assert mounts == {name: folder["path"] for name, folder in folders(default).items()}
    assert {folder["type"] for folder in folders(default).values()} == {"DirectoryOrCreate"}
    assert set(mounts.values()) == {
        "/var/lib/kubelet/plugins",
        "/var/lib/kubelet/plugins_registry",
        "/var/lib/kubelet/device-plugins",
        "/var/lib/kubelet/pod-resources",
        "/var/run/cdi",
        "/var/lib/neuron-sim",
        "/run/neuron-sim",
    }


def test_it_is_told_every_folder_that_is_mounted(default):
    told = {value for key, value in options(default).items() if key.endswith("-dir")}
    assert told == {folder["path"] for folder in folders(default).values()}


def test_the_kubelets_folder_can_be_elsewhere(render):
    elsewhere = render({"kubeletDir": "/data/kubelet"})
    assert "/var/lib/kubelet" not in elsewhere.text
    assert options(elsewhere)["plugins-dir"] == "/data/kubelet/plugins"
    assert options(elsewhere)["registry-dir"] == "/data/kubelet/plugins_registry"


def test_it_knows_its_node_and_its_pod(default):
    fields = {
        env["name"]: env["valueFrom"]["fieldRef"]["fieldPath"]
        for env in default.container(AGENT)["env"]
        if "valueFrom" in env
    }
    assert fields.items() >= {"NODE_NAME": "spec.nodeName", "POD_UID": "metadata.uid"}.items()


@pytest.mark.parametrize(
    ("pod", "port", "ready"), [(AGENT, 8000, "/readyz"), ("neuron-sim-operator", 8080, "/healthz")]
)
def test_probes_ask_the_port_that_answers(default, pod, port, ready):
    container = default.container(pod)
    ports = {found["name"]: found["containerPort"] for found in container["ports"]}
    for probe, path in {"livenessProbe": "/healthz", "readinessProbe": ready}.items():
        get = container[probe]["httpGet"]
        assert (get["path"], ports[get["port"]]) == (path, port)


def test_where_it_runs_can_be_narrowed(render):
    tolerations = [{"key": "a", "operator": "Exists"}]
    spec = render({"agent": {"nodeSelector": {"pool": "sim"}, "tolerations": tolerations}}).pod(AGENT)
    assert spec["nodeSelector"] == {"kubernetes.io/os": "linux", "pool": "sim"}
    assert spec["tolerations"] == tolerations
