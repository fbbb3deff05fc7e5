"""A fleet of one pool of UltraServers in memory, what others do to it, and an operator that can be killed."""

import copy
from datetime import UTC, datetime

from neuron_operator import kube, names, survey
from neuron_operator.fleet import Fleet
from neuron_operator.ledger import Ledger
from neuron_operator.reconciler import Reconciler
from neuron_operator.ultraservers.loop import UltraServers

SYSTEM = "neuron-sim-system"
NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
TYPE = "trn2u.48xlarge"


class Site:
    """Nodes of one pool, and an operator that is started anew for every look."""

    def __init__(self, cluster, *, node, pool, fault, nodes=8):
        self.cluster = cluster
        self.most_devices = 64
        self.barrier = False
        self._node, self._fault = node, fault
        cluster.put(kube.POOLS, pool(instanceType=TYPE, resources="DRA"))
        for number in range(nodes):
            cluster.put(kube.NODES, node(f"n{number}"))

    # --- what people and the rest of the cluster do

    def workload(self, name="train", *, size=2, count=1, strategy=None, template=None, namespace="team", **more):
        spec = {"instanceType": TYPE, "topologySize": size, "serverCount": count, **more}
        if strategy:
            spec["allocationPolicy"] = {"failureStrategy": strategy}
        if template:
            spec["resourceClaimTemplate"] = {"name": template}
        metadata = {"name": name, "namespace": namespace, "generation": 1}
        self.cluster.put(kube.ULTRASERVER_WORKLOADS, {"metadata": metadata, "spec": spec})

    async def delete(self, name="train", *, namespace="team"):
        await self.cluster.delete(kube.ULTRASERVER_WORKLOADS, name, namespace=namespace)

    def break_node(self, name, effect="NoSchedule"):
        self.cluster.put(kube.FAULTS, self._fault(f"fault-{name}", name, effect=effect))

    def drop_node(self, name):
        self.cluster.drop(kube.NODES, name)
        self.cluster.drop(kube.NEURON_NODES, name)  # the garbage collector

    def not_ready(self, name, since):
        item = copy.deepcopy(self.cluster.of(kube.NODES)[name])
        item["status"]["conditions"] = [{"type": "Ready", "status": "Unknown", "lastTransitionTime": since}]
        self.cluster.put(kube.NODES, item)

    def agents(self):
        """Every agent has seen its NeuronNode and serves."""
        for item in list(self.cluster.of(kube.NEURON_NODES).values()):
            ready = {"type": "Ready", "status": "True", "reason": "Ready", "message": "", "lastTransitionTime": "x"}
            self.cluster.put(kube.NEURON_NODES, {**item, "status": {"conditions": [ready]}})

    def pods(self, name="train", *, namespace="team"):
        """A Deployment makes a pod for each of the workload's nodes, and the scheduler places them by the id."""
        status = self.status(name, namespace=namespace)
        template = self.template(status["workloadId"], namespace=namespace)
        for node, item in self.cluster.of(kube.NEURON_NODES).items():
            if item["spec"].get("workloadID") == status["workloadId"] and node not in self.claimed():
                self.claim(node, template["spec"]["metadata"], namespace=namespace)

    def claim(self, node, metadata=None, *, namespace="team"):
        pod = self.cluster.put(kube.PODS, {"metadata": {"name": f"pod-{node}", "namespace": namespace}})
        owner = {"kind": "Pod", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
        body = {
            "metadata": {
                **copy.deepcopy(metadata or {}),
                "name": f"claim-{node}",
                "namespace": namespace,
                "ownerReferences": [owner],
            },
            "status": {
                "allocation": {
                    "devices": {"results": [{"driver": "neuron.aws.com", "pool": node, "device": "neuron-node"}]}
                }
            },
        }
        self.cluster.put(kube.CLAIMS, body)

    def collect(self):
        """Pods that were deleted are gone, and their claims with them."""
        pods = {pod["metadata"]["uid"] for pod in self.cluster.of(kube.PODS).values()}
        for claim in list(self.cluster.of(kube.CLAIMS).values()):
            if claim["metadata"]["ownerReferences"][0]["uid"] not in pods:
                self.cluster.drop(kube.CLAIMS, f"{claim['metadata']['namespace']}/{claim['metadata']['name']}")

    # --- what they see

    def status(self, name="train", *, namespace="team"):
        return self.cluster.of(kube.ULTRASERVER_WORKLOADS)[f"{namespace}/{name}"].get("status", {})

    def reason(self, name="train"):
        (condition,) = self.status(name)["conditions"]
        return condition["reason"]

    def message(self, name="train"):
        (condition,) = self.status(name)["conditions"]
        return condition["message"]

    def nodes(self, name="train", *, namespace="team"):
        return sorted(n for each in self.status(name, namespace=namespace).get("sets", []) for n in each["nodes"])

    def tags(self):
        specs = {name: item["spec"] for name, item in self.cluster.of(kube.NEURON_NODES).items()}
        return {name: spec["workloadID"] for name, spec in specs.items() if "workloadID" in spec}

    def claimed(self):
        return {name.partition("/claim-")[2] for name in self.cluster.of(kube.CLAIMS)}

    def template(self, name="train", *, namespace="team"):
        return self.cluster.of(kube.CLAIM_TEMPLATES).get(f"{namespace}/{name}")

    def slices(self):
        """The UltraServers as devices, by the UltraServer's id."""
        return {item["spec"]["pool"]["name"]: item for item in self.cluster.of(kube.SLICES).values()}

    def tables(self):
        return list(self.cluster.of(kube.ULTRASERVERS).values())

    def events(self):
        return [event["reason"] for event in self.cluster.of(kube.EVENTS).values()]

    # --- the operator

    def _operator(self, api):
        fleet = Fleet(driver_name=names.AWS_DRIVER_NAME)
        reconciler = Reconciler(api=api, fleet=fleet, driver_name=names.AWS_DRIVER_NAME)
        ledger = Ledger()
        ledger.report("gangs", {})
        ultraservers = UltraServers(
            api=api,
            fleet=fleet,
            driver_name=names.AWS_DRIVER_NAME,
            namespace=SYSTEM,
            wrote=reconciler.wake,
            ledger=ledger,
            most_devices=self.most_devices,
            barrier=self.barrier,
        )

        async def look(now):
            await survey.list_objects(fleet, api)  # what watches tell
            await reconciler.reconcile()
            found = await api.list(kube.SLICES, fields=f"spec.driver={names.ULTRASERVER_DRIVER_NAME}")
            ultraservers.slices.listed(found.items)
            return await ultraservers.look(now)

        return look

    async def look(self, now=NOW, api=None):
        """Start, look once, and be killed."""
        return await self._operator(api or self.cluster)(now)

    async def settle(self, now=NOW):
        """Until nothing is written any more."""
        look = self._operator(self.cluster)
        for _ in range(15):
            before = len(self.cluster.writes)
            await look(now)
            if len(self.cluster.writes) == before:
                return
            self.agents()
        raise AssertionError(f"does not settle: {self.cluster.writes[-10:]}")


def api_with(cluster, fail):
    """The cluster, behind a function that may raise before each write."""

    class Api:
        def __getattr__(self, verb):
            call = getattr(cluster, verb)
            if verb in ("list", "get"):
                return call

            async def write(*arguments, **more):
                fail()
                return await call(*arguments, **more)

            return write

    return Api()
