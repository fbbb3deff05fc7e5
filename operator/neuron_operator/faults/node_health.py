"""What a node's conditions say of its Neuron devices, and the Events about it. Pure.

On real nodes two programs read the driver's kernel messages `NEURON_HW_ERR=…`: AWS's node problem detector, whose
condition NeuronHealth is *True* when something is broken, and EKS's node monitoring agent, whose condition
AcceleratedHardwareReady is then False. Here nothing may be written to /dev/kmsg, which all nodes of kind share with the
machine; so the operator writes what the two would have made of the messages.

Both keep a condition until the node was repaired, which here is the end of the fault. They also write a heartbeat every
few minutes; here it is the time of the last change, so that a node that is right costs no write.

Sources: aws-neuron-sdk src/k8/neuron-problem-detector; node-problem-detector, pkg/util; eks-node-monitoring-agent,
monitors/neuron.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from neuron_device_model import identity
from neuron_device_model.faults import Fault, read

from neuron_operator import conditions, names
from neuron_operator.nodes import HealthCondition, NodeFacts

Json = dict[str, Any]

_DETECTOR = "kernel-monitor"
"""Who NPD says it is: the source in its configuration."""

_MONITORED: Mapping[str, tuple[str, str]] = {
    "SRAM_UNCORRECTABLE_ERROR": ("NeuronSRAMUncorrectableError", "Discovered SRAM Uncorrectable Error"),
    "NC_UNCORRECTABLE_ERROR": ("NeuronNCUncorrectableError", "Discovered NC Uncorrectable Error"),
    "HBM_UNCORRECTABLE_ERROR": ("NeuronHBMUncorrectableError", "Discovered HBM Uncorrectable Error"),
    "DMA_ERROR": ("NeuronDMAError", "Discovered DMA Error"),
}
"""Kernel errors that the node monitoring agent knows: reason and message. It does not look for hangs."""


def health(spec: Mapping[str, Any], *, node: str) -> tuple[HealthCondition, ...]:
    """The conditions of a node with this NeuronNode spec, without their times, by type."""
    reported = sorted(
        (fault for entry in spec.get("faults") or () if (fault := read(entry)).kind.kernel_error),
        key=lambda fault: (fault.since, fault.name),
    )
    return (_accelerated_hardware(reported), _neuron_health(reported, instance_id=spec["instanceID"], node=node))


def kernel_line(fault: Fault, *, instance_id: str, node: str) -> str:
    """What the driver writes to the kernel's log about a fault."""
    chip = fault.chip or 0
    return (
        f"neuron: NEURON_HW_ERR={fault.kind.kernel_error} instance-id={instance_id} hostname={node} nd-id={chip}"
        f" nc-id={fault.core or 0} serial-num={identity.serial_number(instance_id, chip):016x}"
        " action=TERMINATE_INSTANCE"
    )


def patch(node: NodeFacts, wished: Sequence[HealthCondition], *, now: str) -> list[Json]:
    """Entries of a strategic merge patch of the node's conditions; empty where they are right already."""
    present = {condition.type: condition for condition in node.health}
    entries: list[Json] = [{"type": kind, "$patch": "delete"} for kind in present.keys() - {c.type for c in wished}]
    for condition in wished:
        before = present.get(condition.type)
        if before is not None and _content(before) == _content(condition):
            continue
        same = before is not None and before.status == condition.status
        entries.append(
            {
                "type": condition.type,
                "status": condition.status,
                "reason": condition.reason,
                "message": condition.message,
                "lastTransitionTime": before.since if same and before else now,
                "lastHeartbeatTime": now,
            }
        )
    return sorted(entries, key=lambda entry: str(entry["type"]))


def events(node: NodeFacts, entries: Sequence[Json], *, now: str) -> list[Json]:
    """NPD's Event about a change of its condition. The node monitoring agent writes none about what is fatal."""
    found = []
    before = {condition.type: condition for condition in node.health}.get(names.CONDITION_NEURON_HEALTH)
    for entry in entries:
        if entry["type"] != names.CONDITION_NEURON_HEALTH or "$patch" in entry:
            continue
        broken = entry["status"] == "True"
        if before is None and not broken:
            continue  # a detector that starts on a node that is well
        text = f"Node condition {entry['type']} is now: {entry['status']}, reason: {entry['reason']}"
        event = conditions.event(
            # as NPD, and the kubelet, refer to a node
            regarding={"apiVersion": "v1", "kind": "Node", "name": node.name, "uid": node.name},
            kind="Warning" if broken else "Normal",
            reason=entry["reason"],
            note=f'{text}, message: "{entry["message"]}"',
            action=names.CONDITION_NEURON_HEALTH,
            cause=f"{before.since}/{before.message}/{entry['message']}" if before else str(entry["message"]),
            now=now,
        )
        found.append({**event, "reportingController": _DETECTOR, "reportingInstance": node.name})
    return found


def _content(condition: HealthCondition) -> tuple[str, str, str]:
    return condition.status, condition.reason, condition.message


def _neuron_health(reported: Sequence[Fault], *, instance_id: str, node: str) -> HealthCondition:
    """The last message that was read decides, as each rule overwrites the condition."""
    kind = names.CONDITION_NEURON_HEALTH
    if not reported:
        return HealthCondition(kind, "False", "NeuronHasNoError", "Neuron has no error", "")
    last = reported[-1]
    line = kernel_line(last, instance_id=instance_id, node=node)
    return HealthCondition(kind, "True", f"NeuronHasError_{last.kind.kernel_error}", line, "")


def _accelerated_hardware(reported: Sequence[Fault]) -> HealthCondition:
    """The reason is the last one's, and the message has all of them."""
    kind = names.CONDITION_ACCELERATED_HARDWARE
    known = [_MONITORED[error] for fault in reported if (error := fault.kind.kernel_error or "") in _MONITORED]
    if not known:
        message = "Monitoring for the Neuron AcceleratedHardware system is active"
        return HealthCondition(kind, "True", "NeuronAcceleratedHardwareIsReady", message, "")
    message = "; ".join(dict.fromkeys(message for _, message in known))
    return HealthCondition(kind, "False", known[-1][0], message, "")
