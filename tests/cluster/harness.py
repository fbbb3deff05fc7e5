"""A cluster as the tests see it: kubectl, helm, and a root shell on every node.

kubectl and helm rather than a client library, since they are what a user types; only what tests do all the time goes by
HTTP (`api`). The nodes are reached as kind's containers. Nothing here sleeps for a fixed time: `until` asks again until
a condition holds or time is up.
"""

import json
import re
import subprocess
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from api import Api, plural_of
from api import Failed as Failed
from api import Object as Object
from node_shell import NodeShell
from waiting import until as until

REPOSITORY = Path(__file__).resolve().parents[2]
CLUSTERS = ("neuron-sim-test", "neuron-sim-test-2", "neuron-sim-test-3")
"""One for each process that tests run in."""
TESTS = "neuron-sim-tests"
CONTROL_PLANE = "node-role.kubernetes.io/control-plane"
MAKERS = ("deployments", "statefulsets", "jobs", "neurongangs")
"""What makes pods anew. Of other kinds, tests delete what they made."""
RELEASE = "neuron-sim"
SYSTEM = "neuron-sim-system"
DRIVER = "neuron.aws.com"
EFA_DRIVER = "efa.neuron-sim.dev"
PLUGIN_DIR = f"/var/lib/kubelet/plugins/{DRIVER}"

WELL = re.compile(r"\s(\d+)/\1\s+Running\s|\sCompleted\s")
"""A line of `kubectl get pods` of a pod that runs as it should."""
LINE = 180
"""Characters."""


class Cluster:
    """A kind cluster of the tests."""

    def __init__(self, name: str = CLUSTERS[0]) -> None:
        self.name = name
        self._shells: dict[str, NodeShell] = {}
        self._nudged: set[str] = set()
        """Attempts of kubelets that were answered by a nudge."""

    def close(self) -> None:
        """Leave the nodes."""
        for shell in self._shells.values():
            shell.close()

    @cached_property
    def environment(self) -> dict[str, str]:
        """The environment in which kubectl and helm are the right ones and speak to this cluster.

        Asked for once: `hack/kubectl` makes sure at each call that all is there, and tests call hundreds of times.
        """
        command = [str(REPOSITORY / "hack/cluster"), "env", "--name", self.name]
        exports = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        printed = subprocess.run(
            ["bash", "-c", f"{exports}\nenv -0"], capture_output=True, text=True, check=True
        ).stdout
        # they end before they need to collect garbage
        without_collection = {"GOGC": "off", "GOMEMLIMIT": "1GiB"}
        return dict(line.split("=", 1) for line in printed.split("\0") if line) | without_collection

    @cached_property
    def api(self) -> Api:
        return Api(self.environment["KUBECONFIG"])

    def run(
        self,
        command: list[str],
        *,
        input: str | None = None,
        timeout: float = 180,
        check: bool = True,
        env: dict[str, str] | None = None,
    ) -> str:
        """Run a command and return its standard output."""
        done = subprocess.run(
            command, input=input, capture_output=True, text=True, timeout=timeout, check=False, env=env
        )
        if check and done.returncode:
            # pytest's summary shows the first line
            said = f"{done.stderr}{done.stdout}".strip()
            raise Failed(f"{' '.join(command)[:LINE]}: exit status {done.returncode}: {said}")
        return done.stdout if check else done.stdout + done.stderr

    def show(self, command: list[str]) -> None:
        """Run a command that takes minutes and says how far it is."""
        subprocess.run(command, check=True, timeout=3600)

    def exists(self) -> bool:
        names = subprocess.run(
            ["docker", "ps", "-q", "--filter", f"label=io.x-k8s.kind.cluster={self.name}"],
            capture_output=True,
            text=True,
            check=False,
        )
        return bool(names.stdout.strip())

    # --- what a user types

    def kubectl(self, *arguments: str, input: str | None = None, timeout: float = 180, check: bool = True) -> str:
        return self.run(["kubectl", *arguments], input=input, timeout=timeout, check=check, env=self.environment)

    def helm(self, *arguments: str, timeout: float = 300, check: bool = True) -> str:
        return self.run(["helm", *arguments], timeout=timeout, check=check, env=self.environment)

    def get(self, *arguments: str) -> Object:
        """`kubectl get … -o json`; a missing object is {}."""
        if plural_of(arguments[0]):
            return self.api.get(*arguments)
        answer = self.kubectl("get", *arguments, "-o", "json", "--ignore-not-found")
        return json.loads(answer) if answer.strip() else {}

    def items(self, *arguments: str) -> list[Object]:
        return self.get(*arguments).get("items", [])

    def apply(self, manifest: str | Object | Iterable[Object], namespace: str | None = None) -> None:
        if not isinstance(manifest, str | dict):
            manifest = {"kind": "List", "items": list(manifest)}
        self.api.apply(manifest, namespace)

    def delete(self, *arguments: str) -> None:
        """`kubectl delete …`, for what has no children that must go first."""
        self.api.delete(*arguments)

    def wait_ready(self, namespace: str, *pods: str, timeout: float = 120) -> None:
        """Wait until these pods are Ready, or all that there are."""

        def unready() -> dict[str, Object]:
            found = {one["metadata"]["name"]: one for one in self.items("pods", "-n", namespace)}
            return {
                name: found.get(name, {}).get("status", {})
                for name in pods or found or ["any pod"]
                if condition(found.get(name, {}), "Ready") != "True"
            }

        def ready() -> bool:
            return not unready() or self.nudge(namespace)

        until(ready, what=f"pods of {namespace} Ready", timeout=timeout, details=unready)

    def nudge(self, namespace: str) -> bool:
        """Have the kubelet look again at pods whose claims it was not allowed to read; False.

        It reads a claim when the pod is there, and the API server's node authorizer may not have heard of the pod by
        then. The kubelet's next try is after a minute, or at once when the pod changes: this is Kubernetes' own race,
        and waiting for it no test of ours.
        """
        for event in self.items("events", "-n", namespace, "--field-selector=reason=FailedPrepareDynamicResources"):
            attempt = f"{event['metadata']['uid']} {event.get('count')}"
            if 'forbidden: User "system:node:' in event["message"] and attempt not in self._nudged:
                self._nudged.add(attempt)
                again = ("annotate", "pod", "-n", namespace, event["involvedObject"]["name"], "--overwrite")
                # the pod may be gone by now, its Events are not
                self.kubectl(*again, f"tests/look-again={uuid.uuid4()}", check=False)
        return False

    def wait_ready_after_fault(self, namespace: str, *pods: str, timeout: float = 240) -> None:
        """`wait_ready` for pods whose devices could not be prepared at first.

        The kubelet itself looks at such a pod again after 60 to 90 s, when it synchronises all of its pods. A change
        of the pod makes it look at once.
        """

        def ready() -> bool:
            self.kubectl(
                "annotate", "pods", "-n", namespace, "--all", "--overwrite", f"tests/look-again={uuid.uuid4()}"
            )
            try:
                self.wait_ready(namespace, *pods, timeout=10)
            except AssertionError:
                return False
            return True

        until(ready, what=f"{', '.join(pods)} Ready", timeout=timeout)

    def event(self, namespace: str, pod: str, text: str) -> str:
        """The message of an Event of a pod that contains a text, once there is one."""

        def told() -> str:
            events = self.items("events", "-n", namespace, f"--field-selector=involvedObject.name={pod}")
            self.nudge(namespace)
            return next((e["message"] for e in events if text in e["message"]), "")

        return until(told, what=f"an Event of {pod} that says {text!r}")

    def execute(self, namespace: str, pod: str, *command: str, container: str | None = None) -> str:
        return self.kubectl("exec", "-n", namespace, pod, *(["-c", container] if container else []), "--", *command)

    def neuron_ls(self, namespace: str, pod: str, container: str | None = None) -> list[Object]:
        return json.loads(self.execute(namespace, pod, "neuron-ls", "--json-output", container=container))

    @contextmanager
    def namespace(self) -> Iterator[str]:
        """A namespace that is gone, or without pods, and whose devices are free again, in the end.

        To delete a namespace is a hundred requests for the control plane, so it is done where there is something that
        would make pods again. The others go with the cluster, or by `delete_namespaces`.
        """
        name = f"t-{uuid.uuid4().hex[:8]}"
        labels = {"app.kubernetes.io/part-of": TESTS}
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        try:
            # the controller manager makes it, and pods are refused until then
            until(lambda: self.get("serviceaccount", "default", "-n", name), what=f"the service account of {name}")
            yield name
        finally:
            makers = any(self.items(kind, "-n", name) for kind in MAKERS)
            # 1 s: what the examples run takes no notice of SIGTERM
            self.delete("pods", "--all", "-n", name, "--grace-period=1", "--timeout=120s")
            if makers:
                self.delete("namespace", name, "--wait=false")
            until(lambda: not self.leftovers(), what="nothing left over on the nodes", details=self.leftovers)

    def delete_namespaces(self) -> None:
        """All that tests have left."""
        self.kubectl("delete", "namespaces", "-l", f"app.kubernetes.io/part-of={TESTS}", "--wait=false")

    # --- the simulator

    def install(self) -> None:
        """The chart with its defaults, and with virtual nodes and the barrier of gangs: an upgrade for one file's sake
        would take a minute.
        """
        self.helm(
            "upgrade",
            "--install",
            RELEASE,
            str(REPOSITORY / "charts/neuron-sim"),
            "--namespace",
            SYSTEM,
            "--create-namespace",
            "--set",
            "virtualNodes.enabled=true,gangs.barrier=true",
            "--reset-values",
            "--wait",
            "--timeout",
            "3m",
        )
        self.wait_nodes()

    def wait_nodes(self, count: int = 2) -> None:
        """Wait until every worker is what the pools wish now, with its labels, and offers its chips.

        The pools first: the operator writes a pool's status when it has written the NeuronNodes and the labels that
        follow from this generation of the pool. An agent's Ready is of the generation that it names, and stays as it
        was until the agent has read the next one.
        """

        def ready() -> bool:
            pools, nodes = self.items("neuronnodepools"), self.items("neuronnodes")
            return (
                all(pool.get("status", {}).get("observedGeneration") == generation(pool) for pool in pools)
                and sum(pool["status"]["readyNodes"] for pool in pools) == len(nodes) == count
                and all(ready_now(node) for node in nodes)
            )

        until(
            ready,
            what=f"{count} NeuronNodes Ready, and their pools say so",
            timeout=120,
            details=lambda: self.kubectl("get", "neuronnodepools,neuronnodes"),
        )
        until(lambda: len(self.complete_pools()) == count, what="their slices published")

    @contextmanager
    def without_default_pool(self) -> Iterator[None]:
        """The chart's pool is away for a while, and so is every other one in the end."""
        default = self.get("neuronnodepool", "default")
        self.delete("neuronnodepool", "default")
        until(lambda: not self.items("neuronnodes") and not self.slices(), what="no NeuronNode and no slice")
        try:
            yield
        finally:
            self.delete("neuronnodepools", "--all")
            metadata = {key: default["metadata"][key] for key in ("name", "labels", "annotations")}
            self.apply({**default, "metadata": metadata, "status": {}})
            self.wait_nodes()

    def workers(self) -> list[str]:
        """The nodes that have a machine and take pods."""
        return sorted(
            node["metadata"]["name"]
            for node in self.items("nodes")
            if "neuron-sim.dev/virtual" not in node["metadata"]["labels"]
            and not any(taint["key"] == CONTROL_PLANE for taint in node["spec"].get("taints", []))
        )

    def slices(self) -> list[Object]:
        return [s for s in self.items("resourceslices") if s["spec"]["driver"] == DRIVER]

    def complete_pools(self) -> set[str]:
        """The pools (their names are the nodes') of which all slices are there in their newest generation."""
        found: dict[str, list[Object]] = {}
        for one in self.slices():
            found.setdefault(one["spec"]["pool"]["name"], []).append(one["spec"]["pool"])
        return {
            name
            for name, pools in found.items()
            if {p["generation"] for p in pools} == {pools[0]["generation"]}
            and len(pools) == pools[0]["resourceSliceCount"]
        }

    def devices(self, node: str, kind: str = "neuron_device") -> list[Object]:
        """What a node offers of one resource type, in the order in which the scheduler tries it."""
        mine = sorted(
            (s for s in self.slices() if s["spec"]["nodeName"] == node), key=lambda found: found["metadata"]["name"]
        )
        offered = [device for one in mine for device in one["spec"].get("devices", [])]
        return [device for device in offered if device["attributes"]["resourceType"]["string"] == kind]

    def agent(self, node: str) -> Object:
        """The agent's pod on a node, once there is one only: in a rolling update the next one comes first."""

        def alone() -> Object:
            found = self._agents(node)
            return found[0] if len(found) == 1 else {}

        return until(alone, what=f"one agent on {node}", details=lambda: self.kubectl("get", "pods", "-n", SYSTEM))

    def _agents(self, node: str) -> list[Object]:
        pods = self.items(
            "pods", "-n", SYSTEM, "-l", "app.kubernetes.io/component=agent", f"--field-selector=spec.nodeName={node}"
        )
        return [p for p in pods if "deletionTimestamp" not in p["metadata"]]

    # --- the nodes

    def on_node(self, node: str, *command: str, input: str | None = None, check: bool = True) -> str:
        return self.run(
            ["docker", "exec", *(["-i"] if input is not None else []), node, *command], input=input, check=check
        )

    def pause_image(self) -> str:
        """The image of the nodes' pod sandboxes: one static binary, and nothing else."""
        (node, *_) = self.workers()
        listed = json.loads(self.on_node(node, "crictl", "images", "-o", "json"))["images"]
        return next(tag for image in listed for tag in image["repoTags"] if "pause" in tag)

    def restart_kubelet(self, node: str) -> None:
        self.on_node(node, "systemctl", "restart", "kubelet")

    def process(self, pod: Object) -> str:
        """The process, as its node numbers it, of the only container of a pod."""
        node, uid = pod["spec"]["nodeName"], pod["metadata"]["uid"]
        (container,) = self.on_node(node, "crictl", "ps", "-q", "--label", f"io.kubernetes.pod.uid={uid}").split()
        return str(json.loads(self.on_node(node, "crictl", "inspect", container))["info"]["pid"])

    def crash_agent(self, node: str) -> None:
        """SIGKILL the agent's process, and wait for the next one.

        Its pod goes too: a container that is killed again and again comes back minutes later, which is the
        kubelet's patience and nothing of ours.
        """
        pod = self.agent(node)["metadata"]
        for container in self.on_node(
            node, "crictl", "ps", "-q", "--label", f"io.kubernetes.pod.uid={pod['uid']}"
        ).split():
            process = json.loads(self.on_node(node, "crictl", "inspect", container))["info"]["pid"]
            self.on_node(node, "kill", "-9", str(process))
        self.kubectl("delete", "pod", "-n", SYSTEM, pod["name"], "--force", "--grace-period=0")

        def back() -> bool:
            found = self.items(
                "pods",
                "-n",
                SYSTEM,
                "-l",
                "app.kubernetes.io/component=agent",
                f"--field-selector=spec.nodeName={node}",
            )
            return [p["metadata"]["name"] for p in found if condition(p, "Ready") == "True"] not in ([], [pod["name"]])

        until(back, what=f"an agent on {node} again")

    def held(self, node: str) -> "Held":
        """What the agent keeps on a node."""
        folders = f"ls -A /var/run/cdi; echo --; ls -A /run/neuron-sim/{DRIVER}; echo --"
        shell = self._shells.setdefault(node, NodeShell(node))
        printed = shell.ask(f"{folders}; cat {PLUGIN_DIR}/checkpoint.jsonl")
        files, views, journal = printed.split("--\n", 2)
        ours = [name for name in files.split() if DRIVER in name or EFA_DRIVER in name]
        return Held(ours, views.split(), claims_in(journal))

    def cdi_files(self, node: str) -> list[str]:
        return self.held(node).cdi_files

    def views(self, node: str) -> list[str]:
        return self.held(node).views

    def checkpoint(self, node: str) -> set[str]:
        return self.held(node).checkpoint

    def leftovers(self) -> list[str]:
        """CDI files, views and checkpoint entries of claims that no pod holds any more."""
        wanted = {
            claim["metadata"]["uid"]
            for claim in self.items("resourceclaims", "-A")
            if claim.get("status", {}).get("reservedFor")
        }
        found = []
        for node in self.workers():
            held = self.held(node)
            found += [f"{node}: {name}" for name in held.cdi_files if not any(uid in name for uid in wanted)]
            found += [f"{node}: view {uid}" for uid in held.views if uid not in wanted]
            found += [f"{node}: checkpoint {uid}" for uid in held.checkpoint - wanted]
        return found

    def describe(self) -> str:
        """All that one would look at after a failure; it fails in no state of the cluster."""
        objects = "pods,resourceclaims,neuronnodes,neuronnodepools,resourceslices"
        logs = ("logs", "-n", SYSTEM, "--tail=200", "--prefix", "-l")
        questions = (
            ("get", objects, "-A", "-o", "wide"),
            ("get", "nodes", "-o", "wide", "--show-labels"),
            ("get", "events", "-A", "--sort-by=.lastTimestamp"),
            (*logs, "app.kubernetes.io/component=agent"),
            (*logs, "app.kubernetes.io/component=operator"),
        )
        return "\n\n".join(f"$ kubectl {' '.join(question)}\n{self._say(*question)}" for question in questions)

    def brief(self) -> str:
        """A few lines of it: what runs badly, and what was complained of last."""
        pods = [line[:LINE] for line in self._say("get", "pods", "-A").splitlines() if not WELL.search(line)]
        events = self._say("get", "events", "-A", "--field-selector=type=Warning", "--sort-by=.lastTimestamp")
        return "\n".join([*pods[:8], *(line[:LINE] for line in events.splitlines()[-6:])])

    def _say(self, *question: str) -> str:
        try:
            return self.kubectl(*question, "--request-timeout=20s", check=False, timeout=60)
        except (OSError, subprocess.SubprocessError) as error:
            return f"{error}\n"


def generation(obj: Object) -> int:
    return int(obj["metadata"]["generation"])


def ready_now(neuron_node: Object) -> bool:
    """Whether the agent serves what the NeuronNode says now, and not only what it said before."""
    observed = neuron_node.get("status", {}).get("observedGeneration")
    return observed == generation(neuron_node) and condition(neuron_node, "Ready") == "True"


class Held(NamedTuple):
    """What an agent keeps of the claims that are prepared on its node."""

    cdi_files: list[str]
    views: list[str]
    checkpoint: set[str]
    """UIDs of the claims that the journal holds."""


def claims_in(journal: str) -> set[str]:
    """UIDs of the claims that a journal holds; none if a line is damaged."""
    held: set[str] = set()
    for line in journal.splitlines():
        try:
            record = json.loads(line.partition(" ")[2] if not line.startswith("{") else line)
        except ValueError:
            return set()
        if record.get("op") == "put":
            held.add(record["uid"])
        elif record.get("op") == "del":
            held.discard(record["uid"])
    return held


def condition(obj: Object, kind: str) -> str | None:
    """The status of one of an object's conditions."""
    for found in obj.get("status", {}).get("conditions", []):
        if found["type"] == kind:
            return str(found["status"])
    return None


# --- objects

IDLE = ["sh", "-c", "trap exit TERM; sleep inf & wait"]
"""Does nothing until asked to end. `sleep` as the first process takes no notice, which costs each test two seconds."""


def pod(name: str, *, chips: int = 0, template: str = "", claim: str = "", node: str = "") -> Object:
    """A busybox pod that asks for chips: as a plain number, by a claim template, or by a claim's name.

    Without a token, which it has no use for and which is a tenth of what a pod costs.
    """
    container: Object = {"name": "c", "image": "busybox", "command": IDLE}
    spec: Object = {
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
        "containers": [container],
    }
    if chips:
        container["resources"] = {"limits": {"aws.amazon.com/neuron": str(chips)}}
    if template or claim:
        source = {"resourceClaimTemplateName": template} if template else {"resourceClaimName": claim}
        container["resources"] = {"claims": [{"name": "neurons"}]}
        spec["resourceClaims"] = [{"name": "neurons", **source}]
    if node:
        spec["nodeSelector"] = {"kubernetes.io/hostname": node}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def claim_spec(count: int = 1, **exactly: object) -> Object:
    """A claim's spec with AWS's class and request name."""
    request = {"deviceClassName": DRIVER, "allocationMode": "ExactCount", "count": count, **exactly}
    return {"devices": {"requests": [{"name": "neurons", "exactly": request}]}}


def claim(name: str, count: int = 1, **exactly: object) -> Object:
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {"name": name},
        "spec": claim_spec(count, **exactly),
    }


def claim_template(name: str, count: int = 1, **exactly: object) -> Object:
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": {"name": name},
        "spec": {"spec": claim_spec(count, **exactly)},
    }
