"""What Helm runs around an upgrade and an uninstall, and that it leaves nothing behind."""

import pytest

EVENTS = {"install-crds": "pre-upgrade", "uninstall": "pre-delete", "delete-crds": "post-delete"}
HELMS_TIMEOUT = 300


def annotations(found):
    return found["metadata"].get("annotations") or {}


@pytest.mark.parametrize("command", EVENTS)
def test_a_job_runs_the_operators_command(default, command):
    job = default.get("Job", f"neuron-sim-{command}")
    assert annotations(job)["helm.sh/hook"] == EVENTS[command]
    container = default.container(f"neuron-sim-{command}")
    assert container["command"] == ["python", "-m", "neuron_operator", command]


@pytest.mark.parametrize("command", EVENTS)
def test_a_refusal_is_final_and_is_shown(default, command):
    job = default.get("Job", f"neuron-sim-{command}")
    assert job["spec"]["backoffLimit"] == 0
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"
    # https://helm.sh/docs/topics/charts_hooks: Helm prints the log of the failed Job
    assert annotations(job)["helm.sh/hook-output-log-policy"] == "hook-failed"
    assert job["spec"]["activeDeadlineSeconds"] < HELMS_TIMEOUT


@pytest.mark.parametrize("command", EVENTS)
def test_its_identity_is_there_before_it_and_for_its_event_only(default, command):
    name = f"neuron-sim-{command}"
    assert default.pod(name)["serviceAccountName"] == name
    job = default.get("Job", name)
    for kind in ("ServiceAccount", "ClusterRole", "ClusterRoleBinding"):
        found = default.get(kind, name)
        assert annotations(found)["helm.sh/hook"] == EVENTS[command]
        assert int(annotations(found)["helm.sh/hook-weight"]) < int(annotations(job)["helm.sh/hook-weight"])


@pytest.mark.parametrize("kubernetes", ["1.34.0", "1.36.0"])
def test_hooks_are_deleted_however_they_end(render, kubernetes):
    # Helm forgets hooks: an uninstall would leave them
    for hook in render(kubernetes=kubernetes).hooks():
        policy = annotations(hook)["helm.sh/hook-delete-policy"]
        assert set(policy.split(",")) == {"before-hook-creation", "hook-succeeded", "hook-failed"}, hook


def test_an_install_waits_for_no_hook(default):
    events = {annotations(hook)["helm.sh/hook"] for hook in default.hooks()}
    assert events == {*EVENTS.values(), "test"}


def test_hooks_run_where_the_operator_runs(render):
    tolerations = [{"key": "a", "operator": "Exists"}]
    manifests = render({"operator": {"nodeSelector": {"role": "infra"}, "tolerations": tolerations}})
    for command in EVENTS:
        spec = manifests.pod(f"neuron-sim-{command}")
        assert spec["nodeSelector"] == {"kubernetes.io/os": "linux", "role": "infra"}
        assert spec["tolerations"] == tolerations


class TestHelmTest:
    """`helm test` proves the installation with one chip."""

    def test_it_lists_its_chip_and_says_why_if_it_cannot(self, default):
        pod = default.get("Pod", "neuron-sim-test")
        assert annotations(pod)["helm.sh/hook"] == "test"
        assert annotations(pod)["helm.sh/hook-output-log-policy"] == "hook-failed"
        assert default.container("neuron-sim-test")["command"] == ["neuron-ls"]

    def test_it_is_a_plain_pod_as_in_the_quick_start(self, default):
        assert default.container("neuron-sim-test")["resources"]["limits"]["aws.amazon.com/neuron"] == 1
        assert not default.all("ResourceClaimTemplate")

    @pytest.mark.parametrize(
        ("kubernetes", "values"),
        [
            ("1.35.4", {}),
            ("1.35.4", {"pools": None}),
            ("1.35.4", {"pools": {"a": {"instanceType": "trn1.2xlarge", "resources": "DRA"}}}),
            ("1.35.4", {"extendedResourceName": "sim.example.com/neuron"}),
            ("1.36.3", {"extendedResourceName": "", "pools": {"default": {"resources": "DevicePlugin"}}}),
        ],
    )
    def test_before_dra_serves_plain_pods_the_device_plugin_does(self, render, kubernetes, values):
        manifests = render(values, kubernetes=kubernetes)
        assert manifests.container("neuron-sim-test")["resources"]["limits"]["aws.amazon.com/neuron"] == 1
        assert not manifests.all("ResourceClaimTemplate")

    @pytest.mark.parametrize(
        ("kubernetes", "values"),
        [
            ("1.35.4", {"pools": {"default": {"resources": "DRA"}}}),
            ("1.34.2", {"extendedResourceName": ""}),
            ("1.36.3", {"extendedResourceName": ""}),
        ],
    )
    def test_it_claims_where_plain_pods_are_not_served(self, render, kubernetes, values):
        manifests = render(values, kubernetes=kubernetes)
        spec, container = manifests.pod("neuron-sim-test"), manifests.container("neuron-sim-test")
        (claim,) = spec["resourceClaims"]
        assert container["resources"]["claims"] == [{"name": claim["name"]}]
        assert "aws.amazon.com/neuron" not in container["resources"]["limits"]
        assert manifests.get("ResourceClaimTemplate", claim["resourceClaimTemplateName"])
