"""What the tests on a real cluster share: a kind cluster of their own with the chart installed.

One cluster for the whole run: a control plane and two workers, `neuron-sim-test`, apart from the demo's. It is
made when it is not there, and taken down at the end unless it was there before (`make up NAME=neuron-sim-test`
keeps it between runs). Every test gets a namespace of its own, and leaves its nodes as it found them: after
each one the nodes are searched for CDI files, views and checkpoint entries that nobody holds any more.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import CLUSTER, REPOSITORY, Cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The cluster with the image loaded and the chart installed, as a user would have it."""
    cluster = Cluster()
    existed = cluster.exists()
    environment = {**os.environ, "NEURON_SIM_CLUSTER": CLUSTER}
    try:
        cluster.run([str(REPOSITORY / "hack/cluster"), "up", "--workers", "2", "--name", CLUSTER], timeout=3600)
        subprocess.run(["make", "-C", str(REPOSITORY), "load"], env=environment, check=True, timeout=3600)
        cluster.install()
        yield cluster
    finally:
        if not existed and "NEURON_SIM_KEEP_CLUSTER" not in os.environ:
            cluster.run([str(REPOSITORY / "hack/cluster"), "down", "--name", CLUSTER])


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace that is gone, and whose devices are free again, when the test is over."""
    with cluster.namespace() as name:
        yield name


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Add what the cluster knows to the report of a failed test, while it still knows."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.failed and (cluster := item.funcargs.get("cluster")):  # type: ignore[attr-defined]
        report.sections.append(("cluster", cluster.describe()))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(300))
