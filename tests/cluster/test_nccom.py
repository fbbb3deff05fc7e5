"""nccom-test in pods: times of the real placement, real sums, over one pod and over two, and jobs that break."""

import subprocess
from collections.abc import Iterator

import pytest
from harness import REPOSITORY, Cluster, pod

PORT = 45654
FAILED = "Failure running neuron-bench - log file /tmp/nccom_test_log_"


@pytest.fixture(scope="module")
def pods(cluster: Cluster) -> Iterator[str]:
    """A namespace with a pod of two chips on each worker."""
    with cluster.namespace() as name:
        nodes = cluster.workers()
        cluster.apply([pod(f"p{number}", chips=2, node=node) for number, node in enumerate(nodes)], name)
        cluster.wait_ready(name)
        yield name


class Run:
    """nccom-test in a pod, its output as it comes."""

    def __init__(self, cluster: Cluster, namespace: str, name: str, words: str, **environment: str) -> None:
        variables = "".join(f"export {key}={value}; " for key, value in environment.items())
        script = f"{variables}echo $$ > /tmp/pid; exec nccom-test {words}"
        self._process = subprocess.Popen(
            ["kubectl", "exec", "-n", namespace, name, "--", "sh", "-c", script],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=cluster.environment,
        )

    def line(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline()

    def end(self) -> tuple[int, list[str], str]:
        out, err = self._process.communicate(timeout=60)
        return self._process.returncode, out.splitlines(), err


def together(cluster: Cluster, namespace: str, words: str, *, other: str = "", **environment: str) -> list[Run]:
    """The same command in both pods; the root is the first."""
    address = cluster.get("pod", "-n", namespace, "p0")["status"]["podIP"]
    environment |= {"NEURON_RT_ROOT_COMM_ID": f"{address}:{PORT}"}
    return [
        Run(cluster, namespace, "p0", words, **environment),
        Run(cluster, namespace, "p1", f"{words} {other}", **environment),
    ]


def test_one_pod_checks_and_times_its_own_cores(cluster: Cluster, pods: str) -> None:
    words = "-r 8 -b 1kb -e 1mb -f 32 -d bf16 --check random --show-algorithm allr"
    status, (header, *rows, last), err = Run(cluster, pods, "p0", words).end()
    assert (status, err) == (0, "")
    assert header.split()[-1] == "algorithm"
    assert [row.split()[0] for row in rows] == ["1024", "32768", "1048576"]
    assert last.startswith("Avg bus bandwidth:\t")
    status, out, err = Run(cluster, pods, "p0", "-r 9 allr").end()
    assert status == 1
    assert FAILED in out[1]
    assert "NeuronCore(s) not available - Requested:9 Available:8" in err


def test_two_pods_on_two_nodes_are_one_group(cluster: Cluster, pods: str) -> None:
    def times(words: str, runs: list[Run]) -> list[float]:
        (status, (_, *rows, last), err), *others = (run.end() for run in runs)
        assert (status, err) == (0, "")
        assert last.startswith("Avg bus bandwidth:\t")
        assert others == [(0, [], "")] * len(others), "the root alone prints"
        return [float(row.split()[3]) for row in rows]

    words = "-b 8kb -e 4mb -f 8 -d bf16 --check random allr"
    network = times(words, together(cluster, pods, f"-r 16 -N 2 {words}"))
    inside = times(words, [Run(cluster, pods, "p0", f"-r 8 {words}")])
    assert all(a > 1.5 * b for a, b in zip(network, inside, strict=True)), "EFA is slower than NeuronLink"


def test_a_pod_with_another_seed_is_told_and_the_root_does_not_wait_for_ever(cluster: Cluster, pods: str) -> None:
    words = "-r 16 -N 2 -b 1kb -e 1kb --check random allr"
    root, other = together(
        cluster, pods, f"{words} --seed 1", other="--seed 2", NEURON_SIM_JOIN_TIMEOUT="5", NEURON_RT_LOG_LEVEL="INFO"
    )
    status, _, err = other.end()
    assert status == 1
    assert "give the same --seed in all pods" in err
    status, out, err = root.end()
    assert status == 1
    assert "1 of 2 processes did not come in 5 s" in err
    assert out[-1] == "1 errors found - test failed"


def test_a_pod_that_dies_ends_the_job_in_all_pods(cluster: Cluster, pods: str) -> None:
    root, _ = runs = together(cluster, pods, "-r 16 -N 2 -b 8kb -e 512mb -i 8kb --check random allr")
    assert "size(B)" in root.line()
    assert root.line().split()[0] == "8192"
    cluster.execute(pods, "p1", "sh", "-c", "kill -9 $(cat /tmp/pid)")
    (status, out, err), _ = (run.end() for run in runs)
    assert status == 1
    assert "NRT:" in err or "TDRV:" in err
    assert "has ended" in err
    assert out[-1].endswith("errors found - test failed")
    # and nothing is left: the cores and the port are free
    for run in together(cluster, pods, "-r 16 -N 2 -b 1kb -e 1kb -c allr"):
        assert run.end()[0] == 0


def test_the_job_of_the_example_runs_through(cluster: Cluster, pods: str) -> None:
    cluster.apply((REPOSITORY / "manifests/examples/collectives/job.yaml").read_text(), pods)
    cluster.kubectl("wait", "-n", pods, "--for=condition=Complete", "job/collectives", "--timeout=90s")
    (printed,) = filter(
        None,
        (
            cluster.kubectl("logs", "-n", pods, "-l", f"batch.kubernetes.io/job-completion-index={number}").strip()
            for number in (0, 1)
        ),
    )
    assert [line.split()[0] for line in printed.splitlines()[1:-1]] == ["1024", "8192", "65536", "524288", "4194304"]
