"""A cluster for gangs, in memory: an API server whose watches lag and whose writes fail, and what else moves pods.

Kube-scheduler, controllers and kubelets are played in their rules only: a pod without gates goes to a node that its
selector and tolerations allow, with chips that a claim is allocated; a controller makes missing pods; a pod that is
deleted takes a while to go.
"""

import asyncio
import copy
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

from neuron_operator import kube, names
from neuron_operator.gangs import names as gang_names
from neuron_operator.gangs.controller import Gangs
from neuron_operator.kube import ApiError, Resource
from neuron_operator.ledger import Ledger
from neuron_operator.node_affinity import required, selects

Json = dict[str, Any]

BARRIER = "neuron-sim.dev/gang-barrier"
CHIPS = 16
ULTRASERVERS = "trn2u.48xlarge"
RV = "resourceVersion"


class Killed(BaseException):
    """The operator's process is gone in the middle of a write."""


class Lab:
    """The cluster, the operator in it, and everybody else."""

    def __init__(self, cluster: Any, *, ultraservers: int = 1) -> None:
        self.api = cluster
        self.now = datetime(2026, 11, 21, 12, tzinfo=UTC)
        self.recorded: dict[Resource, dict[str, Json]] = {}
        self.workloads: dict[str, tuple[list[str], Json]] = {}
        self.errors: list[ApiError | None] = []
        """Answers to the next writes; None: the write is done."""
        self.lives: int | None = None
        """Writes until the operator is killed."""
        self.sequence = 0
        self.barrier = True
        for number in range(ultraservers):
            for node in range(4):
                self.add_node(f"n{number}-{node}", ultraserver=f"us{number:014d}", seat=node)
        self.start()

    # --- the operator

    def start(self) -> None:
        """A new process that knows nothing."""
        self.ledger = Ledger()
        self.ledger.report("workloads", {})
        self.gangs = Gangs(
            api=Faulty(self),
            driver_name=names.AWS_DRIVER_NAME,
            ledger=self.ledger,
            barrier=self.barrier,
            clock=lambda: self.now,
        )
        for resource, kept in self._kinds():
            kept.listed(copy.deepcopy(self._visible(resource)))
        self.recorded = {resource: dict(self.api.of(resource)) for resource, _ in self._kinds()}

    def deliver(self, *resources: Resource) -> None:
        """Let the operator's watches catch up, of all kinds or of some."""
        for resource, kept in self._kinds():
            if resources and resource not in resources:
                continue
            before, after = self.recorded.get(resource, {}), self.api.of(resource)
            for key in before.keys() - after.keys():
                if self._is_seen(resource, before[key]):
                    deleted = copy.deepcopy(before[key])
                    deleted["metadata"][RV] = str(self.api.version)  # of the deletion
                    kept.seen(deleted, True)
            for key, item in after.items():
                if before.get(key) is not item and self._is_seen(resource, item):
                    kept.seen(copy.deepcopy(item), False)
            self.recorded[resource] = dict(after)

    def step(self) -> float | None:
        """Let the operator work with what it knows; None if it was killed."""
        try:
            return asyncio.run(self.gangs.step())
        except (Killed, BaseExceptionGroup):
            self.lives = None
            self.start()
            return None

    def settle(self, *, others: bool = True) -> None:
        """Everybody works until nothing moves any more at this time."""
        for _ in range(60):
            before = self._everything()
            self.deliver()
            self.step()
            if others:
                self.control()
                self.schedule()
                self.retire()
            if self._everything() == before:
                return
        raise AssertionError("does not settle")

    def wait(self, seconds: float) -> None:
        """Time goes by."""
        self.now += timedelta(seconds=seconds)

    # --- everybody else

    def add_node(self, name: str, *, ultraserver: str = "", seat: int = 0) -> None:
        self.api.put(
            kube.NODES,
            {
                "metadata": {"name": name, "labels": {gang_names.HOSTNAME: name}},
                "spec": {},
                "status": {"conditions": [{"type": "Ready", "status": "True"}]},
            },
        )
        place = {"ultraServer": {"id": ultraserver, "size": 4, "node": seat}} if ultraserver else {}
        spec = {
            "pool": "default",
            "instanceType": ULTRASERVERS,
            "logicalNeuronCore": 2,
            "resources": "DRA",
            "networkNodes": ["nn-1", "nn-2", "nn-3"],
            **place,
        }
        self.api.put(kube.NEURON_NODES, {"metadata": {"name": name}, "spec": spec})

    def edit_pool(self, instance_type: str) -> None:
        """All nodes are of another type from now on; only some types form UltraServers."""
        for number, name in enumerate(sorted(self.api.of(kube.NODES))):
            item = copy.deepcopy(self.api.of(kube.NEURON_NODES)[name])
            item["spec"] |= {"instanceType": instance_type, "logicalNeuronCore": 2 if "trn2" in instance_type else 1}
            item["spec"].pop("ultraServer", None)
            if instance_type == ULTRASERVERS:
                item["spec"]["ultraServer"] = {"id": f"us{number // 4:014d}", "size": 4, "node": number % 4}
            self.api.put(kube.NEURON_NODES, item)

    def node(self, name: str, change: Any) -> None:
        item = copy.deepcopy(self.api.of(kube.NODES)[name])
        change(item)
        self.api.put(kube.NODES, item)

    def not_ready(self, name: str) -> None:
        self.node(name, lambda item: item["status"].update(conditions=[{"type": "Ready", "status": "False"}]))

    def ready(self, name: str) -> None:
        self.node(name, lambda item: item["status"].update(conditions=[{"type": "Ready", "status": "True"}]))

    def workload(self, gang: str, size: int, *, chips: int = CHIPS, count: int | None = None, **more: Any) -> None:
        """A controller that keeps the pods of a gang; `count` of them, where that is not the gang's size."""
        pod = make_pod(gang, size, chips=chips, **more)
        pod["metadata"]["ownerReferences"] = [{"kind": "StatefulSet", "name": gang, "uid": gang, "controller": True}]
        self.workloads[gang] = ([f"{gang}-{index}" for index in range(size if count is None else count)], pod)

    def bare(self, gang: str, size: int, *, chips: int = CHIPS, **more: Any) -> None:
        """Pods that nobody makes anew."""
        for index in range(size):
            self.put_pod(f"{gang}-{index}", make_pod(gang, size, chips=chips, **more))

    def put_pod(self, name: str, pod: Json) -> None:
        body = copy.deepcopy(pod)
        self.sequence += 1
        body["metadata"] |= {"name": name, "uid": f"pod-{self.sequence}"}
        self.api.put(kube.PODS, body)

    def control(self) -> None:
        """Controllers make the pods that are missing."""
        for wanted, pod in self.workloads.values():
            for name in wanted:
                if f"default/{name}" not in self.api.of(kube.PODS):
                    self.put_pod(name, pod)

    def stop(self, gang: str) -> None:
        """A workload is deleted."""
        self.workloads.pop(gang, None)
        for key, pod in list(self.api.of(kube.PODS).items()):
            if pod["metadata"].get("labels", {}).get(gang_names.LABEL_GANG) == gang:
                self.delete_pod(key)

    def delete_pod(self, key: str) -> None:
        pod = copy.deepcopy(self.api.of(kube.PODS)[key])
        if pod["spec"].get("nodeName"):
            pod["metadata"]["deletionTimestamp"] = "2026-11-21T12:00:00Z"
            self.api.put(kube.PODS, pod)
        else:
            self.api.drop(kube.PODS, key)

    def schedule(self, *, limit: int = 10_000) -> None:
        """Kube-scheduler takes pods without gates, in the order of their creation."""
        for pod in sorted(self.api.of(kube.PODS).values(), key=lambda item: int(item["metadata"][RV])):
            if limit and not pod["spec"].get("nodeName") and not pod["spec"].get("schedulingGates"):
                limit -= self._bind(copy.deepcopy(pod))

    def _bind(self, pod: Json) -> int:
        chips = asked(pod)
        if waiting := self._at_barrier(pod):
            return self._through(pod, waiting)
        for name, node in sorted(self.api.of(kube.NODES).items()):
            affinity = required(pod["spec"])
            if affinity and not selects(affinity, name=name, labels=node["metadata"]["labels"]):
                continue
            ready = node["status"]["conditions"][0]["status"] == "True" and not node["spec"].get("unschedulable")
            tolerated = any(each.get("key") == gang_names.TAINT for each in pod["spec"].get("tolerations", []))
            free = sorted(set(range(CHIPS)) - self.taken(name))
            if not ready or (node["spec"].get("taints") and not tolerated) or len(free) < chips:
                continue
            if chips or _stops(pod):
                self.claim(f"{pod['metadata']['name']}-claim", name, free[len(free) - chips :], pod)
            if _stops(pod):
                return 1
            pod["spec"]["nodeName"] = name
            self.api.put(kube.PODS, pod)
            return 1
        return 0

    def _at_barrier(self, pod: Json) -> Json | None:
        """The claim with which a pod waits there."""
        found = self.api.of(kube.CLAIMS).get(f"default/{pod['metadata']['name']}-claim", {"status": {}})
        users = {user["uid"] for user in found["status"].get("reservedFor", [])}
        return found if pod["metadata"]["uid"] in users else None

    def _through(self, pod: Json, claim: Json) -> int:
        told = self.answers(claim["metadata"]["name"])
        if names.CONDITION_GIVEN_UP in told:
            self.api.drop(kube.CLAIMS, f"default/{claim['metadata']['name']}")
        elif names.CONDITION_COMPLETE in told:
            pools = [result["pool"] for result in claim["status"]["allocation"]["devices"]["results"]]
            place = pod["metadata"].get("annotations", {}).get(gang_names.ANNOTATION_PLACE)
            pod["spec"]["nodeName"] = place or pools[0]
            self.api.put(kube.PODS, pod)
            return 1
        return 0

    def answers(self, claim: str) -> set[str]:
        """The conditions of the barrier that a claim has."""
        entries = self.api.of(kube.CLAIMS)[f"default/{claim}"]["status"].get("devices", [])
        return {
            condition["type"]
            for entry in entries
            if entry["device"] == names.BARRIER_DEVICE
            for condition in entry["conditions"]
        }

    def claim(self, name: str, node: str, chips: list[int], pod: Json) -> None:
        results = [
            {"driver": names.AWS_DRIVER_NAME, "pool": node, "device": f"neuron-device-{chip}", "request": "r"}
            for chip in chips
        ]
        if _stops(pod):
            results.append(barrier_result())
        user = {"resource": "pods", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
        status = {"allocation": {"devices": {"results": results}}, "reservedFor": [user]}
        self.api.put(kube.CLAIMS, {"metadata": {"name": name, "namespace": "default"}, "spec": {}, "status": status})

    def retire(self, *, claims: bool = True) -> None:
        """Kubelets end the pods that are to go, and their claims go with them, or a while later."""
        for key, pod in list(self.api.of(kube.PODS).items()):
            if "deletionTimestamp" in pod["metadata"]:
                self.api.drop(kube.PODS, key)
        if not claims:
            return
        there = {pod["metadata"]["uid"] for pod in self.api.of(kube.PODS).values()}
        for key, claim in list(self.api.of(kube.CLAIMS).items()):
            if not there & {user["uid"] for user in claim["status"]["reservedFor"]}:
                self.api.drop(kube.CLAIMS, key)

    # --- what can be seen

    def taken(self, node: str) -> set[int]:
        """Chips of a node that claims have."""
        return {
            int(result["device"].rpartition("-")[2])
            for claim in self.api.of(kube.CLAIMS).values()
            for result in claim["status"]["allocation"]["devices"]["results"]
            if result["pool"] == node
        }

    def pods(self, gang: str) -> list[Json]:
        found = [
            pod
            for pod in self.api.of(kube.PODS).values()
            if pod["metadata"].get("labels", {}).get(gang_names.LABEL_GANG) == gang
        ]
        return sorted(found, key=lambda pod: str(pod["metadata"]["name"]))

    def bound(self, gang: str) -> list[str]:
        """Nodes of the gang's pods."""
        return [pod["spec"]["nodeName"] for pod in self.pods(gang) if pod["spec"].get("nodeName")]

    def record(self, gang: str) -> Json:
        return copy.deepcopy(self.api.of(kube.GANGS)[f"default/{gang}"])

    def phase(self, gang: str) -> str:
        return str(self.record(gang)["status"]["phase"])

    def said(self, gang: str) -> str:
        return str(self.record(gang)["status"]["conditions"][0]["message"])

    def events(self, reason: str) -> list[Json]:
        return [event for event in self.api.of(kube.EVENTS).values() if event["reason"] == reason]

    def taints(self) -> dict[str, str]:
        """Nodes that are reserved."""
        return {
            name: taint["value"]
            for name, node in self.api.of(kube.NODES).items()
            for taint in node["spec"].get("taints") or ()
            if taint["key"] == gang_names.TAINT
        }

    def check_promises(self) -> None:
        """What gangs have and what they are promised fits on every node, as the API server has it."""
        promised: Counter[str] = Counter()
        gangs = {key.partition("/")[2]: item for key, item in self.api.of(kube.GANGS).items()}
        for gang, item in gangs.items():
            status = item.get("status", {})
            places = Counter(status.get("nodes") or ()) if status.get("phase") == "Reserved" else Counter()
            for pod in self.pods(gang):
                where = pod["metadata"].get("annotations", {}).get(gang_names.ANNOTATION_PLACE)
                if where:
                    promised[where] += asked(pod)
                    places[where] -= 1
            for node, count in (+places).items():
                promised[node] += count * item["spec"]["chips"]
        assert not {node: chips for node, chips in promised.items() if chips > CHIPS}, promised

    def _kinds(self) -> list[tuple[Resource, Any]]:
        state = self.gangs.state
        return [
            (kube.NODES, state.nodes),
            (kube.NEURON_NODES, state.hardware),
            (kube.CLAIMS, state.claims),
            (kube.GANGS, state.gangs),
            (kube.PODS, state.pods),
        ]

    def _visible(self, resource: Resource) -> list[Json]:
        return [item for item in self.api.of(resource).values() if self._is_seen(resource, item)]

    def _is_seen(self, resource: Resource, item: Json) -> bool:
        return resource != kube.PODS or gang_names.LABEL_GANG in item["metadata"].get("labels", {})

    def _everything(self) -> Any:
        return {
            resource: {k: v["metadata"][RV] for k, v in found.items()} for resource, found in self.api.objects.items()
        }


class Faulty:
    """The API server as the operator sees it: writes fail, or are its last."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def __getattr__(self, verb: str) -> Any:
        reach = getattr(self._lab.api, verb)
        if verb in ("get", "list"):
            return reach

        async def write(resource: Resource, *arguments: Any, **options: Any) -> Any:
            lab = self._lab
            if lab.lives is not None:
                if lab.lives == 0:
                    raise Killed
                lab.lives -= 1
            error = lab.errors.pop(0) if lab.errors else None
            if error is not None:
                raise error
            if verb == "delete" and resource == kube.PODS:
                key = f"{options['namespace']}/{arguments[0]}"
                pod = lab.api._current(resource, key, {"uid": options["uid"]})
                return lab.delete_pod(f"{pod['metadata']['namespace']}/{pod['metadata']['name']}")
            if verb == "merge" and resource == kube.PODS:
                _allowed(lab.api._current(resource, f"{options['namespace']}/{arguments[0]}", {}), arguments[1]["spec"])
            if verb == "create" and resource == kube.PODS:
                lab.sequence += 1
                arguments[0]["metadata"]["uid"] = f"pod-{lab.sequence}"
            return await reach(resource, *arguments, **options)

        return write


def _allowed(pod: Json, patch: Json) -> None:
    """What the API server lets anybody change of a pod."""
    before, after = pod["spec"].get("tolerations") or [], patch.get("tolerations") or []
    if [each for each in before if each not in after]:
        raise ApiError(422, "Invalid", "existing tolerations cannot be changed")
    if patch.get("nodeSelector") and not pod["spec"].get("schedulingGates"):
        raise ApiError(422, "Invalid", "nodeSelector of a pod without gates cannot be changed")


def make_pod(gang: str, size: int, *, chips: int = CHIPS, gated: bool = True, **more: Any) -> Json:
    """A pod of a gang that asks for chips as plain resources."""
    labels = {gang_names.LABEL_GANG: gang, gang_names.LABEL_SIZE: str(size), **more.pop("labels", {})}
    resources = {"requests": {names.EXTENDED_RESOURCE: str(chips)}} if chips else {}
    if more.pop("barrier", False):
        resources.setdefault("requests", {})[BARRIER] = "1"
    spec = {"containers": [{"name": "c", "image": "busybox", "resources": resources}], **more.pop("spec", {})}
    if gated:
        spec["schedulingGates"] = [{"name": gang_names.GATE}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": "default", "labels": labels, "annotations": more.pop("annotations", {})},
        "spec": spec,
        "status": {"phase": "Pending"},
    }


def barrier_result() -> Json:
    """What a claim is allocated that has the barrier."""
    return {
        "driver": names.ULTRASERVER_DRIVER_NAME,
        "pool": "us00000000000000",
        "device": names.BARRIER_DEVICE,
        "request": "barrier",
        "shareID": "11111111-2222-3333-4444-555555555555",
        "bindingConditions": [names.CONDITION_COMPLETE],
        "bindingFailureConditions": [names.CONDITION_GIVEN_UP],
    }


def plain_pod(chips: int) -> Json:
    """A pod of nobody's gang."""
    pod = make_pod("", 1, chips=chips, gated=False)
    del pod["metadata"]["labels"]
    return pod


def _stops(pod: Json) -> bool:
    """Whether it asks for the barrier."""
    (container, *_) = pod.get("spec", {}).get("containers", [{}])
    return BARRIER in container.get("resources", {}).get("requests", {})


def asked(pod: Json) -> int:
    requests = pod["spec"]["containers"][0].get("resources", {}).get("requests", {})
    return int(requests.get(names.EXTENDED_RESOURCE, 0))
