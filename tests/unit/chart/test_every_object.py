"""What holds for every object that the chart makes, and for the chart as a whole."""

from itertools import chain

import pytest

CLUSTER_SCOPED = {
    "ClusterRole",
    "ClusterRoleBinding",
    "DeviceClass",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionPolicyBinding",
    "MutatingWebhookConfiguration",
    "NeuronNodePool",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
}
LABELS = {
    "app.kubernetes.io/name": "neuron-sim",
    "app.kubernetes.io/instance": "mine",
    "app.kubernetes.io/part-of": "neuron-sim",
    "app.kubernetes.io/managed-by": "Helm",
    "app.kubernetes.io/version": "0.1.0",
    "neuron-sim.dev/simulated": "true",
}


@pytest.fixture(scope="module", params=["1.34.0", "1.36.0"])
def everything(request, render):
    return render(
        {"scheduler": {"enabled": True}, "virtualNodes": {"enabled": True}},
        release="mine",
        namespace="somewhere",
        kubernetes=request.param,
        apis=[
            "monitoring.coreos.com/v1/PodMonitor",
            "monitoring.coreos.com/v1/PrometheusRule",
            *(["admissionregistration.k8s.io/v1/MutatingAdmissionPolicy"] if request.param == "1.36.0" else []),
        ],
    )


def test_objects_and_pods_are_labelled(everything):
    pods = ({"kind": "pod", **pod} for _, pod in everything.pods())
    for found in chain(everything.objects, pods):
        labels = found["metadata"]["labels"]
        assert labels.items() >= LABELS.items(), found
        assert labels["app.kubernetes.io/component"]


def test_namespaced_objects_are_in_the_namespace_of_the_release(everything):
    for found in everything.objects:
        wanted = None if found["kind"] in CLUSTER_SCOPED else "somewhere"
        if found["kind"] == "RoleBinding" and found["roleRef"]["name"] == "extension-apiserver-authentication-reader":
            wanted = "kube-system"  # where Kubernetes has the Role
        if found["kind"] in ("Role", "RoleBinding") and found["metadata"]["name"] == "neuron-sim-kwok":
            wanted = "kube-node-lease"  # where Kubernetes looks for leases of nodes
        assert found["metadata"].get("namespace") == wanted, found


def test_nothing_but_the_release_says_where_it_is(everything):
    assert "default" not in {subject["namespace"] for subject in subjects(everything)}


def test_subjects_of_bindings_exist(everything):
    accounts = {(a["metadata"]["name"], a["metadata"]["namespace"]) for a in everything.all("ServiceAccount")}
    assert {(subject["name"], subject["namespace"]) for subject in subjects(everything)} == accounts


def test_pods_run_under_accounts_of_the_chart(everything):
    accounts = {account["metadata"]["name"] for account in everything.all("ServiceAccount")}
    used = {pod["spec"].get("serviceAccountName") for _, pod in everything.pods()}
    assert used - {None} == accounts


def test_names_are_unique(everything):
    names = [(found["kind"], found["metadata"]["name"]) for found in everything.objects]
    assert len(names) == len(set(names))


def test_selectors_find_their_own_pods_only(everything):
    pods = {name: pod["metadata"]["labels"] for name, pod in everything.pods()}
    for kind in ("DaemonSet", "Deployment"):
        for owner in everything.all(kind):
            selector = owner["spec"]["selector"]["matchLabels"]
            selected = {name for name, labels in pods.items() if labels.items() >= selector.items()}
            assert selected == {owner["metadata"]["name"]}


def test_the_image_is_one_and_can_be_replaced(everything, render):
    def images(manifests):
        return {
            (container["image"], container["imagePullPolicy"])
            for _, pod in manifests.pods()
            for container in pod["spec"]["containers"]
            if container["name"] not in ("kube-second-scheduler", "kwok")
        }

    assert images(everything) == {("neuron-sim/neuron-sim:0.1.0", "IfNotPresent")}
    mirror = {"repository": "mirror.example.com/sim", "tag": "7", "pullPolicy": "Always"}
    mirrored = render({"image": {**mirror, "pullSecrets": [{"name": "key"}]}})
    assert images(mirrored) == {("mirror.example.com/sim:7", "Always")}
    assert all(pod["spec"]["imagePullSecrets"] == [{"name": "key"}] for _, pod in mirrored.pods())


def test_helm_finds_nothing_to_complain_about(render):
    assert "0 chart(s) failed" in render.lint()


def subjects(manifests):
    return [
        subject
        for kind in ("ClusterRoleBinding", "RoleBinding")
        for binding in manifests.all(kind)
        for subject in binding["subjects"]
    ]
