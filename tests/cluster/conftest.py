"""What the tests on a real cluster share: kind clusters of their own with the chart installed.

A cluster is a control plane, which takes pods as well, and a worker, apart from the demo's: two nodes with simulated
chips, and no third one to pay for. The files run in three processes
(`pytest -n 3 --dist loadfile`), and each process has a cluster to itself: no test has to know of another one. They are
made when they are not there, and taken down at the end unless they were there before (`NEURON_SIM_KEEP_CLUSTER=1`
keeps them between runs). Every test gets a namespace of its own, and leaves its nodes as it found them: after each one
the nodes are searched for CDI files, views and checkpoint entries that nobody holds any more.
"""

import os
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness import CLUSTERS, CONTROL_PLANE, REPOSITORY, Cluster

PROCESS = os.environ.get("PYTEST_XDIST_WORKER", "")
"""gw0, gw1 … Empty in the process that pytest was started as."""
FAILURES = REPOSITORY / "build/cluster-failures"
"""What the cluster looked like when a test failed, a file for each."""
LONG = (
    "test_gangs", "test_device_plugin", "test_outages", "test_examples", "test_lifecycle", "test_faults",
    "test_ultraservers", "test_explain", "test_dashboards", "test_fault_surfaces", "test_cores", "test_mpijob",
)  # fmt: skip
"""Files that take a minute or more, the longest first."""
MADE = pytest.StashKey[list[Cluster]]()
"""The clusters that were not there before the run. Only the process that pytest was started as knows."""


def pytest_sessionstart(session: pytest.Session) -> None:
    """Bring up a cluster for each process, with the image loaded and the chart installed, as a user would have it."""
    if PROCESS or session.config.option.collectonly:
        return
    shutil.rmtree(FAILURES, ignore_errors=True)
    processes = getattr(session.config.option, "numprocesses", None) or 1
    clusters = [Cluster(name) for name in CLUSTERS[:processes]]
    if len(clusters) < processes:
        raise pytest.UsageError(f"at most {len(CLUSTERS)} processes: each has a cluster of its own")
    session.config.stash[MADE] = [cluster for cluster in clusters if not cluster.exists()]
    with session.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        clusters[0].show(["make", "-C", str(REPOSITORY), "image"])
        clusters[0].show([str(REPOSITORY / "hack/helm"), "--existing", "version", "--short"])  # gets it if missing
        with ThreadPoolExecutor() as threads:
            list(threads.map(_bring_up, clusters))


def _bring_up(cluster: Cluster) -> None:
    cluster.show([str(REPOSITORY / "hack/cluster"), "up", "--workers", "1", "--name", cluster.name])
    if len(cluster.workers()) < 2:
        cluster.kubectl("taint", "nodes", f"{cluster.name}-control-plane", f"{CONTROL_PLANE}:NoSchedule-")
    cluster.show([str(REPOSITORY / "hack/cluster"), "kwok", "--name", cluster.name])
    images = cluster.run([str(REPOSITORY / "hack/image"), "--names"]).split()
    cluster.show([str(REPOSITORY / "hack/cluster"), "load", "--name", cluster.name, *images])
    cluster.install()


def pytest_sessionfinish(session: pytest.Session) -> None:
    if "NEURON_SIM_KEEP_CLUSTER" in os.environ:
        return
    with ThreadPoolExecutor() as threads:
        list(threads.map(_take_down, session.config.stash.get(MADE, [])))


def _take_down(cluster: Cluster) -> None:
    cluster.run([str(REPOSITORY / "hack/cluster"), "down", "--name", cluster.name], timeout=600)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first: what is left for the end is shared out evenly (--no-loadscope-reorder)."""
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))
    for item in items:
        if not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(300))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Keep what the cluster knows of a failed test, while it still knows: all in a file, a few lines in the report.

    The assertion is what a reader looks for, and often sees no more than the end of the output.
    """
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.failed and (cluster := item.funcargs.get("cluster")):  # type: ignore[attr-defined]
        file = FAILURES / f"{re.sub(r'[^A-Za-z0-9]+', '-', f'{item.name} {report.when}')}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(cluster.describe())
        report.sections.append((f"cluster; more in {file.relative_to(REPOSITORY)}", cluster.brief()))


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    found = Cluster(CLUSTERS[int(PROCESS.removeprefix("gw") or 0)])
    yield found
    found.delete_namespaces()
    found.close()


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace without pods, and whose devices are free again, when the test is over."""
    with cluster.namespace() as name:
        yield name


@pytest.fixture
def node(cluster: Cluster) -> str:
    """A node to pin pods to, or to break: not the one that the control plane is on."""
    return f"{cluster.name}-worker"
