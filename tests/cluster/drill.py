"""A pod on hardware of which every piece breaks in another way, all at once, and what each surface then says.

One pod is enough for seven types of faults: each of its chips has one, and a process of its own. Beside it stand a chip
that nobody has, and another node, whose driver fails as a whole. All are asked of the same few answers (slices, a pod,
a claim, a page, one look into a container), because each look costs more than the faults themselves.
"""

import json
from typing import NamedTuple

from harness import DRIVER, EFA_DRIVER, SYSTEM, Cluster, Object, condition, pod, until

PROCESSES = {"hanging": "0-3", "hot": "4-7", "leaking": "8-11", "linked": "12-19"}
"""By tag: its cores, as the container numbers them. The last one has two chips."""
CHIPS = 5
HEALTHY = {"hanging": False, "hot": True, "leaking": True, "one": False, "other": False}
WELL = [("NeuronHealth", "False"), ("AcceleratedHardwareReady", "True")]
BROKEN = [("NeuronHealth", "True"), ("AcceleratedHardwareReady", "False")]
MONITOR = {
    "period": "1s",
    "neuron_runtimes": [{"metrics": [{"type": "execution_stats"}, {"type": "memory_used"}]}],
    "system_metrics": [{"type": "neuron_hw_counters"}],
}
LOOK = f"""
neuron-ls --json-output; echo ---
echo '{json.dumps(MONITOR)}' > /tmp/config; neuron-monitor -c /tmp/config | sed -n '2,4p;4q'; echo ---
neuron-sim-sysfs --once /tmp/sys; cd /tmp/sys/devices/virtual/neuron_device
cat neuron1/stats/hardware/mem_ecc_corrected neuron2/stats/hardware/sram_ecc_corrected; echo ---
cd /tmp; for each in {" ".join(PROCESSES)}; do cat $each.err; echo ---; done
"""
Taints = dict[str, set[tuple[str, str]]]
"""By device: values and effects."""


class Drill(NamedTuple):
    """The pod `drilled`, and what it has."""

    cluster: Cluster
    namespace: str
    node: str
    other: str
    """The node whose driver fails. A plain pod runs there."""
    plain: str
    chips: dict[str, int]
    """By what becomes of them: a tag, or `one` and `other` end of a link."""
    card: str
    card_number: int

    def faults(self) -> list[Object]:
        """All of them."""
        chip = self.chips
        link = {"chip": chip["one"], "peer": chip["other"]}
        return [
            self._fault("Hang", chip=chip["hanging"]),
            self._fault("ThermalThrottle", chip=chip["hot"], more={"percent": 90}),
            self._fault("HBMCorrectable", chip=chip["hot"], more={"eventsPerMinute": 600}),
            self._fault("SRAMCorrectable", chip=chip["leaking"], more={"eventsPerMinute": 600}),
            self._fault("MemoryLeak", chip=chip["leaking"], more={"percent": 10}),
            self._fault("LinkDown", **link),
            self._fault("EFADown", efa=self.card_number),
            self._fault("HBMUncorrectable", chip=0),
            self._fault("DriverFailed", node=self.other),
        ]

    def name(self, kind: str) -> str:
        """Of the fault of a type."""
        return f"{kind.lower()}-{self.namespace}"

    def _fault(self, kind: str, *, node: str = "", more: Object | None = None, **target: int) -> Object:
        return {
            "apiVersion": "neuron-sim.dev/v1alpha1",
            "kind": "NeuronFault",
            "metadata": {"name": self.name(kind)},
            "spec": {"target": {"nodeName": node or self.node, **target}, "type": kind, **(more or {})},
        }

    def start(self) -> None:
        """Its processes."""
        each = (
            f"NEURON_RT_VISIBLE_CORES={cores} neuron-sim-load --tag {tag} > /dev/null 2> /tmp/{tag}.err &"
            for tag, cores in PROCESSES.items()
        )
        self.cluster.execute(self.namespace, "drilled", "sh", "-c", "\n".join(each))

    # --- what is there

    def taints(self, node: str) -> Taints:
        """Of the devices of a node, its cards included."""
        return {
            device["name"]: {(taint["value"], taint["effect"]) for taint in device["taints"]}
            for one in self.cluster.items("resourceslices")
            if one["spec"].get("nodeName") == node and one["spec"]["driver"] in (DRIVER, EFA_DRIVER)
            for device in one["spec"].get("devices", [])
            if device.get("taints")
        }

    def healthy_in_pod(self) -> dict[str, str]:
        """By device, as the kubelet says it."""
        statuses = self.cluster.get("pod", "-n", self.namespace, "drilled")["status"]["containerStatuses"]
        found = [one for status in statuses for one in status.get("allocatedResourcesStatus", [])]
        return {r["resourceID"].rpartition("_")[2]: r["health"] for one in found for r in one["resources"]}

    def healthy_in_claim(self) -> dict[str, str | None]:
        """By device, as the claim's conditions say it."""
        found = self.cluster.get("resourceclaim", "-n", self.namespace, "drilled").get("status", {})
        return {one["device"]: condition({"status": one}, "Healthy") for one in found.get("devices", [])}

    def node_conditions(self, node: str) -> list[tuple[str, str | None]]:
        """Those that a node problem detector and EKS's agent write."""
        found = self.cluster.get("node", node)
        return [(kind, condition(found, kind)) for kind, _ in WELL]

    def page(self, node: str) -> list[str]:
        """The lines of the node's page for Prometheus."""
        agent = self.cluster.agent(node)["metadata"]["name"]
        path = f"/api/v1/namespaces/{SYSTEM}/pods/{agent}:8000/proxy/metrics"
        return self.cluster.kubectl("get", "--raw", path).splitlines()

    def told(self) -> str:
        """The Event on the plain pod."""
        about = f"--field-selector=involvedObject.name={self.plain},type=Warning"
        events = self.cluster.items("events", "-n", self.namespace, about)
        return next((one["message"] for one in events if self.name("DriverFailed") in one["message"]), "")

    # --- what should be

    def everywhere(self) -> None:
        """Wait until every surface tells of every fault, and of no other."""
        broken = {self.card if name == "card" else f"neuron-device-{self.chips[name]}" for name in [*HEALTHY, "card"]}
        health = {f"neuron-device-{self.chips[name]}": well for name, well in HEALTHY.items()} | {self.card: False}
        assert health.keys() == broken
        _wait(lambda: self.taints(self.node), self._tainted(), "taints of all that is broken, and of nothing else")
        _wait(self.healthy_in_pod, {name: _health(well) for name, well in health.items()}, "the pod's devices")
        _wait(self.healthy_in_claim, {name: str(well) for name, well in health.items()}, "the claim's devices")
        _wait(lambda: self.node_conditions(self.node), BROKEN, "the node's conditions")
        self._in_the_container()
        self._on_the_page()
        self._without_a_driver()

    def healed(self) -> None:
        """Wait until nothing tells of a fault any more."""
        devices = [self.card, *(f"neuron-device-{chip}" for chip in self.chips.values())]
        for node in (self.node, self.other):
            _wait(lambda node=node: self.taints(node), {}, f"no taint on {node}")
            _wait(lambda node=node: self.node_conditions(node), WELL, f"{node} is well")
        _wait(self.healthy_in_pod, dict.fromkeys(devices, "Healthy"), "the pod's devices healthy")
        _wait(self.healthy_in_claim, dict.fromkeys(devices, "True"), "the claim's devices healthy")
        until(self._linked, what="neuron-ls with the link")
        until(
            lambda: [line for line in self.page(self.other) if 'neuron_device_count="16"' in line],
            what="the driver finds all chips again",
        )
        until(lambda: not _samples(self.page(self.node), "neuron_sim_fault_active"), what="no fault on the page")

    def _tainted(self) -> Taints:
        found: Taints = {self.card: {("EFADown", "NoSchedule")}}
        of_chips = {
            0: {("HBMUncorrectable", "NoSchedule")},
            self.chips["hanging"]: {("Hang", "NoSchedule")},
            self.chips["hot"]: {("ThermalThrottle", "None"), ("HBMCorrectable", "None")},
            self.chips["leaking"]: {("MemoryLeak", "None"), ("SRAMCorrectable", "None")},
            self.chips["one"]: {("LinkDown", "NoSchedule")},
            self.chips["other"]: {("LinkDown", "NoSchedule")},
        }
        for chip, taints in of_chips.items():
            devices = [f"neuron-device-{chip}", *(f"neuron-core-{core}" for core in range(4 * chip, 4 * chip + 4))]
            found |= dict.fromkeys(devices, taints)
        return found

    def _linked(self) -> bool:
        rows = {row["neuron_device"]: row["connected_to"] for row in self.cluster.neuron_ls(self.namespace, "drilled")}
        return len(rows) == CHIPS and self.chips["other"] in rows[3] and self.chips["one"] in rows[4]

    def _in_the_container(self) -> None:
        """Tools and runtime, by one look."""
        looked = self.cluster.execute(self.namespace, "drilled", "sh", "-c", LOOK)
        listing, records, counters, *said = looked.split("---\n")
        rows = {row["neuron_device"]: row["connected_to"] for row in json.loads(listing)}
        assert sorted(rows) == list(range(CHIPS))
        assert self.chips["other"] not in rows[3]
        assert self.chips["one"] not in rows[4]

        told = [json.loads(line) for line in records.splitlines()]
        first, *_, last = by_tag = [_by_tag(record) for record in told]

        def counted(tag: str, group: str, name: str) -> int:
            return sum(record[tag]["execution_stats"][group][name] for record in by_tag)

        assert counted("hanging", "execution_summary", "timed_out") > 0
        assert counted("linked", "error_summary", "hardware") > 0
        for tag in ("hot", "leaking"):
            assert counted(tag, "error_summary", "hardware") == 0
            assert counted(tag, "execution_summary", "completed") > 0
        slow, usual = (last[tag]["execution_stats"]["latency_stats"]["total_latency"] for tag in ("hot", "leaking"))
        assert slow["p50"] > 5 * usual["p50"]
        grown = {tag: _on_device(last[tag]) - _on_device(first[tag]) for tag in ("hot", "leaking")}
        assert grown["hot"] == 0
        assert grown["leaking"] > 0
        for event, index in (("mem_ecc_corrected", 1), ("sram_ecc_corrected", 2)):
            events = [one for record in told for one in record["system_data"]["neuron_hw_counters"]["neuron_devices"]]
            assert {one["neuron_device_index"] for one in events if one[event] > 0} == {index}
        assert all(int(count) > 10 for count in counters.split())

        words = dict(zip(PROCESSES, said, strict=False))
        assert "NRT_TIMEOUT(5)" in words["hanging"]
        assert "NRT_EXEC_HW_ERR_COLLECTIVES(1200)" in words["linked"]
        assert not words["hot"] + words["leaking"]

    def _on_the_page(self) -> None:
        page = self.page(self.node)
        pieces = {
            "HBMUncorrectable": {"0"},
            "Hang": {str(self.chips["hanging"])},
            **{key: {str(self.chips["hot"])} for key in ("ThermalThrottle", "HBMCorrectable")},
            **{key: {str(self.chips["leaking"])} for key in ("MemoryLeak", "SRAMCorrectable")},
            "LinkDown": {str(self.chips["one"]), str(self.chips["other"])},
            "EFADown": {""},
        }
        for kind, chips in pieces.items():
            active = _samples(page, "neuron_sim_fault_active", fault=self.name(kind), type=kind)
            assert {line.partition('neuron_device_index="')[2].partition('"')[0] for line in active} == chips
        for tag, event in (("hot", "mem_ecc_corrected"), ("leaking", "sram_ecc_corrected")):
            chip = str(self.chips[tag])
            assert _sum(page, "hardware_ecc_events_total", event_type=event, neuron_device_index=chip) > 10
        mine = {"namespace": self.namespace, "pod": "drilled"}
        assert _sum(page, "execution_status_total", status_type="timed_out", runtime_tag="hanging", **mine) > 0
        for tag, fails in (("linked", True), ("hanging", True), ("hot", False), ("leaking", False)):
            failed = _sum(page, "execution_errors_total", error_type="hardware", runtime_tag=tag, **mine)
            assert (failed > 0) == fails, tag
        assert _sum(page, "execution_latency_seconds", percentile="p50", runtime_tag="hot", **mine) > 0.5

    def _without_a_driver(self) -> None:
        """The other node: no device anywhere, and yet each is offered, with a taint."""
        offered = {
            device["name"]
            for one in self.cluster.items("resourceslices")
            if one["spec"].get("nodeName") == self.other and one["spec"]["driver"] in (DRIVER, EFA_DRIVER)
            for device in one["spec"].get("devices", [])
        }
        assert len(offered) == 16 + 64 + 16
        expected: Taints = {key: {("DriverFailed", "NoSchedule")} for key in offered}
        _wait(lambda: self.taints(self.other), expected, "taints of all devices of the node without a driver")
        page = self.page(self.other)
        assert not _samples(page, "hardware_ecc_events_total")
        assert len(_samples(page, "neuron_hardware_info", neuron_device_count="0")) == 1
        assert len(_samples(page, "neuron_sim_fault_active", fault=self.name("DriverFailed"))) == 16
        assert self.node_conditions(self.other) == WELL, "neither of the two looks at the driver"
        tools = "neuron-ls; neuron-sim-exec true"
        said = self.cluster.kubectl("exec", "-n", self.namespace, self.plain, "--", "sh", "-c", tools, check=False)
        assert "failed to discover Neuron devices" in said
        assert "Unable to determine Neuron Driver version" in said
        until(self.told, what="an Event on the plain pod")


def objects(node: str, other: str, plain: str) -> list[Object]:
    """The pod on `node`, its claim, and the plain pod on the other one."""
    requests = [
        {"name": name, "exactly": {"deviceClassName": device_class, "count": count}}
        for name, device_class, count in (
            ("neurons", "neuron-device.neuron-sim.dev", CHIPS),
            ("efa", "efa.networking.k8s.aws", 1),
        )
    ]
    claim = {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {"name": "drilled"},
        "spec": {"devices": {"requests": requests}},
    }
    return [claim, pod("drilled", claim="drilled", node=node), pod(plain, chips=1, node=other)]


def ready(cluster: Cluster, namespace: str, node: str, other: str, plain: str) -> Drill:
    """The drill, once its pods run: what they have."""
    cluster.wait_ready(namespace, "drilled", plain)
    results = cluster.get("resourceclaim", "-n", namespace, "drilled")["status"]["allocation"]["devices"]["results"]
    (card,) = [result["device"] for result in results if result["driver"] == EFA_DRIVER]
    chips = sorted(int(result["device"].rpartition("-")[2]) for result in results if result["driver"] == DRIVER)
    cards = sorted(
        device["name"]
        for one in cluster.items("resourceslices")
        if one["spec"]["driver"] == EFA_DRIVER and one["spec"].get("nodeName") == node
        for device in one["spec"]["devices"]
    )
    found = Drill(
        cluster, namespace, node, other, plain, dict(zip(HEALTHY, chips, strict=True)), card, cards.index(card)
    )
    assert found._linked(), "the last two chips have a link"
    return found


def _wait(now: object, expected: object, what: str) -> None:
    assert callable(now)
    until(lambda: now() == expected, what=what, details=now)


def _health(well: bool) -> str:
    return "Healthy" if well else "Unhealthy"


def _by_tag(record: Object) -> dict[str, Object]:
    return {one["neuron_runtime_tag"]: one["report"] for one in record["neuron_runtime_data"]}


def _on_device(report: Object) -> int:
    return int(report["memory_used"]["neuron_runtime_used_bytes"]["neuron_device"])


def _samples(page: list[str], name: str, **labels: str) -> list[str]:
    parts = [f'{key}="{value}"' for key, value in labels.items()]
    return [line for line in page if line.startswith(f"{name}{{") and all(part in line for part in parts)]


def _sum(page: list[str], name: str, **labels: str) -> float:
    return sum(float(line.rpartition(" ")[2]) for line in _samples(page, name, **labels))
