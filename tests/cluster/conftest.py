"""What the tests on a real cluster share: a kind cluster of their own with the chart installed.

One cluster for the whole run: a control plane and two workers, `neuron-sim-test`, apart from the demo's. It is
made when it is not there, and taken down at the end unless it was there before (`make up NAME=neuron-sim-test`
keeps it between runs). Every test gets a namespace of its own, and leaves its nodes as it found them: after
each one the nodes are searched for CDI files, views and checkpoint entries that nobody holds any more.

Most of a test's time is waiting, so the files run in two processes (`pytest -n 2 --dist loadfile`) where that is
possible: tests that ask for a `node` keep to that node, one for each process, and files of all others have the cluster
to themselves.
"""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import CLUSTER, REPOSITORY, Cluster

HERE = Path(__file__).parent
HELD = pytest.StashKey[int]()
"""The descriptor by which this process holds the cluster."""
EXISTED = pytest.StashKey[bool]()
"""Whether the cluster was there before the run. Only the process that pytest was started as knows."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "alone: has the cluster to itself, though it names a node")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Bring up the cluster with the image loaded and the chart installed, as a user would have it."""
    if "PYTEST_XDIST_WORKER" in os.environ or session.config.option.collectonly:
        return
    cluster = Cluster()
    session.config.stash[EXISTED] = cluster.exists()
    with session.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        cluster.show([str(REPOSITORY / "hack/cluster"), "up", "--workers", "2", "--name", CLUSTER])
        cluster.show(["env", f"NEURON_SIM_CLUSTER={CLUSTER}", "make", "-C", str(REPOSITORY), "load"])
        cluster.show([str(REPOSITORY / "hack/helm"), "--existing", "version", "--short"])  # gets it where it is missing
        cluster.install()


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.config.stash.get(EXISTED, True) or "NEURON_SIM_KEEP_CLUSTER" in os.environ:
        return
    Cluster().run([str(REPOSITORY / "hack/cluster"), "down", "--name", CLUSTER])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """First the files whose tests can go on side by side."""
    for item in items:
        if not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(300))
    items.sort(key=_alone)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Hold the cluster from before the first fixture of a file until after the last one: alone, or beside others."""
    held = item.session.stash.get(HELD, None)
    if held is None:
        held = item.session.stash[HELD] = os.open(HERE, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(held, fcntl.LOCK_EX if _alone(item) else fcntl.LOCK_SH)
    try:
        return (yield)
    finally:
        if nextitem is None or nextitem.path != item.path:
            os.close(held)
            del item.session.stash[HELD]


def _alone(item: pytest.Item) -> bool:
    return "node" not in getattr(item, "fixturenames", ()) or item.get_closest_marker("alone") is not None


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Add what the cluster knows to the report of a failed test, while it still knows."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.failed and (cluster := item.funcargs.get("cluster")):  # type: ignore[attr-defined]
        report.sections.append(("cluster", cluster.describe()))


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace that is gone, and whose devices are free again, when the test is over."""
    with cluster.namespace() as name:
        yield name


@pytest.fixture
def node(cluster: Cluster) -> str:
    """The node that this process's tests keep to."""
    process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return cluster.workers()[process]
