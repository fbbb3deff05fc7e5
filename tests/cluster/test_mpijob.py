"""nccom-test from a launcher without devices: kubeflow's operator, ssh and mpirun as in AWS's MPIJob."""

import pytest
import yaml
from harness import REPOSITORY, Cluster, Object, until

EXAMPLE = REPOSITORY / "manifests/examples/mpijob/mpijob.yaml"


@pytest.fixture(scope="module")
def operator(cluster: Cluster) -> None:
    """As a user installs it, and the image with ssh and OpenMPI. It stays: it looks at MPIJobs only."""
    image = cluster.run([str(REPOSITORY / "hack/image"), "neuron-mpi"], timeout=900).strip()
    cluster.show([str(REPOSITORY / "hack/cluster"), "load", "--name", cluster.name, image])
    cluster.show([str(REPOSITORY / "hack/controllers"), "install", "--name", cluster.name, "mpi"])


def said(cluster: Cluster, namespace: str) -> list[str]:
    return cluster.kubectl("logs", "-n", namespace, "job/nccom-launcher", check=False).splitlines()


def finished(cluster: Cluster, namespace: str) -> str:
    conditions = cluster.get("mpijob", "-n", namespace, "nccom").get("status", {}).get("conditions", [])
    return next((c["type"] for c in conditions if c["type"] in ("Succeeded", "Failed") and c["status"] == "True"), "")


def long_job_of_root() -> Object:
    """As in AWS's samples: everything runs as root, and where the key lies and what workers run is left to defaults."""
    job: Object = yaml.safe_load(EXAMPLE.read_text())
    del job["spec"]["sshAuthMountPath"]
    launcher, worker = (
        job["spec"]["mpiReplicaSpecs"][name]["template"]["spec"]["containers"][0] for name in ("Launcher", "Worker")
    )
    launcher["args"] = ["-b", "8kb", "-e", "512mb", "-i", "8kb", "--check", "random", "allr"]
    launcher["env"] += [{"name": f"OMPI_ALLOW_RUN_AS_ROOT{more}", "value": "1"} for more in ("", "_CONFIRM")]
    del launcher["securityContext"], worker["securityContext"], worker["command"]
    return job


@pytest.mark.timeout(1800)  # the image and, where no registry is in reach, the operator are made at first
def test_the_launcher_holds_nothing_and_prints_the_table(cluster: Cluster, operator: None, namespace: str) -> None:
    cluster.apply(EXAMPLE.read_text(), namespace)
    until(
        lambda: finished(cluster, namespace) == "Succeeded",
        what="the MPIJob succeeded",
        details=lambda: said(cluster, namespace),
    )
    header, *rows, last = said(cluster, namespace)
    assert header.split()[-1] == "algorithm"
    assert [row.split()[0] for row in rows] == ["1024", "8192", "65536", "524288", "4194304"]
    assert last.startswith("Avg bus bandwidth:\t")
    (launcher,) = cluster.items("pods", "-n", namespace, "-l", "training.kubeflow.org/job-role=launcher")
    assert "resourceClaimStatuses" not in launcher["status"]


def test_it_runs_as_root_and_a_worker_that_is_killed_ends_the_launcher(
    cluster: Cluster, operator: None, namespace: str
) -> None:
    cluster.apply(long_job_of_root(), namespace)
    until(
        lambda: len(said(cluster, namespace)) > 1,
        what="a first row",
        details=lambda: cluster.kubectl("get", "pods", "-n", namespace),
    )
    assert cluster.execute(namespace, "nccom-worker-0", "id", "-u").strip() == "0"
    cluster.kubectl("delete", "pod", "-n", namespace, "nccom-worker-1", "--force", "--grace-period=0")
    until(lambda: finished(cluster, namespace) == "Failed", what="the MPIJob failed", timeout=45)
    lines = said(cluster, namespace)
    assert any("Failure running neuron-bench - log file /tmp/nccom_test_log_" in line for line in lines)
    assert "1 errors found - test failed" in lines
