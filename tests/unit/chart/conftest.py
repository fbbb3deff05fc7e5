"""The chart, rendered by the helm that users get, with no cluster."""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import yaml

Object = dict[str, Any]

REPO = Path(__file__).parents[3]
CHART = REPO / "charts" / "neuron-sim"
POD_OWNERS = ("DaemonSet", "Deployment", "Job")


class Manifests:
    """What one rendering makes."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def objects(self) -> list[Object]:
        # PyYAML's own parser takes ten times as long
        return [found for found in yaml.load_all(self.text, Loader=yaml.CSafeLoader) if found]

    def all(self, kind: str) -> list[Object]:
        return [found for found in self.objects if found["kind"] == kind]

    def get(self, kind: str, name: str) -> Object:
        (found,) = [found for found in self.all(kind) if found["metadata"]["name"] == name]
        return found

    def pods(self) -> Iterator[tuple[str, Object]]:
        """Every pod that will run: its name, and metadata with spec."""
        for found in self.objects:
            if found["kind"] in POD_OWNERS:
                yield found["metadata"]["name"], found["spec"]["template"]
            if found["kind"] == "Pod":
                yield found["metadata"]["name"], found

    def pod(self, name: str) -> Object:
        return dict(self.pods())[name]["spec"]

    def container(self, name: str) -> Object:
        (found,) = self.pod(name)["containers"]
        return found

    def hooks(self) -> list[Object]:
        return [found for found in self.objects if "helm.sh/hook" in annotations(found)]


class Refused(Exception):
    """Helm did not render; the text is what it told the user."""


class Renderer:
    """`helm template`, each distinct call once."""

    Refused = Refused

    def __init__(self, helm: Sequence[str]) -> None:
        self._helm = helm
        self._rendered: dict[str, Manifests] = {}

    def __call__(
        self,
        values: Mapping[str, Any] | None = None,
        *,
        release: str = "neuron-sim",
        namespace: str = "default",
        kubernetes: str = "1.36.0",
        apis: Sequence[str] = (),
    ) -> Manifests:
        arguments = ["--namespace", namespace, "--kube-version", kubernetes]
        arguments += [part for api in apis for part in ("--api-versions", api)]
        command = [*self._helm, "template", release, str(CHART), *arguments, "--values", "-"]
        given = json.dumps(values or {})
        key = f"{command} {given}"
        if key not in self._rendered:
            self._rendered[key] = Manifests(run(command, given))
        return self._rendered[key]

    def notes(self, values: Mapping[str, Any] | None = None, *, namespace: str = "default") -> str:
        """What helm prints after an install."""
        command = [*self._helm, "install", "mine", str(CHART), "--dry-run=client", "--namespace", namespace]
        return run([*command, "--values", "-"], json.dumps(values or {})).partition("\nNOTES:\n")[2]

    def lint(self) -> str:
        return run([*self._helm, "lint", "--strict", str(CHART)], "")


def run(command: Sequence[str], given: str) -> str:
    # it ends before it needs to collect garbage, and takes a fifth less time without
    environment = os.environ | {"GOGC": "off", "GOMEMLIMIT": "1GiB"}
    done = subprocess.run(
        command, input=given, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    if done.returncode:
        raise Refused(done.stderr)
    return done.stdout


def annotations(found: Object) -> Mapping[str, str]:
    return found["metadata"].get("annotations") or {}


@pytest.fixture(scope="session")
def render() -> Renderer:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    # not through hack/helm, which waits for whoever is at work on the cache and may have to compile
    helm = cache / "neuron-sim" / "bin" / "helm"
    if not helm.exists():
        pytest.fail("the chart's tests need helm: run `hack/helm --existing version` once", pytrace=False)
    return Renderer([str(helm)])


@pytest.fixture(scope="session")
def default(render: Renderer) -> Manifests:
    """What `helm install` with no values makes."""
    return render()
